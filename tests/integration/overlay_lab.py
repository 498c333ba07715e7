"""Three hosts and their tasks as network namespaces: a bridge in one joins the hosts, tasks hang on the hosts' overlays.

Needs root and `ip`. Everything is within namespaces of its own names, so nothing of the machine's network is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.network.mac import mac_of
from agent.network.overlay import OverlayWanted, bridge_name

POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None
PING = Path(__file__).with_name("overlay_ping.py")
NETWORK = "netaaaaaaaa1" + "0" * 13


def ip(*arguments: str) -> str:
    """The output of `ip`; CalledProcessError when it fails."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Place:
    """A namespace: of a host or of a task."""

    name: str
    address: str

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def ip(self, *arguments: str) -> str:
        return ip("-n", self.name, *arguments)

    def links(self, *which: str) -> list[dict[str, Any]]:
        """The links as `ip -j -d` shows them."""
        found: list[dict[str, Any]] = json.loads(self.ip("-j", "-d", "link", "show", *which) or "[]")
        return [link for link in found if link]

    def names(self) -> set[str]:
        return {link["ifname"] for link in self.links()}

    def run(self, *command: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Run a command within."""
        within = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(within, capture_output=True, text=True, timeout=timeout, check=False)

    async def start(self, *command: str) -> Process:
        """Start a command within, its output piped."""
        within = ("ip", "netns", "exec", self.name, *command)
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*within, stdout=pipe, stderr=asyncio.subprocess.STDOUT)

    async def ping(self, address: str, *, size: int = 1450, count: int = 2, interval: float = 0.1) -> Process:
        """Echo requests begin: the first is answered or lost when this returns."""
        sent = await self.start(sys.executable, "-S", str(PING), address, str(size), str(count), str(interval))
        assert sent.stdout is not None
        while (line := await sent.stdout.readline()) not in (b"started\n", b""):
            pass
        assert line, "ping did not start"
        return sent

    async def reaches(self, address: str, *, size: int = 1450, count: int = 2) -> bool:
        """Whether IP packets of `size` bytes, not to be divided, go there and back; False only when none does."""
        return (await answers(await self.ping(address, size=size, count=count)))[1] > 0


async def answers(ping: Process) -> tuple[int, int]:
    """(sent, answered) when a ping has ended."""
    output, _ = await ping.communicate()
    sent, answered = output.split()[-2:]
    return int(sent), int(answered)


@dataclass
class Lab:
    """Hosts 10.78.0.N."""

    mark: str = field(default_factory=lambda: f"ovl{secrets.token_hex(3)}")
    hosts: list[Place] = field(default_factory=list)
    rooms: list[str] = field(default_factory=list)

    def host(self) -> Place:
        number = len(self.hosts) + 1
        place = Place(self._room(f"h{number}"), f"10.78.0.{number}")
        port = f"port{number}"
        ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", place.name)
        ip("-n", self.switch, "link", "set", port, "master", "bridge", "up")
        place.ip("address", "add", f"{place.address}/24", "dev", "eth0")
        place.ip("link", "set", "eth0", "up")
        place.ip("link", "set", "lo", "up")
        self.hosts.append(place)
        return place

    def task(self, host: Place, address: str, network: str = NETWORK, extra: str = "") -> Place:
        """A task with `address` on the host's bridge of a network; `extra` is one more address (IPv6)."""
        number = len(self.rooms)
        place, port = Place(self._room(f"t{number}"), address), f"veth{number}"
        host.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", place.name)
        host.ip("link", "set", port, "master", bridge_name(network), "up")
        place.ip(
            "link",
            "set",
            "eth0",
            "address",
            mac_of(address),
            "mtu",
            str(host.links("dev", bridge_name(network))[0]["mtu"]),
        )
        place.ip("address", "add", f"{address}/24", "dev", "eth0")
        if extra:
            place.ip("address", "add", f"{extra}/64", "dev", "eth0", "nodad")
        place.ip("link", "set", "eth0", "up")
        place.ip("link", "set", "lo", "up")
        return place

    def end(self, task: Place) -> None:
        """The task is gone, and its end on the bridge with it."""
        task.ip("link", "delete", "eth0")

    @property
    def switch(self) -> str:
        return f"{self.mark}-sw"

    def _room(self, name: str) -> str:
        room = f"{self.mark}-{name}"
        ip("netns", "add", room)
        self.rooms.append(room)
        return room


@contextlib.contextmanager
def overlay_lab(hosts: int = 3) -> Iterator[Lab]:
    """A lab, gone afterwards."""
    lab = Lab()
    try:
        lab._room("sw")
        ip("-n", lab.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", lab.switch, "link", "set", "bridge", "up")
        for _ in range(hosts):
            lab.host()
        yield lab
    finally:
        for room in lab.rooms:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", room)


def overlay(
    endpoints: dict[str, str],
    *,
    network: str = NETWORK,
    vni: int = 4097,
    gateways: tuple[str, ...] = ("10.0.1.1/24",),
    mtu: int = 1450,
    encrypted: bool = False,
) -> OverlayWanted:
    """A network with the addresses of other hosts."""
    return OverlayWanted(id=network, vni=vni, gateways=gateways, endpoints=endpoints, mtu=mtu, encrypted=encrypted)


def elsewhere(places: dict[str, Place], host: Place) -> dict[str, str]:
    """Of all addresses (each with its host) those that are not on `host`, as `OverlayWanted.endpoints` has them."""
    return {address: place.address for address, place in places.items() if place is not host}
