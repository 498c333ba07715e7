"""A member of the group of managers: the main loop's face of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.raft.applying import Applier
from agent.raft.core.errors import ChangeRefused, ProposalRefused
from agent.raft.core.membership import ChangeKind, Membership, MembershipChange
from agent.raft.core.messages import EntryKind, HardState, SnapshotMeta
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.core.recovery import Recovered, alone
from agent.raft.core.settings import Settings
from agent.raft.crossing import Crossing
from agent.raft.delivery import Delivery
from agent.raft.driver import Driver
from agent.raft.folder import FolderInUse, FolderLock
from agent.raft.interface import GroupStatus, MemberRole, NotLeader, OutcomeUnknown, Sealer, StateMachine, Transport
from agent.raft.loop_thread import LoopThread
from agent.raft.own_snapshots import OwnSnapshots
from agent.raft.proposals import Proposal
from agent.raft.read_rounds import ReadRounds
from agent.raft.storage import MemberStorage
from agent.raft.streams import each_in_thread

__all__ = ["ChangeRefused", "FolderInUse", "NotLeader", "OutcomeUnknown", "ProposalRefused", "RaftMember"]

logger = logging.getLogger(__name__)

SNAPSHOT_INTERVAL = 10_000
"""Entries between two snapshots, Docker's default."""

KEEP_ENTRIES = 500
"""Entries before a snapshot that stay for slow followers, Docker's default."""

TICK = 0.05
"""Seconds; ten of them without a leader's word and there is an election."""

T = TypeVar("T")


class RaftMember:
    """`Consensus` of a group. `async with` recovers the state into `machine` and starts; leaving it stops in order.

    `founding` is for the first member of a new group alone. Any other member with an empty folder waits to be added by a
    leader (`add_learner` there), and so does not lead anything. A folder written by a group of one that knew no
    membership counts as that of a group of itself. Entering raises `DamagedFile`, `NewerFormat`, `FolderInUse` or
    `BrokenInvariant`; it returns once all that is known to be committed is applied, alone also once it leads.

    Nothing is cancelled from outside: a caller that stops waiting does not take its entry back.
    """

    def __init__(
        self,
        folder: Path,
        machine: StateMachine,
        sealer: Sealer,
        member_id: str,
        transport: Transport,
        *,
        address: str,
        founding: bool = False,
        snapshot_interval: int = SNAPSHOT_INTERVAL,
        keep_entries: int = KEEP_ENTRIES,
        settings: Settings | None = None,
        tick: float = TICK,
        random: Random | None = None,
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._sealer = sealer
        self._id = member_id
        self._transport = transport
        self._address = address
        self._founding = founding
        self._snapshot_interval = snapshot_interval
        self._keep_entries = keep_entries
        self._settings = settings or Settings()
        self._tick = tick
        self._random = random or Random()
        loop = asyncio.get_running_loop()
        self.expelled: asyncio.Future[str] = loop.create_future()
        """Done when this member is no longer part of the group; its result says who said so."""
        self.broken: asyncio.Future[str] = loop.create_future()
        """Done when this member had to stop; its result says why and what to do."""
        self._running = False
        self._reads = ReadRounds(lambda number: self._thread.call(self._driver.ask_read, number))

    # -- life

    async def __aenter__(self) -> Self:
        lock = FolderLock(self._folder)
        recovery = ThreadPoolExecutor(2, "raft-recovery")
        storage = MemberStorage(self._folder, self._sealer)
        try:
            recovered = await self._recover(storage, recovery)
            core = RaftCore(
                self._id,
                random=self._random,
                settings=self._settings,
                hard_state=recovered.hard_state,
                snapshot=recovered.snapshot,
                entries=recovered.entries,
            )
        except BaseException:
            # What still reads has to end before the folder is let go.
            await _whole(asyncio.to_thread(recovery.shutdown))
            storage.close()
            lock.release()
            raise
        self._lock, self._storage, self._recovery = lock, storage, recovery
        await self._begin(core)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _whole(self._end())

    async def _recover(self, storage: MemberStorage, executor: ThreadPoolExecutor) -> Recovered:
        loop = asyncio.get_running_loop()
        # What is read now stays: walking over it again and again would take most of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            snapshot = await loop.run_in_executor(executor, storage.newest)
            if snapshot is not None:
                await self._machine.restore(snapshot.index, each_in_thread(snapshot, executor))
            recovered = await loop.run_in_executor(executor, storage.replay, snapshot, Membership())
        finally:
            if collecting:
                gc.enable()
        return await loop.run_in_executor(executor, self._with_membership, storage, recovered)

    def _with_membership(self, storage: MemberStorage, recovered: Recovered) -> Recovered:
        """A log that says nothing of a membership is that of a new member, of a new group, or of a group of one."""
        hard_state, snapshot, entries = recovered
        if snapshot.membership.members or any(entry.kind == EntryKind.MEMBERSHIP for entry in entries):
            return recovered
        if not entries and not snapshot.index and self._founding:
            begun = alone(Recovered(HardState(1), snapshot, []), self._id, self._address)
            storage.write(_first_write(begun))
            return begun
        # Only in a group of its own does a member vote for itself before it has heard of a membership.
        if hard_state.vote == self._id:
            itself = Membership((self._id,), (), {self._id: self._address})
            return Recovered(hard_state, SnapshotMeta(snapshot.index, snapshot.term, itself), entries)
        return recovered

    async def _begin(self, core: RaftCore) -> None:
        loop = asyncio.get_running_loop()
        deliveries: Crossing[Delivery] = Crossing(self._take)
        deliveries.open(loop)
        self._driver = Driver(
            core,
            self._storage,
            self._transport,
            address=self._address,
            tick=self._tick,
            keep_entries=self._keep_entries,
            life=secrets.randbits(63),
            deliver=deliveries.put,
        )
        self._deliveries = deliveries
        self._applier = Applier(
            self._machine,
            self._recovery,
            status=_at_rest(core),
            on_read=lambda number, index: self._reads.answered(number, index, self._why_not),
            on_entries=self._entries_applied,
            on_expelled=self._on_expelled,
            on_broken=self._on_broken,
        )
        self._snapshots = OwnSnapshots(
            self._machine,
            self._storage,
            self._driver.writing,
            lambda: self._applier.state,
            lambda: self._applier.applied_bytes,
            lambda index: self._call(self._driver.snapshot_meta(index)),
            lambda snapshot: self._call(self._driver.snapshot_saved(snapshot)),
            interval=self._snapshot_interval,
            last=core.log.snapshot.index,
        )
        # Named before the driver changes anything.
        committed, is_alone = core.log.committed, core.membership.voters == (self._id,)
        self._thread = LoopThread("raft")
        self._thread.start()
        self._running = True
        try:
            await self._call(self._driver.start())
            await self._applier.reach(committed)
            while is_alone and not self.status.leading and not self.broken.done():
                await self.status_changed(self.status)
        except BaseException:
            await _whole(self._end())
            raise

    async def _end(self) -> None:
        self._running = False
        await self._snapshots.close()
        await self._call(self._driver.stop())
        await self._thread.stop()
        self._applier.take(self._deliveries.drain())
        await self._applier.finish()
        self._reads.fail("this manager is stopping")
        self._recovery.shutdown(wait=False)
        self._driver.at_end(self._let_go)

    def _let_go(self) -> None:
        self._storage.close()
        self._lock.release()

    # -- Consensus

    @property
    def leading(self) -> bool:
        """See `Consensus`."""
        return self._running and self._applier.status.leading

    def propose(self, data: bytes) -> asyncio.Future[int]:
        """See `Consensus`."""
        return self._propose(data, None)

    async def read_index(self) -> int:
        """See `Consensus`. Without a leader `NotLeader`, after the time that electing one takes."""
        self._check_running()
        index = await self._reads.index()
        await self._applier.reach(index)
        return index

    # -- the group

    @property
    def status(self) -> GroupStatus:
        """The newest status."""
        return self._applier.status

    @property
    def applied(self) -> int:
        """The index of the last entry that the machine has."""
        return self._applier.applied

    @property
    def snapshot_interval(self) -> int:
        """Entries between two snapshots; may be set at any time."""
        return self._snapshots.interval

    @snapshot_interval.setter
    def snapshot_interval(self, entries: int) -> None:
        self._snapshots.interval = entries

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        """Wait for a status other than `seen`."""
        return await self._applier.another_status(seen)

    async def add_learner(self, member: str, address: str) -> None:
        """Send the log to a further member, which counts for nothing yet.

        As the other changes: returns once it is committed. `ChangeRefused` and `NotLeader` when it was surely not made,
        `OutcomeUnknown` when nobody can say.
        """
        await self._change(MembershipChange(ChangeKind.ADD_LEARNER, member, address))

    async def promote(self, member: str) -> None:
        """Make a learner a voter; refused while it lacks too much of the log."""
        await self._change(MembershipChange(ChangeKind.PROMOTE, member))

    async def remove(self, member: str) -> None:
        """Take a member out; refused for the last voter."""
        await self._change(MembershipChange(ChangeKind.REMOVE, member))

    async def move(self, member: str, address: str) -> None:
        """A member is reached at another address."""
        await self._change(MembershipChange(ChangeKind.MOVE, member, address))

    async def transfer_leadership(self, to: str | None = None) -> None:
        """Let another member lead (None: the best follower); returns when another one leads.

        `NotLeader`; `ProposalRefused` when there is nobody, or nobody of that name, who could; TimeoutError when none
        took over within two elections' time.
        """
        self._check_running()
        target = await self._call(self._driver.transfer(to))
        if target == self._id:
            return
        async with asyncio.timeout(self._settings.election_ticks * self._tick * 2):
            while (status := self.status).leader in ("", self._id):
                await self.status_changed(status)

    @staticmethod
    def force_alone(folder: Path, sealer: Sealer, member_id: str, address: str) -> None:
        """Make the log in the folder that of a group of this member alone; durable when it returns. Blocks.

        For when the others are lost for good. Everything in the log is kept, acknowledged or not. Raises what entering
        raises, and ValueError for a folder without a group.
        """
        lock = FolderLock(folder)
        storage = MemberStorage(folder, sealer)
        try:
            recovered = storage.recover(Membership(), lambda chunks: None)
            if not recovered.entries and not recovered.snapshot.index and not recovered.hard_state.term:
                raise ValueError(f"{folder} holds no state of a group")
            storage.write(_first_write(alone(recovered, member_id, address)))
        finally:
            storage.close()
            lock.release()

    # -- proposals

    def _propose(self, data: bytes, change: MembershipChange | None) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        applier = self._applier
        if not self._running or not applier.status.leading:
            future.set_exception(NotLeader(self._why_not()))
        else:
            self._driver.proposals.put(Proposal(data, applier.status.term, applier.epoch, future, change))
        return future

    async def _change(self, change: MembershipChange) -> None:
        await self._propose(b"", change)

    def _check_running(self) -> None:
        if not self._running or self.broken.done():
            raise NotLeader(self._why_not())

    def _why_not(self) -> str:
        if self.broken.done():
            return self.broken.result()
        if not self._running:
            return "this manager is stopping"
        leader = self.status.leader
        if leader and leader != self._id:
            return f"this manager does not lead; {leader} does"
        return "this manager does not lead, and no leader is known"

    # -- what comes from the driver

    def _take(self, deliveries: list[Delivery]) -> None:
        self._applier.take(deliveries)

    def _entries_applied(self) -> None:
        if self._running and not self.broken.done():
            self._snapshots.if_due()

    def _on_expelled(self, reason: str) -> None:
        if not self.expelled.done():
            self.expelled.set_result(reason)

    def _on_broken(self, reason: str) -> None:
        if not self.broken.done():
            self.broken.set_result(reason)
            self._thread.call(self._driver.on_fault, reason)
            self._reads.fail(reason)

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._thread.run(work)


def _first_write(begun: Recovered) -> Ready:
    """What makes the last of the entries, and the hard state, durable."""
    status = Status(RoleName.FOLLOWER, begun.hard_state.term, "")
    return Ready(0, status, (), None, begun.hard_state, (begun.entries[-1],), True, (), (), ())


def _at_rest(core: RaftCore) -> GroupStatus:
    """Before the driver has said anything."""
    return GroupStatus(
        member_id=core.id,
        role=MemberRole.FOLLOWER,
        term=core.term,
        leader="",
        leading=False,
        committed=core.log.committed,
        applied=core.log.handed,
        last_index=core.log.last_index,
        members=(),
    )


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, even when the caller is cancelled; the cancellation follows."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    if cancelled is not None:
        task.result()
        raise cancelled
    task.result()
