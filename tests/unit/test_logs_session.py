"""Log sessions over a real socket: merged, resumed without gaps or duplicates, ended as asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from client_fake_engine import FakeEngine, frame, log_frame, make_service, make_task, problem, running
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import ApiError, ConnectionFailed, InvalidRequest, NotFound
from swarmtui.docker_api.times import format_time
from swarmtui.logs import session as session_module
from swarmtui.logs.records import LogEvent, LogLine, LogNotice, LogOptions, LogStream, NoticeKind
from swarmtui.logs.resume import SKEW, ResumePoint
from swarmtui.logs.session import BATCH, LogSession

T0 = 1_795_253_143_000_000_000
Chunks = Callable[[web.Request], AsyncIterator[bytes]]


def record(task: str, offset: int, text: str) -> bytes:
    """A line at `offset` milliseconds."""
    return log_frame(format_time(T0 + offset * 1_000_000), task, f"{text}\n".encode())


def streaming(chunks: Chunks, cut: bool = False) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A route that writes what the generator yields; `cut`: the connection breaks at the end."""

    async def serve(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in chunks(request):
            await response.write(chunk)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return serve


@contextlib.asynccontextmanager
async def engine_with_web(agent: bool = True) -> AsyncIterator[tuple[FakeEngine, EngineClient]]:
    async with running(FakeEngine(agent=agent)) as engine, EngineClient(engine.address) as client:
        engine.put("services", make_service("s1", "web"))
        yield engine, client


async def collect(
    client: EngineClient, options: LogOptions, *, services: tuple[str, ...] = ("s1",), until: int = 10**9
) -> list[LogEvent]:
    """Events until the log ends or `until` lines have come."""
    events: list[LogEvent] = []
    async with (
        asyncio.timeout(10),
        LogSession(client, services=services, options=options, random=lambda: 0.0) as session,
    ):
        async for batch in session.batches():
            assert len(batch) <= BATCH
            events += batch
            if sum(isinstance(event, LogLine) for event in events) >= until:
                break
    return events


def texts(events: list[LogEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, LogLine)]


def kinds(events: list[LogEvent]) -> list[NoticeKind]:
    return [event.kind for event in events if isinstance(event, LogNotice)]


async def test_a_real_dockers_replicas_are_merged_by_time() -> None:
    async with engine_with_web(agent=False) as (engine, client):
        engine.log_chunks["s1"] = [
            record("t1", 1, "a1") + record("t1", 4, "a4"),
            record("t2", 2, "b2") + record("t2", 3, "b3"),
            record("t1", 5, "a5"),
        ]
        events = await collect(client, LogOptions(follow=False))
        assert texts(events) == ["a1", "b2", "b3", "a4", "a5"]
        assert kinds(events) == []


async def test_our_agents_order_is_taken_as_it_is() -> None:
    async with engine_with_web() as (engine, client):
        engine.log_chunks["s1"] = [record("t1", 5, "late"), record("t2", 1, "early")]
        assert texts(await collect(client, LogOptions(follow=False))) == ["late", "early"]


async def test_several_services_are_one_log() -> None:
    async with engine_with_web() as (engine, client):
        engine.put("services", make_service("s2", "api"))
        engine.log_chunks["s1"] = [record("t1", 1, "w1"), record("t1", 3, "w3")]
        engine.log_chunks["s2"] = [record("t2", 2, "a2"), record("t2", 4, "a4")]
        events = await collect(client, LogOptions(follow=False), services=("s1", "s2"))
        assert texts(events) == ["w1", "a2", "w3", "a4"]


async def test_what_the_engine_says_at_the_end_comes_at_the_end() -> None:
    async with engine_with_web(agent=False) as (engine, client):
        engine.log_chunks["s1"] = [record("t1", 1, "a"), frame(3, b"warning: incomplete log stream: node4\n")]
        events = await collect(client, LogOptions(follow=False))
        assert [type(event) for event in events] == [LogLine, LogNotice]
        assert "node4" in events[1].text


async def test_a_lost_connection_goes_on_without_gap_or_duplicate() -> None:
    async with engine_with_web() as (engine, client):
        queries: list[dict[str, list[str]]] = []
        everything = [("t1", 1, "a"), ("t2", 1, "b"), ("t1", 1, "c"), ("t1", 2, "d"), ("t2", 3, "e"), ("t1", 4, "f")]

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            queries.append(parse_qs(request.query_string))
            shown = everything[: 2 + len(queries)] if len(queries) < 4 else everything
            for task, offset, text in shown:
                yield record(task, offset, text)

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log, cut=True)
        events = await collect(client, LogOptions(follow=True, tail=100), until=6)
        assert texts(events) == ["a", "b", "c", "d", "e", "f"]
        assert kinds(events)[:2] == [NoticeKind.RECONNECTING, NoticeKind.RECONNECTED]
        assert queries[0]["tail"] == ["100"]
        assert queries[1]["tail"] == ["all"]
        assert queries[1]["since"] == [f"{(T0 + 1_000_000 - SKEW) // 10**9}.{(T0 + 1_000_000 - SKEW) % 10**9:09d}"]


async def test_a_stream_that_ends_while_it_is_followed_is_a_lost_connection() -> None:
    async with engine_with_web() as (engine, client):
        engine.log_chunks["s1"] = [record("t1", 1, "a")]
        events: list[LogEvent] = []
        async with asyncio.timeout(10), LogSession(client, services=["s1"], random=lambda: 0.0) as session:
            async for batch in session.batches():
                events += batch
                if NoticeKind.RECONNECTED in kinds(events):
                    break
        assert texts(events) == ["a"]
        assert kinds(events)[:2] == [NoticeKind.RECONNECTING, NoticeKind.RECONNECTED]
        assert "web: the engine ended the stream" in events[1].text


async def test_a_service_that_is_removed_ends_its_log() -> None:
    async with engine_with_web() as (engine, client):

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            yield record("t1", 1, "a")
            engine.drop("services", "s1")

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log)
        events = await collect(client, LogOptions(follow=True))
        assert texts(events) == ["a"]
        assert kinds(events) == [NoticeKind.RECONNECTING, NoticeKind.ENDED]
        assert events[-1].text == "web is gone"


async def test_a_service_that_is_not_there_is_an_error() -> None:
    async with engine_with_web() as (_, client):
        with pytest.raises(NotFound, match="nosuch"):
            await collect(client, LogOptions(follow=True), services=("nosuch",))


async def test_a_refusal_is_an_error_and_not_tried_for_ever() -> None:
    async with engine_with_web() as (engine, client):

        async def refuse(request: web.Request) -> web.Response:
            return problem(400, "Bad parameters")

        engine.overrides[("GET", "/services/s1/logs")] = refuse
        with pytest.raises(InvalidRequest, match="Bad parameters"):
            await collect(client, LogOptions(follow=True))


async def test_a_log_that_is_not_followed_gives_up_on_an_engines_error() -> None:
    async with engine_with_web() as (engine, client):

        async def refuse(request: web.Request) -> web.Response:
            return problem(500, "broken")

        engine.overrides[("GET", "/services/s1/logs")] = refuse
        with pytest.raises(ApiError, match="broken"):
            await collect(client, LogOptions(follow=False))


async def test_a_history_that_breaks_off_is_completed_or_an_error() -> None:
    async with engine_with_web() as (engine, client):
        calls = 0

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            nonlocal calls
            calls += 1
            yield record("t1", 1, "a") + record("t1", 2, "b")[:20]

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log, cut=True)
        with pytest.raises(ConnectionFailed):
            await collect(client, LogOptions(follow=False))
        assert calls == session_module.HISTORY_ATTEMPTS


async def test_garbage_in_a_followed_log_is_told_and_tried_again() -> None:
    async with engine_with_web() as (engine, client):
        calls = 0

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            nonlocal calls
            calls += 1
            yield b"garbage instead of frames" if calls == 1 else record("t1", 1, "a")

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log)
        events = await collect(client, LogOptions(follow=True), until=1)
        assert texts(events) == ["a"]
        assert "where a frame of the log should begin" in events[0].text


async def test_a_terminals_log_is_read_without_frames() -> None:
    async with engine_with_web(agent=False) as (engine, client):
        service = make_service("s1", "web")
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] = True
        engine.put("services", service)
        engine.log_chunks["s1"] = [b"2026-11-21T09:25:43.7Z com.docker.swarm.task.id=t1 hello\r\n"]
        (line,) = await collect(client, LogOptions(follow=False))
        assert isinstance(line, LogLine)
        assert (line.text, line.task_id, line.stream) == ("hello", "t1", LogStream.STDOUT)


async def test_the_log_of_one_task() -> None:
    async with engine_with_web() as (engine, client):
        engine.put("tasks", make_task("t9", "s1", 1))
        engine.log_chunks["t9"] = [record("t9", 1, "x")]
        async with LogSession(client, tasks=["t9"], options=LogOptions(follow=False)) as session:
            assert [texts(batch) async for batch in session.batches()] == [["x"]]


async def test_leaving_a_followed_log_closes_it() -> None:
    async with engine_with_web() as (engine, client):
        closed = asyncio.Event()

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            try:
                number = 0
                while True:
                    number += 1
                    yield record("t1", number, str(number))
                    await asyncio.sleep(0)
            finally:
                closed.set()

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log)
        await collect(client, LogOptions(follow=True), until=3)
        async with asyncio.timeout(5):
            await closed.wait()


async def test_cancelling_a_consumer_ends_the_session() -> None:
    async with engine_with_web() as (engine, client):
        engine.log_chunks["s1"] = []
        started = asyncio.Event()

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            started.set()
            await asyncio.Event().wait()
            yield b""

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log)
        task = asyncio.create_task(collect(client, LogOptions(follow=True)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_slow_reader_makes_the_engine_wait() -> None:
    async with engine_with_web() as (engine, client):
        written = 0
        text = "x" * 1000

        async def log(request: web.Request) -> AsyncIterator[bytes]:
            nonlocal written
            while True:
                yield record("t1", 1, text) * 100
                written += 100 * 1000

        engine.overrides[("GET", "/services/s1/logs")] = streaming(log)
        async with LogSession(client, services=["s1"], options=LogOptions(follow=True)) as session:
            batches = session.batches()
            await anext(batches)
            before = -1
            async with asyncio.timeout(10):
                while written != before:
                    before = written
                    for _ in range(200):
                        await asyncio.sleep(0)
            assert written < 64 * 1024 * 1024
            await batches.aclose()  # type: ignore[attr-defined]


def lines_of(script: list[tuple[str, int]]) -> list[LogEvent]:
    return [LogLine(T0 + at, f"{number}", task_id=task) for number, (task, at) in enumerate(script)]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_resuming_shows_every_line_once(script: list[tuple[str, int]], breaks: list[int]) -> None:
    """A replica's lines are in order of time; a reconnect reads again from `since` on, whatever was shown."""
    clock: dict[str, int] = {"a": 0, "b": 0}
    ordered = []
    for task, pause in script:
        clock[task] += pause
        ordered.append((task, clock[task]))
    every = lines_of(ordered)
    resume = ResumePoint(LogOptions(), T0)
    shown: list[LogEvent] = []
    for stop in [*sorted(breaks), len(every)]:
        options = resume.reconnect(0.0) if shown else LogOptions()
        again = [event for event in every[:stop] if event.timestamp >= options.since]
        shown += resume.note(again, 0.0)
    assert [event.text for event in shown] == [event.text for event in every]


def test_a_log_that_began_with_nothing_resumes_with_what_came_meanwhile() -> None:
    resume = ResumePoint(LogOptions(tail=0), started=T0)
    options = resume.reconnect(0.0)
    assert (options.tail, options.since) == (None, T0 - SKEW)
    options = ResumePoint(LogOptions(tail=5, since=7), T0).reconnect(0.0)
    assert (options.tail, options.since) == (5, 7)


def test_a_replica_that_was_silent_for_long_does_not_hold_the_resume_back() -> None:
    resume = ResumePoint(LogOptions(), T0)
    resume.note([LogLine(T0, "old", task_id="a")], now=0.0)
    resume.note([LogLine(T0 + 3600 * 10**9, "new", task_id="b")], now=3600.0)
    assert resume.reconnect(3601.0).since == T0 + 3600 * 10**9 - SKEW
