"""Replicated services: N slots, numbered from 1.

Up: the lowest free numbers. Down: from the nodes that run most of the service's tasks, so that what stays is spread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState
from agent.manager.control_loop import BATCH
from agent.manager.orchestrator.changes import NewTask, SlotChange
from agent.manager.orchestrator.reconciler import Reconciler, ServiceView
from agent.manager.orchestrator.restarts import restart_slot
from agent.manager.slots import Slot, SlotKey, is_replicated_service, replicas_of
from agent.store.watching import Event


class ReplicatedOrchestrator(Reconciler):
    """Keeps replicated services at their number of replicas."""

    def handles(self, service: Service) -> bool:
        return is_replicated_service(service)

    def restart(self, view: ServiceView, slot: Slot) -> SlotChange | None:
        return restart_slot(view.service, slot, view.nodes.get, view.now)

    def resize(self, view: ServiceView) -> list[SlotChange]:
        return resize(replicas_of(view.service), view.slots)

    def updatable(self, view: ServiceView, closing: Sequence[SlotChange]) -> list[Slot]:
        changing = {change.slot.key for change in closing}
        kept = [slot for slot in view.slots.values() if is_open(slot) and slot.key not in changing]
        return sorted(kept, key=lambda slot: slot.key)

    def node_matters(self, event: Event) -> bool:
        # A replica may run anywhere: that a node left shows at its tasks.
        return False


def is_open(slot: Slot) -> bool:
    """Whether the slot counts as one of the replicas: it has a wanted task, or one that ended and may not restart."""
    return bool(slot.wanted) or any(task.desired_state is TaskState.SHUTDOWN for task in slot.tasks)


def resize(replicas: int, slots: Mapping[SlotKey, Slot]) -> list[SlotChange]:
    """Slots to open and close so that there are `replicas` of them."""
    opened = [slot for slot in slots.values() if is_open(slot)]
    missing = replicas - len(opened)
    if missing > 0:
        taken = {slot.key for slot in opened}
        return [
            SlotChange(slots.get(key) or Slot(key, ()), new=NewTask(TaskState.RUNNING))
            for key in _lowest_free(taken, missing)
        ]
    return [_close(slot) for slot in slots_to_close(opened, -missing)]


def _lowest_free(taken: set[SlotKey], count: int) -> Iterable[int]:
    key = 0
    while count:
        key += 1
        if key not in taken:
            count -= 1
            yield key


def slots_to_close(slots: Iterable[Slot], count: int) -> list[Slot]:
    """Which `count` slots go first.

    Slots are counted off node by node, running ones and low numbers first; those with the highest count go: what has no
    node yet before all, then the fullest nodes' newest.
    """
    if count <= 0:
        return []
    counts: dict[str, int] = {}
    ranked: list[tuple[float, bool, SlotKey, Slot]] = []
    for slot in sorted(slots, key=lambda each: (not _runs(each), each.key)):
        node_id = next((task.node_id for task in slot.wanted if task.node_id), "")
        if not node_id:
            ranked.append((float("inf"), True, slot.key, slot))
            continue
        counts[node_id] = counts.get(node_id, 0) + 1
        ranked.append((counts[node_id], not _runs(slot), slot.key, slot))
    ranked.sort(key=lambda each: each[:3], reverse=True)
    return [slot for *_, slot in ranked[:count]]


def _runs(slot: Slot) -> bool:
    return any(task.status.state is TaskState.RUNNING for task in slot.wanted)


def _close(slot: Slot) -> SlotChange:
    """Nothing of the slot is wanted any more, its history neither; the reaper deletes what has ended."""
    tasks: Sequence[Task] = [task for task in slot.tasks if task.desired_state is not TaskState.REMOVE]
    if len(tasks) >= BATCH:
        tasks = [*slot.wanted, *(task for task in tasks if task not in slot.wanted)][: BATCH - 1]
    return SlotChange(slot, tuple((task, TaskState.REMOVE) for task in tasks))
