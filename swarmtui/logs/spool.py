"""Log events on disk, so that memory holds only what is visible: append, and read any range by index.

Segments of a fixed number of events, each an unlinked temporary file with an array of offsets; when the bound is
reached the oldest segment goes and `first` rises. Appending writes to the page cache (microseconds); nothing is synced,
the spool does not outlive the process.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import msgspec

from swarmtui.logs.records import LogEvent, LogLine, LogNotice, LogStream, NoticeKind

SEGMENT_EVENTS = 65_536
"""Events a segment: the unit in which the oldest are given up. Its offsets take 512 KiB."""
MAX_BYTES = 1024 * 1024 * 1024
"""Bytes on disk by default."""

_Record = tuple[int, int, str, str, str, str]
"""Timestamp, what it is, text, node id, service id, task id."""

_STREAMS = tuple(LogStream)
_KINDS = tuple(NoticeKind)
_STREAM_NUMBER = {stream: number for number, stream in enumerate(_STREAMS)}
_KIND_NUMBER = {kind: number + len(_STREAMS) for number, kind in enumerate(_KINDS)}


class _Segment:
    def __init__(self, folder: Path | None) -> None:
        self.file = tempfile.TemporaryFile(prefix="swarmtui-log-", dir=folder, buffering=0)  # noqa: SIM115 (closed by the spool)
        self.offsets = array("Q")
        self.size = 0

    def read(self, start: int, count: int) -> list[bytes]:
        offsets = self.offsets
        end = min(start + count, len(offsets))
        begin_at = offsets[start]
        end_at = offsets[end] if end < len(offsets) else self.size
        blob = os.pread(self.file.fileno(), end_at - begin_at, begin_at)
        bounds = [offset - begin_at for offset in offsets[start:end]] + [end_at - begin_at]
        return [blob[bounds[i] : bounds[i + 1]] for i in range(end - start)]


class LogSpool:
    """Append-only; indexes count all events ever appended. `with` owns the files."""

    def __init__(
        self, folder: Path | None = None, *, max_bytes: int = MAX_BYTES, segment_events: int = SEGMENT_EVENTS
    ) -> None:
        """`folder` for the temporary files; None for the system's."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_events = segment_events
        self._segments: deque[_Segment] = deque()
        self._bytes = 0
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Record)
        self.first = 0
        """Index of the oldest event that is still held: so many were given up."""
        self._end = 0

    def __enter__(self) -> LogSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Events that are held."""
        return self._end - self.first

    @property
    def end(self) -> int:
        """Index that the next event will have."""
        return self._end

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self._bytes

    def append(self, events: Iterable[LogEvent]) -> int:
        """Add events; the index of the first of them. OSError when the disk is full: nothing of the rest is added."""
        start = self._end
        blob = bytearray()
        offsets: list[int] = []
        segment = self._segments[-1] if self._segments else None
        for event in events:
            if segment is None or len(segment.offsets) + len(offsets) >= self._segment_events:
                self._write(segment, blob, offsets)
                blob, offsets = bytearray(), []
                segment = _Segment(self._folder)
                self._segments.append(segment)
            offsets.append(segment.size + len(blob))
            blob += self._encoder.encode(_pack(event))
        self._write(segment, blob, offsets)
        return start

    def read(self, start: int, count: int) -> list[LogEvent]:
        """The events from index `start` on, `count` at most; those that were given up are left out."""
        count -= max(0, self.first - start)
        start = max(start, self.first)
        found: list[LogEvent] = []
        at = self.first
        for segment in self._segments:
            held = len(segment.offsets)
            if count > 0 and at <= start < at + held:
                pieces = segment.read(start - at, count)
                found += [_unpack(self._decoder.decode(piece)) for piece in pieces]
                start += len(pieces)
                count -= len(pieces)
            at += held
        return found

    def close(self) -> None:
        """Give the disk back."""
        for segment in self._segments:
            segment.file.close()
        self._segments.clear()
        self.first, self._bytes = self._end, 0

    def _write(self, segment: _Segment | None, blob: bytearray, offsets: list[int]) -> None:
        if segment is None or not blob:
            return
        written = 0
        while written < len(blob):
            written += os.pwrite(segment.file.fileno(), memoryview(blob)[written:], segment.size + written)
        segment.offsets.extend(offsets)
        segment.size += len(blob)
        self._bytes += len(blob)
        self._end += len(offsets)
        while self._bytes > self._max_bytes and len(self._segments) > 1:
            oldest = self._segments.popleft()
            self.first += len(oldest.offsets)
            self._bytes -= oldest.size
            oldest.file.close()


def _pack(event: LogEvent) -> _Record:
    if isinstance(event, LogLine):
        number = _STREAM_NUMBER[event.stream]
        return (event.timestamp, number, event.text, event.node_id, event.service_id, event.task_id)
    return (event.timestamp, _KIND_NUMBER[event.kind], event.text, event.node_id, "", event.task_id)


def _unpack(record: _Record) -> LogEvent:
    timestamp, number, text, node_id, service_id, task_id = record
    if number < len(_STREAMS):
        return LogLine(timestamp, text, _STREAMS[number], task_id, service_id, node_id)
    return LogNotice(timestamp, _KINDS[number - len(_STREAMS)], text, node_id, task_id)
