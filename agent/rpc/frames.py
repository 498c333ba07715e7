"""Frames: length (4 bytes), stream (4), type (1), body. Pure; knows no socket.

The length counts the body alone. Bodies are msgpack, but for PART and BYTES, which are pieces of something longer. A
message that is longer than a frame travels in PARTs and a last MESSAGE, so that a long one never holds up a heartbeat on
another stream.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import msgspec

from agent.rpc.errors import ProtocolViolation

HEADER = struct.Struct(">IIB")
MAX_BODY = 64 * 1024 - HEADER.size
"""Bytes in one frame's body: four TLS records."""


class FrameType(IntEnum):
    """What a frame is. HELLO, REFUSE and GOODBYE belong to the connection (stream 0), the others to a stream."""

    HELLO = 1
    REFUSE = 2
    """The connection is not wanted; body: the text."""
    GOODBYE = 3
    """The connection ends in good order; body: the reason."""
    OPEN = 4
    """A new stream; body: the method's name. Its opening message follows."""
    MESSAGE = 5
    """A message, or the last piece of one."""
    PART = 6
    """A piece of a message that goes on."""
    ABANDON = 7
    """Forget the pieces so far: their sender was cancelled."""
    BYTES = 8
    """Raw bytes."""
    END = 9
    """The sender sends nothing more on the stream."""
    DONE = 10
    """As END, and it reads nothing more either."""
    FAIL = 11
    """The stream broke; body: the text."""
    CREDIT = 12
    """The receiver has room again; body: for how many more bytes of frames."""
    REMOVED = 13
    """As REFUSE, because the node is no longer part of the cluster."""


CARRIERS = frozenset({FrameType.MESSAGE, FrameType.PART, FrameType.BYTES})
"""The frames that cost credit: header and body, byte for byte."""

MAX_TEXT = 4000
MAX_COUNT = 1 << 31

_encode = msgspec.msgpack.Encoder().encode
_decode_text = msgspec.msgpack.Decoder(str).decode
_decode_count = msgspec.msgpack.Decoder(int).decode
_TYPES = {int(kind): kind for kind in FrameType}


class Frame(NamedTuple):
    """One frame, read."""

    stream: int
    kind: FrameType
    body: bytes


def encode_frame(stream: int, kind: FrameType, body: bytes = b"") -> bytes:
    """The frame's bytes. ValueError when the body is too long: the caller cuts it."""
    if len(body) > MAX_BODY:
        raise ValueError(f"a frame's body of {len(body)} bytes; {MAX_BODY} are allowed")
    return HEADER.pack(len(body), stream, kind) + body


def encode_text(text: str) -> bytes:
    """A body that is a text; an endless one is cut."""
    return _encode(text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "...")


def decode_text(body: bytes) -> str:
    """The text of a body, fit for one line of a log; ProtocolViolation when it is none."""
    try:
        text = _decode_text(body)
    except (msgspec.MsgspecError, ValueError):
        raise ProtocolViolation("a frame whose text cannot be read") from None
    if text.isprintable():
        return text
    # Strangers send texts too; none of them is to forge a line of its own.
    return "".join(character if character.isprintable() else " " for character in text)


def encode_count(count: int) -> bytes:
    """A body that is a count."""
    return _encode(count)


def decode_count(body: bytes) -> int:
    """The count of a body; ProtocolViolation when it is none."""
    try:
        count = _decode_count(body)
    except msgspec.MsgspecError:
        raise ProtocolViolation("a frame whose count cannot be read") from None
    if not 0 < count <= MAX_COUNT:
        raise ProtocolViolation(f"a frame with the impossible count {count}")
    return count


class FrameParser:
    """Cuts a stream of bytes into frames, however the bytes arrive. Holds one unfinished frame at most."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes. ProtocolViolation for a frame that is too long or of no known type."""
        rest = self._rest
        frames: list[Frame] = []
        if not rest:
            with memoryview(data) as view:
                rest += view[self._cut(view, frames) :]
            return frames
        rest += data
        if len(rest) >= self._needed:
            with memoryview(rest) as view:
                taken = self._cut(view, frames)
            del rest[:taken]
        return frames

    def _cut(self, view: memoryview, frames: list[Frame]) -> int:
        """Append the whole frames of `view`; returns where the unfinished one begins."""
        size = len(view)
        offset = 0
        header = HEADER.size
        while size - offset >= header:
            length, stream, number = HEADER.unpack_from(view, offset)
            kind = _TYPES.get(number)
            if kind is None or length > MAX_BODY:
                raise ProtocolViolation(_violation(length, number))
            body = offset + header
            end = body + length
            if end > size:
                self._needed = header + length
                return offset
            frames.append(Frame(stream, kind, bytes(view[body:end])))
            offset = end
        self._needed = header
        return offset


def _violation(length: int, number: int) -> str:
    if number not in _TYPES:
        return f"a frame of unknown type {number}"
    return f"a frame of {length} bytes, where {MAX_BODY} are allowed"
