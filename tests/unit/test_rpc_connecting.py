"""TCP connections over a network that loses packets, and to hosts that refuse."""

from __future__ import annotations

import asyncio
import socket

import pytest
from rpc_cluster import TestCluster, connected

from agent.rpc import connecting
from agent.rpc.connecting import connect_tcp


async def test_a_listener_is_reached_from_the_address_that_was_asked_for() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        await connect_tcp("127.0.0.1", server.getsockname()[1], "127.0.0.2") as connected,
    ):
        assert connected.getsockname()[0] == "127.0.0.2"
        assert not connected.getblocking()


async def test_a_port_that_refuses_is_no_reason_to_wait() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect_tcp("127.0.0.1", taken.getsockname()[1], None)


async def test_a_later_socket_finds_a_way_that_the_first_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is full loses first packets just as a cut link does; once there is room, a new socket is through first."""
    monkeypatch.setattr(connecting, "BEGIN_AGAIN", 0.02)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        with socket.create_connection(address):
            waiting = asyncio.ensure_future(connect_tcp(address[0], address[1], None))
            # Until the kernel has dropped the first packet of several sockets.
            done, _ = await asyncio.wait({waiting}, timeout=0.3)
            assert not done
            server.accept()[0].close()
            room = loop.time()
            (await waiting).close()
            # The first socket's next packet comes a second after its first.
            assert loop.time() - room < 0.5


async def test_one_that_is_cancelled_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "BEGIN_AGAIN", 0.01)
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *arguments: int) -> None:
            super().__init__(*arguments)
            made.append(self)

    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        with socket.create_connection(address):
            monkeypatch.setattr(connecting.socket, "socket", Noted)
            waiting = asyncio.ensure_future(connect_tcp(address[0], address[1], None))
            await asyncio.wait({waiting}, timeout=0.3)
            waiting.cancel()
            await asyncio.wait({waiting})
            await asyncio.sleep(0)
            assert len(made) > connecting.MOST_SOCKETS
            assert all(one.fileno() == -1 for one in made)


async def test_small_messages_do_not_wait_for_acknowledgements() -> None:
    async with connected(TestCluster()) as ends:
        for end in ends:
            transport = end._channel._transport
            assert transport is not None
            option = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert option == 1
