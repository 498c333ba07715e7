"""The main loop's end: entries to the state machine, answers to the futures, in slices so that the loop stays quick."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from agent.raft.core.messages import Entry, EntryKind
from agent.raft.delivery import Delivery
from agent.raft.frames import DamagedFile
from agent.raft.interface import GroupStatus, MemberRole, NotLeader, OutcomeUnknown, StateMachine
from agent.raft.proposals import Outcome
from agent.raft.storage import SnapshotStream
from agent.raft.streams import each_in_thread

logger = logging.getLogger(__name__)

SLICE = 0.01
"""Seconds that the loop is held at most, but for the entry that is being applied then."""

_LOOK_EVERY = 16
"""Entries between two looks at the clock."""


class Applier:
    """Takes deliveries in order. `applied` is the index of the newest entry that the machine has."""

    def __init__(
        self,
        machine: StateMachine,
        reading: ThreadPoolExecutor,
        *,
        status: GroupStatus,
        on_read: Callable[[int, int], None],
        on_entries: Callable[[], None],
        on_expelled: Callable[[str], None],
        on_broken: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._reading = reading
        self._on_read = on_read
        self._on_entries = on_entries
        self._on_expelled = on_expelled
        self._on_broken = on_broken
        self._deliveries: deque[Delivery] = deque()
        self._position = 0
        self._restoring: asyncio.Task[None] | None = None
        self._continued = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._changed: asyncio.Future[None] | None = None
        self._begun_term = 0
        self._halted = False
        self.applied = status.applied
        self.applied_bytes = 0
        """Bytes of all entries applied since the start."""
        self.status = status
        """The newest that is known here."""
        self.epoch = 0
        """Refusals that everybody on this loop has learned of."""

    def take(self, deliveries: list[Delivery]) -> None:
        """More has come."""
        self._deliveries.extend(deliveries)
        if self._halted:
            self._drop()
        if self._restoring is None and not self._continued:
            self._run()

    @property
    def state(self) -> int | None:
        """Up to where the machine's state is; None while it is being replaced."""
        return None if self._restoring is not None or self._halted else self.applied

    async def reach(self, index: int) -> None:
        """Wait until the machine has everything up to `index`."""
        if self.applied >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (index, next(self._numbers), future))
        await future

    async def another_status(self, seen: GroupStatus) -> GroupStatus:
        """Wait for a status other than `seen`."""
        while self.status == seen:
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)
        return self.status

    async def finish(self) -> None:
        """Take what has come to its end; nothing comes any more."""
        while self._restoring is not None or (self._deliveries and not self._halted):
            if self._restoring is not None:
                await asyncio.wait((self._restoring,))
            await asyncio.sleep(0)
        self._drop()

    # -- in slices

    def _run(self) -> None:
        self._continued = False
        end = time.perf_counter() + SLICE
        while self._deliveries and not self._halted:
            delivery = self._deliveries[0]
            while delivery.steps:
                step = delivery.steps[0]
                if isinstance(step, SnapshotStream):
                    self._restoring = asyncio.create_task(self._restore(step), name="raft-restore")
                    return
                if not self._apply(step, end):
                    if not self._halted:
                        self._continued = True
                        asyncio.get_running_loop().call_soon(self._run)
                    return
                del delivery.steps[0]
            self._deliveries.popleft()
            self._conclude(delivery)

    def _apply(self, entries: tuple[Entry, ...], end: float) -> bool:
        """False when time is up before all of them are applied."""
        apply, position, size = self._machine.apply, self._position, 0
        for entry in entries[position:] if position else entries:
            if entry.kind == EntryKind.COMMAND:
                try:
                    apply(entry.index, entry.data)
                except Exception as error:
                    self._halt(f"entry {entry.index} cannot be applied ({type(error).__name__}: {error})")
                    raise
            elif entry.kind == EntryKind.TERM_START:
                self._begun_term = entry.term
            position += 1
            size += len(entry.data)
            self.applied = entry.index
            if position % _LOOK_EVERY == 0 and position < len(entries) and time.perf_counter() > end:
                self._position = position
                self.applied_bytes += size
                return False
        self._position = 0
        self.applied_bytes += size
        return True

    async def _restore(self, stream: SnapshotStream) -> None:
        try:
            await self._machine.restore(stream.index, each_in_thread(stream, self._reading))
        except (DamagedFile, OSError) as error:
            self._halt(str(error))
        except Exception as error:
            self._halt(f"the leader's snapshot at {stream.index} cannot be read ({type(error).__name__}: {error})")
            raise
        else:
            self.applied = stream.index
            del self._deliveries[0].steps[0]
        finally:
            self._restoring = None
        self._run()

    def _conclude(self, delivery: Delivery) -> None:
        # First, so that whoever an outcome wakes sees by whom it was decided.
        self._note_status(delivery.status)
        self._settle(delivery.outcomes)
        if delivery.epoch:
            # After the callbacks of the futures that were just refused.
            asyncio.get_running_loop().call_soon(self._learn, delivery.epoch)
        if delivery.broken:
            self._on_broken(delivery.broken)
        if delivery.read is not None:
            self._on_read(*delivery.read)
        while self._waiting and self._waiting[0][0] <= self.applied:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
        if delivery.expelled:
            self._on_expelled(delivery.expelled)
        self._on_entries()

    def _settle(self, outcomes: list[Outcome]) -> None:
        for future, index, error in outcomes:
            if future.done():
                continue
            if error is None:
                future.set_result(index)
            else:
                future.set_exception(error)

    def _learn(self, epoch: int) -> None:
        self.epoch = max(self.epoch, epoch)

    def _note_status(self, newer: GroupStatus | None) -> None:
        status = newer or self.status
        leading = status.role is MemberRole.LEADER and status.term == self._begun_term
        if newer is None and leading == status.leading:
            return
        self.status = replace(status, applied=self.applied, leading=leading)
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _halt(self, reason: str) -> None:
        self._halted = True
        logger.critical("%s", reason)
        self._drop()
        self._on_broken(reason)

    def _drop(self) -> None:
        """What was not applied never will be, here."""
        for delivery in self._deliveries:
            for future, _, error in delivery.outcomes:
                if not future.done():
                    future.set_exception(error or OutcomeUnknown("this manager could not apply the change"))
        self._deliveries.clear()
        for _, _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(NotLeader("this manager applies nothing any more"))
        self._waiting.clear()
