"""One HTTP/1.1 exchange on a connection of its own, step by step, so that it is known how far it came when it breaks.

The other end is another manager's API, so only what that speaks is understood: an answer with a length or in chunks.
"""

from __future__ import annotations

import re
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from multidict import CIMultiDict

MAX_HEAD = 64 * 1024
"""Bytes of an answer's head (the limit of a StreamReader)."""
CHUNK = 64 * 1024
_HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")


class BrokenOff(ConnectionError):
    """The answer ended before it was complete, or is none."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer."""

    status: int
    headers: CIMultiDict[str]

    @property
    def length(self) -> int | None:
        """Bytes of the body; None when it comes in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return None
        if self.status in (204, 304) or self.status < 200:
            return 0
        raw = self.headers.get("Content-Length", "")
        if not (raw.isascii() and raw.isdigit()):
            raise BrokenOff("an answer whose end cannot be known")
        return int(raw)


async def send_request(
    writer: StreamWriter, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes
) -> None:
    """Send the whole request; `target` as the client wrote it. The other end closes the connection after its answer."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + body)
    await writer.drain()


async def read_head(reader: StreamReader) -> Head:
    """Status and headers of the answer; BrokenOff (or another ConnectionError) when there is none."""
    while True:
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except (IncompleteReadError, LimitOverrunError) as error:
            raise BrokenOff("the connection ended before the answer") from error
        head = _parse_head(raw)
        if head.status >= 200:
            return head


def _parse_head(raw: bytes) -> Head:
    first, *lines = raw.decode("utf-8", "surrogateescape").removesuffix("\r\n\r\n").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not (len(status) == 3 and status.isascii() and status.isdigit()):
        raise BrokenOff("the answer is no HTTP")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BrokenOff("the answer is no HTTP")
        headers.add(name, value.strip())
    return Head(int(status), headers)


async def read_body(reader: StreamReader, head: Head) -> AsyncIterator[bytes]:
    """The answer's body as it comes; BrokenOff (or another ConnectionError) when it ends too early."""
    if head.length is not None:
        left = head.length
        while left:
            piece = await reader.read(min(left, CHUNK))
            if not piece:
                raise BrokenOff("the connection ended in the middle of the answer")
            left -= len(piece)
            yield piece
        return
    while size := await _chunk_size(reader):
        left = size
        while left:
            piece = await reader.read(min(left, CHUNK))
            if not piece:
                raise BrokenOff("the connection ended in the middle of the answer")
            left -= len(piece)
            yield piece
        await _line(reader)
    while await _line(reader):
        pass


async def _chunk_size(reader: StreamReader) -> int:
    raw = (await _line(reader)).partition(b";")[0].strip()
    if not _HEX.fullmatch(raw):
        raise BrokenOff("the answer is no HTTP")
    return int(raw, 16)


async def _line(reader: StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n")).removesuffix(b"\r\n")
    except (IncompleteReadError, LimitOverrunError) as error:
        raise BrokenOff("the connection ended in the middle of the answer") from error
