"""What an orchestrator decides about one slot, and how that is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from agent.api_types.common import Version
from agent.api_types.identity import IdSource
from agent.api_types.service import Service
from agent.api_types.task import Endpoint, EndpointSpec, ServiceAnnotations, Task, TaskState, TaskStatus
from agent.api_types.times import format_time
from agent.manager.control_loop import BATCH
from agent.manager.slots import Slot, read_slot, task_spec_of
from agent.store.store import Store
from agent.store.transactions import WriteTx

CREATED = "created"
"""Message of a task that was just made."""


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be made: its desired state, and the time before which it does not start ("" for none)."""

    desired: TaskState = TaskState.RUNNING
    start_after: str = ""


@dataclass(frozen=True, slots=True)
class SlotChange:
    """Desired states of tasks of one slot to be changed, and a task to be made in it, if the slot is still as seen."""

    slot: Slot
    desired: tuple[tuple[Task, TaskState], ...] = ()
    new: NewTask | None = None

    @property
    def cost(self) -> int:
        """Changes that it adds to a transaction."""
        return len(self.desired) + (self.new is not None)


def replace_all(slot: Slot, new: NewTask | None, old: TaskState = TaskState.SHUTDOWN) -> SlotChange:
    """All wanted tasks of the slot are no longer wanted, and perhaps one is made instead."""
    return SlotChange(slot, tuple((task, old) for task in slot.wanted), new)


def make_task(service: Service, slot: Slot, new: NewTask, *, now: int, new_id: IdSource) -> Task:
    """A task of the service for a slot, in the state NEW. `now` in nanoseconds since the epoch."""
    is_numbered = isinstance(slot.key, int)
    return Task(
        id=new_id(),
        service_id=service.id,
        slot=slot.key if isinstance(slot.key, int) else 0,
        node_id="" if is_numbered else str(slot.key),
        spec=task_spec_of(service),
        spec_version=service.spec_version,
        service_annotations=ServiceAnnotations(name=service.spec.name, labels=service.spec.labels),
        endpoint=Endpoint(spec=service.spec.endpoint_spec or EndpointSpec(), ports=service.endpoint.ports),
        status=TaskStatus(timestamp=format_time(now), state=TaskState.NEW, message=CREATED),
        desired_state=new.desired,
        start_after=new.start_after,
    )


def apply_changes(tx: WriteTx, service: Service, changes: Sequence[SlotChange]) -> bool:
    """Write those decisions whose slots are still as they were seen; whether all of them were.

    All slots are looked at before the first is written: looking costs more the more a transaction has changed.
    """
    holding = [each for each in changes if each.slot.unchanged(read_slot(tx, service.id, each.slot.key))]
    for change in holding:
        for task, state in change.desired:
            if task.desired_state is not state:
                tx.update(msgspec.structs.replace(task, desired_state=state))
        if change.new is not None:
            tx.create(make_task(service, change.slot, change.new, now=tx.clock(), new_id=tx.new_id))
    return len(holding) == len(changes)


async def write_changes(
    store: Store,
    service: Service,
    changes: Sequence[SlotChange],
    also: Callable[[WriteTx, Service], None] | None = None,
) -> bool:
    """Write decisions about a service, 200 changes a transaction; `also` joins the first one.

    Stops, and returns False, as soon as the service is another than the one that was decided about: its new version has
    an event of its own, after which everything is decided again.
    """
    for number, batch in enumerate(list(_batches(changes, BATCH - 1)) or [[]]):
        write = _Writing(service, batch, also if number == 0 else None)
        await store.update(write)
        if not write.complete:
            return False
    return True


class _Writing:
    """One transaction of decisions; afterwards `complete` tells whether all of them were written and still hold."""

    def __init__(
        self, service: Service, changes: Sequence[SlotChange], also: Callable[[WriteTx, Service], None] | None
    ) -> None:
        self._service = service
        self._changes = changes
        self._also = also
        self.complete = False

    def __call__(self, tx: WriteTx) -> None:
        stored = tx.get(Service, self._service.id)
        if stored is None or not same_version(stored.version, self._service.version):
            return
        self.complete = apply_changes(tx, stored, self._changes)
        if self._also is not None:
            self._also(tx, stored)


def same_version(one: Version, other: Version) -> bool:
    """Whether two looks at an object saw the same one."""
    return one.index == other.index


def _batches(changes: Iterable[SlotChange], size: int) -> Iterable[list[SlotChange]]:
    batch: list[SlotChange] = []
    cost = 0
    for change in changes:
        if batch and cost + change.cost > size:
            yield batch
            batch, cost = [], 0
        batch.append(change)
        cost += change.cost
    if batch:
        yield batch
