"""The cluster's events, in Docker's words (moby daemon/events.go), kept for those who ask what happened before."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.api_types.network import Network
from agent.api_types.node import Node
from agent.api_types.secret import Config, Secret
from agent.api_types.service import Service
from agent.api_types.times import SECOND, Clock, parse_time
from agent.store.store import Store
from agent.store.watching import Commit, Event, EventKind, IndexGone, Watch, WatchOverflow

EVENTS_KEPT = 1024
"""Events that can be asked for afterwards; Docker keeps 256."""
READER_LIMIT = 4096
"""Events a reader may fall behind before it is cut off."""

_KINDS = (Node, Service, Network, Secret, Config)


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """One change of the cluster. `time` in nanoseconds since the epoch."""

    type: str
    action: str
    id: str
    attributes: Mapping[str, str]
    time: int

    def message(self) -> dict[str, object]:
        """The event as `/events` shows it."""
        return {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "swarm",
            "time": self.time // SECOND,
            "timeNano": self.time,
        }


def describe(event: Event, now: int) -> ClusterEvent | None:
    """What Docker says of a change; None for objects it says nothing of. A removal happened `now`."""
    obj = event.object
    old = event.old if event.kind is EventKind.UPDATE else None
    match obj:
        case Node():
            kind, attributes = "node", _node_attributes(obj, old if isinstance(old, Node) else None)
        case Service():
            kind, attributes = "service", _service_attributes(obj, old if isinstance(old, Service) else None)
        case Network():
            kind, attributes = "network", {"name": obj.spec.name}
        case Secret():
            kind, attributes = "secret", {"name": obj.spec.name}
        case Config():
            kind, attributes = "config", {"name": obj.spec.name}
        case _:
            return None
    time = now if event.kind is EventKind.REMOVE or not obj.updated_at else parse_time(obj.updated_at)
    return ClusterEvent(kind, event.kind.value, obj.id, attributes, time)


def _node_attributes(node: Node, old: Node | None) -> dict[str, str]:
    attributes = {"name": node.spec.name or node.description.hostname}
    if old is None:
        return attributes
    status, before = node.manager_status, old.manager_status
    changes = [
        ("state", old.status.state.value, node.status.state.value),
        ("availability", old.spec.availability.value, node.spec.availability.value),
        ("role", old.spec.role.value, node.spec.role.value),
    ]
    if status is not None and before is not None:
        changes.append(("leader", str(before.leader).lower(), str(status.leader).lower()))
        changes.append(("reachability", before.reachability, status.reachability))
    for name, was, now in changes:
        if was != now:
            attributes |= {f"{name}.old": was, f"{name}.new": now}
    return attributes


def _service_attributes(service: Service, old: Service | None) -> dict[str, str]:
    attributes = {"name": service.spec.name}
    if old is None:
        return attributes
    replicas, before = service.spec.mode.replicated, old.spec.mode.replicated
    if replicas is not None and before is not None and replicas.replicas != before.replicas:
        attributes |= {"replicas.old": str(before.replicas), "replicas.new": str(replicas.replicas)}
    container, was = service.spec.task_template.container_spec, old.spec.task_template.container_spec
    if container is not None and was is not None and container.image != was.image:
        attributes |= {"image.old": was.image, "image.new": container.image}
    if service.update_status is not None:
        state = service.update_status.state
        state_before = old.update_status.state if old.update_status is not None else ""
        if state != state_before:
            attributes |= {"updatestate.old": state_before} if state_before else {}
            attributes |= {"updatestate.new": state}
    return attributes


@dataclass(eq=False, slots=True)
class Subscription:
    """A reader of events that happen after `opened` (ns); `overflow` once it fell too far behind."""

    opened: int
    queue: asyncio.Queue[ClusterEvent] = field(default_factory=lambda: asyncio.Queue(READER_LIMIT))
    overflow: bool = False

    def offer(self, event: ClusterEvent) -> None:
        """Take an event; never blocks."""
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.overflow = True


class EventLog:
    """Listens to the store of the moment, keeps the newest events and hands them to readers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[ClusterEvent] = deque(maxlen=EVENTS_KEPT)
        self._subscriptions: set[Subscription] = set()
        self._store: Store | None = None
        self._task: asyncio.Task[None] | None = None
        self._watch: Watch | None = None

    def listen_to(self, store: Store | None) -> None:
        """The store of this node is `store` now; costs nothing when it is the same as before."""
        if store is self._store:
            return
        if self._watch is not None:
            self._watch.close()
        self._store, self._watch = store, None
        if store is not None:
            self._watch = self._open(store)
            self._remember(self._watch)
            self._task = asyncio.create_task(self._record(store, self._watch))

    @staticmethod
    def _open(store: Store) -> Watch:
        """From the beginning of what the store remembers, so that what happened before the first reader is told too."""
        try:
            return store.watch(*_KINDS, since=0)
        except IndexGone:
            return store.watch(*_KINDS)

    def _remember(self, watch: Watch) -> None:
        """What the store did before we listened to it. A removal has no time of its own: it gets the change's before it."""
        last = 0
        for commit in watch.drain():
            for event in commit.events:
                told = describe(event, last)
                if told is not None:
                    last = max(last, told.time)
                    self._kept.append(told)
                    for subscription in self._subscriptions:
                        if told.time > subscription.opened:
                            subscription.offer(told)

    async def _record(self, store: Store, watch: Watch) -> None:
        while self._watch is watch:
            try:
                async for commit in watch:
                    self._tell(commit)
                return
            except WatchOverflow:
                # The state was replaced by a snapshot: what happened meanwhile cannot be told, what comes can.
                watch.close()
                if self._watch is not watch:
                    return
                watch = self._watch = store.watch(*_KINDS)

    def _tell(self, commit: Commit) -> None:
        for event in commit.events:
            told = describe(event, self._clock())
            if told is None:
                continue
            self._kept.append(told)
            for subscription in tuple(self._subscriptions):
                subscription.offer(told)

    def past(self) -> list[ClusterEvent]:
        """The events that are kept, oldest first, the last commit's included."""
        if self._watch is not None:
            for commit in self._watch.drain():
                self._tell(commit)
        return list(self._kept)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """New events, from now on."""
        subscription = Subscription(self._clock())
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def close(self) -> None:
        """Stop listening."""
        if self._watch is not None:
            self._watch.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
