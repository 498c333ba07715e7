"""Managers whose cables are pulled: nobody is told, and packets vanish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from cables import POSSIBLE, Cables, cabled_cluster
from managers import create, leader_and_others, listed, service

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
    pytest.mark.skipif(not POSSIBLE, reason="needs root and ip"),
]

BOUND = 3.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swarm() -> AsyncIterator[Cables]:
    async with cabled_cluster(5, managers=3) as cluster:
        yield cluster


@pytest.mark.parametrize("asked", [0, 1])
async def test_the_leaders_cable_is_pulled(swarm: Cables, asked: int) -> None:
    leader, others = await leader_and_others(swarm, swarm.nodes[:3])
    swarm.pull(leader)
    try:
        assert await create(others[asked], f"cut-off-{asked}") < BOUND
        # The one that is alone gives up its place, shows what it knows, and takes nothing.
        began = time.monotonic()
        status, answer = await leader.api("POST", "/services/create", service("alone"))
        assert status == 503, answer
        assert time.monotonic() - began < 10
        assert f"cut-off-{asked}" not in await listed(leader)
    finally:
        swarm.plug(leader)
    await leader_and_others(swarm, swarm.nodes[:3])
    for manager in swarm.nodes[:3]:
        names = await listed(manager)
        assert f"cut-off-{asked}" in names
        assert "alone" not in names


async def test_tasks_of_a_worker_that_is_cut_off_run_elsewhere_and_once(swarm: Cables) -> None:
    _, others = await leader_and_others(swarm, swarm.nodes[:3])
    await create(others[0], "spread", replicas=5)
    await swarm.until_running("spread", 5)
    worker = swarm.nodes[4]
    swarm.pull(worker)
    try:
        end = time.monotonic() + 30
        while True:
            node = await node_named(swarm, worker.name)
            running = await swarm.tasks("spread")
            if len(running) == 5 and all(task["NodeID"] != node["ID"] for task in running):
                break
            assert time.monotonic() < end, (node["Status"], [(t["Slot"], t["NodeID"], t["Status"]) for t in running])
            await asyncio.sleep(0.1)
        assert len({task["Slot"] for task in running}) == 5
    finally:
        swarm.plug(worker)


async def node_named(swarm: Cables, name: str) -> dict:
    nodes = (await swarm.manager.api("GET", "/nodes"))[1]
    return next(node for node in nodes if node["Description"]["Hostname"] == name)


async def test_leader_and_a_follower_are_cut_from_the_rest_at_the_same_time(swarm: Cables) -> None:
    leader, (other, left) = await leader_and_others(swarm, swarm.nodes[:3])
    swarm.pull(leader)
    swarm.pull(other)
    try:
        end = time.monotonic() + 10
        while (await left.api("POST", "/services/create", service("nobody")))[0] != 503:
            assert time.monotonic() < end
    finally:
        swarm.plug(leader)
        swarm.plug(other)
    await leader_and_others(swarm, swarm.nodes[:3])
    assert await create(left, "together-again") < BOUND
