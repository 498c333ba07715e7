"""The feed: watch, resume, start over, poll, reconnect; always against an engine over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from client_fake_engine import FakeEngine, make_node, make_service, make_task, problem, running
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api.client import EngineClient
from swarmtui.model import feed
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.connection import FIRST_DELAY, LONGEST_DELAY, backoff
from swarmtui.model.query import all_services
from swarmtui.model.summary import ClusterSummary, ConnectionState


class Watched:
    """A running model, and a way to wait for what it says."""

    def __init__(self, model: ClusterModel) -> None:
        self.model = model
        self.states: list[ConnectionState] = []
        self.changed = asyncio.Event()
        model.subscribe_summary(self.take)

    def take(self, summary: ClusterSummary) -> None:
        state = summary.connection.state
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
        self.changed.set()

    async def until(self, holds: Callable[[ClusterSummary], bool]) -> ClusterSummary:
        async with asyncio.timeout(10):
            while not holds(self.model.summary):
                self.changed.clear()
                await self.changed.wait()
        return self.model.summary

    async def state(self, state: ConnectionState) -> ClusterSummary:
        return await self.until(lambda summary: summary.connection.state is state)


@contextlib.asynccontextmanager
async def watched(engine: FakeEngine, timeout: float = 5.0) -> AsyncIterator[Watched]:
    async with EngineClient(engine.address, timeout=timeout) as client:
        model = ClusterModel(client, coalesce=0, random=lambda: 0.0)
        seen = Watched(model)
        task = asyncio.create_task(model.run())
        try:
            yield seen
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert model.summary.connection.state is ConnectionState.CLOSED


async def test_watch_brings_the_picture_and_then_changes() -> None:
    async with running(FakeEngine()) as engine:
        engine.put("services", make_service("s1", "web", 1))
        engine.put("tasks", make_task("t1", "s1", 1))
        async with watched(engine) as seen:
            summary = await seen.until(lambda s: s.tasks_running == 1)
            assert (summary.name, summary.leader, summary.nodes, summary.services_healthy) == ("default", "node1", 2, 1)
            assert summary.connection.latency_ms is not None
            engine.put("tasks", make_task("t1", "s1", 1, state="failed"))
            await seen.until(lambda s: s.tasks_running == 0)
            engine.drop("nodes", "n2")
            await seen.until(lambda s: s.nodes == 1)
            assert seen.states == [ConnectionState.CONNECTING, ConnectionState.SYNCING, ConnectionState.WATCHING]


@pytest.mark.parametrize("agent", [True, False])
async def test_the_first_picture_is_whole_when_it_is_shown(agent: bool) -> None:
    async with running(FakeEngine(agent=agent)) as engine:
        for number in range(30):
            engine.converge(engine.put("services", make_service(f"s{number}", f"web{number}", 20)))
        states: set[str] = set()
        async with watched(engine) as seen:
            seen.model.subscribe(all_services(), lambda d: states.update(row.state for row in (*d.added, *d.changed)))
            await seen.until(lambda s: s.tasks_running == 600)
        assert states == {"running"}


async def test_a_lost_watch_goes_on_from_its_index() -> None:
    async with running(FakeEngine()) as engine, watched(engine) as seen:
        await seen.state(ConnectionState.WATCHING)
        engine.put("nodes", make_node("n3", "node3"))
        await seen.until(lambda s: s.nodes == 3)
        index = engine.index
        engine.cut_streams()
        await seen.state(ConnectionState.RECONNECTING)
        assert seen.model.summary.nodes == 3
        assert seen.model.summary.connection.error
        assert seen.model.summary.connection.stale_since is not None
        summary = await seen.state(ConnectionState.WATCHING)
        assert summary.connection.error == ""
        assert summary.connection.stale_since is None
        watches = [path for _, path, _ in engine.requests if "/watch" in path]
        assert watches == ["/swarmtui/v1/watch", f"/swarmtui/v1/watch?since={index}"]


async def test_an_index_that_is_gone_starts_over_without_waiting() -> None:
    async with running(FakeEngine()) as engine, watched(engine) as seen:
        await seen.state(ConnectionState.WATCHING)
        await seen.until(lambda s: s.nodes == 2)
        engine.forgotten_before = 10**9
        del engine.tables["nodes"]["n2"]
        engine.cut_streams()
        await seen.until(lambda s: s.nodes == 1)
        watches = [path for _, path, _ in engine.requests if "/watch" in path]
        assert watches[-1] == "/swarmtui/v1/watch"


async def test_another_cluster_at_the_same_address_starts_over() -> None:
    async with running(FakeEngine()) as engine, watched(engine) as seen:
        await seen.until(lambda s: s.nodes == 2)
        engine.cluster_id = "cluster2"
        del engine.tables["nodes"]["n2"]
        engine.cut_streams()
        await seen.until(lambda s: s.nodes == 1)
        assert [path for _, path, _ in engine.requests if "/watch" in path][-1] == "/swarmtui/v1/watch"


async def test_an_engine_that_always_says_gone_is_not_asked_without_a_pause() -> None:
    async with running(FakeEngine()) as engine:

        async def gone(request: web.Request) -> web.Response:
            return problem(410, "gone")

        engine.overrides[("GET", "/swarmtui/v1/watch")] = gone
        async with watched(engine) as seen:
            summary = await seen.state(ConnectionState.RECONNECTING)
            assert summary.connection.error == "gone"
            assert summary.connection.retry_at is not None


async def test_garbage_in_the_watch_is_a_lost_connection_with_its_text() -> None:
    async with running(FakeEngine()) as engine:

        async def garbage(request: web.Request) -> web.Response:
            return web.Response(body=b'{"kind":"snapshot"\nfoo\n')

        engine.overrides[("GET", "/swarmtui/v1/watch")] = garbage
        async with watched(engine) as seen:
            summary = await seen.state(ConnectionState.RECONNECTING)
            assert "cannot be read" in summary.connection.error
            del engine.overrides[("GET", "/swarmtui/v1/watch")]
            seen.model.retry_now()
            await seen.state(ConnectionState.WATCHING)


async def test_an_engine_that_stops_answering_is_found_out_by_the_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PING_SECONDS", 0.01)
    async with running(FakeEngine()) as engine, watched(engine, timeout=0.2) as seen:
        await seen.state(ConnectionState.WATCHING)

        async def hang(request: web.Request) -> web.Response:
            await asyncio.Event().wait()
            return web.Response()

        engine.overrides[("GET", "/_ping")] = hang
        summary = await seen.state(ConnectionState.RECONNECTING)
        assert "no answer" in summary.connection.error
        assert summary.connection.latency_ms is None


async def test_an_engine_that_starts_later_is_found() -> None:
    engine = FakeEngine()
    async with watched(engine) as seen:
        summary = await seen.state(ConnectionState.RECONNECTING)
        assert "there is no such socket" in summary.connection.error
        await engine.start()
        seen.model.retry_now()
        await seen.state(ConnectionState.WATCHING)
        await engine.stop()
        await seen.state(ConnectionState.RECONNECTING)
    engine.clean()


async def test_a_worker_says_where_its_managers_are() -> None:
    async with running(FakeEngine(manager=False)) as engine, watched(engine) as seen:
        summary = await seen.state(ConnectionState.NOT_A_MANAGER)
        assert "worker" in summary.connection.error
        assert "10.0.0.1:2377" in summary.connection.error
        engine.manager = True
        seen.model.retry_now()
        await seen.state(ConnectionState.WATCHING)


async def test_a_node_in_no_swarm_says_what_to_do() -> None:
    async with running(FakeEngine()) as engine:

        async def info(request: web.Request) -> web.Response:
            return web.json_response({"Name": "vm", "Swarm": {"LocalNodeState": "inactive"}})

        engine.overrides[("GET", "/info")] = info
        async with watched(engine) as seen:
            summary = await seen.state(ConnectionState.NOT_A_MANAGER)
            assert "swarm init" in summary.connection.error


async def test_a_real_docker_is_polled_and_its_events_trigger_a_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BUSY_SECONDS", 3600.0)
    monkeypatch.setattr(feed, "IDLE_SECONDS", 3600.0)
    monkeypatch.setattr(feed, "SETTLE_SECONDS", 0.0)
    async with running(FakeEngine(agent=False)) as engine, watched(engine) as seen:
        await seen.state(ConnectionState.POLLING)
        await seen.until(lambda s: s.nodes == 2)
        async with asyncio.timeout(5):
            await engine.watch_opened.wait()
        # Nothing but the event can bring this within an hour.
        engine.put("services", make_service("s1", "web", 1))
        await seen.until(lambda s: s.services == 1)
        engine.put("secrets", {"ID": "x", "Spec": {"Name": "x"}})
        async with asyncio.timeout(5):
            while "x" not in seen.model.secrets:
                await asyncio.sleep(0)


async def test_polling_sees_tasks_of_which_no_event_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(feed, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(feed, "SETTLE_SECONDS", 0.0)
    async with running(FakeEngine(agent=False)) as engine, watched(engine) as seen:
        await seen.state(ConnectionState.POLLING)
        engine.put("services", make_service("s1", "web", 1))
        engine.put("tasks", make_task("t1", "s1", 1))
        await seen.until(lambda s: s.tasks_running == 1)
        engine.drop("tasks", "t1")
        await seen.until(lambda s: s.tasks_running == 0)
        engine.cut_streams()
        await seen.state(ConnectionState.RECONNECTING)
        await seen.state(ConnectionState.POLLING)


async def test_a_slow_engine_is_not_polled_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "SETTLE_SECONDS", 0.0)
    async with running(FakeEngine(agent=False)) as engine:
        now = 0.0
        clock: list[float] = []

        async def slow(request: web.Request) -> web.Response:
            nonlocal now
            now += 10.0
            clock.append(now)
            return web.json_response([])

        engine.overrides[("GET", "/tasks")] = slow
        async with EngineClient(engine.address) as client:
            model = ClusterModel(client, monotonic=lambda: now)
            seen = Watched(model)
            task = asyncio.create_task(model.run())
            await seen.state(ConnectionState.POLLING)
            for _ in range(200):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert len(clock) == 1


async def test_a_bug_in_a_view_is_not_taken_for_a_lost_engine() -> None:
    async with running(FakeEngine()) as engine, EngineClient(engine.address) as client:
        model = ClusterModel(client)

        def broken(summary: ClusterSummary) -> None:
            if summary.connection.state is ConnectionState.SYNCING:
                raise ZeroDivisionError

        model.subscribe_summary(broken)
        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            await model.run()


@given(st.integers(0, 1000), st.floats(0, 1))
def test_back_off_grows_to_its_bound(attempt: int, random: float) -> None:
    delay = backoff(attempt, random)
    assert FIRST_DELAY / 2 <= delay <= LONGEST_DELAY
    assert backoff(attempt + 1, 0.5) >= backoff(attempt, 0.5)
