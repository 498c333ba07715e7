"""The life of a group of managers, with real agents and the real docker CLI against any manager's socket."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from typing import Any

from cluster import AgentProcess, Cluster, eventually, running_cluster

LOGGER = "swarmtui/logger"


async def create(node: AgentProcess, name: str, replicas: int = 2) -> str:
    return await node.docker("service", "create", "-d", "--name", name, "--replicas", str(replicas), LOGGER)


async def services(node: AgentProcess) -> list[str]:
    return sorted((await node.docker("service", "ls", "--format", "{{.Name}}")).split())


async def state(node: AgentProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await node.api("GET", "/info"))[1]["Swarm"]
    return found


async def until_state(node: AgentProcess, wanted: str, within: float = 15.0) -> None:
    await eventually(node, lambda info: info["Swarm"]["LocalNodeState"] == wanted, "/info", within)


async def until_worker(node: AgentProcess) -> None:
    await eventually(node, lambda info: info["Swarm"]["ControlAvailable"] is False, "/info")


async def running_tasks(node: AgentProcess, service: str) -> set[str]:
    filters = json.dumps({"service": [service], "desired-state": ["running"]})
    found = (await node.api("GET", f"/tasks?filters={filters}"))[1]
    return {task["ID"] for task in found if task["Status"]["State"] == "running"}


def without(nodes: list[AgentProcess], *gone: AgentProcess) -> list[AgentProcess]:
    return [node for node in nodes if node not in gone]


async def test_the_leader_dies_and_another_manager_goes_on() -> None:
    async with running_cluster(5, managers=3) as swarm:
        managers = swarm.nodes[:3]
        await swarm.until_managers(3)
        await create(managers[1], "first", 4)
        before = {task["ID"] for task in await swarm.until_running("first", 4)}
        leader = await swarm.leader(managers)
        one, other = without(managers, leader)
        leader.kill()
        began = time.monotonic()
        await create(one, "second")
        assert time.monotonic() - began < 3.0
        assert await services(other) == ["first", "second"], "what one manager acknowledged every other one shows"
        new = await swarm.leader([one, other])
        assert new is not leader
        listing = (await other.docker("node", "ls")).splitlines()
        assert sum("Leader" in line for line in listing) == 1
        await eventually(
            other,
            lambda nodes: sum((n.get("ManagerStatus") or {}).get("Reachability") == "unreachable" for n in nodes) == 1,
            "/nodes",
        )

        leader.start()
        await leader.ready()
        await swarm.until_managers(3, at=leader)
        assert await services(leader) == ["first", "second"], "it caught up"
        assert before & await running_tasks(leader, "first"), "tasks on other nodes were left alone"


async def test_a_frozen_leader_is_left_and_follows_when_it_wakes_up() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "first")
        leader = await swarm.leader()
        one, other = without(swarm.nodes, leader)
        leader.kill(signal.SIGSTOP)
        try:
            began = time.monotonic()
            await create(one, "second")
            assert time.monotonic() - began < 3.0
        finally:
            leader.kill(signal.SIGCONT)
        await swarm.until_managers(3, at=other)
        await create(leader, "third")
        for node in swarm.nodes:
            assert await services(node) == ["first", "second", "third"]


async def test_roles_change_in_place_and_tasks_notice_nothing() -> None:
    async with running_cluster(4, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "web", 4)
        tasks = {task["ID"] for task in await swarm.until_running("web", 4)}
        fourth = swarm.nodes[3]
        refused = await fourth.docker("node", "ls", check=False)
        assert "Worker nodes can't be used to view or modify cluster state" in refused
        assert "promoted to a manager" in await swarm.nodes[1].docker("node", "promote", "node4")
        await swarm.until_managers(4, at=fourth)
        await create(fourth, "made-there")

        leader = await swarm.leader()
        assert "demoted" in await leader.docker("node", "demote", leader.name), "the leader, by its own API"
        rest = without(swarm.nodes, leader)
        await swarm.until_managers(3, at=rest[0])
        await until_worker(leader)
        async with asyncio.timeout(5):
            while (leader.folder / "data" / "swarm" / "raft").exists():
                await asyncio.sleep(0.02)
        refused = await leader.docker("node", "ls", check=False)
        assert "Worker nodes can't be used to view or modify cluster state" in refused
        await swarm.leader(rest)

        await rest[0].docker("node", "promote", leader.name)
        await swarm.until_managers(4, at=leader)
        assert await services(leader) == ["made-there", "web"]
        await eventually(rest[0], lambda nodes: {n["Status"]["State"] for n in nodes} == {"ready"}, "/nodes")
        assert await running_tasks(leader, "web") == tasks

        for node in rest:
            await leader.docker("node", "demote", node.name)
            await until_worker(node)
        refused = await leader.docker("node", "demote", leader.name, check=False)
        assert "attempting to demote the last manager of the swarm" in refused
        assert await services(leader) == ["made-there", "web"]
        assert await running_tasks(leader, "web") == tasks


async def test_a_manager_leaves_and_is_removed() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        leaving = await swarm.leader()
        node_id = (await state(leaving))["NodeID"]
        refused = await leaving.docker("swarm", "leave", check=False)
        assert "You are attempting to leave the swarm on a node that is participating as a manager." in refused
        rest = without(swarm.nodes, leaving)
        refused = await rest[0].docker("node", "rm", "--force", node_id, check=False)
        assert "is a cluster manager and is a member of the raft cluster" in refused
        began = time.monotonic()
        assert "Node left the swarm." in await leaving.docker("swarm", "leave", "--force")
        assert time.monotonic() - began < 10
        assert not (leaving.folder / "data" / "swarm").exists()
        await swarm.until_managers(2, at=rest[0])
        await eventually(
            rest[0],
            lambda nodes: {n["ID"]: n["Status"]["State"] for n in nodes}[node_id] == "down",
            "/nodes",
        )
        assert node_id in await rest[1].docker("node", "rm", node_id)
        await swarm.join(leaving, await token(rest[0], "Manager"), at=rest[1])
        await swarm.until_managers(3, at=leaving)


async def token(node: AgentProcess, role: str) -> str:
    return str((await node.api("GET", "/swarm"))[1]["JoinTokens"][role])


async def test_a_node_joins_at_a_follower_while_the_leader_dies() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        newcomer = swarm.add()
        newcomer.start()
        await newcomer.ready()
        leader = await swarm.leader(swarm.nodes[:3])
        follower = without(swarm.nodes[:3], leader)[0]
        join_token = await token(follower, "Worker")
        leader.kill()
        await swarm.join(newcomer, join_token, at=follower)
        nodes = (await follower.api("GET", "/nodes"))[1]
        assert sum(node["Description"]["Hostname"] == newcomer.name for node in nodes) == 1, (
            "one node, asked for once or twice"
        )


async def test_a_wiped_manager_joins_again_under_another_identity() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "web")
        wiped = swarm.nodes[2]
        old_id = (await state(wiped))["NodeID"]
        wiped.kill()
        shutil.rmtree(wiped.folder / "data")
        wiped.start()
        await wiped.ready()
        assert (await state(wiped))["LocalNodeState"] == "inactive"
        await swarm.join(wiped, await swarm.token("Manager"), at=swarm.nodes[1])
        assert (await state(wiped))["NodeID"] != old_id
        assert await services(wiped) == ["web"]
        await swarm.manager.docker("node", "demote", old_id)
        await swarm.until_managers(3, at=wiped)
        await eventually(
            swarm.manager, lambda nodes: {n["ID"]: n["Status"]["State"] for n in nodes}[old_id] == "down", "/nodes"
        )
        await wiped.docker("node", "rm", old_id)
        await eventually(swarm.manager, lambda nodes: len(nodes) == 3, "/nodes")


async def restarted(swarm: Cluster, order: list[AgentProcess], pause: float) -> None:
    for node in swarm.nodes:
        node.kill()
    for node in order:
        node.start()
        await asyncio.sleep(pause)
    await asyncio.gather(*(node.ready() for node in order))


async def test_all_managers_are_restarted_at_once_and_one_after_the_other() -> None:
    async with running_cluster(4, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "web", 4)
        tasks = {task["ID"] for task in await swarm.until_running("web", 4)}
        for order, pause in ((swarm.nodes, 0.0), (swarm.nodes[::-1], 1.0), ([*swarm.nodes[1:], swarm.nodes[0]], 0.3)):
            await restarted(swarm, order, pause)
            for node in swarm.nodes[:3]:
                await swarm.until_managers(3, at=node)
            await eventually(swarm.manager, lambda nodes: {n["Status"]["State"] for n in nodes} == {"ready"}, "/nodes")
            assert await running_tasks(swarm.manager, "web") == tasks, "all came back before anything was moved"
        await create(swarm.nodes[1], "after")


async def test_an_orderly_stop_hands_the_leadership_over_first() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        leader = await swarm.leader()
        rest = without(swarm.nodes, leader)
        began = time.monotonic()
        leader.kill(signal.SIGTERM)
        assert time.monotonic() - began < 6
        assert "another manager leads now" in leader.log
        await create(rest[0], "meanwhile")
        await swarm.leader(rest)
        leader_id = next(
            node["ID"]
            for node in (await rest[0].api("GET", "/nodes"))[1]
            if node["Description"]["Hostname"] == leader.name
        )
        # The word of leave reached the new leader: nothing moves for a minute.
        nodes = {node["ID"]: node for node in (await rest[0].api("GET", "/nodes"))[1]}
        assert nodes[leader_id]["Status"]["State"] == "disconnected"
        leader.start()
        await leader.ready()
        await swarm.until_managers(3, at=leader)
