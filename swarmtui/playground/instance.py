"""One instance of a playground, as the console and the command's JSON show it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any


class Role(StrEnum):
    """What an instance is in the cluster."""

    MANAGER = "manager"
    WORKER = "worker"
    BARE = "bare"
    """In no cluster yet: for commands that a person types."""


class InstanceState(StrEnum):
    """How an instance is doing, as far as its processes tell."""

    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen"
    WITHOUT_AGENT = "without agent"
    """Its agent was killed; its tasks go on."""
    STOPPED = "stopped"
    """Its power was cut."""


@dataclass(slots=True)
class Instance:
    """Changed by its session alone; read it in the session's loop."""

    number: int
    name: str
    role: Role
    address: IPv4Address
    folder: Path
    state: InstanceState = InstanceState.STARTING
    pid: int = 0
    """Process 1, as the host sees it; 0 when it is stopped."""
    agent_pid: int = 0
    """The agent alone; 0 when it does not run."""

    @property
    def socket(self) -> Path:
        """The agent's socket."""
        return self.folder / "docker.sock"

    @property
    def engine_socket(self) -> Path:
        """The private engine's socket, in the tier that has one."""
        return self.folder / "engine.sock"

    @property
    def engine_host(self) -> str:
        """The private engine's address."""
        return f"unix://{self.engine_socket}"

    @property
    def docker_host(self) -> str:
        """For `export DOCKER_HOST=`."""
        return f"unix://{self.socket}"

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {
            "name": self.name,
            "role": str(self.role),
            "address": str(self.address),
            "docker_host": self.docker_host,
            "pid": self.pid,
            "agent_pid": self.agent_pid,
        }
