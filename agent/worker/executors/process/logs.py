"""Reads what a container wrote (the format is in `shim.logfile`), from disk, while it is still written or long after."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from agent.worker.executors.process.shim.logfile import log_name
from agent.worker.interface import LogLine, Stream

SLICE = 128 * 1024
"""Bytes that are read and taken apart at a time; others have their turn on the loop in between."""
LONGEST_LINE = 1024 * 1024
"""Bytes after which the pieces of a line are given out although its end has not come."""

_STREAMS = {b"o": Stream.STDOUT, b"O": Stream.STDOUT, b"e": Stream.STDERR, b"E": Stream.STDERR}


@dataclass(slots=True)
class _Pieces:
    timestamp: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Assembler:
    """Makes lines of records; keeps the pieces of lines whose end has not come."""

    def __init__(self) -> None:
        self._open: dict[Stream, _Pieces] = {}

    def feed(self, record: bytes) -> LogLine | None:
        """The line that `record` (without its line end) completes. What is no record is passed over."""
        time, _, rest = record.partition(b" ")
        kind, space, data = rest[:1], rest[1:2], rest[2:]
        stream = _STREAMS.get(kind)
        if stream is None or space != b" " or not time.isdigit():
            return None
        pieces = self._open.pop(stream, None) or _Pieces(int(time))
        pieces.parts.append(data)
        pieces.size += len(data)
        if kind.isupper() and pieces.size < LONGEST_LINE:
            self._open[stream] = pieces
            return None
        return LogLine(pieces.timestamp, stream, b"".join(pieces.parts))

    def rest(self) -> list[LogLine]:
        """Lines that will never end, as their container is gone."""
        lines = [LogLine(pieces.timestamp, stream, b"".join(pieces.parts)) for stream, pieces in self._open.items()]
        self._open.clear()
        return sorted(lines, key=lambda line: line.timestamp)


def log_numbers(folder: Path) -> list[int]:
    """Numbers of the log files that exist, rising."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    prefix = log_name(0)[:-1]
    return sorted(
        int(name[len(prefix) :]) for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit()
    )


def tail_start(folder: Path, tail: int) -> tuple[int, int] | None:
    """File number and offset where the last `tail` lines begin; None for the very beginning.

    Reads backwards, so that its cost is that of the lines asked for. A line in pieces counts once.
    """
    wanted = tail
    for number in reversed(log_numbers(folder)):
        try:
            with open(folder / log_name(number), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            break
        end = data.rfind(b"\n") + 1
        while end > 0:
            start = data.rfind(b"\n", 0, end - 1) + 1
            record = data[start:end]
            if not record.startswith(b"#") and record.partition(b" ")[2][:1] in (b"o", b"e"):
                # A record that ends a line, so whatever begins the wanted lines lies before it.
                if wanted == 0:
                    return number, end
                wanted -= 1
            end = start
    return None


class LogReader:
    """Reads a container's records in order; goes on where it stopped when there are more."""

    def __init__(self, folder: Path, start: tuple[int, int] | None = None) -> None:
        self._folder = folder
        self._number, self._offset = start or (0, 0)
        self._file: int | None = None
        self._rest = b""
        self._records: int | None = None
        """Records read so far, counted from the container's first; None before the first header."""
        self._lost = 0
        self._assembler = Assembler()

    def read(self) -> tuple[list[LogLine], bool]:
        """The lines of the next slice, and whether there may be more at once."""
        if self._file is None and not self._open_next():
            return [], False
        assert self._file is not None
        data = os.read(self._file, SLICE)
        if data:
            return self._take(data), True
        # The end of a file is final once the next one exists; what was written before that is read first.
        if not any(number > self._number for number in log_numbers(self._folder)):
            return [], False
        data = os.read(self._file, SLICE)
        if data:
            return self._take(data), True
        self.close()
        return [], self._open_next()

    def rest(self) -> list[LogLine]:
        """What is left once the container has ended and everything is read."""
        return self._assembler.rest()

    def close(self) -> None:
        """Let go of the file. Idempotent; `read` goes on with the next one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_next(self) -> bool:
        offset, self._offset = self._offset, 0
        for number in log_numbers(self._folder):
            if number < self._number or (number == self._number and not offset):
                continue
            try:
                self._file = os.open(self._folder / log_name(number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated away between looking and opening
            if number == self._number:
                os.lseek(self._file, offset, os.SEEK_SET)
            self._number, self._rest = number, b""
            return True
        return False

    def _take(self, data: bytes) -> list[LogLine]:
        records = (self._rest + data).split(b"\n")
        self._rest = records.pop()
        lines: list[LogLine] = []
        for record in records:
            if record.startswith(b"#"):
                self._lost += self._header(int(record[1:]) if record[1:].isdigit() else 0)
                continue
            if self._records is not None:
                self._records += 1
            line = self._assembler.feed(record)
            if line is not None:
                if self._lost:
                    text = f"swarmtui: {self._lost} lines were lost: the log was overwritten before they were read"
                    lines.append(LogLine(line.timestamp - 1, Stream.STDERR, text.encode()))
                    self._lost = 0
                lines.append(line)
        return lines

    def _header(self, before: int) -> int:
        """Records that were removed before this file was read; where reading began in the middle nothing was lost."""
        known, self._records = self._records, before
        return before - known if known is not None and before > known else 0


async def read_log(
    folder: Path,
    *,
    since: int,
    tail: int,
    follow: bool,
    watching: Callable[[Path], AbstractContextManager[asyncio.Event]],
    ended: Callable[[], bool],
    end: Callable[[], Awaitable[None]],
) -> AsyncIterator[LogLine]:
    """Lines from `since` on (ns), the last `tail` of them at first (-1 all), and new ones until the container ended.

    `ended` says whether all is written, `end` returns when that may have become true although no file changed.
    """
    if tail == 0 and not follow:
        return
    start = await asyncio.to_thread(tail_start, folder, tail) if tail >= 0 else None
    reader = LogReader(folder, start)
    try:
        with watching(folder) as changed:
            while True:
                changed.clear()
                # Asked before reading: what is written after the answer "no" announces itself.
                over = not follow or ended()
                more = True
                while more:
                    lines, more = reader.read()
                    for line in lines:
                        if line.timestamp >= since:
                            yield line
                    await asyncio.sleep(0)
                if over:
                    break
                await _either(changed, end)
            for line in reader.rest():
                if line.timestamp >= since:
                    yield line
    finally:
        reader.close()


async def _either(changed: asyncio.Event, end: Callable[[], Awaitable[None]]) -> None:
    waiting = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(end())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def iterate(folder: Path) -> Iterator[LogLine]:
    """All lines there are now."""
    reader = LogReader(folder)
    try:
        more = True
        while more:
            lines, more = reader.read()
            yield from lines
        yield from reader.rest()
    finally:
        reader.close()
