"""Links over sockets of this host, and the splice that joins two links."""

from __future__ import annotations

import asyncio
import contextlib

from agent.network.interface import Link
from agent.rpc.datagrams import DatagramSocket, dial_datagrams

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


class DatagramLink:
    """A `Link` over a connected UDP socket."""

    def __init__(self, socket: DatagramSocket) -> None:
        self._socket = socket

    async def receive(self) -> bytes:
        return await self._socket.receive()

    async def send(self, data: bytes) -> None:
        self._socket.put(data)

    async def end(self) -> None:
        """UDP has no end."""

    async def close(self) -> None:
        await self._socket.close()


async def dial_udp(address: str, port: int) -> DatagramLink:
    """A UDP link; OSError when the address cannot be used."""
    return DatagramLink(await dial_datagrams(address, port))


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
