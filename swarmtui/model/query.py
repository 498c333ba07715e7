"""What a view asks for and what it gets: queries, differences, subscriptions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from swarmtui.model.rows import NamedRow, NetworkRow, NodeRow, Row, ServiceRow, TaskRow

R = TypeVar("R", bound=Row)


class Table(StrEnum):
    """The tables of a cluster."""

    NODES = "nodes"
    SERVICES = "services"
    TASKS = "tasks"
    NETWORKS = "networks"
    SECRETS = "secrets"
    CONFIGS = "configs"


@dataclass(frozen=True, slots=True)
class Query(Generic[R]):
    """Rows of one table. Make one with the functions below; narrowing further (filter text) is the view's business."""

    table: Table
    service_id: str | None = None
    """Tasks of this service only."""
    node_id: str | None = None
    """Tasks of this node only."""
    stack: str | None = None
    """Services of this stack only."""


def all_nodes() -> Query[NodeRow]:
    """Every node."""
    return Query(Table.NODES)


def all_services(stack: str | None = None) -> Query[ServiceRow]:
    """Every service, or those of one stack."""
    return Query(Table.SERVICES, stack=stack)


def tasks_of(service_id: str | None = None, node_id: str | None = None) -> Query[TaskRow]:
    """Every task, history included, or those of a service, of a node, or of both."""
    return Query(Table.TASKS, service_id=service_id, node_id=node_id)


def all_networks() -> Query[NetworkRow]:
    """Every network of scope swarm."""
    return Query(Table.NETWORKS)


def all_secrets() -> Query[NamedRow]:
    """Every secret, without data."""
    return Query(Table.SECRETS)


def all_configs() -> Query[NamedRow]:
    """Every config, without data."""
    return Query(Table.CONFIGS)


@dataclass(frozen=True, slots=True)
class Difference(Generic[R]):
    """What changed in a query's rows since the last delivery. A row's id is in one of the three at most."""

    added: tuple[R, ...] = ()
    changed: tuple[R, ...] = ()
    removed: tuple[str, ...] = ()
    """Ids."""

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(eq=False, slots=True)
class Subscription(Generic[R]):
    """A view's hold on a query; `close()` when the view goes. The callback runs on the loop and must not block."""

    query: Query[R]
    callback: Callable[[Difference[R]], None]
    rows: dict[str, R] = field(default_factory=dict)
    """The rows as delivered so far, by id."""
    queue: deque[str] = field(default_factory=deque)
    """Ids whose rows may have changed since, in order; the model's own."""
    queued: set[str] = field(default_factory=set)
    """The ids in `queue`."""
    closed: bool = False

    def touch(self, key: str) -> None:
        """The row of `key` may have changed."""
        if key not in self.queued:
            self.queued.add(key)
            self.queue.append(key)

    def next_touched(self) -> str:
        """The id that has waited longest; it waits no more."""
        key = self.queue.popleft()
        self.queued.discard(key)
        return key

    def close(self) -> None:
        """Nothing is delivered after this."""
        self.closed = True
        self.rows = {}
        self.queue.clear()
        self.queued.clear()
