"""Snapshots of this member's own state: taken on the main loop in slices, written in a thread, then the log shrinks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from agent.raft.core.messages import SnapshotMeta
from agent.raft.interface import StateMachine
from agent.raft.snapshots import SnapshotWriter
from agent.raft.storage import MemberStorage

logger = logging.getLogger(__name__)


MAX_LOG_BYTES = 64 * 1024 * 1024
"""Entries of so many bytes are reason enough for a snapshot, however few they are: the log is in memory too.

Of a large state it takes twice its size, so that writing snapshots never costs more than writing entries.
"""


class OwnSnapshots:
    """One at a time, whenever `interval` entries have been applied since the last one was begun, or very large ones.

    `state` says up to which index the machine's state is now, None while it is being replaced; `applied_bytes` how many
    bytes of entries led there.
    """

    def __init__(
        self,
        machine: StateMachine,
        storage: MemberStorage,
        writing: ThreadPoolExecutor,
        state: Callable[[], int | None],
        applied_bytes: Callable[[], int],
        describe: Callable[[int], Awaitable[SnapshotMeta]],
        saved: Callable[[SnapshotMeta], Awaitable[None]],
        *,
        interval: int,
        last: int,
    ) -> None:
        self.interval = interval
        self._machine = machine
        self._storage = storage
        self._writing = writing
        self._state = state
        self._applied_bytes = applied_bytes
        self._last_bytes = 0
        self._size = 0
        self._describe = describe
        self._saved = saved
        self._last = last
        self._task: asyncio.Task[None] | None = None

    def if_due(self) -> None:
        """Entries were applied."""
        if self._task is not None:
            return
        grown = self._applied_bytes() - self._last_bytes
        index = self._state()
        if index is not None and (index - self._last >= self.interval or grown > max(MAX_LOG_BYTES, 2 * self._size)):
            self._task = asyncio.create_task(self._take(), name="raft-snapshot")

    async def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _take(self) -> None:
        """A failure leaves the log as it is, and is tried again an interval later."""
        loop = asyncio.get_running_loop()
        writer: SnapshotWriter | None = None
        index = self._state()
        if index is None:
            self._task = None
            return
        self._last, self._last_bytes = index, self._applied_bytes()
        size = 0
        chunks = self._machine.snapshot()
        try:
            # The generator's first step takes the state; nothing is applied between the lines above and it.
            first = await anext(chunks, None)
            meta = await self._describe(index)
            writer = await loop.run_in_executor(self._writing, self._storage.begin, meta)
            if first is not None:
                size += len(first)
                await loop.run_in_executor(self._writing, writer.add, first)
                async for chunk in chunks:
                    size += len(chunk)
                    await loop.run_in_executor(self._writing, writer.add, chunk)
            await loop.run_in_executor(self._writing, writer.finish)
            writer = None
            self._size = size
            await self._saved(meta)
        except (OSError, ValueError) as error:
            logger.error("no snapshot at index %d: %s", index, error)
        finally:
            self._task = None
            if writer is not None:
                # Behind the write that may be under way in that thread.
                self._writing.submit(writer.abandon)
