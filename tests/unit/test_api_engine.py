"""The pass-through, byte for byte, in front of an engine that says what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from api_scripted import Client, ScriptedBackend, init_body, served

from agent.api import engine as engine_module

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\n\r\nOK"


class ScriptedEngine:
    """Hears one request a connection, keeps its head and answers by script; a ping is answered by itself."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answer: Answer = lambda _, writer: _send(writer, OK)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET /_ping "):
                await _send(writer, OK)
                return
            self.heads.append(head)
            await self.answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def says(self, data: bytes) -> None:
        """Answer with these bytes, and close."""
        self.answer = lambda _, writer: _send(writer, data)

    @property
    def headers(self) -> dict[str, str]:
        """Of the last request, names in small letters."""
        fields = self.heads[-1].strip().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@asynccontextmanager
async def with_engine(folder: Path) -> AsyncIterator[tuple[Client, ScriptedEngine]]:
    engine = ScriptedEngine()
    server = await asyncio.start_unix_server(engine.serve, folder / "engine")
    async with server, served(ScriptedBackend(engine_socket=str(folder / "engine")), folder) as client:
        yield client, engine


async def raw(folder: Path, *parts: bytes, end: bool = False) -> bytes:
    """What comes back for bytes on a connection of their own."""
    reader, writer = await asyncio.open_unix_connection(str(folder / "api.sock"))
    try:
        for part in parts:
            await _send(writer, part)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_target_goes_as_it_came(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (client, engine):
        target = "/v1.30/images/a%2Fb:c/push?x=%7B%22a%22%3A1%7D&y=a+b%20c&tag="
        head = f"POST {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        assert b"200 OK" in await raw(tmp_path, head.encode())
        assert engine.heads[-1].startswith(f"POST {target} HTTP/1.1\r\n")
        assert client is not None


async def test_headers_between_neighbours_stay_there_and_none_is_added(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):
        request = (
            b"GET /v1.41/containers/x/archive?path=/ HTTP/1.1\r\nHost: api.moby.localhost\r\nUser-Agent: Docker-Client/28\r\n"
            b"X-Registry-Auth: e30=\r\nConnection: close, X-Only-Here\r\nX-Only-Here: 1\r\nTE: trailers\r\n\r\n"
        )
        await raw(tmp_path, request)
        assert engine.headers == {
            "host": "api.moby.localhost",
            "user-agent": "Docker-Client/28",
            "x-registry-auth": "e30=",
            "connection": engine.headers["connection"],
        }


async def test_no_header_is_added_to_the_answer(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):
        engine.says(
            b"HTTP/1.1 200 OK\r\nX-Docker-Container-Path-Stat: e30=\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        )
        head, _, body = (await raw(tmp_path, b"GET /containers/x/export HTTP/1.0\r\nHost: d\r\n\r\n")).partition(
            b"\r\n\r\n"
        )
        names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
        assert names <= {b"x-docker-container-path-stat", b"content-length", b"connection"}
        assert body == b"abc"


async def test_compressed_bytes_stay_compressed(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):
        engine.says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
        answer = await raw(tmp_path, b"GET /x HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n\x1f\x8b\x08\x00")
        assert b"Content-Encoding: gzip" in answer


async def test_pieces_are_passed_on_as_they_come_both_ways(tmp_path: Path) -> None:
    """The engine answers to each piece of the body before the next one is sent."""
    async with with_engine(tmp_path) as (_, engine):

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _send(writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while (size := int((await reader.readline()).strip(), 16)) > 0:
                data = (await reader.readexactly(size + 2))[:-2]
                await _send(writer, b"%x\r\n%s\r\n" % (len(data), data.upper()))
            await _send(writer, b"0\r\n\r\n")

        engine.answer = echo
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        await _send(
            writer,
            b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\none\r\n",
        )
        async with asyncio.timeout(10):
            assert b"\r\nONE\r\n" in await reader.readuntil(b"ONE\r\n")
            await _send(writer, b"3\r\ntwo\r\n")
            assert b"TWO" in await reader.readuntil(b"TWO\r\n")
            await _send(writer, b"0\r\n\r\n")
            assert (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()


async def test_who_waits_for_leave_to_send_gets_it(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readexactly(4) == b"data"
            await _send(writer, OK)

        engine.answer = take
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        head = b"PUT /containers/x/archive HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        await _send(writer, head)
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await _send(writer, b"data")
            assert (await reader.readuntil(b"OK")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        await writer.wait_closed()
        assert "expect" not in engine.headers


async def test_an_answer_that_breaks_off_breaks_off_here(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):
        engine.says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        with pytest.raises(ConnectionError):
            await raw(tmp_path, b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
            raise ConnectionResetError  # an end of the stream is the same to the client: 91 bytes are missing
        engine.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        answer = b""
        with suppress(ConnectionError):
            answer = await raw(tmp_path, b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
        assert not answer.endswith(b"0\r\n\r\n")


async def test_an_engine_that_says_nothing_sensible(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (client, engine):
        for nonsense in (b"", b"220 smtp.example.com ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"):
            engine.says(nonsense)
            status, answer = await client.call("GET", "/containers/x/changes")
            assert (status, answer["message"].startswith("Cannot connect to the Docker Engine of this host")) == (
                503,
                True,
            )


async def test_a_hijacked_connection_is_raw_both_ways_and_ends_one_side_at_a_time(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):

        async def attach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readexactly(2) == b"{}"
            await _send(writer, b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            typed = await reader.read()  # until the client's side is closed
            await _send(writer, b"\x00\xff got " + typed)

        engine.answer = attach
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        await _send(
            writer,
            b"POST /v1.41/exec/abc/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n{}",
        )
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 UPGRADED")
            await _send(writer, b"GET / HTTP/1.1\r\n\r\n")  # looks like HTTP, and is not
            writer.write_eof()
            assert await reader.read() == b"\x00\xff got GET / HTTP/1.1\r\n\r\n"
        writer.close()
        await writer.wait_closed()
        assert (engine.headers["upgrade"], engine.headers["connection"]) == ("tcp", "Upgrade, close")


async def test_attach_without_an_upgrade_is_taken_over_too(tmp_path: Path) -> None:
    """Old clients do not ask: they just go on in raw bytes after the head."""
    async with with_engine(tmp_path) as (_, engine):

        async def attach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
            await _send(writer, b"echo " + await reader.readexactly(5))

        engine.answer = attach
        head = b"POST /containers/abc/attach?stream=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        await _send(writer, head)
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
            await _send(writer, b"hello")
            assert await reader.read() == b"echo hello"
        writer.close()
        await writer.wait_closed()


async def test_a_lost_client_of_a_hijacked_connection_is_told_to_the_engine(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (_, engine):
        ended = asyncio.Event()

        async def attach(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _send(writer, b"HTTP/1.1 101 UPGRADED\r\n\r\n")
            try:
                await reader.read()
            finally:
                ended.set()

        engine.answer = attach
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        await _send(
            writer, b"POST /containers/abc/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        async with asyncio.timeout(10):
            await ended.wait()


async def test_networks_of_both_and_bridges_of_overlays_hidden(tmp_path: Path) -> None:
    listed = [
        {"Name": "bridge", "Id": "b" * 64, "Labels": {}},
        {"Name": "ov", "Id": "c" * 64, "Labels": {"swarmtui.network": "x" * 25}},
        {"Name": "none", "Id": "d" * 64, "Labels": None},
    ]
    async with with_engine(tmp_path) as (client, engine):
        body = json.dumps(listed).encode()
        engine.says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await client.call("POST", "/swarm/init", init_body())
        status, networks = await client.call("GET", "/v1.41/networks")
        assert (status, [network["Name"] for network in networks]) == (200, ["bridge", "none"])
        engine.says(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n{"message":"bad"}')
        assert await client.call("GET", "/networks") == (400, {"message": "bad"})
        assert (await client.call("GET", "/networks/nosuch?scope=swarm"))[0] == 404


async def test_versions_are_the_engines(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (client, _), client.session.get("http://d/swarm") as answer:
        assert (answer.status, answer.headers["Api-Version"]) == (503, "1.44")


async def test_events_of_the_engine_are_in_the_stream(tmp_path: Path) -> None:
    async with with_engine(tmp_path) as (client, engine):
        event = b'{"Type":"container","Action":"start","scope":"local"}\n'
        engine.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))
        async with client.session.get("http://d/v1.41/events?filters=%7B%7D") as stream:
            assert json.loads(await stream.content.readline())["Action"] == "start"
            await client.call("POST", "/swarm/init", init_body())
            await client.call("POST", "/secrets/create", {"Name": "s", "Data": "eA=="})
            assert json.loads(await stream.content.readline())["Type"] == "node"
            assert json.loads(await stream.content.readline())["Type"] == "secret"
        assert engine.heads[-1].startswith("GET /v1.41/events?filters=%7B%7D HTTP/1.1")


async def test_an_engine_that_hangs_does_not_hold_the_swarm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PING_PATIENCE", 0.05)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(hang, tmp_path / "engine")
    async with server, served(ScriptedBackend(engine_socket=str(tmp_path / "engine")), tmp_path) as client:
        assert (await client.call("GET", "/_ping"))[1] == b"OK"
        assert (await client.call("POST", "/swarm/init", init_body()))[0] == 200
