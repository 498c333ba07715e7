"""The live picture of one cluster: objects in, differences of rows out.

Changes are collected for `coalesce` seconds and delivered together; a large difference is delivered in slices so that
the loop is never held longer than `SLICE_SECONDS`. `swarmtui.model.feed` fills it from an engine.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar, cast

from swarmtui.docker_api.times import Clock, Monotonic
from swarmtui.docker_api.types import Config, Network, Node, Secret, Service, Task
from swarmtui.model.feed import Feed, ModelSource
from swarmtui.model.managers import ManagerGroup, group_of_nodes
from swarmtui.model.query import Difference, Query, Subscription, Table, all_nodes, all_services
from swarmtui.model.row_making import STACK_LABEL, named_row, network_row, node_row, service_row, task_row
from swarmtui.model.rows import NodeRow, Row, ServiceRow
from swarmtui.model.summary import ClusterSummary, ConnectionStatus
from swarmtui.model.tables import ClusterObject, Delete, TableChange, Tables, Upsert, object_id, same

R = TypeVar("R", bound=Row)

SLICE_SECONDS = 0.012
"""How long one turn of delivery may hold the loop: well under a frame at 30 a second."""
_APPLY_ROWS = 500
"""Objects that are taken in before the loop gets its turn."""


@dataclass(eq=False, slots=True)
class SummarySubscription:
    """A header's hold on the summary."""

    callback: Callable[[ClusterSummary], None]
    closed: bool = False

    def close(self) -> None:
        """Nothing is delivered after this."""
        self.closed = True


class ClusterModel:
    """The tables, the subscriptions and the connection of one cluster. All calls from one loop."""

    def __init__(
        self,
        source: ModelSource | None = None,
        *,
        context: str = "",
        coalesce: float = 0.05,
        clock: Clock = time.time_ns,
        monotonic: Monotonic = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`source` is an `EngineClient`; None for a model that only `apply` feeds."""
        self._tables = Tables()
        self._rows: dict[Table, dict[str, Row]] = {table: {} for table in Table}
        self._subscriptions: list[Subscription[Any]] = []
        self._summaries: list[SummarySubscription] = []
        self._summary = ClusterSummary(context=context)
        self._summary_due = False
        self._coalesce = coalesce
        self._monotonic = monotonic
        self._timer: asyncio.Handle | None = None
        self._held = 0
        self._group: ManagerGroup | None = None
        self._quorum = True
        self._there: set[str] = set()
        self._feed = Feed(self, source, clock=clock, monotonic=monotonic, random=random) if source else None
        # The summary's own subscriptions: they keep its rows up to date in the same slices as everybody's.
        self._node_rows = self.subscribe(all_nodes(), self._count_again)
        self._service_rows = self.subscribe(all_services(), self._count_again)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """By id."""
        return MappingProxyType(self._tables.nodes)

    @property
    def services(self) -> Mapping[str, Service]:
        """By id."""
        return MappingProxyType(self._tables.services)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """By id, history included."""
        return MappingProxyType(self._tables.tasks)

    @property
    def networks(self) -> Mapping[str, Network]:
        """By id."""
        return MappingProxyType(self._tables.networks)

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """By id."""
        return MappingProxyType(self._tables.secrets)

    @property
    def configs(self) -> Mapping[str, Config]:
        """By id."""
        return MappingProxyType(self._tables.configs)

    @property
    def summary(self) -> ClusterSummary:
        """The header's figures as of the last delivery."""
        return self._summary

    def tasks_of(self, *, service_id: str | None = None, node_id: str | None = None) -> list[Task]:
        """The tasks of a service, of a node, or of both; all without either."""
        if service_id is not None:
            found: Iterable[Task] = self._tables.tasks_of_service(service_id)
            return [task for task in found if node_id is None or task.node_id == node_id]
        if node_id is not None:
            return list(self._tables.tasks_of_node(node_id))
        return list(self._tables.tasks.values())

    def row(self, table: Table, key: str) -> Row | None:
        """The row of one object as it is now; None when there is no such object."""
        cached = self._rows[table].get(key)
        if cached is not None:
            return cached
        thing = self._tables.of(table).get(key)
        if thing is None:
            return None
        made = self._make(thing)
        self._rows[table][key] = made
        return made

    def subscribe(self, query: Query[R], callback: Callable[[Difference[R]], None]) -> Subscription[R]:
        """Deliver the query's rows, first all of them as added, then what changes."""
        subscription = Subscription(query, callback)
        for key in self._candidates(query):
            subscription.touch(key)
        self._subscriptions.append(subscription)
        self._schedule()
        return subscription

    def subscribe_summary(self, callback: Callable[[ClusterSummary], None]) -> SummarySubscription:
        """Deliver the summary now and whenever it changes."""
        subscription = SummarySubscription(callback)
        self._summaries.append(subscription)
        callback(self._summary)
        return subscription

    def apply(self, changes: Iterable[TableChange]) -> None:
        """Take changes in; they are delivered within `coalesce` seconds."""
        for change in changes:
            if isinstance(change, Upsert):
                touched = self._tables.put(change.table, change.object)
            else:
                touched = self._tables.drop(change.table, change.id)
            for table, key in touched:
                self._touch(table, key)
                if table is Table.SERVICES:
                    # A network's row counts its services' tasks.
                    for network in self._tables.networks_of_service(key):
                        self._touch(Table.NETWORKS, network)
        self._schedule()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Deliver nothing inside: a picture that is half read would show services without their tasks."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._schedule()

    async def replace(self, table: Table, objects: Iterable[ClusterObject]) -> int:
        """Make a table hold exactly these objects; the number of those that changed. Yields to the loop on the way."""
        wanted = {object_id(thing): thing for thing in objects}
        held = self._tables.of(table)
        changes: list[TableChange] = [Delete(table, key) for key in held if key not in wanted]
        changes += [Upsert(table, thing) for key, thing in wanted.items() if not same(held.get(key), thing)]
        for start in range(0, len(changes), _APPLY_ROWS):
            if start:
                await asyncio.sleep(0)
            self.apply(changes[start : start + _APPLY_ROWS])
        return len(changes)

    def set_connection(self, status: ConnectionStatus) -> None:
        """The feed's word on the connection; the summary's subscribers hear of it at once."""
        self._set_summary(replace(self._summary, connection=status))

    def set_name(self, name: str) -> None:
        """The swarm's name."""
        self._set_summary(replace(self._summary, name=name))

    def set_group(self, group: ManagerGroup | None, *, quorum: bool = True) -> None:
        """The feed's word on the managers' group; None: only what nodes say of it is known."""
        if group == self._group and quorum == self._quorum:
            return
        before, self._group, self._quorum = self._group, group, quorum
        old = {member.id: member for member in before.members} if before is not None else {}
        new = {member.id: member for member in group.members} if group is not None else {}
        for key in old.keys() | new.keys():
            if old.get(key) != new.get(key):
                self._touch(Table.NODES, key)
        self._summary_due = True
        self._schedule()

    def retry_now(self) -> None:
        """Try to reconnect at once instead of waiting for the back-off; harmless while connected."""
        if self._feed is not None:
            self._feed.retry_now()

    async def run(self) -> None:
        """Feed the model until cancelled. A lost engine is reconnected to; its error is in `summary.connection`."""
        if self._feed is None:
            raise RuntimeError("this model has no source to run on")
        try:
            await self._feed.run()
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def flush(self) -> None:
        """Deliver everything now, however long it takes."""
        self._deliver(None)

    # Delivery

    def _touch(self, table: Table, key: str) -> None:
        self._rows[table].pop(key, None)
        for subscription in self._subscriptions:
            if subscription.query.table is table:
                subscription.touch(key)

    def _schedule(self) -> None:
        if self._timer is not None or self._held:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # Built before the loop runs: the first change inside it, or `flush`, delivers.
        self._timer = loop.call_later(self._coalesce, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._held:
            return
        try:
            self._deliver(self._monotonic() + SLICE_SECONDS)
        finally:
            if any(subscription.queue for subscription in self._subscriptions):
                self._timer = asyncio.get_running_loop().call_soon(self._tick)

    def _deliver(self, deadline: float | None) -> None:
        self._subscriptions = [each for each in self._subscriptions if not each.closed]
        for subscription in list(self._subscriptions):
            difference = self._take(subscription, deadline)
            if difference:
                subscription.callback(difference)
            if deadline is not None and self._monotonic() > deadline:
                # Whoever was not reached comes first the next time.
                self._subscriptions.remove(subscription)
                self._subscriptions.append(subscription)
                break
        if self._summary_due:
            self._summary_due = False
            self._set_summary(self._counted())

    def _take(self, subscription: Subscription[R], deadline: float | None) -> Difference[R]:
        added: list[R] = []
        changed: list[R] = []
        removed: list[str] = []
        rows, query = subscription.rows, subscription.query
        while subscription.queue and not subscription.closed:
            key = subscription.next_touched()
            thing = self._tables.of(query.table).get(key)
            old = rows.get(key)
            if thing is None or not _matches(query, thing):
                if old is not None:
                    del rows[key]
                    removed.append(key)
            else:
                new = cast(R, self.row(query.table, key))
                if old is None:
                    added.append(new)
                elif old != new:
                    changed.append(new)
                rows[key] = new
            # A look at the clock for every row: one service with thousands of tasks takes milliseconds.
            if deadline is not None and self._monotonic() > deadline:
                break
        return Difference(tuple(added), tuple(changed), tuple(removed))

    def _candidates(self, query: Query[Any]) -> Iterator[str]:
        if query.table is Table.TASKS and (query.service_id is not None or query.node_id is not None):
            yield from (task.id for task in self.tasks_of(service_id=query.service_id, node_id=query.node_id))
        else:
            yield from self._tables.of(query.table)

    def _make(self, thing: ClusterObject) -> Row:
        tables = self._tables
        if isinstance(thing, Task):
            return task_row(thing, tables.services.get(thing.service_id), tables.nodes.get(thing.node_id))
        if isinstance(thing, Service):
            return service_row(thing, tables.tasks_of_service(thing.id), tables.nodes)
        if isinstance(thing, Node):
            member = self._group.member(thing.id) if self._group is not None else None
            return node_row(thing, tables.tasks_of_node(thing.id), member)
        if isinstance(thing, Network):
            on_it = (self.row(Table.SERVICES, key) for key in tables.services_on(object_id(thing)))
            return network_row(thing, [row for row in on_it if isinstance(row, ServiceRow)])
        return named_row(thing)

    # Summary

    def _count_again(self, difference: Difference[NodeRow] | Difference[ServiceRow]) -> None:
        self._summary_due = True

    def _counted(self) -> ClusterSummary:
        nodes, services = self._node_rows.rows.values(), self._service_rows.rows.values()
        group = self._group or group_of_nodes(self._tables.nodes.values(), quorum=self._quorum)
        members = group.members if group is not None else ()
        # A new leader has yet to hear of every node: until it has, or gives one up, those that were there are.
        self._there = {
            row.id for row in nodes if row.status == "ready" or (row.status == "unknown" and row.id in self._there)
        }
        return replace(
            self._summary,
            leader=group.leader if group is not None else "",
            group=group,
            managers=len(members),
            managers_reachable=sum(1 for member in members if member.reachable),
            nodes=len(nodes),
            nodes_ready=len(self._there),
            services=len(services),
            services_healthy=sum(1 for row in services if row.healthy),
            tasks_running=sum(row.running for row in services),
            tasks_wanted=sum(row.wanted for row in services),
        )

    def _set_summary(self, summary: ClusterSummary) -> None:
        if summary == self._summary:
            return
        self._summary = summary
        self._summaries = [each for each in self._summaries if not each.closed]
        for subscription in list(self._summaries):
            if not subscription.closed:
                subscription.callback(summary)


def _matches(query: Query[Any], thing: ClusterObject) -> bool:
    if isinstance(thing, Task):
        return query.service_id in (None, thing.service_id) and query.node_id in (None, thing.node_id)
    if isinstance(thing, Service) and query.stack is not None:
        return (thing.spec.labels or {}).get(STACK_LABEL) == query.stack
    return True
