"""The swarm as a whole: its root certificate, a forced new cluster, leaving, unlocking, backup and restore."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_managers import managers
from api_scripted import Client, ScriptedBackend, init_body, served

from agent.api.backend import LocalState
from agent.api.lookup import LOCKED, the_cluster
from agent.api_types.node import ManagerStatus, Node, NodeRole, NodeSpec
from agent.api_types.swarm import Cluster
from agent.api_types.times import now_ns
from agent.pki.root import RootCA


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a manager."""
    async with served(backend, tmp_path) as client:
        assert (await client.call("POST", "/swarm/init", init_body()))[0] == 200
        yield client


def cluster_of(backend: ScriptedBackend) -> Cluster:
    assert backend.store is not None
    return backend.store.view(the_cluster)


async def update_ca(client: Client, **config: Any) -> tuple[int, Any]:
    _, swarm = await client.call("GET", "/swarm")
    spec = swarm["Spec"] | {"CAConfig": swarm["Spec"]["CAConfig"] | config}
    return await client.call("POST", f"/swarm/update?version={swarm['Version']['Index']}", spec)


# -- the root certificate


async def test_a_rotation_is_under_way_as_soon_as_it_is_asked_for(client: Client, backend: ScriptedBackend) -> None:
    _, before = await client.call("GET", "/swarm")
    assert not before["RootRotationInProgress"]
    assert (await update_ca(client, ForceRotate=1))[0] == 200
    _, after = await client.call("GET", "/swarm")
    assert after["RootRotationInProgress"]
    assert after["TLSInfo"]["TrustRoot"] == before["TLSInfo"]["TrustRoot"]
    assert after["TLSInfo"]["CertIssuerPublicKey"] != before["TLSInfo"]["CertIssuerPublicKey"]
    assert after["JoinTokens"] == before["JoinTokens"]
    _, info = await client.call("GET", "/info")
    assert info["Swarm"]["Cluster"]["RootRotationInProgress"]
    rotation = cluster_of(backend).root_rotation
    assert rotation is not None
    assert rotation.cross_signed.startswith("-----BEGIN CERTIFICATE")
    assert (await update_ca(client, NodeCertExpiry=4 * 3600 * 10**9))[0] == 200
    assert cluster_of(backend).root_rotation == rotation


async def test_a_root_of_ones_own(client: Client, backend: ScriptedBackend) -> None:
    mine = RootCA.create(now_ns)
    assert mine.key_pem is not None
    given = {"SigningCACert": mine.cert_pem.decode(), "SigningCAKey": mine.key_pem.decode()}
    assert (await update_ca(client, ForceRotate=1, **given))[0] == 200
    rotation = cluster_of(backend).root_rotation
    assert rotation is not None
    assert rotation.ca_cert == given["SigningCACert"]
    for target in ("/swarm", "/info"):
        _, shown = await client.call("GET", target)
        assert "PRIVATE KEY" not in str(shown)
    _, swarm = await client.call("GET", "/swarm")
    assert "SigningCACert" not in swarm["Spec"]["CAConfig"]


@pytest.mark.parametrize(
    ("config", "status", "text"),
    [
        ({"ExternalCAs": [{"Protocol": "cfssl", "URL": "https://ca"}]}, 501, "which an external CA cannot do"),
        ({"SigningCACert": "nonsense", "SigningCAKey": "x"}, 400, "the signing CA cannot be used"),
        ({"SigningCAKey": "x"}, 400, "if a signing CA key is provided, the signing CA cert must also be provided"),
        ({"SigningCACert": "MINE"}, 400, "of no use without its key"),
        ({"SigningCACert": "MINE", "SigningCAKey": "OTHER"}, 400, "the key is not that of the root certificate"),
    ],
)
async def test_roots_that_cannot_be_used(
    client: Client, backend: ScriptedBackend, config: dict[str, Any], status: int, text: str
) -> None:
    mine, other = RootCA.create(now_ns), RootCA.create(now_ns)
    words = {"MINE": mine.cert_pem.decode(), "OTHER": (other.key_pem or b"").decode()}
    config = {name: words.get(value, value) if isinstance(value, str) else value for name, value in config.items()}
    before = cluster_of(backend)
    code, told = await update_ca(client, ForceRotate=1, **config)
    assert (code, text in told["message"]) == (status, True), told
    assert "PRIVATE" not in told["message"]
    assert cluster_of(backend) == before


# -- a new cluster by force, leaving, unlocking


async def test_a_new_cluster_is_forced_on_a_manager_alone(client: Client, backend: ScriptedBackend) -> None:
    body = init_body(ForceNewCluster=True)
    assert (await client.call("POST", "/swarm/init", body))[0] == 200
    assert backend.inits[-1].force_new_cluster
    code, told = await client.call("POST", "/swarm/init", init_body())
    assert (code, "already part of a swarm" in told["message"]) == (503, True)
    backend.local_state = LocalState.LOCKED
    assert await client.call("POST", "/swarm/init", body) == (503, {"message": LOCKED})
    backend.local_state, backend.is_manager, backend.store = LocalState.ACTIVE, False, None
    code, told = await client.call("POST", "/swarm/init", body)
    assert (code, "not a swarm manager" in told["message"]) == (503, True)
    assert len(backend.inits) == 2


async def test_leaving_costs_what_the_warning_says(client: Client, backend: ScriptedBackend, tmp_path: Path) -> None:
    async def warning() -> str:
        code, told = await client.call("POST", "/swarm/leave")
        assert code == 503
        return str(told["message"])

    async def manager(number: int, reachability: str) -> None:
        status = ManagerStatus(reachability=reachability, addr=f"10.0.0.{number}:2377")
        await backend.put(Node(id=f"{number:025}", spec=NodeSpec(role=NodeRole.MANAGER), manager_status=status))

    assert "Removing the last manager erases all current state of the swarm" in await warning()
    await manager(2, "reachable")
    assert "Removing this node leaves 1 managers out of 2." in await warning()
    await manager(3, "reachable")
    told = await warning()
    assert "leaves" not in told
    assert "The only way to restore a swarm that has lost consensus" in told
    await manager(3, "unreachable")
    assert "Removing this node leaves 1 managers out of 3." in await warning()


async def test_leaving_without_a_leader(tmp_path: Path) -> None:
    async with managers(tmp_path, 3) as group:
        group.lose_quorum(since=5)
        code, told = await group.clients["h2"].call("POST", "/swarm/leave")
        assert (code, "Doing so may lose the consensus of your cluster." in told["message"]) == (503, True)
        assert (await group.clients["h2"].call("POST", "/swarm/leave?force=1"))[0] == 200


async def test_a_locked_manager(client: Client, backend: ScriptedBackend) -> None:
    code, told = await client.call("POST", "/swarm/unlock", {"UnlockKey": "SWMKEY-1-x"})
    assert (code, told["message"]) == (409, "swarm is not locked")
    backend.local_state = LocalState.LOCKED
    for method, target in (("GET", "/nodes"), ("POST", "/services/create"), ("GET", "/swarmtui/v1/managers")):
        assert await client.call(method, target, {} if method == "POST" else None) == (503, {"message": LOCKED})
    code, told = await client.call("POST", "/swarm/leave")
    assert "encrypted and locked" in told["message"]
    _, info = await client.call("GET", "/info")
    assert info["Swarm"]["LocalNodeState"] == "locked"
    backend.right_key = "SWMKEY-1-x"
    wrong = await client.call("POST", "/swarm/unlock", {"UnlockKey": "SWMKEY-1-y"})
    assert wrong == (401, {"message": "swarm could not be unlocked: invalid key provided"})
    assert (await client.call("POST", "/swarm/unlock", {"UnlockKey": "SWMKEY-1-x"}))[0] == 200
    assert backend.unlocked_with == "SWMKEY-1-x"


# -- backup and restore


async def test_a_backup_is_restored_on_another_node(backend: ScriptedBackend, client: Client, tmp_path: Path) -> None:
    backend.backup_chunks = [b"one", b"x" * 5_000_000, b"three"]
    code, saved = await client.call("GET", "/swarmtui/v1/backup")
    assert (code, saved) == (200, b"".join(backend.backup_chunks))
    elsewhere = ScriptedBackend()
    async with served(elsewhere, tmp_path, "other") as other:
        target = "/swarmtui/v1/restore?listenAddr=0.0.0.0:2377&advertiseAddr=10.0.0.9"
        code, node_id = await other.call("POST", target, io.BytesIO(saved))
        assert (code, node_id) == (200, elsewhere.node_id)
        assert elsewhere.restored is not None
        assert elsewhere.restored[0] == saved
        assert elsewhere.restored[1].advertise_addr == "10.0.0.9"
        code, told = await other.call("POST", target, io.BytesIO(saved))
        assert (code, "already part of a swarm" in told["message"]) == (503, True)


async def test_a_backup_that_breaks_off_is_not_taken_for_whole(backend: ScriptedBackend, client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        raise OSError("the disk is gone")

    backend.backup = chunks  # type: ignore[method-assign]
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.call("GET", "/swarmtui/v1/backup")


async def test_what_has_no_state_makes_no_backup(tmp_path: Path) -> None:
    async with served(ScriptedBackend(), tmp_path) as client:
        assert (await client.call("GET", "/swarmtui/v1/backup"))[0] == 503
        code, told = await client.call("POST", "/swarmtui/v1/restore", b"")
        assert (code, "empty" in told["message"]) == (400, True)


async def test_a_follower_saves_its_own_state(tmp_path: Path) -> None:
    async with managers(tmp_path, 2) as group:
        group.backends["h2"].backup_chunks = [b"mine"]
        assert await group.clients["h2"].call("GET", "/swarmtui/v1/backup") == (200, b"mine")
        assert group.backends["h2"].callers == []


async def test_a_follower_rotates_the_root_through_the_leader(tmp_path: Path) -> None:
    async with managers(tmp_path, 2) as group:
        assert (await update_ca(group.clients["h2"], ForceRotate=1))[0] == 200
        _, swarm = await group.clients["h2"].call("GET", "/swarm")
        assert swarm["RootRotationInProgress"]


async def test_many_follow_the_group_at_little_cost(tmp_path: Path) -> None:
    """A status that changes with every entry wakes nobody who waits for another leader."""
    async with managers(tmp_path, 2) as group:
        leadership = group.servers["h2"]._state.leadership
        waiting = asyncio.create_task(leadership.changed(leadership.footing))
        for _ in range(50):
            group.tell("h2", "h1")
            await asyncio.sleep(0)
        assert not waiting.done()
        group.elect("h2")
        async with asyncio.timeout(5):
            assert (await waiting).leading
