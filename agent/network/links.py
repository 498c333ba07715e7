"""Links over sockets of this host, and the splice that joins two links."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from agent.network.interface import Link

CHUNK = 64 * 1024
"""Bytes read at a time."""

DIAL_TIMEOUT = 3.0
"""Seconds until a backend on this host that does not answer is passed over."""


class StreamLink:
    """A `Link` over a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        return await self._reader.read(CHUNK)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def end(self) -> None:
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Drop the connection so that the peer sees a reset."""
        self._writer.transport.abort()


async def dial_tcp(address: str, port: int) -> StreamLink:
    """A TCP link; OSError (TimeoutError included) when nobody answers."""
    async with asyncio.timeout(DIAL_TIMEOUT):
        return StreamLink(*await asyncio.open_connection(address, port))


class DatagramLink(asyncio.DatagramProtocol):
    """A `Link` over a connected UDP socket; datagrams beyond a small queue are dropped, as a full socket drops them."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[bytes] = asyncio.Queue(256)
        self._lost = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's transport does not inherit from DatagramTransport before Python 3.12.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error; the datagram is lost, as datagrams may be."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        with contextlib.suppress(asyncio.QueueFull):
            self._received.put_nowait(b"")

    async def receive(self) -> bytes:
        return await self._received.get()

    async def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)

    async def end(self) -> None:
        """UDP has no end."""

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()


async def dial_udp(address: str, port: int) -> DatagramLink:
    """A UDP link; OSError when the address cannot be used."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_datagram_endpoint(DatagramLink, remote_addr=(address, port))
    return link


async def splice(one: Link, other: Link) -> None:
    """Pass bytes both ways until both directions ended, with half-close; closes both links whatever happens."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(one, other))
            group.create_task(_pass_on(other, one))
    except* (OSError, EOFError):
        # One side broke: the other is told by the close below. Nothing else can be done for it.
        pass
    finally:
        await asyncio.gather(one.close(), other.close(), return_exceptions=True)


async def _pass_on(source: Link, sink: Link) -> None:
    while data := await source.receive():
        await sink.send(data)
    await sink.end()
