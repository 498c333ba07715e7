"""Several managers of one cluster behind one client: which is asked, what is sent again, what is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from client_fake_engine import FakeEngine, make_node, problem, running
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.docker_api import client as client_module
from swarmtui.docker_api.address import EngineAddress, socket_address
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.endpoints import Endpoints
from swarmtui.docker_api.errors import ConnectionFailed, NotReached, TimedOut
from swarmtui.model import feed
from swarmtui.model import managers as managers_module
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.summary import ClusterSummary, ConnectionState


def places(count: int) -> list[EngineAddress]:
    return [socket_address(f"/run/{number}.sock") for number in range(count)]


def test_each_is_tried_once_and_then_all_again() -> None:
    first, second, third = places(3)
    endpoints = Endpoints(first, lambda: (second, third))
    assert endpoints.several
    assert endpoints.failed(first)
    assert endpoints.current == second
    assert endpoints.failed(first), "found out a second time by another request: nothing moves"
    assert endpoints.current == second
    assert endpoints.failed(second)
    assert endpoints.current == third
    assert not endpoints.failed(third)
    assert endpoints.current == first
    assert endpoints.failed(first)
    endpoints.served()
    assert endpoints.failed(second)
    assert endpoints.failed(third)
    assert endpoints.current == first


def test_one_alone_has_nowhere_to_go() -> None:
    (only,) = places(1)
    endpoints = Endpoints(only)
    assert not endpoints.several
    assert not endpoints.failed(only)
    assert endpoints.current == only


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40))
def test_whatever_fails_there_is_always_one_to_ask(events: list[tuple[bool, int]]) -> None:
    addresses = places(4)
    endpoints = Endpoints(addresses[0], lambda: addresses[1:])
    in_a_row = 0
    for serves, number in events:
        if serves:
            endpoints.served()
            in_a_row = 0
        elif addresses[number] == endpoints.current:
            in_a_row = in_a_row + 1 if endpoints.failed(endpoints.current) else 0
            assert in_a_row < 4, "no request goes round for ever"
        assert endpoints.current in addresses


@contextlib.asynccontextmanager
async def two() -> AsyncIterator[tuple[FakeEngine, FakeEngine, EngineClient]]:
    async with (
        running(FakeEngine()) as one,
        running(FakeEngine()) as other,
        EngineClient(one.address, others=lambda: (other.address,)) as client,
    ):
        yield one, other, client


async def test_a_manager_that_is_gone_is_left_at_once() -> None:
    async with two() as (one, other, client):
        await client.ping()
        await one.stop()
        assert [node.id for node in await client.nodes()] == ["n1", "n2"]
        assert client.address == other.address
        version = (await client.raw_node("n2"))["Version"]["Index"]
        await client.update_node("n2", version, {"Role": "manager"})
        assert other.tables["nodes"]["n2"]["Spec"]["Role"] == "manager"


async def test_a_change_that_was_never_sent_is_sent_to_the_next() -> None:
    async with two() as (one, other, client):
        version = (await client.raw_node("n2"))["Version"]["Index"]
        await one.stop()
        await client.update_node("n2", version, {"Role": "manager"})
        assert other.tables["nodes"]["n2"]["Spec"]["Role"] == "manager"


async def test_a_change_whose_answer_is_lost_is_not_made_twice() -> None:
    async with two() as (one, other, client):

        async def vanish(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        one.overrides[("POST", "/services/create")] = vanish
        spec = {"Name": "web", "TaskTemplate": {}}
        with pytest.raises(ConnectionFailed) as failure:
            await client.create_service(spec)
        assert not isinstance(failure.value, NotReached)
        assert other.tables["services"] == {}
        assert client.address == other.address, "the next request goes to the other one"
        assert (await client.create_service(spec)).id in other.tables["services"]


async def test_all_gone_is_an_error_that_names_one() -> None:
    async with two() as (one, other, client):
        await one.stop()
        await other.stop()
        with pytest.raises(NotReached, match="cannot connect"):
            await client.nodes()


async def test_a_manager_that_hangs_is_left_after_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_IMPATIENT", 0.1)
    async with two() as (one, other, client):
        hold = asyncio.Event()

        async def hang(request: web.Request) -> web.Response:
            await hold.wait()
            return web.Response()

        one.overrides[("GET", "/_ping")] = hang
        await client.ping()
        assert client.address == other.address
        other.overrides[("GET", "/_ping")] = hang
        with pytest.raises(TimedOut):
            await client.ping()
        hold.set()


async def test_answers_that_may_be_old_are_known() -> None:
    async with running(FakeEngine()) as engine, EngineClient(engine.address) as client:

        async def old(request: web.Request) -> web.Response:
            return web.json_response([], headers={"Warning": '110 - "the last known state"'})

        await client.nodes()
        assert not client.stale
        engine.overrides[("GET", "/nodes")] = old
        await client.nodes()
        assert client.stale
        await client.info()
        assert client.stale, "what an engine says of itself is never old"
        await client.services()
        assert not client.stale


async def test_the_managers_are_read_in_any_spelling() -> None:
    async with running(FakeEngine()) as engine, EngineClient(engine.address) as client:
        answer = {
            "term": 7,
            "leader": "n1",
            "quorum": False,
            "stale": True,
            "missing": ["n2", {"hostname": "node3", "since": 5}],
            "members": [
                {
                    "id": "n1",
                    "hostname": "node1",
                    "address": "10.0.0.1:2377",
                    "role": "leader",
                    "reachable": True,
                    "applied": 9,
                },
                {"id": "n2", "hostname": "node2", "role": "follower", "match": 4, "lag": 5, "unknown": []},
                {"id": "n3", "hostname": "node3", "role": "follower", "voter": False, "index": None, "lag": None},
            ],
        }

        async def managers(request: web.Request) -> web.Response:
            return web.json_response(answer)

        engine.overrides[("GET", "/swarmtui/v1/managers")] = managers
        found = await client.managers()
        assert (found.term, found.leader, found.quorum, found.stale) == (7, "n1", False, True)
        assert [(m.index, m.lag, m.since) for m in found.members] == [(9, -1, 0), (4, 5, 0), (-1, -1, 5)]
        assert found.missing == ["n2", "n3"]
        answer["members"] = 5
        with pytest.raises(Exception, match="managers that cannot be read"):
            await client.managers()


class Watched:
    """A running model on two engines."""

    def __init__(self, model: ClusterModel) -> None:
        self.model = model
        self.states: list[ConnectionState] = []
        self._changed = asyncio.Event()
        model.subscribe_summary(self._take)

    def _take(self, summary: ClusterSummary) -> None:
        if not self.states or self.states[-1] is not summary.connection.state:
            self.states.append(summary.connection.state)
        self._changed.set()

    async def until(self, holds: bool | object) -> None:
        assert callable(holds)
        async with asyncio.timeout(10):
            while not holds(self.model.summary):
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def watched(client: EngineClient) -> AsyncIterator[Watched]:
    model = ClusterModel(client, coalesce=0, random=lambda: 0.0)
    seen = Watched(model)
    task = asyncio.create_task(model.run())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def named(engine: FakeEngine, name: str) -> None:
    swarm = engine._swarm_info()

    async def info(request: web.Request) -> web.Response:
        return web.json_response({"Name": name, "Swarm": swarm})

    engine.overrides[("GET", "/info")] = info


async def test_the_picture_goes_on_from_its_index_without_a_flicker() -> None:
    async with two() as (one, other, client):
        await named(one, "node1")
        await named(other, "node2")
        one.index = other.index = 40
        async with watched(client) as seen:
            await seen.until(lambda s: s.connection.state is ConnectionState.WATCHING)
            assert seen.model.summary.connection.node == "node1"
            await one.stop()
            await seen.until(lambda s: s.connection.node == "node2")
            other.put("nodes", make_node("n3", "node3"))
            await seen.until(lambda s: s.nodes == 3)
            assert seen.states == [ConnectionState.CONNECTING, ConnectionState.SYNCING, ConnectionState.WATCHING]
            assert "/swarmtui/v1/watch?since=40" in [path for _, path, _ in other.requests]


async def test_a_manager_that_hangs_loses_its_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_IMPATIENT", 0.1)
    monkeypatch.setattr(feed, "HASTY_PING_SECONDS", 0.05)
    async with two() as (one, other, client):
        await named(one, "node1")
        await named(other, "node2")
        hold = asyncio.Event()
        async with watched(client) as seen:
            await seen.until(lambda s: s.connection.state is ConnectionState.WATCHING)
            await one.watch_opened.wait()

            async def hang(request: web.Request) -> web.Response:
                await hold.wait()
                return web.Response()

            one.overrides[("GET", "/_ping")] = hang
            await seen.until(lambda s: s.connection.node == "node2")
            assert ConnectionState.RECONNECTING not in seen.states
        hold.set()


async def test_a_manager_that_was_demoted_is_left_for_another() -> None:
    async with two() as (one, other, client):
        await named(other, "node2")
        async with watched(client) as seen:
            await seen.until(lambda s: s.connection.state is ConnectionState.WATCHING)
            one.manager = False
            one.cut_streams()
            await seen.until(lambda s: s.connection.node == "node2")
            assert ConnectionState.NOT_A_MANAGER not in seen.states
            await other.watch_opened.wait()
            # And when both are none, it says so.
            other.manager = False
            await named(other, "node2")
            other.cut_streams()
            await seen.until(lambda s: s.connection.state is ConnectionState.NOT_A_MANAGER)


async def test_the_group_is_followed_and_a_quorum_that_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MANAGERS_SECONDS", 0.01)
    monkeypatch.setattr(managers_module, "ELECTION_SECONDS", 0.05)
    async with running(FakeEngine()) as engine, EngineClient(engine.address) as client:
        answer = {
            "term": 3,
            "leader": "n2",
            "quorum": True,
            "missing": [],
            "members": [
                {"id": "n1", "address": "10.0.0.1:2377", "role": "follower", "reachable": True, "match": 8, "lag": 2},
                {"id": "n2", "address": "10.0.0.2:2377", "role": "leader", "reachable": True, "match": 10, "lag": 0},
            ],
        }

        async def managers(request: web.Request) -> web.Response:
            return web.json_response(answer)

        engine.overrides[("GET", "/swarmtui/v1/managers")] = managers
        async with watched(client) as seen:
            await seen.until(lambda s: s.group is not None and s.group.term == 3 and s.nodes == 2)
            summary = seen.model.summary
            assert summary.group is not None
            assert (summary.leader, summary.managers, summary.managers_reachable) == ("node2", 2, 2)
            assert [(m.hostname, m.lag) for m in summary.group.members] == [("node1", 2), ("node2", 0)]
            answer |= {"quorum": False, "leader": "", "missing": ["n2"]}
            await seen.until(lambda s: s.group is not None and not s.group.quorum)
            group = seen.model.summary.group
            assert group is not None
            assert [(m.hostname, m.since > 0) for m in group.missing] == [("node2", True)]
            assert (group.needed, group.spare) == (1, 0)

            async def gone(request: web.Request) -> web.Response:
                return problem(503, "not now")

            engine.overrides[("GET", "/swarmtui/v1/managers")] = gone
            await asyncio.sleep(0)
            assert seen.model.summary.group == group


async def test_a_docker_swarm_without_a_leader_is_a_lost_quorum() -> None:
    async with (
        running(FakeEngine(agent=False)) as engine,
        EngineClient(engine.address) as client,
        watched(client) as seen,
    ):
        await seen.until(lambda s: s.leader == "node1")

        async def refuse(request: web.Request) -> web.Response:
            return problem(500, "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that")

        engine.overrides[("GET", "/nodes")] = refuse
        engine.put("services", {"ID": "s", "Spec": {"Name": "web"}, "Endpoint": {}})
        await seen.until(lambda s: s.group is not None and not s.group.quorum)
        assert seen.model.summary.connection.stale_since is not None
        del engine.overrides[("GET", "/nodes")]
        seen.model.retry_now()
        await seen.until(lambda s: s.group is not None and s.group.quorum)
