"""Asks the host's resolvers what this host's networks do not know. Answers are passed on as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

from agent.network.dns.answers import failure
from agent.network.dns.resolvers import Resolver
from agent.network.dns.wire import HEADER, QR, Code, parse

PATIENCE = 4.0
"""Seconds for all resolvers together: less than the 5 after which a client of the C library asks again."""

AT_ONCE = 256
"""Queries on their way at the same time, each with a socket of its own; more of them fail at once."""

AT_ONCE_EACH = 128
"""The same for one source, so that one task cannot keep all others from the resolvers."""


class Forwarder:
    """`ask` passes a query on. `resolvers` is called for every query, so that a changed resolv.conf counts at once."""

    def __init__(self, resolvers: Callable[[], Sequence[Resolver]], *, patience: float = PATIENCE) -> None:
        self._resolvers = resolvers
        self._patience = patience
        self._asking: Counter[str] = Counter()
        self._total = 0

    async def ask(self, query: bytes, source: str, *, stream: bool = False, but: Resolver | None = None) -> bytes:
        """A resolver's answer; SERVFAIL when none gave one in time. `but` is ourselves, who is never asked.

        The resolvers are asked in their order. One that refuses, fails or does not answer is followed by the next; an
        answer that a name does not exist is an answer, as in Docker. A query that came by TCP (`stream`) is passed on so.
        """
        resolvers = [resolver for resolver in self._resolvers() if resolver != but]
        if not resolvers or self._total >= AT_ONCE or self._asking[source] >= AT_ONCE_EACH:
            return failure(query, resolvers=bool(resolvers))
        self._total += 1
        self._asking[source] += 1
        try:
            return await self._ask_in_turn(query, resolvers, stream)
        finally:
            self._total -= 1
            self._asking[source] -= 1
            if not self._asking[source]:
                del self._asking[source]

    async def _ask_in_turn(self, query: bytes, resolvers: Sequence[Resolver], stream: bool) -> bytes:
        refused = None
        dial = _by_tcp if stream else _by_udp
        for resolver in resolvers:
            try:
                async with asyncio.timeout(self._patience / len(resolvers)), dial(resolver) as exchange:
                    reply = await exchange(query)
            except (OSError, EOFError):  # TimeoutError is an OSError
                continue
            if HEADER.unpack_from(reply)[1] & 0xF not in (Code.SERVFAIL, Code.REFUSED):
                return reply
            refused = reply
        return refused or failure(query, resolvers=True)


def answers(reply: bytes, query: bytes) -> bool:
    """Whether `reply` is one to `query`: id and question are the same, letter case aside. Anything else is forged or late."""
    if len(reply) < HEADER.size or reply[:2] != query[:2] or not HEADER.unpack_from(reply)[1] & QR:
        return False
    question = parse(query).question
    if HEADER.unpack_from(reply)[2] == 0:
        # Some resolvers leave the question out of an error.
        return bool(HEADER.unpack_from(reply)[1] & 0xF)
    return reply[HEADER.size : HEADER.size + len(question)].lower() == question.lower()


_Exchange = Callable[[bytes], "asyncio.Future[bytes]"]


class _Datagrams(asyncio.DatagramProtocol):
    """One query's socket: its source port is the kernel's choice, which makes answers hard to forge."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._query = b""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's transport does not inherit from DatagramTransport before Python 3.12.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        if not self.reply.done() and answers(data, self._query):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)

    def exchange(self, query: bytes) -> asyncio.Future[bytes]:
        assert self._transport is not None
        self._query = query
        self._transport.sendto(query)
        return self.reply


@contextlib.asynccontextmanager
async def _by_udp(resolver: Resolver) -> AsyncIterator[_Exchange]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(_Datagrams, remote_addr=(resolver.address, resolver.port))
    try:
        yield protocol.exchange
    finally:
        protocol.reply.cancel()
        transport.close()


@contextlib.asynccontextmanager
async def _by_tcp(resolver: Resolver) -> AsyncIterator[_Exchange]:
    reader, writer = await asyncio.open_connection(resolver.address, resolver.port)

    async def exchange(query: bytes) -> bytes:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        while True:
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            if answers(reply, query):
                return reply

    try:
        yield lambda query: asyncio.ensure_future(exchange(query))
    finally:
        writer.transport.abort()
