"""Name servers on a host's bridges, asked by tasks at port 53: real links, sockets and redirects, in namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from overlay_lab import NETWORK, POSSIBLE, Lab, Place, overlay_lab

from agent.network.dns.redirect import TABLE, RedirectFailed, Redirects, removal
from agent.network.overlay.interface import bridge_name

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not POSSIBLE or shutil.which("nft") is None, reason="needs root, iproute2 and nftables"),
]

OTHER = "netbbbbbbbb2" + "0" * 13
SERVER, CLIENT = (str(Path(__file__).with_name(name)) for name in ("dns_server_process.py", "dns_client.py"))
FRONT, BACK = "10.0.1.1", "10.0.2.1"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with overlay_lab(1) as made:
        host = made.hosts[0]
        for network, address in ((NETWORK, FRONT), (OTHER, BACK)):
            host.ip("link", "add", bridge_name(network), "type", "bridge")
            host.ip("address", "add", f"{address}/24", "dev", bridge_name(network))
            host.ip("link", "set", bridge_name(network), "up")
        yield made


class Agent:
    """The host's name servers."""

    def __init__(self, process: Process, ports: list[int]) -> None:
        self.process = process
        self.ports = ports

    async def say(self, word: str) -> None:
        """Have it do something; returns when it is done, or when it died of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word.encode() + b"\n")
        await self.process.stdout.readline()


@contextlib.asynccontextmanager
async def agent(host: Place) -> AsyncIterator[Agent]:
    pipe = asyncio.subprocess.PIPE
    command = ("ip", "netns", "exec", host.name, sys.executable, SERVER, TABLE, f"front={FRONT}/24", f"back={BACK}/24")
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        word, *ports = (await process.stdout.readline()).decode().split()
        assert word == "ready"
        yield Agent(process, [int(port) for port in ports])
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(place: Place, server: str, *names: str) -> dict[str, list[str]]:
    process = await place.start(sys.executable, CLIENT, server, *names)
    output, _ = await process.communicate()
    answers: dict[str, list[str]] = json.loads(output)
    return answers


def rules(host: Place) -> str:
    return host.run("nft", "list", "ruleset").stdout


async def test_tasks_ask_port_53_of_their_bridge(lab: Lab) -> None:
    host = lab.hosts[0]
    front, back = lab.task(host, "10.0.1.5"), lab.task(host, "10.0.2.5", OTHER)
    async with agent(host):
        answers = await ask(
            front, FRONT, "web", "WEB.front.", "tasks.web", "front6", "web.back", "unknown", "example.com"
        )
        tasks = " ".join(f"10.0.1.{n}" for n in range(5, 10))
        assert answers == {
            "web": ["10.0.1.2"] * 2,
            "WEB.front.": ["10.0.1.2"] * 2,
            "tasks.web": [tasks] * 2,
            "front6": ["10.0.1.6"] * 2,
            "web.back": ["SERVFAIL"] * 2,
            "unknown": ["NXDOMAIN"] * 2,
            "example.com": ["SERVFAIL"] * 2,
        }
        assert await ask(back, BACK, "web") == {"web": ["10.0.2.2"] * 2}
    assert TABLE not in rules(host)


async def test_the_hosts_own_resolver_keeps_port_53_everywhere_else(lab: Lab) -> None:
    """A resolver that holds port 53 of all addresses, as dnsmasq and BIND do, is in nobody's way."""
    host = lab.hosts[0]
    task = lab.task(host, "10.0.1.5")
    code = (
        "import socket\nudp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('0.0.0.0', 53))\n"
        "tcp = socket.create_server(('0.0.0.0', 53))\nprint('up', flush=True)\n"
        "query, client = udp.recvfrom(2048)\n"
        "udp.sendto(query[:2] + bytes([query[2] | 0x80, 5]) + query[4:], client)\nimport time; time.sleep(60)"
    )
    resolver = await host.start(sys.executable, "-S", "-c", code)
    assert resolver.stdout is not None
    try:
        assert await resolver.stdout.readline() == b"up\n"
        async with agent(host):
            assert await ask(task, FRONT, "web") == {"web": ["10.0.1.2"] * 2}
            (said, _), *_ = (await ask(host, host.address, "web")).values()
            assert said == "REFUSED"
    finally:
        resolver.kill()
        await resolver.communicate()


async def test_nothing_of_others_is_touched_and_a_dead_agents_rules_are_taken_over(lab: Lab) -> None:
    host = lab.hosts[0]
    task = lab.task(host, "10.0.1.5")
    host.run("nft", "add table inet others; add chain inet others mine { type nat hook prerouting priority -100; }")
    before = rules(host)
    assert "others" in before
    async with agent(host) as first:
        await first.say("die")
        await first.process.wait()
    assert TABLE in rules(host)
    async with agent(host) as second:
        assert rules(host).count(f"table inet {TABLE}") == 1
        assert await ask(task, FRONT, "web") == {"web": ["10.0.1.2"] * 2}
        standing = rules(host)
        await second.say("once more")
        await second.say("again")
        assert rules(host) == standing
        host.run("nft", "delete", "table", "inet", TABLE)
        await second.say("again")
        assert rules(host) == standing
    assert rules(host) == before


async def test_a_bridge_that_is_made_again_is_answered_for(lab: Lab) -> None:
    host = lab.hosts[0]
    async with agent(host):
        host.ip("link", "delete", bridge_name(NETWORK))
        host.ip("link", "add", bridge_name(NETWORK), "type", "bridge")
        host.ip("address", "add", f"{FRONT}/24", "dev", bridge_name(NETWORK))
        host.ip("link", "set", bridge_name(NETWORK), "up")
        assert await ask(lab.task(host, "10.0.1.6"), FRONT, "web") == {"web": ["10.0.1.2"] * 2}


async def test_redirects_come_and_go_one_by_one(lab: Lab) -> None:
    host = lab.hosts[0]
    async with Redirects(host.path) as redirects:
        assert "swarmtui" not in rules(host)
        await redirects.apply({"10.0.1.1": 4001, "fd00::1": 4003})
        assert "10.0.1.1 : 10.0.1.1 . 4001" in rules(host)
        assert "fd00::1 : fd00::1 . 4003" in rules(host)
        await redirects.apply({"10.0.2.1": 4002})
        assert "10.0.2.1 . 4002" in rules(host)
        assert "4001" not in rules(host)
        await redirects.apply({})
        assert TABLE not in rules(host)
        await redirects.close()
        await redirects.close()
        await redirects.apply({"10.0.2.1": 4002})
        with pytest.raises(RedirectFailed, match="nft said"):
            await redirects.apply({"10.0.2.1": 70000})
        assert "10.0.2.1 . 4002" in rules(host)
    assert TABLE not in rules(host)
    assert host.run("nft", removal(TABLE)).returncode == 0


async def test_a_host_without_nftables_is_told_what_is_missing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RedirectFailed, match="install nftables"):
        await Redirects().apply({"10.0.1.1": 4001})


async def test_an_own_name_takes_less_than_a_millisecond(lab: Lab) -> None:
    """The aim is 0.3 ms through a veth, a bridge and the redirect; the bound leaves room for a busy machine."""
    host = lab.hosts[0]
    task = lab.task(host, "10.0.1.5")
    async with agent(host):
        process = await task.start(sys.executable, CLIENT, FRONT, "web", "--times", "2000")
        output, _ = await process.communicate()
        taken = json.loads(output)
    median = statistics.median(taken)
    print(f"own name: median {median:.0f} µs, 99 % {taken[1980]:.0f} µs, {1e6 * 2000 / sum(taken):.0f} a second")
    assert median < 1000
