"""Frames of log and attach streams, without I/O (moby pkg/stdcopy): stream (1 byte), three zeros, length (4, big-endian).

A service with a terminal sends no frames: its bytes are the lines.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from swarmtui.docker_api.errors import MalformedAnswer

HEADER = 8
_HEAD = struct.Struct(">II")
_PADDING = 0x00FFFFFF
FRAME_LIMIT = 64 * 1024 * 1024
"""Bytes that one frame may announce. A log record has 16 KiB; an attached process writes what it likes, but not this."""


class FrameStream(IntEnum):
    """The first byte of a frame."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    SYSTEM = 3
    """The engine's own error text in the middle of a stream."""


class Frame(NamedTuple):
    """One frame's payload."""

    stream: FrameStream
    payload: bytes


_STREAMS = tuple(FrameStream)


class FrameDecoder:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. MalformedAnswer when what came cannot be a frame's head."""
        data = self._rest + chunk if self._rest else chunk
        frames = []
        position, size = 0, len(data)
        while size - position >= HEADER:
            kind, length = _HEAD.unpack_from(data, position)
            if kind & _PADDING or kind >> 24 > FrameStream.SYSTEM or length > FRAME_LIMIT:
                head = data[position : position + HEADER]
                raise MalformedAnswer(f"the engine sent {head!r} where a frame of the log should begin")
            end = position + HEADER + length
            if end > size:
                break
            frames.append(Frame(_STREAMS[kind >> 24], data[position + HEADER : end]))
            position = end
        self._rest = data[position:]
        return frames

    @property
    def unfinished(self) -> int:
        """Bytes that wait for the rest of their frame; not 0 at the end means that the stream was cut."""
        return len(self._rest)
