"""The client against an engine that behaves and against servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from client_fake_engine import FakeEngine, frame, make_service, make_task, problem, running

from swarmtui.docker_api.address import EngineAddress, TLSFiles, parse_address, socket_address
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import (
    ApiError,
    BadAddress,
    Conflict,
    ConnectionFailed,
    EngineError,
    Gone,
    InvalidRequest,
    MalformedAnswer,
    NotAManager,
    NotFound,
    OutOfSequence,
    TimedOut,
    Unavailable,
)
from swarmtui.docker_api.log_query import LogQuery

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(serve: Serve) -> AsyncIterator[EngineAddress]:
    """A server that does what `serve` says with each connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = await asyncio.start_unix_server(handle, str(Path(folder) / "s"))
        async with server:
            yield socket_address(str(Path(folder) / "s"))


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes, head: bytes = b"") -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n" + head + b"\r\n" + body)
    await writer.drain()


def client(address: EngineAddress, timeout: float = 5.0) -> EngineClient:
    return EngineClient(address, timeout=timeout)


async def test_it_speaks_the_version_that_both_know() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        assert await api.ping() > 0
        await api.nodes()
        seen: list[str] = []

        async def version(request: web.Request) -> web.Response:
            seen.append(request.path)
            return web.json_response([])

        engine.overrides[("GET", "/services")] = version
        await api.services()
        assert seen == ["/v1.41/services"]


@pytest.mark.parametrize(
    ("advertised", "prefix"), [("1.24", "/v1.24"), ("1.41", "/v1.41"), ("1.99", "/v1.50"), ("", "")]
)
async def test_negotiation(advertised: str, prefix: str) -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        seen: list[str] = []

        async def ping(request: web.Request) -> web.Response:
            return web.Response(text="OK", headers={"Api-Version": advertised} if advertised else {})

        async def nodes(request: web.Request) -> web.Response:
            seen.append(request.path)
            return web.json_response(None)

        engine.overrides[("GET", "/_ping")] = ping
        engine.overrides[("GET", "/nodes")] = nodes
        assert await api.nodes() == []
        assert seen == [f"{prefix}/nodes"]


@pytest.mark.parametrize("advertised", ["1.12", "banana", "1.x"])
async def test_an_engine_that_is_too_old_or_none_is_refused(advertised: str) -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:

        async def ping(request: web.Request) -> web.Response:
            return web.Response(text="OK", headers={"Api-Version": advertised})

        engine.overrides[("GET", "/_ping")] = ping
        with pytest.raises(MalformedAnswer, match=advertised):
            await api.nodes()


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component", InvalidRequest),
        (404, "service nosuch not found", NotFound),
        (409, "already exists", Conflict),
        (410, "gone", Gone),
        (500, "rpc error: code = Unknown desc = update out of sequence", OutOfSequence),
        (500, "invalid join token", ApiError),
        (503, "This node is not a swarm manager. Use ...", NotAManager),
        (503, "rpc error: code = Unavailable desc = no leader", Unavailable),
    ],
)
async def test_refusals_carry_the_engines_own_text(status: int, message: str, kind: type[ApiError]) -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:

        async def refuse(request: web.Request) -> web.Response:
            return problem(status, message)

        engine.overrides[("GET", "/services/x")] = refuse
        with pytest.raises(kind) as caught:
            await api.service("x")
        assert type(caught.value) is kind
        assert (str(caught.value), caught.value.status) == (message, status)


async def test_an_error_that_is_not_in_dockers_shape_is_still_told() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:

        async def refuse(request: web.Request) -> web.Response:
            return web.Response(status=502, text="<html>bad gateway</html>")

        async def silent(request: web.Request) -> web.Response:
            return web.Response(status=500)

        engine.overrides[("GET", "/services/x")] = refuse
        engine.overrides[("GET", "/services/y")] = silent
        with pytest.raises(ApiError, match="bad gateway"):
            await api.service("x")
        with pytest.raises(ApiError, match="HTTP status 500"):
            await api.service("y")


@pytest.mark.parametrize("name", ["a/b", "a?b=c", "a#b", "a b", "ä", "a%2Fb"])
async def test_a_name_stays_one_part_of_the_path(name: str) -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        with pytest.raises(NotFound):
            await api.service(name)
        method, path, _ = engine.requests[-1]
        assert method == "GET"
        assert path.startswith("/services/")
        with pytest.raises(NotFound):
            await api.remove_service(name)
        assert "services" in engine.requests[-1][1]


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb"])
async def test_what_cannot_be_a_name_is_not_sent(name: str) -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        await api.ping()
        before = len(engine.requests)
        with pytest.raises(InvalidRequest):
            await api.remove_service(name)
        assert len(engine.requests) == before


async def test_null_fields_and_unknown_ones_are_taken() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        service = make_service("s1", "web")
        service["Spec"]["Labels"] = None
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] = None
        service["FromTheFuture"] = {"x": [1, None]}
        engine.put("services", service)
        assert (await api.service("web")).spec.labels is None
        assert (await api.raw_service("web"))["FromTheFuture"] == {"x": [1, None]}


async def test_a_wrong_type_is_a_malformed_answer() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        service = make_service("s1", "web")
        service["Spec"]["Name"] = ["no", "name"]
        engine.put("services", service)
        with pytest.raises(MalformedAnswer, match=r"Spec\.Name"):
            await api.service("s1")
        with pytest.raises(MalformedAnswer):
            await api.services()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1,2]", b'"text"', b"null"])
async def test_garbage_instead_of_json(body: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, body, b"Connection: close\r\nContent-Length: %d\r\n" % len(body))

    async with raw_server(serve) as address, client(address) as api:
        with pytest.raises(MalformedAnswer):
            await api.raw_service("x")


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/9.9 what\r\n\r\n", b"\0" * 64])
async def test_a_server_that_speaks_something_else(garbage: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(garbage)
        await writer.drain()

    async with raw_server(serve) as address, client(address) as api:
        with pytest.raises((MalformedAnswer, ConnectionFailed)):
            await api.nodes()


async def test_a_body_that_is_cut_is_no_shorter_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, b"[]", b"Content-Length: 100\r\n")

    async with raw_server(serve) as address, client(address) as api:
        with pytest.raises(ConnectionFailed):
            await api.nodes()


async def test_a_server_that_never_answers_runs_into_the_time_out() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(serve) as address, client(address, timeout=0.05) as api:
        with pytest.raises(TimedOut, match=r"0\.05 s"):
            await api.nodes()
        with pytest.raises(TimedOut):
            async for _ in api.events():
                pass


async def test_a_server_that_drips_runs_into_the_time_out() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, b"[", b"Content-Length: 100\r\n")
        await reader.read()

    async with raw_server(serve) as address, client(address, timeout=0.05) as api:
        with pytest.raises(TimedOut):
            await api.nodes()


@pytest.mark.parametrize("text", ["unix:///tmp/there-is-no-such-socket", "tcp://127.0.0.1:{port}"])
async def test_nobody_there(text: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with client(parse_address(text.format(port=taken.getsockname()[1]))) as api:
            with pytest.raises(ConnectionFailed, match="is the agent"):
                await api.nodes()


async def test_a_cancelled_request_leaves_the_client_usable() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        asked = asyncio.Event()

        async def hang(request: web.Request) -> web.Response:
            asked.set()
            await asyncio.Event().wait()
            return web.Response()

        engine.overrides[("GET", "/services")] = hang
        task = asyncio.create_task(api.services())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(await api.nodes()) == 2


async def test_a_watch_that_is_cut_in_the_middle_of_a_line() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b'{"kind":"synced","index":7}\n{"kind":"upd'
        await answer(reader, writer, b"%x\r\n%s\r\n" % (len(line), line), b"Transfer-Encoding: chunked\r\n")

    async with raw_server(serve) as address, client(address) as api:
        seen = []
        with pytest.raises(ConnectionFailed):
            async for lines in api.watch():
                seen += [(line.kind, line.index) for line in lines]
        assert seen == [("synced", 7)]


@pytest.mark.parametrize(
    "line", [b"not json", b"[]", b'{"table":"nodes"}', b'{"kind":"create","table":"nodes","object":[1]}']
)
async def test_a_watch_that_sends_garbage(line: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, line + b"\n", b"Connection: close\r\n")

    async with raw_server(serve) as address, client(address) as api:
        with pytest.raises(MalformedAnswer):
            async for _ in api.watch():
                pass


async def test_a_watch_leaves_out_what_it_does_not_know() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (
            b'{"kind":"create","table":"cluster","index":1,"object":{"ID":"c"}}\n'
            b'{"kind":"heartbeat","index":2}\n\n'
            b'{"kind":"create","table":"Node","index":3,"object":{"ID":"n"}}\n'
        )
        await answer(reader, writer, lines, b"Connection: close\r\n")

    async with raw_server(serve) as address, client(address) as api:
        seen = []
        with pytest.raises(ConnectionFailed, match="ended the watch"):
            async for lines in api.watch():
                seen += [(line.table, line.index) for line in lines]
        assert seen == [("nodes", 3)]


async def test_a_line_without_an_end_does_not_fill_the_memory() -> None:

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, b"x" * (17 * 1024 * 1024), b"Connection: close\r\n")

    async with raw_server(serve) as address, client(address) as api:
        with pytest.raises(MalformedAnswer, match="line of more than"):
            async for _ in api.watch():
                pass


async def test_events_arrive_as_they_happen() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        events = api.events()
        first = asyncio.ensure_future(anext(events))
        await engine.watch_opened.wait()
        engine.put("services", make_service("s1", "web"))
        event = await first
        assert (event.type, event.action, event.actor.id) == ("service", "create", "s1")
        engine.cut_streams()
        with pytest.raises(EngineError):
            await anext(events)


async def test_an_abandoned_stream_is_closed() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        watch = api.watch()
        await anext(watch)
        assert len(engine.watchers) == 1
        await watch.aclose()  # type: ignore[attr-defined]
        engine.put("services", make_service("s1", "web"))
        async with asyncio.timeout(5):
            while engine.watchers:
                engine.put("services", make_service("s1", "web"))
                await asyncio.sleep(0)


async def test_logs_ask_for_what_is_wanted() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        engine.put("services", make_service("s1", "web"))
        engine.log_chunks["web"] = [frame(1, b"hello\n")]
        query = LogQuery(follow=True, since=1_795_253_140_000_000_005, tail=10)
        async with api.service_logs("web", query) as stream:
            assert await stream.read() == frame(1, b"hello\n")
            assert await stream.read() == b""
        _, path, _ = engine.requests[-1]
        assert path == (
            "/services/web/logs?follow=1&stdout=1&stderr=1&timestamps=1&details=1&since=1795253140.000000005&tail=10"
        )


async def test_extensions_are_found_out() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        assert await api.extended()
        assert (await api.explain_task("t1"))["summary"] == "no suitable node"
    async with running(FakeEngine(agent=False)) as engine, client(engine.address) as api:
        assert not await api.extended()
        with pytest.raises(NotFound):
            await api.explain_task("t1")


async def test_a_large_list_does_not_hold_the_loop() -> None:
    async with running(FakeEngine()) as engine, client(engine.address) as api:
        for number in range(3000):
            engine.tables["tasks"][f"t{number}"] = make_task(f"t{number}", "s1", number)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def serve(request: web.Request) -> web.Response:
            return ready

        ready = web.json_response(list(engine.tables["tasks"].values()))
        engine.overrides[("GET", "/tasks")] = serve
        counter = asyncio.create_task(count())
        assert len(await api.tasks()) == 3000
        counter.cancel()
        assert turns > 6


async def test_tls_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadAddress, match=r"ca\.pem"):
        async with client(EngineAddress(host="127.0.0.1", port=1, tls=TLSFiles(ca=tmp_path / "ca.pem"))):
            pass
