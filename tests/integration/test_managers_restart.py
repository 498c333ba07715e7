"""Managers that all go and come back, at once and one after the other; one that comes back with nothing."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from cluster import Cluster, eventually, running_cluster
from managers import Writer, create, leader_and_others, listed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swarm() -> AsyncIterator[Cluster]:
    async with running_cluster(4, managers=3) as cluster:
        yield cluster


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_all_are_restarted_at_once(swarm: Cluster, number: signal.Signals) -> None:
    managers = swarm.nodes[:3]
    await leader_and_others(swarm, managers)
    writer = Writer(managers, random.Random(1), prefix=f"at-once-{number.name}-".lower())
    async with writer.writing():
        while len(writer.acknowledged) < 30:
            await asyncio.sleep(0.01)
        for manager in managers:
            assert manager.process is not None
            manager.process.send_signal(number)
        for manager in managers:
            assert manager.process is not None
            await asyncio.to_thread(manager.process.wait, 20)
        for manager in managers:
            manager.start()
        await asyncio.gather(*(manager.ready() for manager in managers))
        seen = len(writer.acknowledged)
        end = time.monotonic() + 10
        while len(writer.acknowledged) < seen + 10:
            assert time.monotonic() < end, managers[0].log[-3000:]
            await asyncio.sleep(0.01)
    await leader_and_others(swarm, managers)
    for manager in managers:
        await eventually_checked(writer, swarm, manager.name)


async def eventually_checked(writer: Writer, swarm: Cluster, name: str) -> None:
    """A manager shows all that was acknowledged. Reads are never older than what was, so the first look must do."""
    manager = next(node for node in swarm.nodes if node.name == name)
    writer.check(await listed(manager))


async def test_they_are_restarted_one_after_the_other_under_a_writer(swarm: Cluster) -> None:
    managers = swarm.nodes[:3]
    await leader_and_others(swarm, managers)
    writer = Writer(managers, random.Random(2), prefix="staggered-")
    async with writer.writing():
        for manager in managers:
            known = len(writer.acknowledged)
            manager.kill(signal.SIGTERM)
            manager.start()
            await manager.ready()
            await leader_and_others(swarm, managers)
            end = time.monotonic() + 5
            while len(writer.acknowledged) == known:
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
    for manager in managers:
        await eventually_checked(writer, swarm, manager.name)
    assert writer.longest < 3.0


async def test_one_that_lost_its_state_is_no_member_and_joins_again_as_another(swarm: Cluster) -> None:
    managers = swarm.nodes[:3]
    leader, (other, wiped) = await leader_and_others(swarm, managers)
    wiped.kill()
    shutil.rmtree(wiped.folder / "data")
    await create(other, "before-it-joins-again")
    nodes = (await leader.api("GET", "/nodes"))[1]
    gone = next(node for node in nodes if node["Description"]["Hostname"] == wiped.name)
    wiped.start()
    await wiped.ready()
    assert (await wiped.api("GET", "/info"))[1]["Swarm"]["LocalNodeState"] == "inactive"
    # The one of before is demoted, then removed, as its operator would do; the group never lacks a quorum meanwhile.
    await leader.docker("node", "demote", gone["ID"])
    await eventually(
        leader,
        lambda nodes: all(not node.get("ManagerStatus") for node in nodes if node["ID"] == gone["ID"]),
        "/nodes",
    )
    await leader.docker("node", "rm", "--force", gone["ID"])
    token = (await leader.api("GET", "/swarm"))[1]["JoinTokens"]["Manager"]
    await swarm.join(wiped, token, at=leader)
    await swarm.until_managers(3, wiped, 30)
    assert "before-it-joins-again" in await listed(wiped)
    assert await create(wiped, "after-it-joined-again") < 3.0


async def test_one_leaves_and_comes_again(swarm: Cluster) -> None:
    managers = swarm.nodes[:3]
    leader, (other, leaving) = await leader_and_others(swarm, managers)
    token = (await leader.api("GET", "/swarm"))[1]["JoinTokens"]["Manager"]
    status, answer = await leaving.api("POST", "/swarm/leave?force=true")
    assert status == 200, answer
    assert (await leaving.api("GET", "/info"))[1]["Swarm"]["LocalNodeState"] == "inactive"
    await swarm.until_managers(2, leader)
    assert await create(other, "two-are-left") < 3.0
    await swarm.join(leaving, token, at=leader)
    await swarm.until_managers(3, leaving, 30)
    assert "two-are-left" in await listed(leaving)


async def test_one_joins_while_the_leader_dies_and_none_joins_twice(swarm: Cluster) -> None:
    managers = swarm.nodes[:3]
    leader, others = await leader_and_others(swarm, managers)
    token = (await leader.api("GET", "/swarm"))[1]["JoinTokens"]["Worker"]
    new = swarm.add()
    new.start()
    await new.ready()
    request = {
        "ListenAddr": "0.0.0.0:2377",
        "RemoteAddrs": [f"{manager.address}:2377" for manager in managers],
        "JoinToken": token,
    }
    joining = asyncio.create_task(new.api("POST", "/swarm/join", request))
    await asyncio.sleep(0)
    leader.kill()
    status, answer = await joining
    # Who was asked while the leader went says that nothing came of it; the next try must succeed.
    end = time.monotonic() + 5
    while status == 503 and "try again" in answer["message"]:
        assert time.monotonic() < end, answer
        status, answer = await new.api("POST", "/swarm/join", request)
    assert status == 200, f"{answer}\n{new.log[-2000:]}"
    again = await new.api("POST", "/swarm/join", {"RemoteAddrs": [f"{others[0].address}:2377"], "JoinToken": token})
    assert again[0] == 503
    assert "already part of a swarm" in again[1]["message"]
    leader.start()
    await leader.ready()
    await leader_and_others(swarm, managers)
    nodes = (await others[0].api("GET", "/nodes"))[1]
    assert sum(node["Description"]["Hostname"] == new.name for node in nodes) == 1
