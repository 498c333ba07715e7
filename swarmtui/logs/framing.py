"""The bytes of a log stream to lines, without I/O.

With `timestamps=1&details=1` a record is `TIME DETAILS TEXT\\n`, where DETAILS are `key=value` pairs, URL-escaped and
joined by commas (recorded traffic, moby api/server/httputils/write_log_stream.go). A record without a line's end is a
part of a line that the engine cut at 16 KiB; its rest follows in the next record of the same task and stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote

from swarmtui.docker_api.errors import MalformedAnswer
from swarmtui.docker_api.frames import FrameDecoder, FrameStream
from swarmtui.docker_api.times import parse_time
from swarmtui.logs.records import LogEvent, LogLine, LogNotice, LogStream, NoticeKind

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes after which a line without an end is cut in two: it must not fill the memory."""

_NODE, _SERVICE, _TASK = (f"com.docker.swarm.{kind}.id" for kind in ("node", "service", "task"))


@lru_cache(maxsize=4096)
def _origin(details: bytes) -> tuple[str, str, str] | None:
    """Node, service and task id of a record's details; None when this is not a list of details."""
    found: dict[str, str] = {}
    for pair in details.decode(errors="replace").split(","):
        key, separator, value = pair.partition("=")
        if not separator:
            return None
        found[unquote(key)] = unquote(value)
    if _TASK not in found:
        return None
    return found.get(_NODE, ""), found.get(_SERVICE, ""), found[_TASK]


class LineAssembler:
    """Chunks in, lines and the engine's own messages out. One for each connection."""

    def __init__(self, *, terminal: bool, limit: int = LINE_LIMIT) -> None:
        """`terminal`: the service has a TTY, its stream has no frames."""
        self._frames = None if terminal else FrameDecoder()
        self._tail = b""
        self._limit = limit
        self._parts: dict[tuple[FrameStream, bytes], list[bytes]] = {}
        self._sizes: dict[tuple[FrameStream, bytes], int] = {}
        self._starts: dict[tuple[FrameStream, bytes], int] = {}

    def feed(self, chunk: bytes) -> list[LogEvent]:
        """The lines that `chunk` completes, in the order in which they arrived."""
        if self._frames is not None:
            events: list[LogEvent] = []
            for frame in self._frames.feed(chunk):
                event = self._record(frame.stream, frame.payload)
                if event is not None:
                    events.append(event)
            return events
        *whole, self._tail = (self._tail + chunk).split(b"\n")
        if len(self._tail) > self._limit:
            whole.append(self._tail)
            self._tail = b""
        found = (self._record(FrameStream.STDOUT, record + b"\n") for record in whole)
        return [event for event in found if event is not None]

    def finish(self) -> list[LogEvent]:
        """What was left without a line's end when the stream ended properly; MalformedAnswer when it ended in a frame."""
        if self._frames is not None and self._frames.unfinished:
            raise MalformedAnswer("the log ended in the middle of a frame")
        events = list(self._flush())
        if self._tail:
            event = self._record(FrameStream.STDOUT, self._tail + b"\n")
            self._tail = b""
            if event is not None:
                events.append(event)
        return events

    def _flush(self) -> Iterator[LogEvent]:
        for key in list(self._parts):
            yield self._joined(key, b"")

    def _record(self, stream: FrameStream, record: bytes) -> LogEvent | None:
        if stream is FrameStream.SYSTEM:
            return LogNotice(0, NoticeKind.ENGINE, record.decode(errors="replace").strip())
        timestamp, details, text = _split(record)
        if not self._parts and text.endswith(b"\n"):
            return _line(stream, details, timestamp, text)
        key = (stream, details)
        if not text.endswith(b"\n"):
            size = self._sizes.get(key, 0) + len(text)
            if size <= self._limit:
                self._starts.setdefault(key, timestamp)
                self._parts.setdefault(key, []).append(text)
                self._sizes[key] = size
                return None
        return self._joined(key, text, timestamp)

    def _joined(self, key: tuple[FrameStream, bytes], text: bytes, timestamp: int = 0) -> LogLine:
        parts = self._parts.pop(key, None)
        if parts is not None:
            del self._sizes[key]
            timestamp = self._starts.pop(key)
            text = b"".join((*parts, text))
        return _line(*key, timestamp, text)


def _line(stream: FrameStream, details: bytes, timestamp: int, text: bytes) -> LogLine:
    node_id, service_id, task_id = (_origin(details) if details else None) or ("", "", "")
    source = LogStream.STDERR if stream is FrameStream.STDERR else LogStream.STDOUT
    return LogLine(timestamp, _text(text), source, task_id, service_id, node_id)


def _text(raw: bytes) -> str:
    if raw.endswith(b"\n"):
        raw = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1]
    return raw.decode(errors="replace")


def _split(record: bytes) -> tuple[int, bytes, bytes]:
    """Timestamp, details and text. What does not look like a timestamp or details belongs to the text."""
    timestamp, details, text = 0, b"", record
    head, space, rest = record.partition(b" ")
    # 20 bytes are the shortest time there is; a year begins with a digit.
    if space and len(head) >= 20 and head[:1].isdigit():
        try:
            timestamp = parse_time(head.decode("ascii"))
            text = rest
        except ValueError:
            return 0, details, text
    head, space, rest = text.partition(b" ")
    if space and head.startswith(b"com.docker.swarm.") and _origin(head) is not None:
        details, text = head, rest
    return timestamp, details, text
