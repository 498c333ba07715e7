"""Agents that are machines of a network: each in a namespace with a cable to one bridge, which a test can pull.

Needs root and `ip`. The bridge is in a namespace of its own, so that nothing of the host's network is touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster import AgentProcess, Cluster

POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass
class Cables(Cluster):
    """A cluster whose nodes have addresses 10.77.0.N."""

    mark: str = field(default_factory=lambda: f"swt{secrets.token_hex(3)}")

    def add(self) -> AgentProcess:
        """One more machine with its cable, its agent not started."""
        number = len(self.nodes) + 1
        room, port = f"{self.mark}-{number}", f"port{number}"
        _ip("netns", "add", room)
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", room)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", room, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        _ip("-n", room, "link", "set", "eth0", "up")
        _ip("-n", room, "link", "set", "lo", "up")
        within = ("ip", "netns", "exec", room)
        node = AgentProcess(f"node{number}", self.folder / f"n{number}", f"10.77.0.{number}", within=within)
        self.nodes.append(node)
        return node

    def pull(self, node: AgentProcess) -> None:
        """Nothing goes in or out of the machine, and nobody is told."""
        _ip("-n", self._switch, "link", "set", self._port(node), "nomaster")

    def plug(self, node: AgentProcess) -> None:
        """The cable is back."""
        _ip("-n", self._switch, "link", "set", self._port(node), "master", "bridge")

    def lay(self) -> None:
        """Begin: the bridge."""
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def remove(self) -> None:
        """Everything, after the agents."""
        for room in [*(f"{self.mark}-{number}" for number in range(1, len(self.nodes) + 1)), self._switch]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", room)

    @property
    def _switch(self) -> str:
        return f"{self.mark}-0"

    def _port(self, node: AgentProcess) -> str:
        return f"port{self.nodes.index(node) + 1}"


@contextlib.asynccontextmanager
async def cabled_cluster(count: int, managers: int) -> AsyncIterator[Cables]:
    """A swarm of `count` machines, gone afterwards."""
    cluster = Cables(Path(tempfile.mkdtemp(prefix="swt-")))
    try:
        cluster.lay()
        await cluster.form(count, managers)
        yield cluster
    finally:
        cluster.stop()
        cluster.remove()
        shutil.rmtree(cluster.folder, ignore_errors=True)
