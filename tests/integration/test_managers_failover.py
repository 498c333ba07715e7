"""Three managers and two workers as real processes: the leader dies or freezes, and the cluster goes on at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from cluster import AgentProcess, Cluster, running_cluster
from managers import create, leader_and_others, listed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

BOUND = 3.0
"""Seconds from the fault to an acknowledged write at another manager; the benchmark has the figures."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swarm() -> AsyncIterator[Cluster]:
    async with running_cluster(5, managers=3) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def group(swarm: Cluster) -> tuple[AgentProcess, list[AgentProcess]]:
    """Who leads and who does not, all of them reachable."""
    return await leader_and_others(swarm, swarm.nodes[:3])


async def come_back(node: AgentProcess) -> None:
    node.start()
    await node.ready()


async def test_docker_shows_three_managers_and_one_leader(swarm: Cluster) -> None:
    await leader_and_others(swarm, swarm.nodes[:3])
    for manager in swarm.nodes[:3]:
        listing = await manager.docker("node", "ls")
        assert listing.count("Leader") == 1
        assert listing.count("Reachable") == 2
        assert "Managers: 3" in await manager.docker("info")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("asked", [0, 1])
async def test_a_service_is_created_through_another_manager(
    group: tuple[AgentProcess, list[AgentProcess]], number: signal.Signals, asked: int
) -> None:
    leader, others = group
    before = await create(others[asked], f"before-{number.name}-{asked}".lower())
    assert before < BOUND
    assert leader.process is not None
    leader.process.send_signal(number)
    try:
        after = f"after-{number.name}-{asked}".lower()
        assert await create(others[asked], after) < BOUND
        for manager in others:
            names = await listed(manager)
            assert {f"before-{number.name}-{asked}".lower(), after} <= set(names)
    finally:
        if number is signal.SIGKILL:
            leader.process.wait()
            await come_back(leader)
        else:
            leader.process.send_signal(signal.SIGCONT)
    await created_is_seen(leader, after)


async def created_is_seen(node: AgentProcess, name: str, within: float = 10.0) -> None:
    """The manager that was away learns of it."""
    end = time.monotonic() + within
    while name not in await listed(node):
        assert time.monotonic() < end, node.log[-3000:]
        await asyncio.sleep(0.05)


async def test_a_loop_of_docker_service_ls_needs_one_retry_at_most(
    swarm: Cluster, group: tuple[AgentProcess, list[AgentProcess]]
) -> None:
    leader, others = group
    failures = 0
    over = asyncio.Event()

    async def ask(manager: AgentProcess) -> None:
        nonlocal failures
        while not over.is_set():
            began = time.monotonic()
            answer = await manager.docker("service", "ls", check=False)
            assert time.monotonic() - began < BOUND
            if not answer.startswith("ID"):
                failures += 1

    loops = [asyncio.create_task(ask(manager)) for manager in others]
    leader.kill()
    await create(others[0], "while-listing")
    over.set()
    await asyncio.gather(*loops)
    assert failures <= 1
    await come_back(leader)


async def test_a_manager_that_follows_may_die_unnoticed(group: tuple[AgentProcess, list[AgentProcess]]) -> None:
    leader, (other, dead) = group
    dead.kill()
    for number, manager in enumerate((leader, other)):
        assert await create(manager, f"follower-down-{number}") < 1.0
    await come_back(dead)


async def test_a_leader_that_is_stopped_in_order_hands_over(
    swarm: Cluster, group: tuple[AgentProcess, list[AgentProcess]]
) -> None:
    leader, others = group
    assert leader.process is not None
    leader.process.send_signal(signal.SIGTERM)
    assert await create(others[0], "handed-over") < 1.0
    await asyncio.to_thread(leader.process.wait, 10)
    await come_back(leader)


async def test_tasks_run_on_through_a_change_of_leader_and_new_ones_are_started(
    swarm: Cluster, group: tuple[AgentProcess, list[AgentProcess]]
) -> None:
    leader, others = group
    await create(others[0], "steady", replicas=4)
    before = await until_running(others[0], "steady", 4)
    leader.kill()
    await create(others[0], "after", replicas=2)
    await until_running(others[0], "after", 2)
    kept = {(task["ID"], task["NodeID"]) for task in before if task["NodeID"] != await id_of(others[0], leader.name)}
    running = {(task["ID"], task["NodeID"]) for task in await until_running(others[0], "steady", 4)}
    assert kept <= running, "who did not run on the leader was not touched"
    await come_back(leader)


async def id_of(node: AgentProcess, name: str) -> str:
    nodes = (await node.api("GET", "/nodes"))[1]
    return next(str(one["ID"]) for one in nodes if one["Description"]["Hostname"] == name)


async def until_running(node: AgentProcess, name: str, count: int, within: float = 20.0) -> list[dict]:
    """So many wanted tasks of the service run, as this manager sees it, each in a slot of its own."""
    end = time.monotonic() + within
    while True:
        status, tasks = await node.api("GET", f'/tasks?filters={{"service":["{name}"]}}')
        assert status == 200, tasks
        wanted = [task for task in tasks if task["DesiredState"] == "running"]
        running = [task for task in wanted if task["Status"]["State"] == "running"]
        if len(running) == len(wanted) == len({task["Slot"] for task in wanted}) == count:
            return running
        assert time.monotonic() < end, [(t["Slot"], t["DesiredState"], t["Status"]) for t in tasks]
        await asyncio.sleep(0.05)
