"""Bytes between a stream of a node-to-node connection and a local socket, both ways, with half-close."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.rpc.errors import RpcError
from agent.rpc.stream import Stream

CHUNK = 64 * 1024


async def carry(stream: Stream, reader: StreamReader, writer: StreamWriter) -> None:
    """Until both directions are through, or either side is lost. Closes both; a loss on one side is one on the other."""
    upward = asyncio.ensure_future(_to_stream(reader, stream))
    try:
        if await _from_stream(stream, writer):
            await upward
            stream.finish()
        else:
            writer.transport.abort()
    finally:
        # Nothing happens to a stream that is through.
        stream.fail_now("the other end of the exchange is gone")
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _from_stream(stream: Stream, writer: StreamWriter) -> bool:
    """Whether the stream came to an end in good order."""
    try:
        while data := await stream.receive_bytes():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except RpcError:
        return False
    except OSError:
        # The local side is gone: nobody reads the rest.
        stream.fail_now("the client is gone")
        return False
    return True


async def _to_stream(reader: StreamReader, stream: Stream) -> None:
    try:
        while data := await reader.read(CHUNK):
            await stream.send_bytes(data)
        await stream.end()
    except OSError:
        stream.fail_now("the client is gone")
    except RpcError:
        # `_from_stream` learns the same.
        return


@asynccontextmanager
async def as_streams(stream: Stream) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """A stream in asyncio's own terms, for whoever speaks a protocol of bytes over it. Leaving the block ends it.

    When the stream breaks, the reader ends early or raises ConnectionResetError.
    """
    near, far = socket.socketpair()
    try:
        reader, writer = await asyncio.open_connection(sock=near)
    except BaseException:
        near.close()
        far.close()
        raise
    try:
        carried = asyncio.ensure_future(carry(stream, *await asyncio.open_connection(sock=far)))
    except BaseException:
        writer.close()
        far.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        carried.cancel()
        await asyncio.gather(carried, return_exceptions=True)
        with contextlib.suppress(OSError):
            await writer.wait_closed()
