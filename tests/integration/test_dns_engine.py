"""Names through a Docker Engine's own resolver: what a container asks at 127.0.0.11 reaches our server from its address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import IMAGE, PrivateEngine

from agent.network.dns.names import Names, NetworkNames
from agent.network.dns.server import NameServer
from agent.rpc.messages import OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet

pytestmark = pytest.mark.engine

CLIENT = str(Path(__file__).with_name("dns_client.py"))
SUBNET, GATEWAY, TASK = "10.187.53.0/24", "10.187.53.1", "10.187.53.5"


@pytest.fixture
def container(engine: PrivateEngine) -> Iterator[int]:
    """A process in a container on a network of its own, whose resolver asks the gateway."""
    ipam = {"Config": [{"Subnet": SUBNET, "Gateway": GATEWAY}]}
    network = json.loads(engine.call("POST", "/networks/create", json.dumps({"Name": "named", "IPAM": ipam}).encode()))
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "300"],
        "HostConfig": {"NetworkMode": "named", "Dns": [GATEWAY]},
        "NetworkingConfig": {"EndpointsConfig": {"named": {"IPAMConfig": {"IPv4Address": TASK}}}},
    }
    try:
        made = json.loads(engine.call("POST", "/containers/create", json.dumps(body).encode()))
        engine.call("POST", f"/containers/{made['Id']}/start")
        yield process_of(engine, made["Id"])
    finally:
        engine.clean()
        engine.call("DELETE", f"/networks/{network['Id']}")


def process_of(engine: PrivateEngine, container: str) -> int:
    """The container's first process as this test numbers it: the engine has process ids of its own."""
    state = engine.inspect(container)["State"]
    assert isinstance(state, dict)
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()[1:]
            cgroup = (status.parent / "cgroup").read_text()
            if len(numbers) > 1 and str(state["Pid"]) in numbers[1:] and container in cgroup:
                return int(status.parent.name)
    raise AssertionError("the container has no process")


async def client(container: int, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/proc/{container}/ns/net", sys.executable, CLIENT, *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()


async def test_a_container_asks_its_engine_and_the_engine_asks_us(container: int) -> None:
    description = OverlayDescription("named", 4097, [OverlaySubnet(SUBNET, GATEWAY)])
    tasks = [
        OverlayEndpoint(f"t{n}", f"10.187.53.{n}", "n1", "h", "many", f"many.{n}.x", [], True) for n in range(5, 105)
    ]
    services = [OverlayService("web", "web", "10.187.53.2"), OverlayService("many", "many")]
    names = Names().with_network(NetworkNames.build("named", description, services, tasks))
    async with NameServer(GATEWAY, 53, names, list):
        answers = json.loads(await client(container, "127.0.0.11", "web", "Web", "tasks.many", "unknown"))
        assert answers["web"] == answers["Web"] == ["10.187.53.2"] * 2
        assert answers["unknown"] == ["NXDOMAIN"] * 2
        assert len(answers["tasks.many"][1].split()) == 100
        direct = json.loads(await client(container, GATEWAY, "web", "--times", "500"))
        through = json.loads(await client(container, "127.0.0.11", "web", "--times", "500"))
    median = statistics.median(through)
    print(f"own name: median {statistics.median(direct):.0f} µs asked directly, {median:.0f} µs through the engine")
    assert median < 5000
