"""Any bytes at the listener, before TLS, inside TLS and after the hello: refused, and a good node is served after."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl

import pytest
from rpc_cluster import Heartbeat, Limits, TestCluster, echo, listening, until

from agent.api_types.times import now_ns
from agent.rpc.addresses import split_address
from agent.rpc.client import dial
from agent.rpc.errors import RpcError
from agent.rpc.frames import HEADER, MAX_BODY, FrameType, encode_frame, encode_text
from agent.rpc.hello import Hello, encode_hello
from agent.rpc.listener import Listener
from agent.rpc.peer import Purpose
from agent.rpc.protocols import SPOKEN
from agent.rpc.tls import client_context, joining_context, server_context


@pytest.fixture(scope="module")
def cluster() -> TestCluster:
    return TestCluster()


async def send(listener: Listener, data: bytes, context: ssl.SSLContext | None) -> None:
    """Send bytes, end or break off, read what comes until the other side ends."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        reader, writer = await asyncio.open_connection(*split_address(listener.address), ssl=context)
        try:
            writer.write(data)
            if context is None:
                writer.write_eof()
            await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def serves(listener: Listener, cluster: TestCluster) -> None:
    async with await dial(listener.address, cluster.identity("worker9"), purpose=Purpose.CONTROL) as connection:
        stream = await connection.open("echo", Heartbeat())
        assert await stream.receive() == Heartbeat()
    await until(lambda: not listener.connections and not listener.strangers)


def client_hello(cluster: TestCluster) -> bytes:
    """The first bytes of a real handshake, to be damaged."""
    outgoing = ssl.MemoryBIO()
    session = joining_context(cluster.root.cert_pem).wrap_bio(ssl.MemoryBIO(), outgoing, server_side=False)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


async def test_bytes_before_tls(cluster: TestCluster) -> None:
    source = random.Random(1)
    good = client_hello(cluster)
    async with listening(cluster) as listener:
        for turn in range(60):
            data = bytearray(good) if turn % 2 else bytearray(b"\x16" + source.randbytes(source.randrange(500)))
            for _ in range(source.randrange(4)):
                data[source.randrange(len(data))] = source.randrange(256)
            await send(listener, bytes(data[: source.randrange(len(data) + 1)]), None)
        await serves(listener, cluster)


async def test_bytes_inside_tls(cluster: TestCluster) -> None:
    """From a node with a certificate, and from anybody without."""
    source = random.Random(2)
    contexts = [client_context(cluster.identity("worker1")), joining_context(cluster.root.cert_pem)]
    async with listening(cluster, join=cluster, limits=Limits(handshake=0.2, joining=0.2)) as listener:
        for turn in range(40):
            kind = source.choice([*FrameType, 0, 255])
            body = source.randbytes(source.randrange(100))
            data = HEADER.pack(source.choice([len(body), len(body) + 1, MAX_BODY + 1]), source.randrange(3), kind)
            await send(listener, data + body, contexts[turn % 2])
        await serves(listener, cluster)


async def test_frames_after_the_hello(cluster: TestCluster) -> None:
    """Well-formed frames in any order, with any bodies: each ends in an answer, never in silence or a stack trace."""
    source = random.Random(3)
    identity = cluster.identity("worker1")
    bodies = [b"", encode_text("echo"), encode_text("nonsense"), b"\x01", b"\xcd\xff\xff", b"x" * MAX_BODY]
    async with listening(cluster, {"echo": echo}) as listener:
        for turn in range(60):
            purpose = Purpose.JOIN if turn % 3 == 0 else Purpose.CONTROL
            hello = encode_hello(Hello(SPOKEN.newest, "worker1", now_ns(), purpose))
            data = encode_frame(0, FrameType.HELLO, hello)
            for _ in range(source.randrange(30)):
                body = source.choice([*bodies, source.randbytes(20)])
                data += encode_frame(source.randrange(6), source.choice(list(FrameType)), body)
            data += HEADER.pack(0, 0, 200)
            await send(listener, data, client_context(identity))
        await serves(listener, cluster)


async def test_a_listener_that_is_mad(cluster: TestCluster) -> None:
    """The client is told in an RpcError whatever a real TLS listener with a good certificate answers."""
    source = random.Random(4)
    identity = cluster.identity("worker1")
    answer = b""

    async def mad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await reader.read(100)
            writer.write(answer)
            writer.close()
            await writer.wait_closed()

    async with await asyncio.start_server(mad, "127.0.0.1", 0, ssl=server_context(cluster.identity("m1"))) as server:
        host, port = server.sockets[0].getsockname()
        for _ in range(40):
            body = source.randbytes(source.randrange(50))
            answer = HEADER.pack(len(body), source.randrange(2), source.choice([*FrameType, 77])) + body
            with pytest.raises(RpcError):
                await dial(f"{host}:{port}", identity, purpose=Purpose.CONTROL)


async def test_many_strangers_at_once_and_a_storm_of_nodes(cluster: TestCluster) -> None:
    """Sixty nodes come while strangers sit in every place: all of them get in."""
    # Long enough that a node's handshake on a busy machine is no stranger's silence.
    limits = Limits(strangers=8, patience=0.5)
    identity = cluster.identity("worker1")
    async with listening(cluster, limits=limits) as listener:
        silent = [await asyncio.open_connection(*split_address(listener.address)) for _ in range(8)]

        async def come() -> None:
            async with await dial(listener.address, identity, purpose=Purpose.CONTROL, timeout=30) as connection:
                stream = await connection.open("echo", Heartbeat())
                assert await stream.receive() == Heartbeat()

        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(come())
        for _, writer in silent:
            writer.close()
