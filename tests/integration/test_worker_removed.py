"""A worker that is removed from the cluster while its agent is away."""

from __future__ import annotations

from cluster import eventually, pids_naming, running_cluster


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
