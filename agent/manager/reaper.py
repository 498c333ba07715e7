"""The reaper: how much history a slot keeps, and the end of tasks that nobody wants any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec

from agent.api_types.node import Node
from agent.api_types.restart_policy import policy_of
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task, TaskState
from agent.api_types.times import Clock
from agent.manager.control_loop import BATCH, SLICE, ControlLoop, sliced
from agent.manager.slots import Slot, SlotKey, ended, ended_by_itself, read_slot, slot_key, wanted
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, Event, EventKind

DEFAULT_LIMIT = 5
"""Tasks that a slot keeps, the one that runs counted."""


def history_limit(clusters: Iterable[Cluster]) -> int | None:
    """The limit that the cluster sets; None for no limit (a negative one)."""
    for cluster in clusters:
        limit = cluster.spec.orchestration.task_history_retention_limit
        if limit is not None:
            return None if limit < 0 else limit
    return DEFAULT_LIMIT


def surplus(slot: Slot, limit: int | None) -> list[Task]:
    """The tasks of a slot that its history has no room for, oldest first.

    The room is `limit`, raised to one more than the policy's attempts. Ends that count as attempts of the newest spec
    are kept as long as they are counted, or else a loss of nodes in between would make the slot forget them.
    """
    newest = slot.newest
    if limit is None or newest is None:
        return []
    attempts = policy_of(newest.spec).max_attempts
    room = max(limit, attempts + 1) if attempts else limit
    excess = len(slot.tasks) - room
    if excess <= 0:
        return []
    counted = [
        task for task in slot.tasks if attempts and task.spec_version == newest.spec_version and ended_by_itself(task)
    ]
    kept = {task.id for task in counted[-(attempts + 1) :]}
    candidates = [task for task in slot.tasks if not wanted(task) and is_over(task) and task.id not in kept]
    return candidates[:excess]


def is_over(task: Task) -> bool:
    """Whether an unwanted task has let go of its node, or was never given to one."""
    return ended(task) or not task.node_id or task.status.state.rank < TaskState.ASSIGNED.rank


def may_delete(task: Task, nodes: set[str]) -> bool:
    """Whether a task that is to be removed is over, or its node is no part of the cluster any more."""
    return is_over(task) or task.node_id not in nodes


class Reaper(ControlLoop):
    """Deletes tasks: those to be removed once they have ended, those of services that are gone, surplus history."""

    kinds: ClassVar[tuple[type, ...]] = (Task, Service, Node, Cluster)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._slots: set[tuple[str, SlotKey]] = set()
        self._unwanted: set[str] = set()
        """Tasks to be removed that can be deleted, or have to be looked at."""
        self._gone_services: set[str] = set()

    async def load(self) -> None:
        tasks, services = self.store.view(lambda tx: (tx.all(Task), {service.id for service in tx.all(Service)}))
        self._slots, self._unwanted, self._gone_services = set(), set(), set()
        async for task in sliced(tasks):
            if task.desired_state is TaskState.REMOVE:
                self._unwanted.add(task.id)
            if task.service_id:
                self._slots.add(slot_key(task))
                if task.service_id not in services:
                    self._gone_services.add(task.service_id)

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.object, Task):
                self._observe_task(event, event.object)
            elif isinstance(event.object, Service):
                if event.kind is EventKind.REMOVE:
                    self._gone_services.add(event.object.id)
            elif isinstance(event.object, Node):
                if event.kind is EventKind.REMOVE:
                    self._look_again()
            elif isinstance(event.object, Cluster) and _limit_changed(event):
                self._slots.update(slot_key(task) for task in self.store.view(lambda tx: tx.all(Task)))

    def _observe_task(self, event: Event, task: Task) -> None:
        if event.kind is EventKind.REMOVE:
            self._unwanted.discard(task.id)
        elif task.desired_state is TaskState.REMOVE:
            self._unwanted.add(task.id)
        elif event.kind is EventKind.CREATE or (not wanted(task) and is_over(task)):
            self._slots.add(slot_key(task))

    def _look_again(self) -> None:
        tasks = self.store.view(lambda tx: tx.all(Task))
        self._unwanted.update(task.id for task in tasks if task.desired_state is TaskState.REMOVE)

    async def act(self) -> int | None:
        for service_id in tuple(self._gone_services):
            await self._remove_tasks_of(service_id)
        self._gone_services.clear()
        await self._delete_unwanted()
        await self._trim()
        return None

    async def _remove_tasks_of(self, service_id: str) -> None:
        marking = _MarkForRemoval(service_id)
        while marking.more:
            await self.store.update(marking)

    async def _delete_unwanted(self) -> None:
        def deletable(tx: ReadTx) -> list[str]:
            nodes = {node.id for node in tx.all(Node)}
            tasks = [task for task_id in self._unwanted if (task := tx.get(Task, task_id)) is not None]
            return [task.id for task in tasks if may_delete(task, nodes)]

        await self._delete(self.store.view(deletable))
        self._unwanted.clear()

    async def _trim(self) -> None:
        slots, self._slots = list(self._slots), set()
        for begin in range(0, len(slots), SLICE):
            part = slots[begin : begin + SLICE]
            await self._delete(self.store.view(lambda tx, part=part: _surplus(tx, part)))  # type: ignore[misc]
            await asyncio.sleep(0)

    async def _delete(self, task_ids: Sequence[str]) -> None:
        for begin in range(0, len(task_ids), BATCH):
            batch = task_ids[begin : begin + BATCH]
            await self.store.update(lambda tx, batch=batch: _delete_ended(tx, batch))  # type: ignore[misc]


class _MarkForRemoval:
    """Transactions that mark every task of a service that is gone; `more` until all are marked."""

    def __init__(self, service_id: str) -> None:
        self._service_id = service_id
        self.more = True

    def __call__(self, tx: WriteTx) -> None:
        self.more = False
        if tx.get(Service, self._service_id) is not None:
            return
        tasks = [
            task for task in tx.find(Task, "service", self._service_id) if task.desired_state is not TaskState.REMOVE
        ]
        for task in tasks[:BATCH]:
            tx.update(msgspec.structs.replace(task, desired_state=TaskState.REMOVE))
        self.more = len(tasks) > BATCH


def _surplus(tx: ReadTx, slots: Iterable[tuple[str, SlotKey]]) -> list[str]:
    limit = history_limit(tx.all(Cluster))
    return [task.id for service_id, key in slots for task in surplus(Slot(key, read_slot(tx, service_id, key)), limit)]


def _delete_ended(tx: WriteTx, task_ids: Iterable[str]) -> None:
    for task_id in task_ids:
        task = tx.get(Task, task_id)
        if task is not None and not wanted(task):
            tx.delete(Task, task_id)


def _limit_changed(event: Event) -> bool:
    return not isinstance(event.old, Cluster) or (
        isinstance(event.object, Cluster) and event.old.spec.orchestration != event.object.spec.orchestration
    )
