"""The session of the README, with real agents and the real docker CLI: create, list, scale, follow, kill, heal."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime

import docker
import pytest
import pytest_asyncio
from cluster import DOCKER, AgentProcess, Cluster, http_get, names, running_cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swarm() -> AsyncIterator[Cluster]:
    async with running_cluster(5) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_left(swarm: Cluster) -> AsyncIterator[None]:
    """Every test begins with no service, whatever became of the one before."""
    for service in (await swarm.manager.api("GET", "/services"))[1]:
        await swarm.manager.api("DELETE", f"/services/{service['ID']}")
    await swarm.eventually(lambda tasks: tasks == [], "/tasks")
    yield


async def whoami(node: AgentProcess, port: int) -> str:
    answer = json.loads(await http_get(node.address, port, "/api"))
    return str(answer["task"])


async def all_in_turn(node: AgentProcess, port: int, replicas: int) -> None:
    """Two rounds of requests reach every replica twice, as soon as the node knows the newest table."""
    async with asyncio.timeout(5):
        while True:
            answers = Counter([await whoami(node, port) for _ in range(2 * replicas)])
            if sorted(answers.values()) == [2] * replicas:
                return


async def test_nodes_are_listed_as_docker_does(swarm: Cluster) -> None:
    listing = (await swarm.manager.docker("node", "ls")).splitlines()
    assert listing[0].split() == ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER", "STATUS", "ENGINE", "VERSION"]
    assert sorted(line.replace("*", "").split()[1] for line in listing[1:]) == [f"node{n}" for n in range(1, 6)]
    assert next(line for line in listing if "Leader" in line).split()[1:4] == ["*", "node1", "Ready"]
    info = await swarm.manager.docker("info")
    assert "Swarm: active" in info
    assert "Nodes: 5" in info
    refused = await swarm.nodes[1].docker("node", "ls", check=False)
    assert "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state." in refused


async def test_the_whole_session(swarm: Cluster) -> None:
    manager = swarm.manager
    port = 18081
    created = await manager.docker(
        "service", "create", "--name", "whoami", "--replicas", "6", "--publish", f"{port}:8000", "swarmtui/whoami"
    )
    assert "converged" in created
    running = await swarm.until_running("whoami", 6)
    spread = Counter(task["NodeID"] for task in running)
    assert sorted(spread.values()) == [1, 1, 1, 1, 2], "six tasks spread evenly over five nodes"

    for node in swarm.nodes:
        await all_in_turn(node, port, 6)

    listing = await manager.docker("service", "ps", "whoami")
    assert len(re.findall(r"whoami\.\d +swarmtui/whoami.* Running +Running", listing)) == 6
    assert re.search(r"replicated +6/6 +swarmtui/whoami", await manager.docker("service", "ls"))

    scaled = await manager.docker("service", "scale", "whoami=9")
    assert "converged" in scaled
    after = await swarm.until_running("whoami", 9)
    assert names(running) < names(after), "scaling up leaves what runs alone"
    await manager.docker("service", "scale", "whoami=4")
    await swarm.until_running("whoami", 4)
    await manager.docker("service", "rm", "whoami")
    await swarm.eventually(lambda tasks: tasks == [], "/tasks")


async def test_logs_of_all_replicas_are_followed_in_order(swarm: Cluster) -> None:
    manager = swarm.manager
    await manager.docker(
        "service", "create", "-d", "--name", "chat", "--replicas", "3", "--env", "RATE=20", "swarmtui/logger"
    )
    await swarm.until_running("chat", 3)
    process = await asyncio.create_subprocess_exec(
        DOCKER,
        "service",
        "logs",
        "-f",
        "-t",
        "chat",
        env={**os.environ, "DOCKER_HOST": manager.host},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    lines = []
    async with asyncio.timeout(20):
        while len(lines) < 200:
            lines.append((await process.stdout.readline()).decode())
    process.kill()
    await process.wait()
    replicas = {re.search(r"chat\.\d", line).group() for line in lines if "chat." in line}  # type: ignore[union-attr]
    assert replicas == {"chat.1", "chat.2", "chat.3"}
    stamps = [line.split()[0] for line in lines]
    assert stamps == sorted(stamps)


async def test_a_process_killed_from_outside_is_replaced(swarm: Cluster) -> None:
    manager = swarm.manager
    await manager.docker(
        "service", "create", "-d", "--name", "victim", "--replicas", "2", "--restart-delay", "200ms", "swarmtui/whoami"
    )
    before = await swarm.until_running("victim", 2)
    os.kill(before[0]["Status"]["ContainerStatus"]["PID"], signal.SIGKILL)
    failed = await swarm.eventually(
        lambda task: task["Status"]["State"] == "failed", f"/tasks/{before[0]['ID']}", within=5
    )
    assert "137" in failed["Status"]["Err"]
    after = await swarm.until_running("victim", 2)
    assert names(after) & names(before) == {before[1]["ID"]}
    assert {task["Slot"] for task in after} == {1, 2}


async def test_the_sdk_drives_it(swarm: Cluster) -> None:
    def work() -> None:
        client = docker.DockerClient(base_url=swarm.manager.host, version="auto", timeout=20)
        try:
            assert {node.attrs["Description"]["Hostname"] for node in client.nodes.list()} == {
                f"node{n}" for n in range(1, 6)
            }
            service = client.services.create("swarmtui/whoami", name="sdk", mode={"Replicated": {"Replicas": 2}})
            assert client.services.get(service.id).name == "sdk"
            deadline = time.monotonic() + 15
            while sum(task["Status"]["State"] == "running" for task in service.tasks()) < 2:
                assert time.monotonic() < deadline
            assert service.scale(1)
            assert client.services.list(filters={"name": "sdk"})[0].id == service.id
            service.remove()
            with pytest.raises(docker.errors.NotFound):
                client.services.get(service.id)
        finally:
            client.close()

    await asyncio.to_thread(work)
    await swarm.eventually(lambda tasks: tasks == [], "/tasks")


async def test_a_service_made_without_an_endpoint_spec_converges_when_it_is_scaled(swarm: Cluster) -> None:
    spec = {"Name": "bare", "TaskTemplate": {"ContainerSpec": {"Image": "swarmtui/whoami:latest"}}}
    mode = {"Mode": {"Replicated": {"Replicas": 2}}}
    _, made = await swarm.manager.api("POST", "/services/create", {**spec, **mode})
    before = await swarm.until_running("bare", 2)
    assert "converged" in await swarm.manager.docker("service", "scale", "bare=3")
    assert names(before) < names(await swarm.until_running("bare", 3)), made


async def test_a_refused_image_is_tried_again_at_the_pace_of_the_restart_delay(swarm: Cluster) -> None:
    await swarm.manager.docker("service", "create", "-d", "--name", "refused", "--restart-delay", "1s", "no-such/image")
    filters = '{"service":["refused"]}'
    await swarm.eventually(
        lambda tasks: sum(task["Status"]["State"] == "rejected" for task in tasks) >= 3, f"/tasks?filters={filters}"
    )
    tasks = await swarm.tasks("refused", running=False)
    rejected = sorted(task["Status"]["Timestamp"] for task in tasks if task["Status"]["State"] == "rejected")
    assert "No such image: no-such/image:latest" in str([task["Status"].get("Err") for task in tasks])
    apart = [
        datetime.fromisoformat(later[:26]) - datetime.fromisoformat(earlier[:26])
        for earlier, later in itertools.pairwise(rejected[1:])
    ]
    assert all(gap.total_seconds() > 0.5 for gap in apart), apart
    await swarm.manager.docker("service", "update", "--image", "swarmtui/whoami", "refused")
    await swarm.until_running("refused", 1)


async def test_a_restarted_agent_finds_its_tasks_and_nothing_moves(swarm: Cluster) -> None:
    await swarm.manager.docker("service", "create", "-d", "--name", "calm", "--replicas", "5", "swarmtui/whoami")
    before = await swarm.until_running("calm", 5)
    worker = swarm.nodes[1]
    for number in (signal.SIGTERM, signal.SIGKILL):
        worker.kill(number)
        worker.start()
        await worker.ready()
        node = (await worker.api("GET", "/info"))[1]["Swarm"]["NodeID"]
        await swarm.eventually(lambda answer: answer["Status"]["State"] == "ready", f"/nodes/{node}")
    after = await swarm.until_running("calm", 5)
    assert names(after) == names(before)
    assert {t["Status"]["ContainerStatus"]["PID"] for t in after} == {
        t["Status"]["ContainerStatus"]["PID"] for t in before
    }


async def test_the_manager_comes_back_from_kill_9_with_all_it_acknowledged(swarm: Cluster) -> None:
    manager = swarm.manager
    await manager.docker("service", "create", "-d", "--name", "kept", "--replicas", "5", "swarmtui/whoami")
    before = await swarm.until_running("kept", 5)
    manager.kill()
    manager.start()
    await manager.ready()
    await swarm.eventually(lambda nodes: all(n["Status"]["State"] == "ready" for n in nodes), "/nodes")
    after = await swarm.until_running("kept", 5)
    assert names(after) == names(before)


async def test_a_killed_node_is_noticed_and_its_tasks_run_elsewhere_within_four_seconds(swarm: Cluster) -> None:
    """The last test of this module: one node stays dead."""
    manager, port = swarm.manager, 18082
    await manager.docker(
        "service", "create", "-d", "--name", "healing", "--replicas", "9", "-p", f"{port}:8000", "swarmtui/whoami"
    )
    before = await swarm.until_running("healing", 9)
    victim = swarm.nodes[4]
    node_id = (await victim.api("GET", "/info"))[1]["Swarm"]["NodeID"]
    started = time.monotonic()
    victim.kill()
    victim.kill_tasks()
    while True:
        running = await swarm.tasks("healing")
        if len(running) == 9 and all(task["NodeID"] != node_id for task in running):
            break
        # Twice the figure, as the machine may be busy; the figure itself is measured by the benchmarks.
        assert time.monotonic() - started < 8
    print(f"bench: node killed to nine of nine elsewhere: {time.monotonic() - started:.2f} s (reach 4 s)")
    survivors = {task["ID"] for task in before if task["NodeID"] != node_id}
    assert survivors < names(running), "what ran elsewhere was not touched"
    slots = Counter(task["Slot"] for task in running)
    assert slots == Counter(range(1, 10))
    nodes = (await manager.api("GET", "/nodes"))[1]
    assert next(node for node in nodes if node["ID"] == node_id)["Status"]["State"] == "down"
    for node in swarm.nodes[:4]:
        await all_in_turn(node, port, 9)
