"""Networks of a real agent: the console's picture of them, and `swarmtui network`."""

from __future__ import annotations

import asyncio
import json
import sys

from cluster import ROOT, AgentProcess, running_cluster

from swarmtui.docker_api.address import parse_address
from swarmtui.docker_api.client import EngineClient
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.query import Difference, all_networks
from swarmtui.model.rows import NetworkRow


async def sw(node: AgentProcess, *arguments: str) -> tuple[int, str, str]:
    """Exit status and output of `swarmtui network`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from swarmtui.cli import main; main()", "-H", node.host, "network", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_networks_are_pictured_listed_inspected_and_removed() -> None:
    rows: dict[str, NetworkRow] = {}
    news = asyncio.Event()

    def take(difference: Difference[NetworkRow]) -> None:
        rows.update((row.name, row) for row in (*difference.added, *difference.changed))
        for key in difference.removed:
            del rows[next(name for name, row in rows.items() if row.id == key)]
        news.set()

    async def shows(name: str, there: bool = True, services: int = 0) -> None:
        async with asyncio.timeout(20):
            while (name in rows) is not there or (there and len(rows[name].services) != services):
                news.clear()
                await news.wait()

    async with running_cluster(1) as cluster, EngineClient(parse_address(cluster.manager.host)) as client:
        model = ClusterModel(client)
        model.subscribe(all_networks(), take)
        feeding = asyncio.create_task(model.run())
        await shows("ingress")
        assert rows["ingress"].flags == ("ingress",)
        options = ("--attachable", "--internal", "-o", "encrypted", "--subnet", "10.44.0.0/24", "--label", "team=shop")
        status, out, err = await sw(cluster.manager, "create", *options, "front")
        assert status == 0, err
        front = out.strip()
        await shows("front")
        row = rows["front"]
        assert row.flags == ("attachable", "internal", "encrypted")
        assert (row.id, row.driver, row.scope, row.subnet) == (front, "overlay", "swarm", "10.44.0.0/24")
        assert row.labels == (("team", "shop"),)

        status, out, _ = await sw(cluster.manager, "ls", "--filter", "scope=swarm")
        assert status == 0
        assert [line.split()[1:] for line in out.splitlines()[1:]] == [
            ["front", "overlay", "swarm"], ["ingress", "overlay", "swarm"],
        ]  # fmt: skip
        _, out, _ = await sw(cluster.manager, "inspect", "front")
        assert json.loads(out)[0]["IPAM"]["Config"][0]["Subnet"] == "10.44.0.0/24"

        spec = {
            "Name": "web", "Mode": {"Replicated": {"Replicas": 0}},
            "TaskTemplate": {"ContainerSpec": {"Image": "swarmtui/whoami"}, "Networks": [{"Target": front}]},
        }  # fmt: skip
        service = (await client.create_service(spec)).id
        await shows("front", services=1)
        assert rows["front"].services == (service,)
        status, _, err = await sw(cluster.manager, "rm", "front")
        assert status == 1
        assert "in use by service" in err
        await client.remove_service(service)
        await shows("front")
        status, out, err = await sw(cluster.manager, "rm", "front")
        assert (status, out) == (0, "front\n"), err
        await shows("front", there=False)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
