"""When the managers lost their majority, their keys or their addresses: what still works, and the ways back."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import aiohttp
from cluster import AgentProcess, eventually, running_cluster
from test_cluster_managers import (
    create,
    running_tasks,
    services,
    state,
    token,
    until_state,
    until_worker,
    without,
)


async def test_a_lost_quorum_is_said_at_once_and_what_is_known_is_still_shown() -> None:
    async with running_cluster(4, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "web", 2)
        await swarm.until_running("web", 2)
        survivor, worker = swarm.nodes[1], swarm.nodes[3]
        lost = without(swarm.nodes[:3], survivor)
        for node in lost:
            node.kill()
        await eventually(survivor, lambda info: "does not have a leader" in info["Swarm"]["Error"], "/info")
        began = time.monotonic()
        assert await services(survivor) == ["web"]
        assert time.monotonic() - began < 1.0
        began = time.monotonic()
        refused = await survivor.docker("service", "create", "-d", "swarmtui/logger", check=False)
        assert time.monotonic() - began < 1.0
        for word in ("node1", "node3", f"{lost[0].address}:2377", "docker swarm init --force-new-cluster"):
            assert word in refused
        # The agent alone is started again: it still knows the state.
        survivor.kill()
        survivor.start()
        await survivor.ready()
        assert await services(survivor) == ["web"]
        assert (await worker.api("GET", "/info"))[1]["Swarm"]["LocalNodeState"] == "active"
        lost[0].start()
        await lost[0].ready()
        await create(survivor, "after")
        await eventually(
            survivor,
            lambda nodes: sum((n.get("ManagerStatus") or {}).get("Reachability") == "reachable" for n in nodes) == 2,
            "/nodes",
        )


async def test_a_survivor_begins_a_new_cluster_with_all_the_state() -> None:
    async with running_cluster(5, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "web", 5)
        before = {task["ID"] for task in await swarm.until_running("web", 5)}
        swarm_id = (await swarm.manager.api("GET", "/swarm"))[1]["ID"]
        survivor = swarm.nodes[2]
        others = swarm.nodes[:2]
        for node in others:
            node.kill()
        await eventually(survivor, lambda info: "does not have a leader" in info["Swarm"]["Error"], "/info")
        said = await survivor.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", survivor.address)
        assert "Swarm initialized" in said
        await swarm.until_managers(1, at=survivor)
        assert (await survivor.api("GET", "/swarm"))[1]["ID"] == swarm_id
        assert await services(survivor) == ["web"]
        alive = {(await state(node))["NodeID"] for node in swarm.nodes[2:]}
        await create(survivor, "after")
        kept = [
            task
            for task in (await survivor.api("GET", "/tasks"))[1]
            if task.get("NodeID") in alive and task["ID"] in before
        ]
        assert len(kept) == 3, "tasks of the nodes that are there went on"
        assert all(task["Status"]["State"] == "running" for task in kept)

        # Two of three members of the old group come back: they must not lead it.
        for node in others:
            node.start()
        await asyncio.gather(*(node.ready() for node in others))
        for node in others:
            await until_worker(node)
            await until_state(node, "active")
        await eventually(survivor, lambda nodes: {n["Status"]["State"] for n in nodes} == {"ready"}, "/nodes")
        assert await services(survivor) == ["after", "web"]
        await survivor.docker("node", "promote", "node1", "node2")
        await swarm.until_managers(3, at=others[0])
        assert await services(others[0]) == ["after", "web"]


async def test_a_locked_manager_asks_for_the_key_and_every_manager_follows_its_rotation() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        await create(swarm.manager, "web")
        said = await swarm.nodes[1].docker("swarm", "update", "--autolock=true")
        key = next(word for word in said.split() if word.startswith("SWMKEY-1-"))
        await until_locked_on_disk(swarm.nodes)
        for node in swarm.nodes:
            assert not holds(node.folder / "data" / "swarm", "PRIVATE KEY")
        locked = swarm.nodes[2]
        locked.kill()
        locked.start()
        await locked.ready()
        assert (await state(locked))["LocalNodeState"] == "locked"
        assert "Swarm: locked" in await locked.docker("info")
        refused = await locked.docker("service", "ls", check=False)
        assert "Swarm is encrypted and needs to be unlocked before it can be used." in refused
        wrong = "SWMKEY-1-" + "A" * 43
        refused = await locked.docker("swarm", "unlock", check=False, stdin=wrong.encode())
        assert "invalid key" in refused, refused
        await locked.docker("swarm", "unlock", stdin=key.encode())
        await swarm.until_managers(3, at=locked)
        assert await services(locked) == ["web"]

        said = await locked.docker("swarm", "unlock-key", "--rotate")
        new = next(word for word in said.split() if word.startswith("SWMKEY-1-"))
        assert new != key
        await until_logged(swarm.nodes, "locked anew", {0: 2, 1: 2, 2: 2})
        for node in swarm.nodes:
            node.kill()
        for node in swarm.nodes:
            node.start()
        await asyncio.gather(*(node.ready() for node in swarm.nodes))
        for node in swarm.nodes:
            refused = await node.docker("swarm", "unlock", check=False, stdin=key.encode())
            assert "invalid key" in refused
            await node.docker("swarm", "unlock", stdin=new.encode())
        await swarm.until_managers(3)
        await swarm.nodes[1].docker("swarm", "update", "--autolock=false")
        await until_logged(swarm.nodes, "no longer locked", {0: 1, 1: 1, 2: 1})
        swarm.nodes[0].kill()
        swarm.nodes[0].start()
        await swarm.nodes[0].ready()
        await swarm.until_managers(3)


async def until_locked_on_disk(nodes: list[AgentProcess]) -> None:
    async with asyncio.timeout(10):
        while not all('"locked": true' in keys_of(node).read_text() for node in nodes):
            await asyncio.sleep(0.02)


async def until_logged(nodes: list[AgentProcess], text: str, times: dict[int, int]) -> None:
    async with asyncio.timeout(10):
        while not all(nodes[number].log.count(text) >= count for number, count in times.items()):
            await asyncio.sleep(0.02)


def keys_of(node: AgentProcess) -> Path:
    return node.folder / "data" / "swarm" / "certificates" / "data-keys.json"


def holds(folder: Path, text: str) -> bool:
    return any(path.is_file() and text.encode() in path.read_bytes() for path in folder.rglob("*"))


async def test_a_manager_that_starts_at_another_address_is_moved() -> None:
    async with running_cluster(3, managers=3) as swarm:
        await swarm.until_managers(3)
        moved = swarm.nodes[1]
        moved.kill()
        old = moved.address
        moved.address = moved.address.rsplit(".", 1)[0] + ".9"
        moved.start()
        await moved.ready()
        rest = without(swarm.nodes, moved)

        def is_moved(nodes: list[dict[str, object]]) -> bool:
            return f"{moved.address}:2377" in str(nodes) and f"{old}:2377" not in str(nodes)

        await eventually(rest[0], is_moved, "/nodes")
        await swarm.until_managers(3, at=moved)
        rest[0].kill()
        await create(moved, "web")
        assert await services(rest[1]) == ["web"]


async def backup(node: AgentProcess) -> bytes:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(node.socket))) as session,
        session.get("http://agent/swarmtui/v1/backup") as response,
    ):
        assert response.status == 200, await response.text()
        return await response.read()


async def restore(node: AgentProcess, data: bytes) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(node.socket))) as session,
        session.post("http://agent/swarmtui/v1/restore", data=data) as response,
    ):
        return response.status, await response.text()


async def test_a_cluster_goes_on_from_its_backup() -> None:
    async with running_cluster(3, managers=2) as swarm:
        await swarm.until_managers(2)
        await create(swarm.manager, "web", 3)
        await swarm.until_running("web", 3)
        data = await backup(swarm.nodes[1])
        before = (await swarm.manager.api("GET", "/swarm"))[1]
        worker = swarm.nodes[2]
        new = swarm.add()
        for node in swarm.nodes[:2]:
            node.kill()
            node.kill_tasks()
            shutil.rmtree(node.folder / "data", ignore_errors=True)
        new.start()
        await new.ready()
        for damaged in (data[:-1], data[: len(data) // 2], data[:200] + b"\x00" + data[201:], b"nonsense"):
            status, text = await restore(new, damaged)
            assert status == 400, text
            assert (await state(new))["LocalNodeState"] == "inactive"
        status, text = await restore(new, data)
        assert status == 200, text
        after = (await new.api("GET", "/swarm"))[1]
        assert (after["ID"], after["JoinTokens"], after["TLSInfo"]) == (
            before["ID"],
            before["JoinTokens"],
            before["TLSInfo"],
        )
        assert await services(new) == ["web"]
        await swarm.until_managers(1, at=new)
        new.kill()
        new.start()
        await new.ready()
        assert await services(new) == ["web"]
        # A worker of before joins with the token of before.
        await worker.api("POST", "/swarm/leave?force=1")
        await swarm.join(worker, await token(new, "Worker"), at=new)
        async with asyncio.timeout(20):
            while len(await running_tasks(new, "web")) != 3:
                await asyncio.sleep(0.1)
