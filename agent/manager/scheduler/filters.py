"""Filters: where a task can run. Each is asked three things: whether it has a say in a task, whether a node passes, and
what to tell a person about the nodes that did not.

Order and wording are SwarmKit's (manager/scheduler/filter.go, pipeline.go); the wording is the task's Err.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent.api_types.common import Platform, Resources
from agent.api_types.errors import Unknown
from agent.api_types.node import NodeAvailability, NodeState
from agent.api_types.task import Task
from agent.manager.constraints import Constraint, constraints_of, fits_all, normal_architecture
from agent.manager.scheduler.node_info import HostPort, NodeInfo, generic_counts, host_ports, reservations

NO_SUITABLE_NODE = "no suitable node"


class Filter(Protocol):
    """One reason for which a node may not do."""

    def set_task(self, task: Task) -> bool:
        """Look at the tasks of this kind from now on; False when the filter has nothing to say about them."""
        ...

    def check(self, info: NodeInfo) -> bool:
        """Whether the task can run on the node."""
        ...

    def explain(self, nodes: int) -> str:
        """What kept the task from `nodes` nodes."""
        ...


def _on_nodes(text: str, nodes: int) -> str:
    return f"{text} on {nodes} node{'' if nodes == 1 else 's'}"


class ReadyFilter:
    """The node is there, and nobody paused or drained it."""

    def set_task(self, task: Task) -> bool:
        return True

    def check(self, info: NodeInfo) -> bool:
        node = info.node
        return node.status.state is NodeState.READY and node.spec.availability is NodeAvailability.ACTIVE

    def explain(self, nodes: int) -> str:
        return f"{nodes} node{'' if nodes == 1 else 's'} not available for new tasks"


class ResourceFilter:
    """What the task reserves is free."""

    def __init__(self) -> None:
        self._wanted = Resources()
        self._generic: list[tuple[str, int]] = []

    def set_task(self, task: Task) -> bool:
        reserved = reservations(task)
        if reserved is None:
            return False
        self._wanted = reserved
        self._generic = generic_counts(reserved.generic_resources)
        return bool(reserved.nano_cpus or reserved.memory_bytes or self._generic)

    def check(self, info: NodeInfo) -> bool:
        # A node that is overcommitted already still takes a task that asks for nothing of that kind.
        wanted = self._wanted
        return (
            (not wanted.nano_cpus or wanted.nano_cpus <= info.nano_cpus)
            and (not wanted.memory_bytes or wanted.memory_bytes <= info.memory)
            and all(info.generic[kind] >= count for kind, count in self._generic)
        )

    def explain(self, nodes: int) -> str:
        return _on_nodes("insufficient resources", nodes)


class PluginFilter:
    """The engine has the volume and log drivers that the task names. A node that lists no plugins is not asked."""

    def __init__(self) -> None:
        self._wanted: list[tuple[str, str]] = []

    def set_task(self, task: Task) -> bool:
        container = task.spec.container_spec
        volumes = [] if container is None else container.mounts
        self._wanted = [
            ("Volume", mount.volume_options.driver_config.name)
            for mount in volumes
            if mount.volume_options is not None
            and mount.volume_options.driver_config is not None
            and mount.volume_options.driver_config.name
        ]
        log_driver = task.spec.log_driver
        if log_driver is not None and log_driver.name not in ("", "none"):
            self._wanted.append(("Log", log_driver.name))
        return bool(self._wanted)

    def check(self, info: NodeInfo) -> bool:
        plugins = {(plugin.type, plugin.name) for plugin in info.node.description.engine.plugins}
        if not plugins:
            return True
        return all((kind, name) in plugins or (kind, f"{name}:latest") in plugins for kind, name in self._wanted)

    def explain(self, nodes: int) -> str:
        return _on_nodes("missing plugin", nodes)


class ConstraintFilter:
    """The node satisfies the placement constraints."""

    def __init__(self) -> None:
        self._constraints: tuple[Constraint, ...] | None = ()

    def set_task(self, task: Task) -> bool:
        try:
            self._constraints = constraints_of(task.spec)
        except Unknown:
            # The API refuses what cannot be read; should it be in the store all the same, no node fits.
            self._constraints = None
        return self._constraints != ()

    def check(self, info: NodeInfo) -> bool:
        return self._constraints is not None and fits_all(self._constraints, info.node)

    def explain(self, nodes: int) -> str:
        return _on_nodes("scheduling constraints not satisfied", nodes)


class PlatformFilter:
    """The image runs on the node's processor and system."""

    def __init__(self) -> None:
        self._platforms: Sequence[Platform] = ()

    def set_task(self, task: Task) -> bool:
        self._platforms = () if task.spec.placement is None else task.spec.placement.platforms
        return bool(self._platforms)

    def check(self, info: NodeInfo) -> bool:
        has = info.node.description.platform
        return any(
            (not platform.os or platform.os.lower() == has.os.lower())
            and (
                not platform.architecture
                or normal_architecture(platform.architecture) == normal_architecture(has.architecture)
            )
            for platform in self._platforms
        )

    def explain(self, nodes: int) -> str:
        return _on_nodes("unsupported platform", nodes)


class HostPortFilter:
    """The ports that the task wants on its node are free there."""

    def __init__(self) -> None:
        self._ports: Sequence[HostPort] = ()

    def set_task(self, task: Task) -> bool:
        self._ports = tuple(host_ports(task))
        return bool(self._ports)

    def check(self, info: NodeInfo) -> bool:
        return not any(info.host_ports[port] > 0 for port in self._ports)

    def explain(self, nodes: int) -> str:
        return _on_nodes("host-mode port already in use", nodes)


class MaxReplicasFilter:
    """The node does not have as many tasks of the service as the service allows it."""

    def __init__(self) -> None:
        self._most = 0
        self._service_id = ""

    def set_task(self, task: Task) -> bool:
        self._most = 0 if task.spec.placement is None else task.spec.placement.max_replicas
        self._service_id = task.service_id
        return self._most > 0

    def check(self, info: NodeInfo) -> bool:
        return info.by_service[self._service_id] < self._most

    def explain(self, nodes: int) -> str:
        return "max replicas per node limit exceed"


def all_filters() -> list[Filter]:
    """Every filter, in the order in which they are asked."""
    return [
        ReadyFilter(),
        ResourceFilter(),
        PluginFilter(),
        ConstraintFilter(),
        PlatformFilter(),
        HostPortFilter(),
        MaxReplicasFilter(),
    ]


class Pipeline:
    """The filters in order, and how many nodes each turned away since the task was set."""

    def __init__(self, filters: Sequence[Filter] | None = None) -> None:
        self._all = list(all_filters() if filters is None else filters)
        self._asked: list[Filter] = []
        self._refused: list[int] = []

    def set_task(self, task: Task) -> None:
        """Start over with another kind of task."""
        self._asked = [each for each in self._all if each.set_task(task)]
        self._refused = [0] * len(self._asked)

    def passes(self, info: NodeInfo) -> bool:
        """Whether every filter lets the node pass; the first that does not is remembered."""
        for number, each in enumerate(self._asked):
            if not each.check(info):
                self._refused[number] += 1
                return False
        return True

    def first_refusal(self, info: NodeInfo) -> str:
        """What keeps the task from this one node; empty when nothing does."""
        return next((each.explain(1) for each in self._asked if not each.check(info)), "")

    def explain(self) -> str:
        """Why there is no node: `no suitable node (what kept it from most nodes first; ...)`."""
        refusals = sorted(zip(self._refused, self._asked, strict=True), key=lambda pair: -pair[0])
        texts = [each.explain(count) for count, each in refusals if count]
        return f"{NO_SUITABLE_NODE} ({'; '.join(texts)})" if texts else NO_SUITABLE_NODE
