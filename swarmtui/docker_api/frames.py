"""Frames of log and attach streams, without I/O (moby pkg/stdcopy): stream (1 byte), three zeros, length (4, big-endian).

A service with a terminal sends no frames: its bytes are the lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from swarmtui.docker_api.errors import MalformedAnswer

HEADER = 8
FRAME_LIMIT = 64 * 1024 * 1024
"""Bytes that one frame may announce. A log record has 16 KiB; an attached process writes what it likes, but not this."""


class FrameStream(IntEnum):
    """The first byte of a frame."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    SYSTEM = 3
    """The engine's own error text in the middle of a stream."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame's payload."""

    stream: FrameStream
    payload: bytes


class FrameDecoder:
    """Bytes in, whole frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes. MalformedAnswer when what came cannot be a frame's head."""
        buffer = self._buffer
        buffer += chunk
        frames = []
        position, size = 0, len(buffer)
        while size - position >= HEADER:
            kind = buffer[position]
            length = int.from_bytes(buffer[position + 4 : position + HEADER], "big")
            if kind > FrameStream.SYSTEM or buffer[position + 1 : position + 4] != b"\0\0\0" or length > FRAME_LIMIT:
                head = bytes(buffer[position : position + HEADER])
                raise MalformedAnswer(f"the engine sent {head!r} where a frame of the log should begin")
            end = position + HEADER + length
            if end > size:
                break
            frames.append(Frame(FrameStream(kind), bytes(buffer[position + HEADER : end])))
            position = end
        del buffer[:position]
        return frames

    @property
    def unfinished(self) -> int:
        """Bytes that wait for the rest of their frame; not 0 at the end means that the stream was cut."""
        return len(self._buffer)
