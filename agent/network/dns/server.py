"""The DNS server of one bridge: UDP and TCP on its address."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Self

from agent.network.dns.answers import Verdict, answer
from agent.network.dns.forward import PATIENCE, Forwarder
from agent.network.dns.names import Names
from agent.network.dns.resolvers import Resolver

IDLE = 10.0
"""Seconds a TCP client may take for its next query, or to read its answer (RFC 7766 asks for "a few")."""

CONNECTIONS = 64
CONNECTIONS_EACH = 16
"""TCP connections at a time, of all clients and of one address; more are closed at once."""

_AT_A_TIME = 64
"""Datagrams read before the loop has its turn."""

_RECEIVE_BUFFER = 1 << 20
"""Bytes of queries that wait in the kernel while the loop is busy: some thousand."""

_IP_FREEBIND = 15
"""IP_FREEBIND of Linux, which Python's socket module does not name; level IPPROTO_IP for both families."""

_PORT_ATTEMPTS = 16
"""Tries to find a port that is free for both protocols, when the port is the kernel's to choose."""


class NameServer:
    """`async with NameServer(address, 0, names, HostResolvers())`: answers on `address` at `port` until the context ends.

    `names` may be set at any time and counts from the next query on. The address need not be there yet: a bridge that is
    deleted and made again goes on being answered for. OSError when the port cannot be had.
    """

    def __init__(
        self,
        bind_address: str,
        port: int,
        names: Names,
        resolvers: Callable[[], Sequence[Resolver]],
        *,
        idle: float = IDLE,
        patience: float = PATIENCE,
    ) -> None:
        self.address = bind_address
        self.port = port
        """Where it listens: known, if it was given as 0, once the context is entered."""
        self.names = names
        self._idle = idle
        self._forwarder = Forwarder(resolvers, patience=patience)
        self._datagrams: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._connections: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        listener, self._datagrams = _bind_both(self.address, self.port)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accept, sock=listener)
        asyncio.get_running_loop().add_reader(self._datagrams, self._read_datagrams, self._datagrams)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop answering; queries that are on their way to resolvers are given up. Idempotent."""
        if self._datagrams is not None:
            asyncio.get_running_loop().remove_reader(self._datagrams)
            self._datagrams.close()
            self._datagrams = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _read_datagrams(self, datagrams: socket.socket) -> None:
        for _ in range(_AT_A_TIME):
            try:
                query, client = datagrams.recvfrom(4096)
            except OSError:
                # Nothing is left, or an ICMP error of an earlier answer, which concerns that client alone.
                return
            said = answer(query, client[0], self.names)
            if isinstance(said, bytes):
                _send(datagrams, said, client)
            elif said is Verdict.FORWARD:
                self._run(self._forward_datagram(query, client))

    async def _forward_datagram(self, query: bytes, client: tuple[str, int]) -> None:
        said = await self._forwarder.ask(query, client[0], but=Resolver(self.address))
        if self._datagrams is not None:
            _send(self._datagrams, said, client)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: of those the streams of Python 3.11 log it as an error when one is cancelled.
        self._run(self._serve_connection(reader, writer))

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        if self._connections.total() >= CONNECTIONS or self._connections[source] >= CONNECTIONS_EACH:
            writer.transport.abort()
            return
        self._connections[source] += 1
        try:
            # A client that is gone, silent or slow: nothing more is owed to it.
            with contextlib.suppress(OSError):
                await self._serve(reader, writer, source)
        finally:
            self._connections[source] -= 1
            if not self._connections[source]:
                del self._connections[source]
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str) -> None:
        while query := await self._next_query(reader):
            said = answer(query, source, self.names, stream=True)
            if said is Verdict.DROP:
                return
            if not isinstance(said, bytes):
                said = await self._forwarder.ask(query, source, stream=True, but=Resolver(self.address))
            writer.write(len(said).to_bytes(2, "big") + said)
            async with asyncio.timeout(self._idle):
                await writer.drain()
        writer.close()
        async with asyncio.timeout(self._idle):
            await writer.wait_closed()

    async def _next_query(self, reader: asyncio.StreamReader) -> bytes:
        """Empty at the end of the stream, wherever that is."""
        async with asyncio.timeout(self._idle):
            try:
                return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            except EOFError:
                return b""

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def _send(datagrams: socket.socket, said: bytes, client: tuple[str, int]) -> None:
    # A full buffer or a client that is gone: the answer is lost, as datagrams may be, and the client asks again.
    with contextlib.suppress(OSError):
        datagrams.sendto(said, client)


def _bind_both(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket with the same port."""
    for attempt in range(_PORT_ATTEMPTS):
        stream = _bound(address, port, socket.SOCK_STREAM)
        try:
            return stream, _bound(address, stream.getsockname()[1], socket.SOCK_DGRAM)
        except OSError as error:
            stream.close()
            if port or error.errno != errno.EADDRINUSE or attempt == _PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("the loop returns or raises")


def _bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind is socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made
