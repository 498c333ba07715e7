"""What managers keep secret: a log that nobody reads without the key, keys that change under load, removed managers."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cluster import AgentProcess, Cluster, eventually, running_cluster
from managers import Writer, create, leader_and_others, listed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PLAIN = b"a text that is in no file of a manager"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swarm() -> AsyncIterator[Cluster]:
    async with running_cluster(4, managers=3) as cluster:
        yield cluster


def files_with(folder: Path, text: bytes) -> list[str]:
    """The files under a folder in which the text is found."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


async def update_swarm(node: AgentProcess, query: str = "", **changes: object) -> None:
    swarm = (await node.api("GET", "/swarm"))[1]
    status, answer = await node.api(
        "POST", f"/swarm/update?version={swarm['Version']['Index']}{query}", {**swarm["Spec"], **changes}
    )
    assert status == 200, answer


async def test_what_is_written_is_on_no_disk_to_be_read(swarm: Cluster) -> None:
    managers = swarm.nodes[:3]
    await leader_and_others(swarm, managers)
    body = {"Name": "plain", "Data": "eA==", "Labels": {"text": PLAIN.decode()}}
    status, answer = await managers[1].api("POST", "/configs/create", body)
    assert status == 201, answer
    for manager in managers:
        configs = (await manager.api("GET", "/configs"))[1]
        assert configs[0]["Spec"]["Labels"]["text"] == PLAIN.decode()
    for node in swarm.nodes:
        assert files_with(node.folder, PLAIN) == []
        assert files_with(node.folder / "data", b"SWARMLOG") != [] or node is swarm.nodes[3]


async def test_the_unlock_key_is_rotated_under_load_and_a_restarted_manager_waits_for_the_newest(
    swarm: Cluster,
) -> None:
    managers = swarm.nodes[:3]
    leader, (other, locked) = await leader_and_others(swarm, managers)
    await update_swarm(other, EncryptionConfig={"AutoLockManagers": True})
    keys = [(await other.api("GET", "/swarm/unlockkey"))[1]["UnlockKey"]]
    writer = Writer(managers, random.Random(3), prefix="rotating-")
    async with writer.writing():
        for _ in range(4):
            await update_swarm(leader, "&rotateManagerUnlockKey=true")
            keys.append((await leader.api("GET", "/swarm/unlockkey"))[1]["UnlockKey"])
            known = len(writer.acknowledged)
            while len(writer.acknowledged) < known + 5:
                await asyncio.sleep(0.01)
    assert len(set(keys)) == len(keys)
    for manager in managers:
        writer.check(await listed(manager))
    assert len(writer.unknown) <= 2, "those that were under way at the end"
    assert writer.refused == [], "no write failed over it"

    locked.kill()
    for secret in (PLAIN, b"PRIVATE KEY", *(key.encode() for key in keys)):
        assert files_with(locked.folder, secret) == []
    locked.start()
    await locked.ready()
    await eventually(locked, lambda info: info["Swarm"]["LocalNodeState"] == "locked", "/info")
    assert await create(other, "while-one-is-locked") < 3.0
    status, answer = await locked.api("POST", "/swarm/unlock", {"UnlockKey": keys[0]})
    assert status != 200, "a key of before opens nothing"
    status, answer = await locked.api("POST", "/swarm/unlock", {"UnlockKey": keys[-1]})
    assert status == 200, answer
    await leader_and_others(swarm, managers)
    assert "while-one-is-locked" in await listed(locked)
    await update_swarm(other, EncryptionConfig={"AutoLockManagers": False})


async def test_a_removed_managers_certificate_opens_nothing(swarm: Cluster) -> None:
    managers = swarm.nodes[:3]
    leader, (other, removed) = await leader_and_others(swarm, managers)
    kept = swarm.folder / "kept-data"
    nodes = (await leader.api("GET", "/nodes"))[1]
    node_id = next(node["ID"] for node in nodes if node["Description"]["Hostname"] == removed.name)
    removed.kill()
    shutil.copytree(removed.folder / "data", kept)
    await leader.docker("node", "demote", node_id)
    await eventually(
        leader,
        lambda nodes: all(not node.get("ManagerStatus") for node in nodes if node["ID"] == node_id),
        "/nodes",
    )
    await leader.docker("node", "rm", "--force", node_id)
    # Somebody has its disk: keys, certificate and log of a manager.
    await leader_and_others(swarm, [leader, other])
    removed.start()
    await removed.ready()
    end = time.monotonic() + 15
    while (await removed.api("GET", "/info"))[1]["Swarm"]["LocalNodeState"] == "active":
        status, _ = await removed.api("POST", "/services/create", {"Name": "theirs"})
        assert status != 201
        assert time.monotonic() < end, removed.log[-3000:]
        await asyncio.sleep(0.1)
    for manager in (leader, other):
        assert "theirs" not in await listed(manager)
        assert await create(manager, f"without-it-{manager.name}") < 1.0
    assert all(node["ID"] != node_id for node in (await leader.api("GET", "/nodes"))[1])
