"""A connected UDP socket, for whoever relays datagrams between a task and another node."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

QUEUE = 256
"""Datagrams that wait for their reader; those beyond are dropped, as a full socket drops them."""


class DatagramSocket(asyncio.DatagramProtocol):
    """`dial_datagrams` makes it. `receive` gives empty bytes once the socket is closed and everything before is read."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
        self._lost = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's transport does not inherit from DatagramTransport before Python 3.12.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: the datagram is lost, as datagrams may be."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        with contextlib.suppress(asyncio.QueueFull):
            self._received.put_nowait(b"")

    async def receive(self) -> bytes:
        """The next datagram."""
        return await self._received.get()

    def put(self, data: bytes) -> None:
        """Send one; nothing happens once the socket is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)

    async def close(self) -> None:
        """Returns when the socket is closed."""
        if self._transport is not None:
            self._transport.close()
            await self._lost.wait()


async def dial_datagrams(address: str, port: int) -> DatagramSocket:
    """A socket connected to `address`; OSError when it cannot be used."""
    loop = asyncio.get_running_loop()
    _, made = await loop.create_datagram_endpoint(DatagramSocket, remote_addr=(address, port))
    return made
