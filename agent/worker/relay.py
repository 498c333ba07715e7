"""Answers `relay`: joins a stream from another node to a port of a task that runs here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.rpc.connection import Connection
from agent.rpc.datagrams import DatagramSocket, dial_datagrams
from agent.rpc.errors import StreamEnded, StreamFailed
from agent.rpc.messages import Message, RelayOpen, RelayReady
from agent.rpc.stream import Stream

CHUNK = 64 * 1024
DIAL_TIMEOUT = 3.0
"""Seconds until a task that does not answer is given up."""


def frame_datagram(data: bytes) -> bytes:
    """A datagram as it travels in a stream of bytes: two bytes of length (big-endian), then the datagram."""
    return len(data).to_bytes(2, "big") + data


@dataclass
class Datagrams:
    """Datagrams out of a stream of bytes; the inverse of `frame_datagram`."""

    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[bytes]:
        """Those datagrams that are whole once `data` has come."""
        self._rest += data
        whole: list[bytes] = []
        while len(self._rest) >= 2 and len(self._rest) >= 2 + (size := int.from_bytes(self._rest[:2], "big")):
            whole.append(bytes(self._rest[2 : 2 + size]))
            del self._rest[: 2 + size]
        return whole


@dataclass
class RelayHandler:
    """Handler of `relay`. `address` says where a port of a task answers on this host: (task id, port, protocol)."""

    address: Callable[[str, int, str], tuple[str, int] | None]

    async def __call__(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """Dial, say whether that worked, then pass bytes (tcp) or framed datagrams (udp) both ways until both ends end."""
        assert isinstance(opening, RelayOpen)
        target = self.address(opening.task_id, opening.port, opening.protocol)
        where = f"task {opening.task_id} port {opening.port}/{opening.protocol}"
        if target is None:
            await stream.send(RelayReady(error=f"{where} does not run here"))
            return
        try:
            if opening.protocol == "tcp":
                async with asyncio.timeout(DIAL_TIMEOUT):
                    reader, writer = await asyncio.open_connection(*target)
                await _relay_stream(stream, reader, writer)
            elif opening.protocol == "udp":
                await _relay_datagrams(stream, await dial_datagrams(*target))
            else:
                await stream.send(RelayReady(error=f"{where}: {opening.protocol} is not relayed"))
        except TimeoutError:
            await stream.send(RelayReady(error=f"{where} does not answer"))
        except OSError as error:
            await stream.send(RelayReady(error=f"{where}: {error.strerror or error}"))


async def _relay_stream(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes both ways with half-close; whichever side breaks, the other is told."""
    try:
        await stream.send(RelayReady())
        async with stream.guard(), asyncio.TaskGroup() as group:
            group.create_task(_to_task(stream, writer))
            group.create_task(_to_stream(reader, stream))
    except* OSError as broken:
        # The task reset the connection; a stream that fails is how the other node passes that on to its client.
        await stream.fail(str(broken.exceptions[0]))
    except* (StreamFailed, StreamEnded):
        writer.transport.abort()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _relay_datagrams(stream: Stream, socket: DatagramSocket) -> None:
    """Pass datagrams both ways until the other node ends the stream."""
    try:
        await stream.send(RelayReady())
        async with stream.guard(), asyncio.TaskGroup() as group:
            back = group.create_task(_answer(stream, socket))
            datagrams = Datagrams()
            while data := await stream.receive_bytes():
                for datagram in datagrams.feed(data):
                    socket.put(datagram)
            back.cancel()
    finally:
        await socket.close()


async def _to_task(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.receive_bytes():
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _to_stream(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(CHUNK):
        await stream.send_bytes(data)
    await stream.end()


async def _answer(stream: Stream, socket: DatagramSocket) -> None:
    while True:
        await stream.send_bytes(frame_datagram(await socket.receive()))
