"""The userspace relay: every backend in turn, half-close, what cannot be reached is passed over, ports come and go."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.network.ingress import Ingress
from agent.network.interface import Link
from agent.network.links import StreamLink, dial_tcp, splice
from agent.rpc.messages import IngressBackend, IngressService, IngressTable


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def echo_server(name: bytes) -> AsyncIterator[int]:
    """Says its name, then everything it hears, then ends when its client has ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name + b":" + await reader.read())
        writer.write_eof()
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def table(port: int, *tasks: str, protocol: str = "tcp", target: int = 8000) -> IngressTable:
    backends = [IngressBackend(task, "node", "127.0.0.1:1") for task in tasks]
    return IngressTable([IngressService("service", protocol, port, target, backends)])


async def ask(port: int, text: bytes = b"hello") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def no_remote(backend: IngressBackend, port: int, protocol: str) -> Link:
    raise ConnectionRefusedError("no other node")


@asynccontextmanager
async def ingress(where: dict[str, int], remote=no_remote) -> AsyncIterator[Ingress]:  # type: ignore[no-untyped-def]
    relay = Ingress(
        "127.0.0.1", lambda task, port, protocol: ("127.0.0.1", where[task]) if task in where else None, remote
    )
    try:
        yield relay
    finally:
        await relay.close()


async def test_all_backends_answer_in_turn_with_half_close() -> None:
    async with (
        echo_server(b"a") as a,
        echo_server(b"b") as b,
        echo_server(b"c") as c,
        ingress({"a": a, "b": b, "c": c}) as relay,
    ):
        port = free_port()
        await relay.apply(table(port, "a", "b", "c"))
        answers = Counter([await ask(port) for _ in range(30)])
    assert answers == {b"a:hello": 10, b"b:hello": 10, b"c:hello": 10}


async def test_a_task_elsewhere_is_reached_through_its_node() -> None:
    async with echo_server(b"far") as far:

        async def remote(backend: IngressBackend, port: int, protocol: str) -> Link:
            assert (backend.task_id, backend.node_address, port) == ("t", "127.0.0.1:1", 8000)
            return await dial_tcp("127.0.0.1", far)

        async with ingress({}, remote) as relay:
            port = free_port()
            await relay.apply(table(port, "t"))
            assert await ask(port, b"x" * 300_000) == b"far:" + b"x" * 300_000


async def test_a_dead_backend_is_passed_over_unseen() -> None:
    async with echo_server(b"alive") as alive, ingress({"dead": free_port(), "alive": alive}) as relay:
        port = free_port()
        await relay.apply(table(port, "dead", "alive"))
        assert [await ask(port) for _ in range(6)] == [b"alive:hello"] * 6


async def test_without_a_backend_the_client_is_reset_at_once() -> None:
    async with ingress({}) as relay:
        port = free_port()
        await relay.apply(table(port))
        with pytest.raises(ConnectionError):
            if await ask(port) == b"":
                raise ConnectionResetError


async def test_ports_come_and_go_and_standing_connections_go_on() -> None:
    async with echo_server(b"a") as a, ingress({"a": a}) as relay:
        port = free_port()
        await relay.apply(table(port, "a"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"before ")
        await writer.drain()
        await relay.apply(IngressTable([]))
        with pytest.raises(OSError):
            await ask(port)
        writer.write(b"after")
        writer.write_eof()
        assert await reader.read() == b"a:before after"
        writer.close()
        await writer.wait_closed()
        await relay.apply(table(port, "a"))
        assert await ask(port) == b"a:hello"


async def test_a_taken_port_is_said_and_tried_again() -> None:
    async with echo_server(b"a") as a, ingress({"a": a}) as relay:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            await relay.apply(table(port, "a"))
            assert "in use" in relay.balancer.failures[port, "tcp"].lower()
        await relay.apply(table(port, "a"))
        assert relay.balancer.failures == {}
        assert await ask(port) == b"a:hello"


async def test_udp_answers_come_back_to_who_asked() -> None:
    loop = asyncio.get_running_loop()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(b"echo " + data, addr)  # type: ignore[attr-defined]

    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    where = {"a": transport.get_extra_info("sockname")[1]}
    async with ingress(where) as relay:
        port = free_port(socket.SOCK_DGRAM)
        await relay.apply(table(port, "a", protocol="udp"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", port))
            for text in (b"one", b"two"):
                await loop.sock_sendall(client, text)
                assert await loop.sock_recv(client, 100) == b"echo " + text
    transport.close()
    await asyncio.sleep(0)


async def test_splice_closes_both_when_one_breaks_and_when_cancelled() -> None:
    class Broken:
        closed = 0

        async def receive(self) -> bytes:
            await asyncio.get_running_loop().create_future()
            return b""

        async def send(self, data: bytes) -> None:
            raise ConnectionResetError

        async def end(self) -> None: ...

        async def close(self) -> None:
            self.closed += 1

    class Chatty(Broken):
        async def receive(self) -> bytes:
            return b"x"

    broken, chatty = Broken(), Chatty()
    await splice(broken, chatty)
    assert (broken.closed, chatty.closed) == (1, 1)
    silent, other = Broken(), Broken()
    task = asyncio.create_task(splice(silent, other))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (silent.closed, other.closed) == (1, 1)


async def test_stream_link_abort_resets() -> None:
    accepted: asyncio.Future[StreamLink] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda r, w: accepted.set_result(StreamLink(r, w)), "127.0.0.1", 0)
    async with server:
        link = await dial_tcp("127.0.0.1", server.sockets[0].getsockname()[1])
        (await accepted).abort()
        with pytest.raises(ConnectionResetError):
            if await link.receive() == b"":
                raise ConnectionResetError
        await link.close()
