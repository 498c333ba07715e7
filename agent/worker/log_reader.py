"""Answers `logs`: the output of tasks of this node, as records and watermarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.api_types.task import TaskState
from agent.api_types.times import MILLISECOND, Clock
from agent.rpc.connection import Connection
from agent.rpc.messages import LogRecord, LogsOpen, LogWatermark, Message
from agent.rpc.stream import Stream
from agent.worker.interface import LogLine, RejectedByExecutor, TemporaryFailure
from agent.worker.task_runner import TaskRunner

WATERMARK_PERIOD = 0.1
"""Seconds between two watermarks."""

LATENESS = 200 * MILLISECOND
"""How long a line may be on its way from the container to us; a watermark stays this far behind the clock."""


@dataclass(slots=True)
class Progress:
    """How far one task's output has been read.

    `sent` is the timestamp of the last line that was sent. While a line is being sent, or none was ever waited for, the
    next one is only known to be no older than that; while the reader waits for one, it is no older than the present.
    """

    sent: int = 0
    waiting_since: int | None = None
    done: bool = False

    def bound(self, now: int) -> int | None:
        """Nothing older than this will follow; None when nothing at all will."""
        if self.done:
            return None
        if self.waiting_since is None or now - self.waiting_since < LATENESS:
            return self.sent
        return max(self.sent, now - LATENESS)


def watermark(progress: list[Progress], now: int) -> int:
    """Nothing older than this will follow from any of the tasks."""
    bounds = [bound for one in progress if (bound := one.bound(now)) is not None]
    return min(bounds, default=now)


@dataclass
class LogsHandler:
    """Handler of `logs`. `runner` finds a task of this node by id."""

    runner: Callable[[str], TaskRunner | None]
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def __call__(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """Send every line that is asked for; without `follow` the stream ends after them.

        What could not be read fails the stream after all that could, and says so.
        """
        assert isinstance(opening, LogsOpen)
        reading = _Reading(self, stream, opening)
        async with stream.guard():
            await reading.run()
        if reading.missing:
            await stream.fail("; ".join(reading.missing))
        else:
            await stream.end()


@dataclass
class _Reading:
    """One answer."""

    handler: LogsHandler
    stream: Stream
    opening: LogsOpen
    progress: list[Progress] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            marks = group.create_task(self._mark())
            async with asyncio.TaskGroup() as readers:
                for task_id in self.opening.task_ids:
                    self.progress.append(Progress())
                    readers.create_task(self._read(task_id, self.progress[-1]))
            marks.cancel()

    async def _mark(self) -> None:
        newest = 0
        while True:
            await self.handler.sleep(WATERMARK_PERIOD)
            mark = watermark(self.progress, self.handler.clock())
            if mark > newest:
                newest = mark
                await self.stream.send(LogWatermark(mark))

    async def _read(self, task_id: str, progress: Progress) -> None:
        try:
            await self._read_lines(task_id, progress)
        except (TemporaryFailure, RejectedByExecutor) as error:
            self.missing.append(f"task {task_id}: {error}")
        finally:
            progress.done = True

    async def _read_lines(self, task_id: str, progress: Progress) -> None:
        opening = self.opening
        runner = self.handler.runner(task_id)
        if runner is None:
            self.missing.append(f"task {task_id} is not on this node")
            return
        progress.waiting_since = self.handler.clock()
        if opening.follow:
            await runner.reached(TaskState.STARTING)
        if runner.controller is None:
            return
        async with _closing(runner.controller.logs(opening.since, opening.follow, opening.tail)) as lines:
            async for line in lines:
                progress.waiting_since = None
                if self._wanted(line):
                    await self.stream.send(LogRecord(task_id, line.timestamp, line.stream.value, line.data))
                progress.sent = max(progress.sent, line.timestamp)
                progress.waiting_since = self.handler.clock()

    def _wanted(self, line: LogLine) -> bool:
        return self.opening.stdout if line.stream.value == "stdout" else self.opening.stderr


@asynccontextmanager
async def _closing(lines: AsyncIterator[LogLine]) -> AsyncIterator[AsyncIterator[LogLine]]:
    """`lines`, closed at the end where they are made by a generator, which may hold a connection."""
    try:
        yield lines
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()
