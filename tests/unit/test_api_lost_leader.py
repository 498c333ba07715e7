"""A leader that is frozen, lost or not there yet, and managers without a quorum."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_broken_links import names, received, refused, silence, store_of
from api_managers import Managers, managers
from api_scripted import service_body

from agent.api import forwarding
from agent.api_types.secret import Secret
from agent.api_types.service import Service
from agent.raft.interface import NotLeader


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` and `h3` follow."""
    async with managers(tmp_path, 3) as group:
        yield group


async def test_a_leader_that_cannot_be_reached_is_tried_again(group: Managers) -> None:
    group.backends["h2"].way = refused(3)
    assert (await group.clients["h2"].call("POST", "/services/create", service_body()))[0] == 201
    assert names(group, "h3") == ["web"]


async def test_a_leader_that_stays_out_of_reach_is_named_as_the_reason(
    group: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE", 0.2)
    group.backends["h2"].way = refused(1000)
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert (status, answer["message"]) == (503, "the leader of the swarm cannot be reached: connection refused")


async def test_a_frozen_leader_is_left_as_soon_as_another_one_leads(group: Managers) -> None:
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        while not group.backends["h2"].callers:
            await asyncio.sleep(0)
    group.backends["h2"].way = None
    began = time.monotonic()
    group.elect("h3")
    async with asyncio.timeout(5):
        status, _ = await asking
    assert (status, names(group, "h3")) == (201, ["web"])
    assert time.monotonic() - began < 1.0
    assert "sent again" not in str(group.backends["h3"].callers)


async def test_a_leader_that_is_silent_for_a_moment_is_not_left(group: Managers) -> None:
    """Between two heartbeats too far apart the follower knows no leader; the exchange goes on with the one that it had."""
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        await received(group)
        for leader in ("", "h1", "", "h1"):
            group.tell("h2", leader)
            await asyncio.sleep(0.01)
        assert len(group.backends["h2"].callers) == 1
        group.backends["h2"].way = None
        group.elect("h1")
        assert (await asking)[0] == 201
    assert len(group.backends["h2"].callers) == 2


async def test_a_leader_that_loses_its_place_while_it_writes_hands_the_write_on(group: Managers) -> None:
    """The client's own manager led; the entry was under way when it lost: it is made once, at the next leader."""
    group.seats["h1"].cut_off = True
    asking = asyncio.create_task(group.clients["h1"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        while not group.seats["h1"].waiting:
            await asyncio.sleep(0)
        group.seats["h1"].cut_off = False
        group.elect("h2")
        status, answer = await asking
    assert status == 201
    assert [service.id for service in store_of(group, "h2").view(lambda tx: tx.all(Service))] == [answer["ID"]]


async def test_a_write_waits_for_the_election(group: Managers) -> None:
    for name in group.names:
        group.tell(name, "")
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert not done
    group.elect("h2")
    async with asyncio.timeout(5):
        assert (await asking)[0] == 201
    assert group.backends["h2"].callers == []


async def test_a_write_waits_until_the_new_leader_is_ready(group: Managers) -> None:
    group.term += 1
    group.tell("h2", "h2", leading=False)
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    done, _ = await asyncio.wait({asking}, timeout=0.1)
    assert not done
    group.elect("h2")
    async with asyncio.timeout(5):
        assert (await asking)[0] == 201


async def test_a_request_that_was_sent_on_is_never_sent_further(group: Managers) -> None:
    """Two managers that each take the other for the leader must not play ball with a request."""
    group.term += 1
    group.tell("h2", "h3")
    group.tell("h3", "h2")
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        while len(group.backends["h2"].callers) < 3:
            await asyncio.sleep(0)
        assert group.backends["h3"].callers == []
        group.elect("h1")
        assert (await asking)[0] == 201
    assert names(group, "h1") == ["web"]


async def test_many_writes_while_the_leader_changes_are_each_made_once(group: Managers) -> None:
    """Forty clients at all managers, and a leader that is another one every few turns."""

    async def create(number: int) -> tuple[int, Any]:
        client = group.clients[group.names[number % 3]]
        return await client.call("POST", "/secrets/create", {"Name": f"s{number}", "Data": "QQ=="})

    async def unrest() -> None:
        while True:
            for name in ("h2", "h3", "h1"):
                await asyncio.sleep(0.02)
                group.elect(name)

    restless = asyncio.create_task(unrest())
    async with asyncio.timeout(40):
        answers = await asyncio.gather(*[create(number) for number in range(40)])
    restless.cancel()
    found = store_of(group, "h1").view(lambda tx: tx.all(Secret))
    assert [status for status, _ in answers] == [201] * 40
    assert sorted(answer["ID"] for _, answer in answers) == sorted(secret.id for secret in found)


async def test_reads_are_answered_at_once_and_marked_when_a_quorum_is_missing(group: Managers) -> None:
    await group.clients["h2"].call("POST", "/services/create", service_body())
    group.lose_quorum(since=5)
    for target in ("/services", "/nodes", "/tasks", "/swarm", "/services/web", "/networks", "/secrets"):
        began = time.monotonic()
        async with group.clients["h2"].session.get(f"http://d{target}") as answer:
            await answer.read()
            assert (answer.status, answer.headers["Warning"][:4]) == (200, "110 "), target
        assert time.monotonic() - began < 0.2, target


async def test_reads_during_an_election_wait_a_moment_and_are_marked(group: Managers) -> None:
    group.lose_quorum()
    began = time.monotonic()
    async with group.clients["h2"].session.get("http://d/services") as answer:
        assert "Warning" in answer.headers
    assert 0.1 < time.monotonic() - began < 0.4


async def test_reads_that_nobody_waits_for_any_more_end_quietly(
    group: Managers, caplog: pytest.LogCaptureFixture
) -> None:
    """The question behind a read goes on when its reader has its stale answer; that it fails then is no news."""
    asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def barrier() -> int:
        return await asyncio.shield(asked)

    store_of(group, "h2").barrier = barrier  # type: ignore[method-assign]
    async with group.clients["h2"].session.get("http://d/services") as answer:
        assert "Warning" in answer.headers
    asked.set_exception(NotLeader())
    async with group.clients["h2"].session.get("http://d/services") as answer:
        assert "Warning" in answer.headers
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_writes_fail_at_once_and_say_who_is_missing_and_what_to_do(group: Managers) -> None:
    group.lose_quorum(since=5)
    for method, target in (("POST", "/services/create"), ("DELETE", "/services/web"), ("GET", "/swarm/unlockkey")):
        began = time.monotonic()
        status, answer = await group.clients["h2"].call(method, target, service_body() if method == "POST" else None)
        assert time.monotonic() - began < 0.2
        assert status == 503
        assert "The swarm does not have a leader" in answer["message"]
        assert "h1 (10.0.0.1:2377), h3 (10.0.0.3:2377)" in answer["message"]
        assert "docker swarm init --force-new-cluster" in answer["message"]


async def test_a_write_under_way_when_the_quorum_goes_is_told_that_nobody_knows(group: Managers) -> None:
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        await received(group)
        group.lose_quorum(since=5)
        status, answer = await asking
    assert status == 503
    assert "may have been made or not" in answer["message"]
    assert "--force-new-cluster" in answer["message"]


async def test_a_manager_that_becomes_a_worker_meanwhile(group: Managers) -> None:
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        await received(group)
        backend = group.backends["h2"]
        backend.store, backend.is_manager = None, False
        backend.show_group(None)
        status, answer = await asking
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


@pytest.mark.parametrize("asked", ["h1", "h2"])
async def test_a_leader_whose_disk_is_full_says_so(
    group: Managers, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """It leads, and its log takes nothing: waiting for another leader would be in vain."""
    monkeypatch.setattr(forwarding, "REFUSAL_PATIENCE", 0.05)

    def full(data: bytes) -> asyncio.Future[int]:
        refused: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        refused.set_exception(NotLeader("the change was not written: the disk is full"))
        return refused

    monkeypatch.setattr(group.seats["h1"], "propose", full)
    began = time.monotonic()
    status, answer = await group.clients[asked].call("POST", "/services/create", service_body())
    assert (status, answer["message"]) == (503, "the change was not written: the disk is full")
    assert time.monotonic() - began < 2.0
