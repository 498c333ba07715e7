"""A group of one member: the durable log behind the interface that the Raft group fills.

Term and vote are kept as Raft keeps them, so that a group grows out of this log without a conversion.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from agent.raft.folder import FolderInUse
from agent.raft.interface import NotLeader, OutcomeUnknown, Sealer, StateMachine
from agent.raft.log import DurableLog, LogFull, Record, RecordKind
from agent.raft.snapshots import SnapshotWriter, newest_snapshot, read_snapshot

logger = logging.getLogger(__name__)

SNAPSHOT_INTERVAL = 10_000
"""Entries between two snapshots, Docker's default."""

MAX_BATCH = 2 * 1024 * 1024
"""Bytes of entries made durable with one fdatasync."""

_REPLAY_SLICE = 1000


@dataclass(slots=True)
class _Proposal:
    data: bytes
    future: asyncio.Future[int]


class SingleMember:
    """`Consensus` of one. `async with` recovers the state and starts the writer; leaving it stops in order.

    Raises `DamagedFile`, `NewerFormat` or `FolderInUse` when it is entered.
    """

    def __init__(
        self,
        folder: Path,
        machine: StateMachine,
        sealer: Sealer,
        member_id: str,
        *,
        snapshot_interval: int = SNAPSHOT_INTERVAL,
    ) -> None:
        self._folder = folder
        self._machine = machine
        self._sealer = sealer
        self._member_id = member_id
        self._snapshot_interval = snapshot_interval
        self._log = DurableLog(folder, sealer)
        self._queue: list[_Proposal] = []
        self._wakeup = asyncio.Event()
        self._disk = ThreadPoolExecutor(1, "raft-log")
        self._snapshots = ThreadPoolExecutor(1, "raft-snapshot")
        self._writer: asyncio.Task[None] | None = None
        self._snapshotting: asyncio.Task[None] | None = None
        self._lock = -1
        self._stopping = False
        self._broken: str | None = None
        self.term = 0
        """The term this member leads in; one more than before at every start."""
        self.applied = 0
        """Index of the last entry that the state machine took."""
        self._last = 0
        self._snapshot_index = 0

    async def __aenter__(self) -> SingleMember:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._disk.shutdown()
            self._snapshots.shutdown()
            raise FolderInUse(f"another agent uses {self._folder}; stop it or choose another --data-dir") from None
        try:
            await self._recover()
        except BaseException:
            self._release()
            raise
        self._writer = asyncio.create_task(self._write(), name="raft-log-writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._wakeup.set()
        if self._writer is not None:
            await self._writer
        if self._snapshotting is not None:
            await asyncio.gather(self._snapshotting, return_exceptions=True)
        self._release()

    @property
    def leading(self) -> bool:
        """See `Consensus`."""
        return not self._stopping and self._broken is None

    def propose(self, data: bytes) -> asyncio.Future[int]:
        """See `Consensus`. Fails with `NotLeader` once the member stops or its disk cannot be trusted."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._stopping or self._broken is not None:
            future.set_exception(NotLeader(self._broken or "this manager is stopping"))
            return future
        self._queue.append(_Proposal(data, future))
        self._wakeup.set()
        return future

    async def read_index(self) -> int:
        """See `Consensus`; alone, everything acknowledged is applied already."""
        if self._broken is not None:
            raise NotLeader(self._broken)
        return self.applied

    async def _recover(self) -> None:
        loop = asyncio.get_running_loop()
        for leftover in self._folder.glob("snapshot-*.tmp"):
            leftover.unlink()
        info = newest_snapshot(self._folder)
        if info is not None:
            chunks = await loop.run_in_executor(self._disk, lambda: list(read_snapshot(info, self._sealer)))
            await self._machine.restore(info.index, _each(chunks))
            self._snapshot_index = self.applied = self._last = info.index
        recovered = await loop.run_in_executor(self._disk, self._log.recover, self.applied)
        for number, entry in enumerate(recovered.entries, 1):
            self._machine.apply(entry.index, entry.data)
            self.applied = self._last = entry.index
            if number % _REPLAY_SLICE == 0:
                await asyncio.sleep(0)
        self.term = recovered.term + 1
        await loop.run_in_executor(self._disk, self._log.append, [self._hard_state()])

    def _hard_state(self) -> Record:
        return Record(RecordKind.HARD_STATE, self.term, 0, self._member_id.encode())

    async def _write(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._queue:
                await self._write_batch(self._take_batch())
                self._snapshot_if_due()
            if self._stopping:
                return

    def _take_batch(self) -> list[_Proposal]:
        size = count = 0
        for proposal in self._queue:
            size += len(proposal.data)
            if count and size > MAX_BATCH:
                break
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _write_batch(self, batch: list[_Proposal]) -> None:
        records = [
            Record(RecordKind.ENTRY, self.term, self._last + number, proposal.data)
            for number, proposal in enumerate(batch, 1)
        ]
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self._log.append, records)
        except LogFull as error:
            _fail(batch, NotLeader(f"the change was not written: {error}"))
            logger.error("the log takes no more: %s", error)
            return
        except OSError as error:
            # After a failed fdatasync the kernel may have dropped the pages: what is on the disk is unknown.
            self._broken = f"this manager's disk failed ({error}); restart the agent once the disk works"
            logger.critical(self._broken)
            _fail(batch + self._queue, OutcomeUnknown(self._broken))
            self._queue = []
            return
        self._last += len(batch)
        for record, proposal in zip(records, batch, strict=True):
            self._machine.apply(record.index, record.data)
            self.applied = record.index
            if not proposal.future.done():
                proposal.future.set_result(record.index)

    def _snapshot_if_due(self) -> None:
        if self.applied - self._snapshot_index < self._snapshot_interval or self._snapshotting is not None:
            return
        self._snapshotting = asyncio.create_task(self._snapshot(), name="raft-snapshot")

    async def _snapshot(self) -> None:
        """Write the state as of now; a failure leaves the log as it is and is tried again an interval later."""
        loop = asyncio.get_running_loop()
        index = self.applied
        # The first step of the generator takes the state; nothing may be applied between the line above and it.
        chunks = self._machine.snapshot()
        first = await anext(chunks, None)
        writer: SnapshotWriter | None = None
        try:
            writer = await loop.run_in_executor(
                self._snapshots, SnapshotWriter, self._folder, index, self.term, self._sealer
            )
            if first is not None:
                await loop.run_in_executor(self._snapshots, writer.add, first)
                async for chunk in chunks:
                    await loop.run_in_executor(self._snapshots, writer.add, chunk)
            await loop.run_in_executor(self._snapshots, writer.finish)
            await loop.run_in_executor(self._disk, self._log.rotate, self._hard_state())
            await loop.run_in_executor(self._disk, self._log.compact, index)
        except OSError as error:
            logger.error("no snapshot at index %d: %s", index, error)
            if writer is not None:
                writer.abandon()
        finally:
            self._snapshot_index = index
            self._snapshotting = None

    def _release(self) -> None:
        self._disk.shutdown()
        self._snapshots.shutdown()
        self._log.close()
        os.close(self._lock)


def _fail(proposals: list[_Proposal], error: Exception) -> None:
    for proposal in proposals:
        if not proposal.future.done():
            proposal.future.set_exception(error)


async def _each(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)
