"""A host's resolver as the tests want it to be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from agent.network.dns.resolvers import Resolver

Behaviour = Callable[[dns.message.Message, bool], list[bytes]]
"""A query, and whether it came by TCP, to the messages that are sent back."""


@dataclass
class FakeResolver(asyncio.DatagramProtocol):
    """Answers as its behaviour says; `asked` has what it was asked, `heard` is set at the first."""

    behave: Behaviour
    address: Resolver
    asked: list[tuple[str, bool]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        assert self.transport is not None
        for reply in self.replies(data, False):
            self.transport.sendto(reply, addr)

    def replies(self, data: bytes, stream: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        self.asked.append((str(query.question[0].name), stream))
        self.heard.set()
        return self.behave(query, stream)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                for reply in self.replies(data, True):
                    writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


@contextlib.asynccontextmanager
async def resolver(behave: Behaviour) -> AsyncIterator[FakeResolver]:
    """A resolver on loopback, UDP and TCP on one port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        fake = FakeResolver(behave, Resolver("127.0.0.1", port))
        server = await asyncio.start_server(fake.serve, sock=listener.dup())
    # Another program may have this port for UDP: then this test, and no other, fails with "address in use".
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: fake, local_addr=("127.0.0.1", port)
    )
    fake.address = Resolver("127.0.0.1", port)
    try:
        yield fake
    finally:
        transport.close()
        server.close()


def nobody() -> Resolver:
    """A resolver whose port is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return Resolver("127.0.0.1", free.getsockname()[1])


def knows(*addresses: str) -> Behaviour:
    """Every name has these addresses; by UDP no more than fit."""

    def behave(query: dns.message.Message, stream: bool) -> list[bytes]:
        reply = dns.message.make_response(query, recursion_available=True)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 300, "IN", "A", *addresses))
        if not stream and len(addresses) > 20:
            del reply.answer[:]
            reply.flags |= dns.flags.TC
        return [reply.to_wire()]

    return behave


def fails(rcode: str) -> Behaviour:
    """Every query is answered with this code."""

    def behave(query: dns.message.Message, stream: bool) -> list[bytes]:
        reply = dns.message.make_response(query, recursion_available=True)
        reply.set_rcode(dns.rcode.from_text(rcode))
        return [reply.to_wire()]

    return behave


def silent(query: dns.message.Message, stream: bool) -> list[bytes]:
    """No query is answered."""
    return []
