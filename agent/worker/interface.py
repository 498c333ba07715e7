"""What the worker needs from who runs containers, and from who connects them to networks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from agent.api_types.network import NetworkAttachment
from agent.api_types.node import NodeDescription
from agent.api_types.task import ContainerStatus, PortStatus, Task


class Stream(StrEnum):
    """Which output of a container a line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a container's output, without its line end; `timestamp` in nanoseconds since the epoch."""

    timestamp: int
    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container ended. `error` is empty for an exit that was wanted or clean, else the text for Status.Err."""

    code: int
    error: str = ""


class RejectedByExecutor(Exception):
    """The task can never run here: before STARTING it ends REJECTED, after it FAILED. The text is for Status.Err."""


class TemporaryFailure(Exception):
    """It did not work now; the worker tries again with back-off and shows the text in Status.Err meanwhile."""


class Controller(Protocol):
    """One task on this host. Every method can be called again after a restart of the agent; cancelling one leaves a state
    that the next call finds.

    The worker calls prepare, start, wait in this order; shutdown and terminate at any time; remove last.
    """

    async def prepare(self) -> None:
        """Make what the container needs (image, mounts, container). Idempotent."""
        ...

    async def start(self) -> None:
        """Start it and return when it runs; with a health check, when it is healthy. Idempotent."""
        ...

    async def wait(self) -> ExitStatus:
        """Return when it ended. An unhealthy container is stopped and ends with an error."""
        ...

    async def shutdown(self) -> None:
        """Stop it: the stop signal, then after the grace period a kill. Returns when it is gone."""
        ...

    async def terminate(self) -> None:
        """Kill it at once."""
        ...

    async def remove(self) -> None:
        """Forget it: container, files, address. Idempotent; a task that never came to be is no error."""
        ...

    def logs(self, since: int, follow: bool, tail: int) -> AsyncIterator[LogLine]:
        """Its lines in order: from `since` (ns, 0 all), the last `tail` (-1 all), and new ones until it ended if `follow`."""
        ...

    async def status(self) -> tuple[ContainerStatus | None, PortStatus]:
        """Container id, process id, exit code and host ports as they are now."""
        ...

    def address(self, port: int, protocol: str) -> tuple[str, int] | None:
        """Where `port` of the task answers on this host, or None while it does not run."""
        ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Secrets and configs of a task, by id, in memory only."""

    secrets: Mapping[str, bytes] = field(default_factory=dict)
    configs: Mapping[str, bytes] = field(default_factory=dict)


class Executor(Protocol):
    """Who runs containers on this host: the Docker Engine or our own processes."""

    async def describe(self) -> NodeDescription:
        """The host: hostname, platform, resources, engine. Without the TLS information, which the wiring adds."""
        ...

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        """The controller of a task, found again by the task's id if it was there before."""
        ...

    async def known_tasks(self) -> list[str]:
        """Ids of all tasks that left something on this host, so that forgotten ones can be removed."""
        ...

    async def close(self) -> None:
        """Let go of connections; containers go on."""
        ...


@runtime_checkable
class Redescribing(Protocol):
    """An executor whose description may change while it runs, and that knows when."""

    async def description_changed(self) -> None:
        """Wait until `describe` may answer differently."""
        ...


@runtime_checkable
class NetworkKeeping(Protocol):
    """An executor that has something of its own for each overlay network."""

    async def release_network(self, network_id: str) -> None:
        """No task of this host is on the network any more: let go of it. TemporaryFailure while something still is."""
        ...


class NetworkAttacher(Protocol):
    """Who connects tasks to networks; `agent.network` implements it."""

    async def attach(self, task: Task) -> list[NetworkAttachment]:
        """Before the process starts."""
        ...

    async def activate(self, task: Task) -> None:
        """The task is healthy: names and balancers may know it."""
        ...

    async def deactivate(self, task: Task) -> None:
        """The task is about to stop: names and balancers forget it."""
        ...

    async def detach(self, task: Task) -> None:
        """The process is gone."""
        ...
