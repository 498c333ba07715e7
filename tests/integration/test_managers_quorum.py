"""The quorum is lost: reads go on and say that they are old, writes fail at once, tasks live; and the ways back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from cluster import AgentProcess, Cluster, eventually, running_cluster
from managers import create, leader_and_others, listed, service

pytestmark = [pytest.mark.asyncio(loop_scope="function"), pytest.mark.timeout(150)]


@pytest_asyncio.fixture
async def swarm() -> AsyncIterator[Cluster]:
    async with running_cluster(5, managers=3) as cluster:
        yield cluster


async def read(node: AgentProcess, path: str) -> tuple[int, str, float]:
    """Status, the `Warning` header, and how long it took."""
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(node.socket))) as session,
        session.get(f"http://agent{path}") as response,
    ):
        await response.read()
        return response.status, response.headers.get("Warning", ""), time.monotonic() - began


async def lose_quorum(swarm: Cluster) -> tuple[AgentProcess, list[AgentProcess]]:
    """Two of three managers die; who is left, and who is not."""
    leader, (other, left) = await leader_and_others(swarm, swarm.nodes[:3])
    for dead in (leader, other):
        dead.kill()
    return left, [leader, other]


async def until_refused(node: AgentProcess) -> str:
    """What writes are told at once, once the loss is certain; before that they wait for an election to end."""
    end = time.monotonic() + 10
    while True:
        began = time.monotonic()
        message = await refused(node)
        assert time.monotonic() - began < 5
        if time.monotonic() - began < 0.2:
            assert "force-new-cluster" in message
            return message
        assert time.monotonic() < end, message


async def refused(node: AgentProcess) -> str:
    status, answer = await node.api("POST", "/services/create", service("late"))
    assert status == 503, answer
    return str(answer["message"])


async def test_reads_go_on_writes_name_who_is_missing_and_tasks_are_restarted(swarm: Cluster) -> None:
    await create(swarm.manager, "steady", replicas=4)
    await swarm.until_running("steady", 4)
    left, dead = await lose_quorum(swarm)
    message = await until_refused(left)
    assert all(node.name in message for node in dead), message
    for path in ("/services", "/nodes", "/tasks", "/services/steady", "/info"):
        status, warning, took = await read(left, path)
        assert status == 200
        assert took < 0.2, path
        assert path == "/info" or warning.startswith("110"), path
    assert "steady" in await left.docker("service", "ls")
    info = await left.docker("info")
    assert any(node.name in info for node in dead), info
    await failed_task_is_restarted(swarm)
    # The way back: those who were missing.
    for node in dead:
        node.start()
    await asyncio.gather(*(node.ready() for node in dead))
    await leader_and_others(swarm, swarm.nodes[:3])
    assert (await read(left, "/services"))[1] == ""
    await create(left, "after")
    await swarm.until_running("steady", 4)


async def failed_task_is_restarted(swarm: Cluster) -> None:
    """A task on a worker whose process dies runs again, and no manager has anything to do with it."""
    worker = swarm.nodes[4]
    before = pids_of(worker)
    assert before
    os.kill(before[0], signal.SIGKILL)
    end = time.monotonic() + 10
    while len(pids_of(worker)) < len(before) or before[0] in pids_of(worker):
        assert time.monotonic() < end, worker.log[-3000:]
        await asyncio.sleep(0.05)


def pids_of(node: AgentProcess) -> list[int]:
    """The processes of the tasks on a node: those whose folder is in the node's and that are not the agent."""
    from cluster import pids_naming

    assert node.process is not None
    network = node.address.rsplit(".", 1)[0]
    return [pid for pid in pids_naming(f"TASK_ADDRESS={network}.") if pid != node.process.pid]


async def test_a_forced_new_cluster_keeps_everything_and_takes_the_others_again(swarm: Cluster) -> None:
    await create(swarm.manager, "kept", replicas=3)
    await swarm.until_running("kept", 3)
    left, dead = await lose_quorum(swarm)
    await until_refused(left)
    tasks = {task["ID"] for task in (await left.api("GET", "/tasks"))[1] if task["DesiredState"] == "running"}
    began = time.monotonic()
    await left.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", left.address)
    assert time.monotonic() - began < 10
    assert "kept" in await listed(left)
    await create(left, "new-after-force")
    nodes = (await left.api("GET", "/nodes"))[1]
    assert [n["Description"]["Hostname"] for n in nodes if (n.get("ManagerStatus") or {}).get("Leader")] == [left.name]
    swarm.nodes.remove(left)
    swarm.nodes.insert(0, left)
    running = await swarm.until_running("kept", 3, 30)
    on_living = {task["ID"] for task in running}
    assert on_living & tasks, "tasks on nodes that live were not touched"
    # A manager of the old group comes back: it is no manager of this one, and joins again.
    returned = dead[0]
    returned.start()
    await returned.ready()
    await returned.api("POST", "/swarm/leave?force=true")
    await eventually(returned, lambda info: info["Swarm"]["LocalNodeState"] == "inactive", "/info")
    await swarm.join(returned, await swarm.token("Manager"), at=left)
    await swarm.until_managers(2, left, 30)
    assert {"kept", "new-after-force"} <= set(await listed(returned))


async def test_a_wedged_manager_is_left_behind_and_catches_up(swarm: Cluster) -> None:
    leader, (other, wedged) = await leader_and_others(swarm, swarm.nodes[:3])
    assert wedged.process is not None
    wedged.process.send_signal(signal.SIGSTOP)
    for number in range(30):
        assert await create(other, f"without-it-{number}") < 1.0
    wedged.process.send_signal(signal.SIGCONT)
    await leader_and_others(swarm, swarm.nodes[:3])
    assert {f"without-it-{number}" for number in range(30)} <= set(await listed(wedged))
    assert await swarm.leader(swarm.nodes[:3]) is leader, "it disrupted nobody"


async def test_at_a_wrong_address_nobody_is_taken_for_another(swarm: Cluster) -> None:
    """A manager comes up where another one was: its certificate says who it is, and the group goes on meanwhile."""
    _, (other, moved) = await leader_and_others(swarm, swarm.nodes[:3])
    spare = swarm.add()
    moved.kill()
    spare.address, spare_before = moved.address, spare.address
    # An agent of no swarm takes the address over; the group must not speak to it.
    spare.start()
    await spare.ready()
    assert await create(other, "meanwhile") < 3.0
    status, answer = await spare.api("GET", "/services")
    assert status == 503, answer
    spare.kill(signal.SIGTERM)
    spare.address = spare_before
    moved.start()
    await moved.ready()
    await leader_and_others(swarm, swarm.nodes[:3])
    assert "meanwhile" in await listed(moved)
