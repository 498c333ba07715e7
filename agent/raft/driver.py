"""Drives the core: disk, transport and clock, by the contract of `agent.raft.core.ready`.

Everything here runs on the driver's own loop in the driver's own thread, but for `Inbox`, `LogWriter` and the calls that
say otherwise. Nothing the agent does on its main loop delays a heartbeat.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec

import msgspec

from agent.raft.core.errors import BrokenInvariant, ChangeRefused, ProposalRefused
from agent.raft.core.leader import Leader
from agent.raft.core.messages import (
    NOBODY,
    AnyMessage,
    InstallSnapshot,
    Position,
    SnapshotMeta,
)
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.core.snapshot_stream import StreamBroken
from agent.raft.crossing import Crossing
from agent.raft.delivery import Delivery
from agent.raft.disk import LogWriter
from agent.raft.interface import NotLeader, Transport
from agent.raft.knocking import Knocking
from agent.raft.picture import Picture
from agent.raft.proposals import Outcome, Proposal, ProposalBook
from agent.raft.read_rounds import NO_ANSWER, ReadRound
from agent.raft.speaking import Speaking
from agent.raft.storage import MemberStorage, SnapshotStream
from agent.raft.streams import IncomingSnapshots, OutgoingSnapshots
from agent.raft.wire import Expelled, Knock, Whereabouts, decode, decode_chunk

logger = logging.getLogger(__name__)

MAX_KEPT_ENTRIES = 50_000
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""What is kept of the log behind a snapshot at most; a follower that lacks more gets the snapshot."""

DOUBT_ELECTIONS = 4
"""Elections' times that proposals wait for the next leader's word after theirs was lost."""


NOTE_AGE = 1.0
"""Seconds until the disk is told what is known to be committed, when no entry follows that would tell it."""


P = ParamSpec("P")


def _fatal(method: Callable[Concatenate[Driver, P], None]) -> Callable[Concatenate[Driver, P], None]:
    """An error that nobody foresaw leaves the core in a state that nobody knows: the member stops, and says so."""

    @functools.wraps(method)
    def guarded(self: Driver, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.on_fault(f"the managers' group stopped on a fault ({type(error).__name__}: {error})")
            raise

    return guarded


class Driver:
    """One member's core at work. Implements `Receiver`.

    `deliver` takes what the main loop has to know and may be called from this thread. `proposals` is filled by the main
    loop. `start` begins, `stop` ends; what is under way then is answered.
    """

    def __init__(
        self,
        core: RaftCore,
        storage: MemberStorage,
        transport: Transport,
        *,
        address: str,
        tick: float,
        keep_entries: int,
        life: int,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self.core = core
        self._transport = transport
        self._tick = tick
        self._keep_entries = keep_entries
        self._deliver = deliver
        self._election = core.settings.election_ticks * tick
        self.proposals: Crossing[Proposal] = Crossing(self._take_proposals)
        self.writing = ThreadPoolExecutor(1, "raft-snapshot")
        """The one thread that writes snapshots."""
        self._reading = ThreadPoolExecutor(2, "raft-stream")
        self._writer = LogWriter(storage, self)
        self._incoming = IncomingSnapshots(storage, self.writing)
        self._outgoing = OutgoingSnapshots(storage, transport, self._reading, self._stream_ended)
        self._book = ProposalBook()
        self._epoch = 0
        self._rounds: list[Ready] = []
        self._delivery = Delivery()
        self._restores: dict[int, SnapshotStream] = {}
        self._picture = Picture(core, self._election * 2)
        self._knocking = Knocking(core, address, life)
        self._speaking = Speaking(core, address, transport, self._knocking, self._outgoing.begin)
        self._status = core.status
        self._reads = ReadRound(core, self._election)
        self._full = ""
        self._broken = ""
        self._stopping = False
        self._pumping = False
        self._quiet = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # -- life

    async def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self.proposals.open(self._loop)
        self._writer.start()
        await self._transport.start(self)
        if self.core.membership.voters == (self.core.id,):
            # Nobody else can lead: there is nothing to wait for.
            self.core.ask_for_support()
        self._timer = self._loop.call_later(self._tick, self._on_tick)
        self._pump()

    async def stop(self) -> None:
        """End: what can still be decided soon is, the rest is answered as unknown; nothing is sent afterwards."""
        self._loop = asyncio.get_running_loop()
        self._stopping = True
        self._quiet.clear()
        if len(self._book) and isinstance(self.core.role, Leader) and not self._broken and not self._full:
            try:
                async with asyncio.timeout(self._election):
                    await self._quiet.wait()
            except TimeoutError:
                pass
        if self._timer is not None:
            self._timer.cancel()
        await self._outgoing.close()
        await self._transport.close()
        self._break_off("this manager is stopping")
        stopped = await self._loop.run_in_executor(None, self._writer.stop, max(1.0, self._election))
        if not stopped:
            logger.error("the disk hangs; this manager stops without waiting for its last write")
        try:
            async with asyncio.timeout(max(1.0, self._election)):
                await self._incoming.close()
                await self._loop.run_in_executor(self.writing, _nothing)
        except TimeoutError:
            logger.error("the disk hangs; this manager stops without waiting for a snapshot")
        for executor in (self.writing, self._reading):
            executor.shutdown(wait=False)
        self._flush()

    def at_end(self, function: Callable[[], None]) -> None:
        """After `stop`: call it once nothing is written any more, at once but for a disk that hangs."""
        self._writer.at_end(function)

    # -- what the main loop asks for

    @_fatal
    def ask_read(self, number: int) -> None:
        """A round of reads: its index comes in a `Delivery`."""
        if self._broken:
            self._delivery.read = (number, NO_ANSWER)
        else:
            self._reads.ask(number, self._loop.time())
        self._schedule()

    async def transfer(self, to: str | None) -> str:
        """Begin to hand leadership over; the member that is to lead. `NotLeader`, `ProposalRefused`."""
        if self._broken:
            raise NotLeader(self._broken)
        if not isinstance(self.core.role, Leader):
            raise NotLeader(_who_leads(self.core.status))
        target = to or self._picture.best_follower(self._loop.time())
        if target is None:
            raise ProposalRefused("there is no other manager to hand leadership to")
        self.core.transfer_leadership(target)
        self._schedule()
        return target

    async def snapshot_meta(self, index: int) -> SnapshotMeta:
        """See `RaftCore.snapshot_meta`; ValueError when a leader's snapshot has replaced the log there."""
        return self.core.snapshot_meta(index)

    async def snapshot_saved(self, snapshot: SnapshotMeta) -> None:
        """A snapshot of the own state is durable: the log may shrink."""
        if self._broken or self._stopping:
            return
        self.core.compact(snapshot, keep=self._entries_to_keep(snapshot.index))
        self._writer.compact(snapshot.index)

    def on_fault(self, reason: str) -> None:
        """Something happened that this member cannot go on after."""
        self._break(reason)

    # -- Receiver

    @_fatal
    def received(self, member: str, messages: Sequence[bytes]) -> None:
        """See `Receiver`."""
        if self._broken or (self._stopping and not len(self._book)):
            return
        self._picture.heard(member, self._loop.time())
        try:
            for data in messages:
                message = decode(data)
                if message.sender != member:
                    logger.warning("%s sent a message in the name of %s; it was dropped", member, message.sender)
                elif isinstance(message, Whereabouts | Knock | Expelled):
                    self._delivery.expelled = self._speaking.hear(message) or self._delivery.expelled
                else:
                    self.core.step(message)
        except msgspec.DecodeError as error:
            logger.warning("%s sent a message that this version cannot read: %s", member, error)
        except BrokenInvariant as error:
            self._break(str(error))
        self._schedule()

    @_fatal
    def unreachable(self, member: str) -> None:
        """See `Receiver`."""
        if not self._broken:
            self.core.unreachable(member)
            self._schedule()

    async def snapshot_chunk(self, member: str, chunk: bytes) -> None:
        """See `Receiver`."""
        piece = decode_chunk(chunk)
        if piece.sender != member or piece.recipient != self.core.id:
            raise StreamBroken(f"{member} sent a snapshot from {piece.sender} to {piece.recipient}")
        if self._broken or self._stopping:
            raise StreamBroken(self._broken or "this manager is stopping")
        self._picture.heard(member, self._loop.time())
        if piece.snapshot.index <= self.core.log.committed:
            self._step(InstallSnapshot(piece.sender, piece.recipient, piece.term, piece.snapshot))
            raise StreamBroken(f"all up to {self.core.log.committed} is here already")
        came = await self._incoming.add(piece)
        if came is not None and not self._broken and not self._stopping:
            incoming, stream = came
            self._restores[stream.index] = stream
            self._step(incoming.install(self.core.id))
            self._pump()
            # One that the core did not want is not restored either.
            self._restores.pop(stream.index, None)

    # -- WriterEvents, called in the writer's thread

    def durable(self, number: int) -> None:
        """See `WriterEvents`."""
        self._tell(self._written, number)

    def full(self, reason: str) -> None:
        """See `WriterEvents`."""
        self._tell(self._disk_full, reason)

    def failed(self, error: Exception) -> None:
        """See `WriterEvents`."""
        if isinstance(error, OSError):
            reason = f"this manager's disk failed ({error}); restart the agent once the disk works"
        else:
            reason = f"the managers' group stopped on a fault while writing ({type(error).__name__}: {error})"
        self._tell(self._break, reason)

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The disk came back after the member was stopped: nobody waits for it any more.
            logger.info("a write ended after this manager had stopped")

    # -- the contract

    def _schedule(self) -> None:
        """Look what the core wants, once for all that happens in this turn of the loop."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    @_fatal
    def _pump(self) -> None:
        self._pumping = False
        try:
            while not self._broken and (ready := self.core.ready()) is not None:
                self._take(ready)
        except BrokenInvariant as error:
            self._break(str(error))
        self._flush()

    def _take(self, ready: Ready) -> None:
        if ready.status != self._status:
            self._new_status(ready.status)
        for message in ready.messages:
            self._speaking.post(message)
        delivery = self._delivery
        if ready.snapshot is not None:
            delivery.steps.append(self._restores.pop(ready.snapshot.index))
            delivery.outcomes += self._book.overtaken(ready.snapshot)
        if ready.committed:
            delivery.steps.append(ready.committed)
            if len(self._book):
                delivery.outcomes += self._book.decide(ready.committed)
                if not len(self._book):
                    self._quiet.set()
        for read in ready.reads:
            delivery.read = self._reads.answered(read) or delivery.read
        if not ready.must_sync and ready.hard_state is not None:
            self._writer.note(ready.hard_state)
        if ready.must_sync:
            self._writer.write(ready)
        elif not self._rounds:
            self._finish(ready)
            return
        self._rounds.append(ready)

    def _finish(self, ready: Ready) -> None:
        for message in ready.messages_when_durable:
            self._speaking.post(message)
        self.core.advance(ready)

    @_fatal
    def _written(self, number: int) -> None:
        if self._broken:
            return
        done = 0
        for ready in self._rounds:
            if ready.must_sync and ready.number > number:
                break
            self._finish(ready)
            done += 1
        del self._rounds[:done]
        self._pump()

    @_fatal
    def _on_tick(self) -> None:
        # The next one is counted from now: a loop that was held up does not hurry afterwards.
        self._timer = self._loop.call_later(self._tick, self._on_tick)
        if self._broken:
            return
        stuck = self._writer.stuck_for()
        if stuck < self._election:
            self.core.tick()
        elif stuck > self._election * DOUBT_ELECTIONS and len(self._book):
            self._give_up(self.core.term, f"the disk has taken nothing for {stuck:.0f} s")
        self._writer.keep_note(NOTE_AGE)
        now = self._loop.time()
        self._delivery.read = self._reads.on_tick(now) or self._delivery.read
        self._speaking.knock(now, self._status)
        self._speaking.keep_warm(now)
        status = self._picture.figures(now)
        if status is not None:
            self._delivery.status = status
        self._pump()

    # -- what goes out

    def _flush(self) -> None:
        """Send what has come together, and tell the main loop."""
        if not self._broken:
            self._speaking.flush()
        if not self._delivery.empty:
            delivery, self._delivery = self._delivery, Delivery()
            self._deliver(delivery)

    def _step(self, message: AnyMessage) -> None:
        try:
            self.core.step(message)
        except BrokenInvariant as error:
            self._break(str(error))
        self._schedule()

    @_fatal
    def _stream_ended(self, member: str, arrived: bool) -> None:
        if not self._broken:
            self.core.snapshot_ended(member, arrived=arrived)
            self._schedule()

    def _entries_to_keep(self, index: int) -> int:
        """For slow followers; and for those that are taking a snapshot, what they will ask for next. Within bounds."""
        log = self.core.log
        wanted = [index - self._keep_entries]
        if self._outgoing.oldest is not None:
            wanted.append(self._outgoing.oldest)
        if isinstance(self.core.role, Leader):
            wanted += [progress.match for progress in self.core.role.progress.values() if progress.recent_active]
        size = 0
        first = max(min(wanted), index - MAX_KEPT_ENTRIES, log.first_index - 1) + 1
        for count, entry in enumerate(reversed(log.between(first, index))):
            size += entry.size
            if size > MAX_KEPT_BYTES:
                return count
        return max(0, index - first + 1)

    # -- who leads

    def _new_status(self, status: Status) -> None:
        before, self._status = self._status, status
        logger.info("term %d: %s, the leader is %s", status.term, status.role.value, status.leader or "not known")
        now = self._loop.time()
        if before.role is RoleName.LEADER and len(self._book):
            lost = before.term
            self._loop.call_later(
                self._election * DOUBT_ELECTIONS,
                lambda: self._give_up(lost, "the leader was lost while the change was under way"),
            )
        if (before.term, before.leader) != (status.term, status.leader):
            self._reads.lost()
        if before.role is RoleName.LEADER and self._knocking.left_out:
            self._delivery.expelled = "this manager led its own removal"
        self._delivery.status = self._picture.changed(now)

    def _give_up(self, term: int, reason: str) -> None:
        self._delivery.outcomes += self._book.give_up(term, reason)
        if not len(self._book):
            self._quiet.set()
        self._flush()

    # -- proposals

    @_fatal
    def _take_proposals(self, proposals: list[Proposal]) -> None:
        book = self._book
        for proposal in proposals:
            reason = self._why_refused(proposal)
            if not reason:
                try:
                    book.add(self._propose(proposal), proposal.future)
                    continue
                except ChangeRefused as error:
                    self._delivery.outcomes.append(Outcome(proposal.future, 0, error))
                    continue
                except ProposalRefused as error:
                    reason = str(error)
                except NotLeader as error:
                    reason = str(error)
            self._refuse(proposal, reason)
        # At once: everything that could come along in this turn has come.
        self._pump()

    def _why_refused(self, proposal: Proposal) -> str:
        if self._broken:
            return self._broken
        if self._stopping:
            return "this manager is stopping"
        if self._full:
            return f"the change was not written: {self._full}"
        if proposal.term != self.core.term or not isinstance(self.core.role, Leader):
            return _who_leads(self.core.status)
        if proposal.change is None and proposal.epoch != self._epoch:
            return "a change that this one was made after was refused"
        if self._rounds and self._writer.stuck_for() > self._election:
            return "this manager's disk takes nothing"
        return ""

    def _propose(self, proposal: Proposal) -> Position:
        if proposal.change is not None:
            return self.core.propose_membership(proposal.change)
        return self.core.propose(proposal.data)

    def _refuse(self, proposal: Proposal, reason: str) -> None:
        self._delivery.outcomes.append(Outcome(proposal.future, 0, NotLeader(reason)))
        if proposal.change is None and proposal.epoch == self._epoch:
            self._epoch += 1
            self._delivery.epoch = self._epoch

    # -- the end

    def _disk_full(self, reason: str) -> None:
        self._full = reason

    def _break(self, reason: str) -> None:
        """Do nothing any more, and say why."""
        if self._broken:
            return
        logger.critical("%s", reason)
        self._broken = self._delivery.broken = reason
        self._delivery.status = self._picture.broken(self._loop.time())
        self._break_off(reason)

    def _break_off(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._delivery.outcomes += self._book.give_up(self.core.term, reason)
        self._delivery.read = self._reads.give_up() or self._delivery.read
        self._take_proposals(self.proposals.drain())


def _nothing() -> None:
    """The last thing that a thread does."""


def _who_leads(status: Status) -> str:
    if status.leader == NOBODY:
        return "this manager does not lead, and no leader is known"
    return f"this manager does not lead; {status.leader} does"
