"""A playground with real agents: a cluster is formed, and it lives through what is done to its instances."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from playground_tiers import usable_tiers

from swarmtui.docker_api.types import Node, Task
from swarmtui.playground import forming
from swarmtui.playground.places import BASE_VARIABLE
from swarmtui.playground.session import Options, PlaygroundSession
from swarmtui.playground.sweep import owned_by

# A cluster of three starts, loses nodes and finds them again: seconds each, and more where a machine has other work.
pytestmark = pytest.mark.timeout(150)


@pytest.fixture(params=usable_tiers())
async def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlaygroundSession]:
    """A cluster of three in each tier."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    monkeypatch.setenv(BASE_VARIABLE, f"{folder}/b")
    async with PlaygroundSession(Options(nodes=3, tier=request.param)) as opened:
        yield opened
        place, name = opened.folder, opened.name
    assert list(folder.iterdir()) == []
    groups = Path("/sys/fs/cgroup")
    assert [*groups.glob(f"*/swarmtui-{name}"), *groups.glob(f"swarmtui-{name}")] == []
    assert owned_by(name, place) == set()
    shutil.rmtree(folder)


async def until(manager: str, hostname: str, state: str) -> None:
    """Wait until the manager holds a node for `state`; `gone` means that it is not listed."""
    known: dict[str, Node] = {}
    async with forming.client(manager) as api:
        async for batch in api.watch():
            for line in batch:
                if isinstance(line.object, Node):
                    known[line.object.id] = line.object
                    if line.kind == "remove":
                        del known[line.object.id]
            states = {node.description.hostname: node.status.state for node in known.values()}
            if states.get(hostname, "gone") == state:
                return


async def test_nodes_are_lost_found_added_and_removed(session: PlaygroundSession) -> None:
    node1, node2, node3 = session.instances
    async with forming.client(node1.docker_host) as api:
        nodes = {node.description.hostname: node for node in await api.nodes()}
    assert {name: node.status.state for name, node in nodes.items()} == dict.fromkeys(
        ("node1", "node2", "node3"), "ready"
    )
    assert {name: node.status.addr for name, node in nodes.items()} == {
        one.name: str(one.address) for one in session.instances
    }
    assert [name for name, node in nodes.items() if node.manager_status] == ["node1"]

    os.kill(node2.pid, signal.SIGKILL)
    await until(node1.docker_host, "node2", "down")
    await session.start("node2")
    await until(node1.docker_host, "node2", "ready")

    os.kill(node3.agent_pid, signal.SIGKILL)
    await until(node1.docker_host, "node3", "down")
    await session.start("node3")
    await until(node1.docker_host, "node3", "ready")

    await session.remove("node2")
    await until(node1.docker_host, "node2", "gone")
    added = await session.add()
    async with forming.client(added.docker_host) as api:
        info = await api.info()
    assert info.swarm.local_node_state == "active"
    assert not info.swarm.control_available


async def test_the_images_that_ship_with_the_product_run_in_every_tier(session: PlaygroundSession) -> None:
    node1 = session.instances[0]
    spec = {
        "Name": "whoami",
        "TaskTemplate": {"ContainerSpec": {"Image": "swarmtui/whoami"}},
        "Mode": {"Replicated": {"Replicas": 3}},
        "EndpointSpec": {"Ports": [{"TargetPort": 8000, "PublishedPort": 8081}]},
    }
    async with forming.client(node1.docker_host) as api:
        await api.create_service(spec)
        running: set[str] = set()
        async for batch in api.watch():
            for line in batch:
                if isinstance(line.object, Task) and line.object.status.state == "running":
                    running.add(line.object.node_id)
            if len(running) == 3:
                break
    for one in session.instances:
        assert (await answer_of(f"http://{one.address}:8081")).startswith("I'm ")


async def answer_of(url: str) -> str:
    """What a published port answers. A task that runs may not listen yet, which nothing tells: hence the tries."""
    async with asyncio.timeout(10), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(url) as answer:
                    return await answer.text()
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)
