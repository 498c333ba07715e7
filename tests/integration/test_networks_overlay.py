"""Overlay networks on three hosts with the real CLI: addresses, names and virtual addresses across hosts, from inside tasks.

Hosts are the playground's, with an engine each and without; tasks look at their networks through busybox.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster import http_get
from engine import root_filesystem
from playground_tiers import usable_tiers

from swarmtui.docker_api.types import Node
from swarmtui.playground import forming
from swarmtui.playground.instance import Instance, InstanceState
from swarmtui.playground.places import BASE_VARIABLE
from swarmtui.playground.session import Options, PlaygroundSession
from swarmtui.playground.tier import Tier

DOCKER, BUSYBOX = shutil.which("docker") or "docker", shutil.which("busybox")
TIERS = [tier for tier in usable_tiers() if tier != Tier.LOOPBACK and BUSYBOX is not None]

# Three hosts start, each with an engine in one of the tiers, and tasks on them.
pytestmark = [pytest.mark.timeout(180), pytest.mark.skipif(not TIERS, reason="needs root and busybox")]

CALL = r"printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 3 {address} 8000"


class Hosts:
    """Three hosts in a swarm, `node1` the manager."""

    def __init__(self, session: PlaygroundSession) -> None:
        self.session = session
        self.tools = "bb:1" if session.tier.tier is Tier.ENGINE else "busybox"

    @property
    def all(self) -> list[Instance]:
        return self.session.instances

    async def docker(self, *arguments: str, host: str = "node1", check: bool = True) -> str:
        instance = next(one for one in self.all if one.name == host)
        process = await asyncio.create_subprocess_exec(
            DOCKER,
            *arguments,
            env={**os.environ, "DOCKER_HOST": instance.docker_host, "DOCKER_CONFIG": str(self.session.folder / "cli")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(40):
            out, err = await process.communicate()
        if check:
            assert process.returncode == 0, f"docker {' '.join(arguments)}: {err.decode()}{out.decode()}"
            return out.decode()
        return out.decode() + err.decode()

    async def create(self, name: str, count: int, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """A service, and wait until its tasks run."""
        await self.docker(
            "service", "create", "--detach", "--replicas", str(count), "--name", name, *options, image, *command
        )
        await self.until_running(name, count)

    async def until_running(self, name: str, count: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            told = await self.docker("service", "ls", "--filter", f"name={name}", "--format", "{{.Replicas}}")
            if told.startswith(f"{count}/{count}"):
                return
            assert time.monotonic() < deadline, await self.docker("service", "ps", "--no-trunc", name)
            await asyncio.sleep(0.1)

    async def inside(self, host: str, service: str, script: str) -> str:
        """What a shell prints in the task of a service on a host."""
        found = await self.docker("ps", "-q", "--filter", f"name={service}.", host=host)
        return await self.docker("exec", found.split()[0], "busybox", "sh", "-c", script, host=host, check=False)

    async def addresses(self, host: str, name: str) -> set[str]:
        """What a name stands for in a task of `tools` on the host."""
        told = await self.inside(host, "tools", f"busybox nslookup {name} 2>&1")
        _, _, answer = told.partition("Name:")
        return {line.split()[-1] for line in answer.splitlines() if line.startswith("Address")}

    def links(self, host: Instance) -> set[str]:
        """Names of the links on a host."""
        told = subprocess.run(
            ["nsenter", f"--net=/proc/{host.pid}/ns/net", "ip", "-o", "link"],
            capture_output=True,
            text=True,
            check=True,
        )
        return {line.split()[1].rstrip(":").partition("@")[0] for line in told.stdout.splitlines()}

    async def until_gone(self, *prefixes: str, hosts: list[Instance] | None = None) -> None:
        """Wait until no link on the hosts begins like this."""
        deadline = time.monotonic() + 30
        while left := [
            (one.name, link) for one in hosts or self.all for link in self.links(one) if link.startswith(prefixes)
        ]:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.1)


@pytest.fixture(params=[pytest.param(tier, marks=pytest.mark.long if tier == Tier.ENGINE else ()) for tier in TIERS])
async def hosts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    monkeypatch.setenv(BASE_VARIABLE, f"{folder}/b")
    async with PlaygroundSession(Options(nodes=3, managers=1, tier=request.param)) as session:
        found = Hosts(session)
        if session.tier.tier is Tier.ENGINE:
            archive = session.folder / "bb.tar"
            archive.write_bytes(root_filesystem())
            for one in session.instances:
                subprocess.run(
                    [DOCKER, "-H", one.engine_host, "import", "--change", "ENV PATH=/bin", str(archive), "bb:1"],
                    check=True,
                    capture_output=True,
                )
            archive.unlink()
        yield found
    assert list(folder.iterdir()) == []
    shutil.rmtree(folder)


async def until_ready(manager: str, hostname: str) -> None:
    """Wait until the manager has heard of a node again."""
    async with forming.client(manager) as api:
        known: dict[str, Node] = {}
        async for batch in api.watch():
            for line in batch:
                if isinstance(line.object, Node):
                    known[line.object.id] = line.object
            if any(n.description.hostname == hostname and n.status.state == "ready" for n in known.values()):
                return


async def test_tasks_on_three_hosts_reach_each_other(hosts: Hosts) -> None:
    names = [one.name for one in hosts.all]
    await hosts.docker("network", "create", "-d", "overlay", "net")
    await hosts.create("web", 3, "swarmtui/whoami", "--network", "net")
    await hosts.create("tools", 3, hosts.tools, "--network", "net", command=("sleep", "100000"))

    # Networks come to a host with the first task there, and go with the last.
    assert all({"ov-", "vx-", "lb-"} <= {link[:3] for link in hosts.links(one)} for one in hosts.all)
    for name in names:
        virtual = await hosts.addresses(name, "web")
        each = await hosts.addresses(name, "tasks.web")
        assert len(virtual) == 1
        assert len(each) == 3, each
        assert not virtual & each
        for address in each:
            # 1422 bytes and two headers are 1450, what fits an Ethernet of 1500 under VXLAN.
            assert "1 packets received" in await hosts.inside(
                name, "tools", f"busybox ping -c1 -W2 -s 1422 {address} 2>&1"
            )
        calls = "; ".join([CALL.format(address=next(iter(virtual)))] * 12)
        said = await hosts.inside(name, "tools", calls)
        spread = Counter(line for line in said.splitlines() if line.startswith("Task: "))
        assert sorted(spread.values()) == [4, 4, 4], said

    # A bridge that somebody deletes comes back, with everybody who was on it.
    last = hosts.all[2]
    bridge = next(link for link in hosts.links(last) if link.startswith("ov-"))
    subprocess.run(["nsenter", f"--net=/proc/{last.pid}/ns/net", "ip", "link", "delete", bridge], check=True)
    address = await _of(hosts, last)
    told = await hosts.inside(names[0], "tools", f"busybox ping -c 20 -i 0.5 -W 2 {address} 2>&1")
    assert "seq=19 " in told, told

    # Traffic flows on while there is no agent. (Its tasks move when it is away for long.)
    far = hosts.all[1]
    address = await _of(hosts, far)
    assert far.agent_pid is not None
    os.kill(far.agent_pid, signal.SIGKILL)
    told = await hosts.inside(names[0], "tools", f"busybox ping -c 10 -i 0.2 -W 2 {address} 2>&1")
    assert " 0% packet loss" in told, told
    async with asyncio.timeout(10):
        while hosts.all[1].state is not InstanceState.WITHOUT_AGENT:
            await asyncio.sleep(0.02)
    await hosts.session.start(far.name)
    await until_ready(hosts.all[0].docker_host, far.name)
    await hosts.until_running("web", 3)
    await hosts.until_running("tools", 3)
    for address in await hosts.addresses(names[0], "tasks.tools"):
        told = await hosts.inside(names[0], "tools", f"busybox ping -c1 -W2 {address} 2>&1")
        assert "1 packets received" in told, told

    said = await hosts.docker("network", "rm", "net", check=False)
    assert "in use" in said
    await hosts.docker("service", "rm", "web", "tools")
    await hosts.until_gone("ov-", "vx-", "lb-", "vt")
    await hosts.docker("network", "rm", "net")


async def test_a_task_on_two_networks_sees_both_and_nobody_sees_through_it(hosts: Hosts) -> None:
    await hosts.docker("network", "create", "-d", "overlay", "front")
    await hosts.docker("network", "create", "-d", "overlay", "back", "--subnet", "10.66.0.0/16")
    await hosts.create(
        "both", 3, "swarmtui/whoami", "--network", "front", "--network", "back", "--publish", "8085:8000"
    )
    await hosts.create("tools", 3, hosts.tools, "--network", "front", command=("sleep", "100000"))
    await hosts.create("hidden", 1, hosts.tools, "--network", "back", command=("sleep", "100000"))
    for name in [one.name for one in hosts.all]:
        found = await hosts.addresses(name, "tasks.both")
        assert len(found) == 3
        assert not any(address.startswith("10.66.") for address in found)
        assert await hosts.addresses(name, "hidden") == set()
    # Every host answers on the published port, for tasks on networks too.
    for one in hosts.all:
        answers = [await http_get(str(one.address), 8085) for _ in range(6)]
        assert len({answer.split("Task: ")[1].split()[0] for answer in answers}) == 3, answers
    await hosts.docker("service", "rm", "both", "tools", "hidden")
    await hosts.until_gone("ov-", "vx-", "lb-", "vt")


async def _of(hosts: Hosts, host: Instance) -> str:
    """The address of the task of `tools` on a host."""
    told = await hosts.inside(host.name, "tools", "busybox ip -4 -o address show eth0")
    return told.split("inet ")[1].partition("/")[0]
