"""A container's output as the engine sends it: frames of 8 bytes and data, or bare lines of a terminal; a time each.

(moby api/server/httputils/write_log_stream.go, pkg/stdcopy.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.api_types.times import parse_time
from agent.worker.interface import LogLine, RejectedByExecutor, Stream

LONGEST_LINE = 1024 * 1024
"""Bytes after which a line without an end is passed on as it is; the engine itself cuts lines every 16 KiB."""

_HEADER = 8
_STREAMS = {0: Stream.STDOUT, 1: Stream.STDOUT, 2: Stream.STDERR}


class MalformedOutput(RejectedByExecutor):
    """The engine sent what is neither a frame nor a line with a time."""


@dataclass
class _Partial:
    timestamp: int
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Framed:
    """Lines out of frames. The engine sends a line in several frames when it is long: they are one line again here."""

    _buffer: bytearray = field(default_factory=bytearray)
    _partial: dict[Stream, _Partial] = field(default_factory=dict)

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """The lines that are whole once `data` has come."""
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= _HEADER:
            if buffer[position] not in _STREAMS or any(buffer[position + 1 : position + 4]):
                raise MalformedOutput(f"not a frame: {bytes(buffer[position : position + _HEADER])!r}")
            size = int.from_bytes(buffer[position + 4 : position + _HEADER], "big")
            if len(buffer) - position - _HEADER < size:
                break
            start = position + _HEADER
            yield from self._frame(_STREAMS[buffer[position]], bytes(buffer[start : start + size]))
            position = start + size
        del buffer[:position]

    def rest(self) -> Iterator[LogLine]:
        """What was written without a line end, once the stream is over."""
        for stream, partial in self._partial.items():
            yield LogLine(partial.timestamp, stream, bytes(partial.data))
        self._partial.clear()

    def _frame(self, stream: Stream, frame: bytes) -> Iterator[LogLine]:
        timestamp, text = split_time(frame)
        partial = self._partial.setdefault(stream, _Partial(timestamp))
        partial.data += text
        if text.endswith(b"\n") or len(partial.data) >= LONGEST_LINE:
            del self._partial[stream]
            yield LogLine(partial.timestamp, stream, _without_end(partial.data))


@dataclass
class Terminal:
    """Lines of a container with a terminal: no frames, everything is stdout."""

    _buffer: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """The lines that are whole once `data` has come."""
        self._buffer += data
        *whole, rest = bytes(self._buffer).split(b"\n")
        if len(rest) >= LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        self._buffer = bytearray(rest)
        for line in whole:
            yield self._line(line)

    def rest(self) -> Iterator[LogLine]:
        """What was written without a line end, once the stream is over."""
        if self._buffer:
            yield self._line(bytes(self._buffer))
            self._buffer.clear()

    def _line(self, line: bytes) -> LogLine:
        timestamp, text = split_time(line)
        return LogLine(timestamp, Stream.STDOUT, _without_end(text))


def split_time(line: bytes) -> tuple[int, bytes]:
    """The time that stands before a line, and the line."""
    time, space, text = line.partition(b" ")
    try:
        timestamp = parse_time(time.decode())
    except ValueError:
        raise MalformedOutput(f"a line without a time: {line[:60]!r}") from None
    return timestamp, text if space else b""


def _without_end(line: bytes | bytearray) -> bytes:
    return bytes(line.removesuffix(b"\n").removesuffix(b"\r"))
