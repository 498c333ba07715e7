"""The cluster's objects by id, the two indexes that rows need, and which rows a change of an object touches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from swarmtui.docker_api.types import Config, Network, Node, Secret, Service, Task
from swarmtui.model.query import Table

ClusterObject = Node | Service | Task | Network | Secret | Config

Touched = tuple[Table, str]
"""A row that may look different now: its table and id."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """An object that is new or has changed."""

    table: Table
    object: ClusterObject


@dataclass(frozen=True, slots=True)
class Delete:
    """An object that is gone."""

    table: Table
    id: str


TableChange = Upsert | Delete


def object_id(thing: ClusterObject) -> str:
    """The id; a network of `/networks` spells it differently."""
    if isinstance(thing, Network):
        return thing.id or thing.other_id
    return thing.id


def same(old: ClusterObject | None, new: ClusterObject) -> bool:
    """True when nothing changed. Versions decide where there are any: comparing two tasks field by field costs more."""
    if old is None:
        return False
    if isinstance(old, Network) or isinstance(new, Network):
        return old == new
    if old.version.index and new.version.index:
        return old.version == new.version
    return old == new


_NOWHERE: frozenset[str] = frozenset()


def networks_of(service: Service) -> frozenset[str]:
    """The ids of the networks that a service is on: those it asks for, and those it has an address on (ingress)."""
    asked = (service.spec.task_template.networks or []) + (service.spec.networks or [])
    given = (service.endpoint.virtual_ips if service.endpoint else None) or []
    return frozenset([*(each.target for each in asked), *(each.network_id for each in given)])


class Tables:
    """What is known of the cluster. Not a copy of history: an object is its newest version or gone."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, Service] = {}
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, Network] = {}
        self.secrets: dict[str, Secret] = {}
        self.configs: dict[str, Config] = {}
        self._tasks_by_service: dict[str, dict[str, Task]] = {}
        self._tasks_by_node: dict[str, dict[str, Task]] = {}
        self._services_by_network: dict[str, set[str]] = {}
        self._networks_by_service: dict[str, frozenset[str]] = {}

    def of(self, table: Table) -> dict[str, ClusterObject]:
        """One table by its name."""
        return getattr(self, table.value)  # type: ignore[no-any-return]

    def tasks_of_service(self, service_id: str) -> Sequence[Task]:
        """The tasks of a service, history included."""
        return list(self._tasks_by_service.get(service_id, {}).values())

    def tasks_of_node(self, node_id: str) -> Sequence[Task]:
        """The tasks assigned to a node, history included."""
        return list(self._tasks_by_node.get(node_id, {}).values())

    def services_on(self, network_id: str) -> Sequence[str]:
        """The ids of the services on a network."""
        return list(self._services_by_network.get(network_id, ()))

    def networks_of_service(self, service_id: str) -> frozenset[str]:
        """The ids of the networks that a service is on; none for one that is gone."""
        return self._networks_by_service.get(service_id, _NOWHERE)

    def put(self, table: Table, new: ClusterObject) -> Iterator[Touched]:
        """Store an object; the rows that its change touches, its own first."""
        key = object_id(new)
        held = self.of(table)
        old = held.get(key)
        held[key] = new
        yield table, key
        if isinstance(new, Task):
            yield from self._index(key, old if isinstance(old, Task) else None, new)
        elif isinstance(new, Node):
            yield from self._node_touches(key, old if isinstance(old, Node) else None, new)
        elif isinstance(new, Service):
            yield from self._service_touches(key, old if isinstance(old, Service) else None, new)

    def drop(self, table: Table, key: str) -> Iterator[Touched]:
        """Forget an object; the rows that it touches. Nothing when it was not known."""
        old = self.of(table).pop(key, None)
        if old is None:
            return
        yield table, key
        if isinstance(old, Task):
            yield from self._index(key, old, None)
        elif isinstance(old, Node):
            yield from self._node_touches(key, old, None)
        elif isinstance(old, Service):
            yield from self._service_touches(key, old, None)

    def _index(self, key: str, old: Task | None, new: Task | None) -> Iterator[Touched]:
        for table, index, attribute in (
            (Table.SERVICES, self._tasks_by_service, "service_id"),
            (Table.NODES, self._tasks_by_node, "node_id"),
        ):
            before: str = getattr(old, attribute) if old else ""
            after: str = getattr(new, attribute) if new else ""
            if before and before != after:
                members = index.get(before)
                if members is not None:
                    members.pop(key, None)
                    if not members:
                        del index[before]
                yield table, before
            if after and new is not None:
                index.setdefault(after, {})[key] = new
                yield table, after

    def _node_touches(self, key: str, old: Node | None, new: Node | None) -> Iterator[Touched]:
        # A task's row shows its node's name and whether the node is down; a service counts only tasks on nodes that
        # are heard of.
        if old is not None and new is not None:
            named = old.description.hostname == new.description.hostname
            if named and old.status.state == new.status.state:
                return
        for task in self._tasks_by_node.get(key, {}).values():
            yield Table.TASKS, task.id
            yield Table.SERVICES, task.service_id

    def _service_touches(self, key: str, old: Service | None, new: Service | None) -> Iterator[Touched]:
        before, after = (networks_of(each) if each is not None else _NOWHERE for each in (old, new))
        if after:
            self._networks_by_service[key] = after
        else:
            self._networks_by_service.pop(key, None)
        for network in before - after:
            members = self._services_by_network.get(network, set())
            members.discard(key)
            if not members:
                self._services_by_network.pop(network, None)
        for network in after - before:
            self._services_by_network.setdefault(network, set()).add(key)
        for network in before | after:
            yield Table.NETWORKS, network
        if (
            old is not None
            and new is not None
            and old.spec.name == new.spec.name
            and old.spec.task_template == new.spec.task_template
            and old.spec_version == new.spec_version
        ):
            return
        for task_id in self._tasks_by_service.get(key, ()):
            yield Table.TASKS, task_id
