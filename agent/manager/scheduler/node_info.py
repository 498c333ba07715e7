"""A node as the scheduler sees it: what is free on it and what runs there."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from agent.api_types.common import GenericResource, Resources
from agent.api_types.node import Node
from agent.api_types.task import Task
from agent.api_types.times import SECOND
from agent.manager.slots import ended, wanted

FAILURE_WINDOW = 5 * 60 * SECOND
FAULTY = 5
"""Failures of a service within the window that make a node the last choice for it."""

MOST_FAILURES = 100
"""Failures of one service that a node remembers; more would not make it come later than last."""

HOST = "host"
HostPort = tuple[str, int]
"""Protocol and number of a port that is published on the task's node alone."""
ServiceVersion = tuple[str, int]
"""A service and the version of its spec: failures of an older spec say nothing of a newer one."""


class NodeInfo:
    """What is free on a node and what runs there. CPU in billionths of a core, memory in bytes.

    A task holds its reservations and host ports until it has ended; it counts for the spread while it is wanted.
    """

    __slots__ = ("_failures", "active", "by_service", "generic", "host_ports", "memory", "nano_cpus", "node", "tasks")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.tasks: dict[str, Task] = {}
        self.active = 0
        """Wanted tasks that have not ended."""
        self.by_service: Counter[str] = Counter()
        """The same by service id."""
        self.host_ports: Counter[HostPort] = Counter()
        self.nano_cpus = 0
        """Free, below zero when the node shrank."""
        self.memory = 0
        self.generic: Counter[str] = Counter()
        self._failures: dict[ServiceVersion, deque[int]] = {}
        self.set_node(node)

    def set_node(self, node: Node) -> None:
        """The node changed; what runs there stays."""
        self.node = node
        self.host_ports = Counter()
        total = node.description.resources
        self.nano_cpus = total.nano_cpus
        self.memory = total.memory_bytes
        self.generic = Counter(dict(generic_counts(total.generic_resources)))
        for task in self.tasks.values():
            self._take(task, 1)

    def add(self, task: Task) -> None:
        """A task is on the node, or was already and changed."""
        self.remove(task.id)
        if ended(task):
            return
        self.tasks[task.id] = task
        self._count(task, 1)
        self._take(task, 1)

    def remove(self, task_id: str) -> bool:
        """The task is no longer on the node; whether it was."""
        task = self.tasks.pop(task_id, None)
        if task is None:
            return False
        self._count(task, -1)
        self._take(task, -1)
        return True

    def _count(self, task: Task, sign: int) -> None:
        if wanted(task):
            self.active += sign
            self.by_service[task.service_id] += sign

    def _take(self, task: Task, sign: int) -> None:
        reserved = reservations(task)
        if reserved is not None:
            self.nano_cpus -= sign * reserved.nano_cpus
            self.memory -= sign * reserved.memory_bytes
            for kind, count in generic_counts(reserved.generic_resources):
                self.generic[kind] -= sign * count
        for port in host_ports(task):
            self.host_ports[port] += sign

    def failed(self, service: ServiceVersion, when: int) -> None:
        """A task of the service failed here at `when` (nanoseconds)."""
        if service not in self._failures:
            # Services that failed here long ago, or exist no more, are forgotten when another one fails.
            self._failures = {
                other: times for other, times in self._failures.items() if times[-1] >= when - FAILURE_WINDOW
            }
        self._failures.setdefault(service, deque(maxlen=MOST_FAILURES)).append(when)

    def failures(self, service: ServiceVersion, now: int) -> int:
        """Failures of the service within the window; 0 below the number that makes the node faulty."""
        times = self._failures.get(service)
        if times is None:
            return 0
        while times and times[0] < now - FAILURE_WINDOW:
            times.popleft()
        if not times:
            del self._failures[service]
        return len(times) if len(times) >= FAULTY else 0


def reservations(task: Task) -> Resources | None:
    """What the task reserves on its node."""
    return None if task.spec.resources is None else task.spec.resources.reservations


def generic_counts(resources: Iterable[GenericResource]) -> list[tuple[str, int]]:
    """How many of each kind; one of a named set counts as one."""
    counts: Counter[str] = Counter()
    for resource in resources:
        if resource.named is not None:
            counts[resource.named.kind] += 1
        elif resource.discrete is not None:
            counts[resource.discrete.kind] += resource.discrete.value
    return list(counts.items())


def host_ports(task: Task) -> Iterable[HostPort]:
    """The ports that the task holds on its node alone; one that the node chooses (0) is none."""
    if task.endpoint is None:
        return ()
    return [
        (port.protocol or "tcp", port.published_port)
        for port in task.endpoint.spec.ports
        if port.publish_mode == HOST and port.published_port
    ]


def service_version(task: Task) -> ServiceVersion:
    """The service and the version of its spec that the task was made from."""
    return task.service_id, 0 if task.spec_version is None else task.spec_version.index
