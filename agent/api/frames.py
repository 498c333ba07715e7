"""Docker's frames: how two outputs share one stream."""

from __future__ import annotations

import struct

STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
SYSTEM_ERROR = 3
"""The stream on which the docker CLI takes a frame for an error of the daemon."""

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"


def frame(stream: int, payload: bytes) -> bytes:
    """The stream's number, three zeros, the length (4 bytes, big end first), the payload."""
    return struct.pack(">BxxxI", stream, len(payload)) + payload


def stream_media(version: tuple[int, ...] | None, framed: bool) -> str:
    """The content type of a stream. Clients before 1.42 know by themselves whether it is framed."""
    return MULTIPLEXED if framed and (version is None or version >= (1, 42)) else RAW
