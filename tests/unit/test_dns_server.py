"""The server on sockets: both protocols, resolvers that answer, fail or say nothing, clients that misbehave."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import dns.asyncquery
import dns.flags
import dns.message
import pytest
from dns_network import addresses, code, network, picture, task
from dns_resolver import fails, knows, nobody, resolver, silent

from agent.network.dns import forward as forward_module
from agent.network.dns import server as server_module
from agent.network.dns.forward import Forwarder
from agent.network.dns.names import Names
from agent.network.dns.resolvers import HostResolvers, Resolver, parse_resolv_conf
from agent.network.dns.server import NameServer
from agent.rpc.messages import OverlayService

LOCAL = "127.0.0.1"
PLAIN = OverlayService("plain-id", "plain")


def local(vip: str = "10.0.1.2") -> Names:
    """Names that loopback sees."""
    tasks = [task(f"10.1.{i // 250}.{i % 250}", f"plain.{i}.x", service="plain-id") for i in range(300)]
    return picture(network("front", "127.0.0.0/8", [OverlayService("w", "web", vip=vip), PLAIN], tasks))


def server(*resolvers: Resolver, idle: float = 30.0, patience: float = 10.0) -> NameServer:
    return NameServer(LOCAL, 0, local(), lambda: resolvers, idle=idle, patience=patience)


async def udp(running: NameServer, name: str, **more: int) -> dns.message.Message:
    query = dns.message.make_query(name, "A", **more)
    return await dns.asyncquery.udp(query, LOCAL, port=running.port, timeout=20)


async def tcp(running: NameServer, name: str) -> dns.message.Message:
    return await dns.asyncquery.tcp(dns.message.make_query(name, "A"), LOCAL, port=running.port, timeout=20)


async def test_both_protocols_answer_on_one_port() -> None:
    async with server() as running:
        assert addresses(await udp(running, "web")) == ["10.0.1.2"]
        assert addresses(await tcp(running, "Web.front")) == ["10.0.1.2"]


async def test_names_are_replaced_while_it_runs() -> None:
    async with server() as running:
        running.names = local(vip="10.0.1.77")
        assert addresses(await udp(running, "web")) == ["10.0.1.77"]
        running.names = Names()
        assert code(await udp(running, "web")) == "REFUSED"


async def test_a_client_falls_back_to_tcp_when_the_answer_is_truncated() -> None:
    async with server() as running:
        query = dns.message.make_query("plain", "A")
        said, by_tcp = await dns.asyncquery.udp_with_fallback(query, LOCAL, port=running.port, timeout=20)
        assert by_tcp
        assert len(addresses(said)) == 300


async def test_what_is_unknown_goes_to_the_resolver_and_its_answer_comes_back() -> None:
    async with resolver(knows("192.0.2.1")) as upstream, server(upstream.address) as running:
        assert addresses(await udp(running, "example.com", use_edns=0)) == ["192.0.2.1"]
        assert addresses(await tcp(running, "unknown")) == ["192.0.2.1"]
        await udp(running, "web")
        assert upstream.asked == [("example.com.", False), ("unknown.", True)]


async def test_a_truncated_answer_of_a_resolver_comes_whole_by_tcp() -> None:
    many = [f"192.0.2.{i}" for i in range(100)]
    async with resolver(knows(*many)) as upstream, server(upstream.address) as running:
        query = dns.message.make_query("example.com", "A")
        said, by_tcp = await dns.asyncquery.udp_with_fallback(query, LOCAL, port=running.port, timeout=20)
        assert by_tcp
        assert sorted(addresses(said)) == sorted(many)
        assert upstream.asked == [("example.com.", False), ("example.com.", True)]


async def test_that_a_name_does_not_exist_is_an_answer() -> None:
    async with (
        resolver(fails("NXDOMAIN")) as first,
        resolver(knows("192.0.2.1")) as second,
        server(first.address, second.address) as running,
    ):
        assert code(await udp(running, "example.com")) == "NXDOMAIN"
        assert second.asked == []


@pytest.mark.parametrize("bad", ["SERVFAIL", "REFUSED"])
async def test_a_resolver_that_fails_is_followed_by_the_next(bad: str) -> None:
    async with resolver(fails(bad)) as first, resolver(knows("192.0.2.1")) as second:
        async with server(first.address, nobody(), second.address) as running:
            assert addresses(await udp(running, "example.com")) == ["192.0.2.1"]
            assert addresses(await tcp(running, "example.com")) == ["192.0.2.1"]
        async with server(nobody(), first.address) as running:
            assert code(await udp(running, "example.com")) == bad


async def test_a_resolver_that_says_nothing_is_followed_by_the_next() -> None:
    async with (
        resolver(silent) as first,
        resolver(knows("192.0.2.1")) as second,
        server(first.address, second.address, patience=0.2) as running,
    ):
        assert addresses(await udp(running, "example.com")) == ["192.0.2.1"]
        assert addresses(await tcp(running, "example.com")) == ["192.0.2.1"]
        assert first.asked == [("example.com.", False), ("example.com.", True)]


async def test_without_any_answer_the_client_is_told_in_time() -> None:
    async with resolver(silent) as upstream, server(upstream.address, patience=0.1) as running:
        assert code(await udp(running, "example.com")) == "SERVFAIL"
        assert code(await tcp(running, "unknown")) == "SERVFAIL"
    async with server(nobody()) as running:
        assert code(await udp(running, "example.com")) == "SERVFAIL"
    async with server() as running:
        assert code(await udp(running, "example.com")) == "SERVFAIL"
        assert code(await udp(running, "unknown")) == "NXDOMAIN"


async def test_own_names_are_answered_while_a_resolver_says_nothing() -> None:
    async with resolver(silent) as upstream, server(upstream.address) as running:
        waiting = asyncio.ensure_future(udp(running, "example.com"))
        await upstream.heard.wait()
        assert addresses(await udp(running, "web")) == ["10.0.1.2"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_forged_and_late_answers_are_passed_over() -> None:
    def forge(query: dns.message.Message, stream: bool) -> list[bytes]:
        (good,) = knows("192.0.2.1")(query, stream)
        (bad,) = knows("203.0.113.66")(query, stream)
        (other,) = knows("203.0.113.66")(dns.message.make_query("another.com", "A", id=query.id), stream)
        return [bytes([bad[0] ^ 1]) + bad[1:], other, b"", b"x", query.to_wire(), bad[:3] + b"\x80" + bytes(8), good]

    async with resolver(forge) as upstream, server(upstream.address) as running:
        assert addresses(await udp(running, "example.com")) == ["192.0.2.1"]
        assert addresses(await tcp(running, "example.com")) == ["192.0.2.1"]


async def test_a_resolver_that_is_ourselves_is_not_asked() -> None:
    forwarder = Forwarder(lambda: [Resolver(LOCAL)], patience=30)
    said = await forwarder.ask(dns.message.make_query("x.com", "A").to_wire(), "10.0.1.5", but=Resolver(LOCAL))
    assert code(dns.message.from_wire(said)) == "SERVFAIL"


async def test_one_source_cannot_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_module, "AT_ONCE_EACH", 5)
    async with resolver(silent) as upstream:
        forwarder = Forwarder(lambda: [upstream.address], patience=60)
        query = dns.message.make_query("x.com", "A").to_wire()
        held = [asyncio.ensure_future(forwarder.ask(query, "10.0.1.5")) for _ in range(5)]
        await upstream.heard.wait()
        refused = await forwarder.ask(query, "10.0.1.5")
        assert code(dns.message.from_wire(refused)) == "SERVFAIL"
        upstream.behave = knows("192.0.2.1")
        other = await forwarder.ask(query, "10.0.1.6")
        assert addresses(dns.message.from_wire(other)) == ["192.0.2.1"]
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        again = await forwarder.ask(query, "10.0.1.5")
        assert addresses(dns.message.from_wire(again)) == ["192.0.2.1"]


async def test_a_silent_tcp_client_is_let_go() -> None:
    async with server(idle=0.05) as running:
        reader, writer = await asyncio.open_connection(LOCAL, running.port)
        assert await end_of(reader) == b""
        writer.close()
        reader, writer = await asyncio.open_connection(LOCAL, running.port)
        writer.write(b"\x00")
        assert await end_of(reader) == b""
        writer.close()


async def test_a_tcp_client_that_does_not_read_is_let_go() -> None:
    query = dns.message.make_query("plain", "A").to_wire()
    async with server(idle=0.2) as running:
        _, writer = await asyncio.open_connection(LOCAL, running.port, limit=1)
        # More answers than all buffers between the two hold; whether the reset meets the write or the drain is open.
        with pytest.raises(ConnectionError):
            while True:
                writer.write((len(query).to_bytes(2, "big") + query) * 200)
                await writer.drain()
        writer.transport.abort()
        assert addresses(await udp(running, "web")) == ["10.0.1.2"]


async def test_several_queries_on_one_connection_and_the_end_of_writing_are_answered() -> None:
    async with server() as running:
        reader, writer = await asyncio.open_connection(LOCAL, running.port)
        queries = [dns.message.make_query(name, "A") for name in ("web", "plain", "web.front")]
        writer.write(b"".join(len(wire := query.to_wire()).to_bytes(2, "big") + wire for query in queries))
        writer.write_eof()
        for query in queries:
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert query.is_response(dns.message.from_wire(wire))
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("sent", [b"\x00\x00", b"\x00\x05hello", b"\x00\x0c" + b"\xff" * 12])
async def test_what_is_no_query_ends_the_connection(sent: bytes) -> None:
    async with server() as running:
        reader, writer = await asyncio.open_connection(LOCAL, running.port)
        writer.write(sent)
        assert await end_of(reader) == b""
        writer.close()


async def test_one_source_has_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS_EACH", 2)
    async with server() as running:
        held = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(LOCAL, running.port)
            query = dns.message.make_query("web", "A").to_wire()
            writer.write(len(query).to_bytes(2, "big") + query)
            await reader.readexactly(2)
            held.append(writer)
        reader, writer = await asyncio.open_connection(LOCAL, running.port)
        assert await end_of(reader) == b""
        for one in [*held, writer]:
            one.close()


async def test_closing_gives_up_what_is_under_way() -> None:
    async with resolver(silent) as upstream:
        running = await server(upstream.address).__aenter__()
        reader, writer = await asyncio.open_connection(LOCAL, running.port)
        waiting = asyncio.ensure_future(udp(running, "example.com"))
        await upstream.heard.wait()
        await running.close()
        await running.close()
        assert await end_of(reader) == b""
        writer.close()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((LOCAL, running.port))


async def test_an_address_that_is_not_there_yet_can_be_served_and_a_taken_port_cannot() -> None:
    async with NameServer("192.0.2.53", 0, Names(), list) as running:
        assert running.port
    async with server() as running:
        with pytest.raises(OSError) as caught:
            await NameServer(LOCAL, running.port, Names(), list).__aenter__()
        assert caught.value.errno == errno.EADDRINUSE


async def test_five_thousand_queries_get_five_thousand_answers() -> None:
    """Forty under way at a time, so that the test's own socket never has more answers waiting than it holds."""
    query = dns.message.make_query("web", "A").to_wire()
    done = asyncio.Event()
    sent = iter(range(5000))
    answered = set()

    class Client(asyncio.DatagramProtocol):
        transport: asyncio.DatagramTransport

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport  # type: ignore[assignment]
            for _ in range(40):
                self.send()

        def send(self) -> None:
            number = next(sent, None)
            if number is not None:
                self.transport.sendto(number.to_bytes(2, "big") + query[2:])

        def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
            assert data[3] & 0xF == 0
            answered.add(data[:2])
            self.send()
            if len(answered) == 5000:
                done.set()

    async with server() as running:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Client, remote_addr=(LOCAL, running.port)
        )
        await done.wait()
        transport.close()


def test_resolv_conf_names_the_resolvers(tmp_path: Path) -> None:
    text = "# nameserver 1.1.1.1\nnameserver 192.0.2.1 # one\n;x\nsearch a b\nnameserver\nnameserver nonsense\n" + (
        "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver 192.0.2.4\n"
    )
    assert parse_resolv_conf(text) == (Resolver("192.0.2.1"), Resolver("fe80::1%eth0"), Resolver("127.0.0.53"))
    path = tmp_path / "resolv.conf"
    host = HostResolvers(path)
    assert host() == ()
    path.write_text("nameserver 192.0.2.1\n")
    assert host() == (Resolver("192.0.2.1"),)
    replaced = tmp_path / "new"
    replaced.write_text("nameserver 192.0.2.2\n")
    replaced.rename(path)
    assert host() == (Resolver("192.0.2.2"),)
    path.unlink()
    assert host() == (Resolver("192.0.2.2"),)
    path.write_text("nameserver 192.0.2.3\n")
    assert host() == (Resolver("192.0.2.3"),)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the connection ends, by a reset too."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
