"""Connections that stop being HTTP: exec, attach, sessions.

The client's connection is taken away from the HTTP server and becomes a pair of streams; what either side sends goes to the
other as it is, and the end of one direction (a closed stdin) leaves the other open.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

CHUNK = 64 * 1024


class TakenOver(web.StreamResponse):
    """The answer of a handler that has answered by itself on the raw connection: the HTTP server writes nothing more."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: Any = b"") -> None:
        return

    @property
    def keep_alive(self) -> bool:
        return False


def is_gone(sock: socket.socket) -> bool:
    """Whether the peer closed the whole connection; an end of its sending alone does not count."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLHUP)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def take_over(request: web.BaseRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The client's connection as streams. The body of the request must have been read."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    loop = asyncio.get_running_loop()
    http = request.protocol
    half_closed = getattr(http, "half_closed", False)
    reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
    streams = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport.set_protocol(streams)
    streams.connection_made(transport)
    if half_closed:
        reader.feed_eof()
    elif not transport.is_reading():
        transport.resume_reading()
    # The HTTP server hears no more of this connection: it must forget it when the handler ends.
    task = request.task
    task.add_done_callback(lambda _: http.connection_lost(None))
    return reader, asyncio.StreamWriter(transport, streams, reader, loop)


async def splice(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    engine: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Carry bytes both ways until the engine ends or the client is gone. Closes both."""
    upward = asyncio.create_task(_client_to_engine(client, engine[1]))
    try:
        await _pump(engine[0], client[1])
    finally:
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)
        for writer in (engine[1], client[1]):
            writer.close()
        for writer in (engine[1], client[1]):
            # The other side may have closed it first.
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _client_to_engine(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter], engine: asyncio.StreamWriter
) -> None:
    await _pump(client[0], engine)
    sock = client[1].get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or is_gone(sock):
        engine.transport.abort()
    elif engine.can_write_eof():
        engine.write_eof()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until the source ends or either side is lost."""
    try:
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()
    except ConnectionError:
        sink.transport.abort()
