"""A worker that is removed from the cluster while its agent is away."""

from __future__ import annotations

import asyncio

import pytest
from cluster import AgentProcess, eventually, pids_naming, running_cluster

from agent.pki.identity import NodeIdentity
from agent.rpc.client import dial
from agent.rpc.connection import Connection
from agent.rpc.errors import Removed
from agent.rpc.messages import RelayOpen, RelayReady
from agent.rpc.peer import Purpose


async def test_it_learns_it_when_it_comes_back_and_clears_itself() -> None:
    async with running_cluster(2) as swarm:
        manager, worker = swarm.nodes
        await manager.docker("service", "create", "--detach", "--mode", "global", "--name", "web", "swarmtui/whoami")
        await swarm.until_running("web", 2)
        node_id = (await worker.api("GET", "/info"))[1]["Swarm"]["NodeID"]
        network = worker.address.rsplit(".", 1)[0]
        worker.kill()
        assert pids_naming(f"TASK_ADDRESS={network}.")
        await manager.docker("node", "rm", "--force", node_id)
        worker.start()
        await worker.ready()
        await eventually(worker, lambda info: info["Swarm"]["LocalNodeState"] == "inactive", "/info")
        assert not pids_naming(f"TASK_ADDRESS={network}.")
        assert not (worker.folder / "data" / "swarm").exists()
        assert "it was removed" in worker.log


async def said_to_a_relay(connection: Connection) -> str:
    async with await connection.open("relay", RelayOpen("nothing", 80, "tcp")) as stream:
        answer = await stream.receive()
    assert isinstance(answer, RelayReady)
    return answer.error


async def test_its_certificate_opens_no_relay_any_more() -> None:
    async with running_cluster(4, managers=3) as swarm:
        await swarm.until_managers(3)
        worker = swarm.nodes[3]
        identity = NodeIdentity.load(worker.folder / "data" / "swarm" / "certificates")
        leader = await swarm.leader(swarm.nodes[:3])
        follower = next(node for node in swarm.nodes[:3] if node is not leader)

        async def relay(node: AgentProcess) -> Connection:
            return await dial(f"{node.address}:2377", identity, purpose=Purpose.RELAY)

        before = await relay(follower)
        assert "does not run here" in await said_to_a_relay(before)
        worker.kill()
        await leader.docker("node", "rm", "--force", identity.node_id)
        async with asyncio.timeout(5):
            assert "not known here any more" in await before.wait_closed()
        async with await relay(follower) as after:
            text = await said_to_a_relay(after)
        assert "try again" in text, "this manager cannot tell whether it is behind"
        assert "removed" not in text
        with pytest.raises(Removed):
            await relay(leader)
