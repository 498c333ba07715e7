"""What the engine's answers mean: the container as `inspect` shows it, how it ended, and which errors pass.

Texts are those of moby (daemon/cluster/executor/container), so that a person finds them in a search.
"""

from __future__ import annotations

import re

import msgspec

from agent.api_types.task import ContainerStatus, PortConfig, PortStatus
from agent.api_types.times import ZERO_TIME
from agent.worker.interface import ExitStatus

UNHEALTHY = "dockerexec: unhealthy container"
DESTROYED = "dockerexec: container destroyed"
OUT_OF_MEMORY = "out of memory"


class Health(msgspec.Struct, frozen=True, rename="pascal"):
    """Result of the health check: starting, healthy or unhealthy."""

    status: str = ""


class State(msgspec.Struct, frozen=True, rename="pascal"):
    """The process of a container."""

    status: str = ""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    started_at: str = ZERO_TIME
    health: Health | None = None


class ContainerNetwork(msgspec.Struct, frozen=True, rename="pascal"):
    """The container's place on one network."""

    ip_address: str = msgspec.field(name="IPAddress", default="")


class PortBinding(msgspec.Struct, frozen=True, rename="pascal"):
    """A port of the host."""

    host_ip: str = ""
    host_port: str = ""


class NetworkSettings(msgspec.Struct, frozen=True, rename="pascal"):
    """Addresses and published ports."""

    networks: dict[str, ContainerNetwork] | None = None
    ports: dict[str, list[PortBinding] | None] | None = None


class Config(msgspec.Struct, frozen=True, rename="pascal"):
    """What the container was made with."""

    labels: dict[str, str] | None = None
    tty: bool = False
    stop_timeout: int | None = None


class HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """What the container was made with, as far as the host is concerned."""

    network_mode: str = ""


class Container(msgspec.Struct, frozen=True, rename="pascal"):
    """A container as `GET /containers/ID/json` shows it, as far as a task needs it."""

    id: str
    name: str = ""
    state: State = State()
    config: Config = Config()
    host_config: HostConfig = HostConfig()
    network_settings: NetworkSettings = NetworkSettings()

    @property
    def runs(self) -> bool:
        """Whether its process lives, paused included."""
        return self.state.status in ("running", "paused", "restarting")

    @property
    def was_started(self) -> bool:
        """Whether it ever ran: such a one is never started again."""
        return self.state.status != "created" and self.state.started_at != ZERO_TIME

    @property
    def ended(self) -> bool:
        """Whether its process ran and is gone."""
        return self.state.status in ("exited", "dead", "removing")

    @property
    def health(self) -> str:
        """starting, healthy, unhealthy, or empty without a health check."""
        return self.state.health.status if self.state.health is not None and self.state.health.status != "none" else ""


def exit_status(container: Container, *, unhealthy: bool = False) -> ExitStatus:
    """How an ended container ended, with SwarmKit's text."""
    state = container.state
    if unhealthy:
        cause = UNHEALTHY
    elif state.oom_killed:
        cause = OUT_OF_MEMORY
    else:
        cause = state.error
    return exit_text(state.exit_code, cause)


def exit_text(code: int, cause: str = "") -> ExitStatus:
    """`task: non-zero exit (code): cause`; a clean exit keeps its cause only where it was not wanted."""
    if code == 0:
        return ExitStatus(0, cause)
    return ExitStatus(code, f"task: non-zero exit ({code})" + (f": {cause}" if cause else ""))


def container_status(container: Container) -> ContainerStatus:
    """The container as a task's status shows it."""
    return ContainerStatus(container_id=container.id, pid=container.state.pid, exit_code=container.state.exit_code)


def port_status(container: Container) -> PortStatus:
    """The host ports it holds, each once (the engine names IPv4 and IPv6 apart)."""
    ports: dict[tuple[str, int, int], PortConfig] = {}
    for target, bindings in (container.network_settings.ports or {}).items():
        port, _, protocol = target.partition("/")
        for binding in bindings or []:
            key = (protocol or "tcp", int(port), int(binding.host_port))
            ports[key] = PortConfig(protocol=key[0], target_port=key[1], published_port=key[2], publish_mode="host")
    return PortStatus(ports=[ports[key] for key in sorted(ports)])


def address(container: Container) -> str | None:
    """Where it answers on this host: loopback on the host's own network, else its address on the first network."""
    if not container.runs:
        return None
    networks = container.network_settings.networks or {}
    if container.host_config.network_mode == "host" or "host" in networks:
        return "127.0.0.1"
    first = networks.get("bridge")
    candidates = [first, *networks.values()] if first is not None else list(networks.values())
    return next((network.ip_address for network in candidates if network and network.ip_address), None)


_PASSING = re.compile(
    r"transport is closing|client connection is closing|connection refused|connection reset|connection error"
    r"|context canceled|context deadline exceeded|shutting down|is not running: unavailable|code = Unavailable"
    r"|: unavailable$|containerd.*(?:not running|no such file)|broken pipe|server closed",
    re.IGNORECASE,
)


_OF_REGISTRY = re.compile(r'(?:Get|Head|Post) "?https?://')
"""How messages begin that tell of a registry which the engine could not reach; the engine itself is well."""


def is_passing(status: int, message: str) -> bool:
    """Whether an error comes from an engine that stops or starts, not from the request.

    The engine answers 500 to much that will never work (a port that is taken), so its text decides.
    """
    if status in (502, 503, 504):
        return True
    return status >= 500 and _OF_REGISTRY.match(message) is None and _PASSING.search(message) is not None


def name_conflict(status: int, message: str) -> bool:
    """Whether a container was not made because its name is taken (moby: isContainerCreateNameConflict)."""
    return status == 409 and "is already in use by container" in message


def no_such_image(status: int, message: str) -> bool:
    """Whether a container was not made because its image is missing."""
    return status == 404 and message.lower().startswith("no such image")
