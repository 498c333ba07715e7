"""A manager's files follow the cluster's unlock key; a worker's are never locked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.api_types.node import NodeRole
from agent.api_types.swarm import Cluster
from agent.api_types.times import now_ns
from agent.node.keys import KeyFollower, NodeKeys
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.pki.sealing import Locked
from agent.pki.unlock import InvalidUnlockKey, make_unlock_key
from agent.store.store import Store

ROOT = RootCA.create(now_ns)


def identity(role: NodeRole = NodeRole.MANAGER) -> NodeIdentity:
    key = NodeKey.create()
    certificate = ROOT.sign(key.request(), "node", role, cluster_id="cluster", clock=now_ns)
    return NodeIdentity.from_pem(certificate, key.pem, ROOT.cert_pem)


@pytest.fixture
def keys(tmp_path: Path) -> NodeKeys:
    keys = NodeKeys(tmp_path, identity())
    keys.save(keys.identity)
    keys.sealing()
    return keys


def test_locked_files_open_with_the_newest_key_alone(keys: NodeKeys, tmp_path: Path) -> None:
    assert NodeKeys.load(tmp_path).unlock_key == ""
    first, second = make_unlock_key(), make_unlock_key()
    keys.lock(first)
    keys.lock(second)
    with pytest.raises(Locked):
        NodeKeys.load(tmp_path)
    with pytest.raises(InvalidUnlockKey):
        NodeKeys.load(tmp_path, first)
    assert NodeKeys.load(tmp_path, second).identity.key_pem == keys.identity.key_pem
    renewed = identity()
    keys.save(renewed)
    assert NodeKeys.load(tmp_path, second).identity.certificate_pem == renewed.certificate_pem
    with pytest.raises(Locked):
        NodeKeys.load(tmp_path)
    keys.lock("")
    assert NodeKeys.load(tmp_path).identity.key_pem == renewed.key_pem


def test_a_manager_that_becomes_a_worker_needs_no_key(keys: NodeKeys, tmp_path: Path) -> None:
    keys.lock(make_unlock_key())
    keys.save(identity(NodeRole.WORKER))
    # Whenever the agent is killed from here on, it starts without a key.
    assert NodeKeys.load(tmp_path).identity.role is NodeRole.WORKER
    keys.forget_state()
    assert NodeKeys.load(tmp_path).unlock_key == ""


async def test_the_files_follow_the_cluster(keys: NodeKeys, tmp_path: Path) -> None:
    store = Store.in_memory()
    following = asyncio.create_task(KeyFollower(store, keys).run())

    async def until(key: str) -> None:
        async with asyncio.timeout(5):
            while keys.unlock_key != key:
                await asyncio.sleep(0)

    key = make_unlock_key()
    await store.update(lambda tx: tx.create(Cluster(id="cluster", unlock_key=key)))
    await until(key)
    for wanted in (make_unlock_key(), ""):
        changed = replace(store.view(lambda tx: tx.all(Cluster)[0]), unlock_key=wanted)
        await store.update(lambda tx, changed=changed: tx.update(changed))
        await until(wanted)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert NodeKeys.load(tmp_path).identity.node_id == "node"
