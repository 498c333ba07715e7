"""The loop that both orchestrators share: keep every service's slots as its spec wants them.

Two paths lead to a decision. What ended or lost its node is replaced slot by slot, at once, without looking at the rest
of the service. Everything else (a new spec, a scale, a step of an update) looks at all slots of the service.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState
from agent.api_types.times import MILLISECOND, Clock, parse_time
from agent.manager.control_loop import SLICE, ControlLoop, earliest, sliced
from agent.manager.orchestrator.changes import SlotChange, write_changes
from agent.manager.orchestrator.restarts import held_until
from agent.manager.orchestrator.updater import UpdatePlan, is_updating, plan_update, rolled_back
from agent.manager.slots import Slot, SlotKey, ended, read_slot, slot_key, slots_of, unfit, wanted
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, Event, EventKind

RETRY = 20 * MILLISECOND
"""After which a decision that somebody else's pending change overtook is made again."""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service, its slots and all nodes, at one moment."""

    service: Service
    slots: Mapping[SlotKey, Slot]
    nodes: Mapping[str, Node]
    now: int


class Reconciler(ControlLoop):
    """Base of the orchestrators; a subclass says which services are its own and what their slots need."""

    kinds: ClassVar[tuple[type, ...]] = (Service, Task, Node)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._services: dict[str, Service] = {}
        self._dirty: set[str] = set()
        self._broken: dict[str, set[SlotKey]] = {}
        """Slots whose wanted task ended or lost its node, by service."""
        self._lost_nodes: set[str] = set()
        self._wake_at: dict[str, int] = {}
        self._ran: dict[str, int] = {}
        """How long tasks of services under update had been running when they ended."""

    @abstractmethod
    def handles(self, service: Service) -> bool:
        """Whether the service is of this orchestrator's mode."""

    @abstractmethod
    def restart(self, view: ServiceView, slot: Slot) -> SlotChange | None:
        """What a slot needs whose wanted task ended or lost its node."""

    @abstractmethod
    def resize(self, view: ServiceView) -> list[SlotChange]:
        """Slots to be opened and closed."""

    @abstractmethod
    def updatable(self, view: ServiceView, closing: Sequence[SlotChange]) -> list[Slot]:
        """The slots that an update may work on; `closing` are those that `resize` wants otherwise."""

    @abstractmethod
    def node_matters(self, event: Event) -> bool:
        """Whether a change of a node may open or close slots of every service."""

    async def load(self) -> None:
        self._dirty.clear()
        self._broken.clear()
        self._lost_nodes.clear()
        self._wake_at.clear()
        self._ran.clear()
        services = self.store.view(lambda tx: tx.all(Service))
        self._services = {service.id: service for service in services if self.handles(service)}
        self._dirty.update(self._services)

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.object, Task):
                self._observe_task(event, event.object)
            elif isinstance(event.object, Service):
                self._observe_service(event.object, event.kind)
            elif isinstance(event.object, Node):
                self._observe_node(event, event.object)

    def _observe_service(self, service: Service, kind: EventKind) -> None:
        if kind is EventKind.REMOVE or not self.handles(service):
            self._services.pop(service.id, None)
            self._dirty.discard(service.id)
            self._wake_at.pop(service.id, None)
            return
        self._services[service.id] = service
        self._dirty.add(service.id)

    def _observe_task(self, event: Event, task: Task) -> None:
        if event.kind is EventKind.REMOVE:
            self._ran.pop(task.id, None)
        service = self._services.get(task.service_id)
        if service is None:
            return
        if event.kind is EventKind.REMOVE:
            if wanted(task):
                self._dirty.add(service.id)
            return
        if wanted(task) and ended(task):
            self._broken.setdefault(service.id, set()).add(slot_key(task)[1])
        if is_updating(service):
            self._dirty.add(service.id)
            self._note_ran(task, event.old)

    def _note_ran(self, task: Task, old: object) -> None:
        was_running = isinstance(old, Task) and old.status.state is TaskState.RUNNING
        if isinstance(old, Task) and was_running and ended(task):
            self._ran[task.id] = parse_time(task.updated_at) - parse_time(old.updated_at)

    def _observe_node(self, event: Event, node: Node) -> None:
        now = None if event.kind is EventKind.REMOVE else node
        if unfit(now) and not (
            isinstance(event.old, Node) and event.kind is EventKind.UPDATE and _same_unfit(event.old, node)
        ):
            self._lost_nodes.add(node.id)
        if self.node_matters(event):
            self._dirty.update(self._services)

    async def act(self) -> int | None:
        retry = False
        for node_id in tuple(self._lost_nodes):
            self._break_slots_of(node_id)
        self._lost_nodes.clear()
        for service_id in tuple(self._broken):
            retry |= not await self._replace_broken(service_id)
        for service_id in tuple(self._dirty):
            retry |= not await self._reconcile(service_id)
        now = self.clock()
        for service_id, when in tuple(self._wake_at.items()):
            if when <= now:
                del self._wake_at[service_id]
                self._dirty.add(service_id)
                retry = True
        return earliest(*self._wake_at.values(), now + RETRY if retry else None)

    def _break_slots_of(self, node_id: str) -> None:
        for task in self.store.view(lambda tx: tx.find(Task, "node", node_id)):
            if wanted(task) and task.service_id in self._services:
                self._broken.setdefault(task.service_id, set()).add(slot_key(task)[1])

    async def _replace_broken(self, service_id: str) -> bool:
        """Replace what broke in a service; False when it has to be tried again."""
        keys = self._broken.pop(service_id)
        view = self.store.view(lambda tx: self._view(tx, service_id, keys))
        if view is None:
            return True
        changes = await _decide(view.slots.values(), lambda slot: self.restart(view, slot))
        held = _held(view)
        if held is not None:
            self._wake_at[service_id] = min(held, self._wake_at.get(service_id, held))
        if not changes or await write_changes(self.store, view.service, changes):
            return True
        self._broken.setdefault(service_id, set()).update(keys)
        return False

    async def _reconcile(self, service_id: str) -> bool:
        """Bring a service closer to its spec; False when it has to be looked at again soon."""
        view = self.store.view(lambda tx: self._view(tx, service_id))
        if view is None:
            self._dirty.discard(service_id)
            return True
        restarts = await _decide(view.slots.values(), lambda slot: self.restart(view, slot))
        if restarts:
            await write_changes(self.store, view.service, restarts)
            return False
        resized = self.resize(view)
        await _breathe(len(view.slots))
        plan = plan_update(
            view.service,
            self.updatable(view, resized),
            node_of=view.nodes.get,
            ran_for=lambda task: self._ran.get(task.id),
            now=view.now,
        )
        await _breathe(len(view.slots))
        changes = [*resized, *plan.changes]
        is_idle = not changes and plan.status is None
        if not is_idle and not await write_changes(self.store, view.service, changes, _status_writer(plan)):
            return False
        self._dirty.discard(service_id)
        self._wake_at.pop(service_id, None)
        wake_at = earliest(plan.wake_at, _held(view))
        if wake_at is not None:
            self._wake_at[service_id] = wake_at
        return True

    def _view(self, tx: ReadTx, service_id: str, keys: Iterable[SlotKey] | None = None) -> ServiceView | None:
        service = tx.get(Service, service_id)
        if service is None or not self.handles(service):
            return None
        nodes = {node.id: node for node in tx.all(Node)}
        if keys is None:
            slots = slots_of(service, tx.find(Task, "service", service_id))
        else:
            slots = {key: Slot(key, read_slot(tx, service_id, key)) for key in keys}
        return ServiceView(service, slots, nodes, self.clock())


def _held(view: ServiceView) -> int | None:
    """When the next slot whose replacement waits for a delay is due."""
    return earliest(*(held_until(slot, view.nodes.get, view.now) for slot in view.slots.values()))


async def _decide(slots: Iterable[Slot], decide: Callable[[Slot], SlotChange | None]) -> list[SlotChange]:
    return [change async for slot in sliced(slots) if (change := decide(slot)) is not None]


async def _breathe(size: int) -> None:
    if size > SLICE:
        await asyncio.sleep(0)


def _status_writer(plan: UpdatePlan) -> Callable[[WriteTx, Service], None] | None:
    status = plan.status
    if status is None:
        return None

    def write(tx: WriteTx, service: Service) -> None:
        if plan.rollback:
            tx.update(rolled_back(service, status))
        else:
            tx.update(msgspec.structs.replace(service, update_status=status))

    return write


def _same_unfit(old: Node, new: Node) -> bool:
    """Whether the node was unfit before, in the same way: its tasks have been dealt with."""
    return old.status.state is new.status.state and old.spec.availability is new.spec.availability
