"""Restarts: whether a task that ended is replaced, when the replacement starts, and how often that may happen.

Everything is derived from the tasks in the store, so a new leader goes on where the old one was: the attempts are the
ended tasks of the slot, the delay is the replacement's `start_after`.

A replacement is made at once with the desired state READY, so that its image is there when its time comes, and is
promoted to RUNNING after the delay and once the old task has stopped (or its node is down, or a minute has passed).
The delay, the attempts and the window count ends of the task itself. The loss or the drain of a node replaces at once and
counts for nothing; Docker waits the delay out for a lost node.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import ClassVar

import msgspec

from agent.api_types.node import Node
from agent.api_types.restart_policy import policy_of
from agent.api_types.task import RestartCondition, Task, TaskState
from agent.api_types.times import MILLISECOND, SECOND, Clock, format_time, parse_time
from agent.manager.control_loop import BATCH, ControlLoop, earliest, sliced
from agent.manager.slots import (
    NodeOf,
    SlotKey,
    down,
    ended,
    ended_by_itself,
    read_slot,
    slot_key,
    stopping,
    unfit,
    wanted,
)
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, EventKind

OLD_TASK_TIMEOUT = 60 * SECOND
"""How long a replacement waits for the task before it to stop."""


class Cause(Enum):
    """Why a wanted task has to be replaced."""

    ENDED = auto()
    """It ended by itself."""
    REFUSED = auto()
    """The leader took it from its node, whose labels no longer fit."""
    NODE_DOWN = auto()
    """Its node is down or no part of the cluster any more; nobody knows what became of the task."""
    NODE_DRAINED = auto()
    """A person drained its node."""


def cause_of(task: Task, node_of: NodeOf) -> Cause | None:
    """Why a wanted task has to be replaced, or None when it is well where it is."""
    if ended(task):
        return Cause.ENDED if ended_by_itself(task) else Cause.REFUSED
    if not task.node_id:
        return None
    node = node_of(task.node_id)
    if down(node):
        return Cause.NODE_DOWN
    return Cause.NODE_DRAINED if unfit(node) else None


def attempts_before(task: Task, slot_tasks: Iterable[Task], window: int) -> int:
    """How many tasks of the slot and of the same spec version ended by themselves before `task` did.

    `window` in nanoseconds looks back from the end of `task`; 0 looks back to the last task of another spec version.
    """
    count = 0
    since = _ended_at(task) - window if window else None
    for other in sorted(slot_tasks, key=lambda each: (each.created_at, each.id), reverse=True):
        if other.id == task.id or other.created_at > task.created_at:
            continue
        if other.spec_version != task.spec_version:
            break
        if ended_by_itself(other) and (since is None or _ended_at(other) >= since):
            count += 1
    return count


def may_restart(task: Task, slot_tasks: Iterable[Task], cause: Cause) -> bool:
    """Whether the policy of the task lets it be replaced."""
    policy = policy_of(task.spec)
    if policy.condition is RestartCondition.NONE:
        return False
    if cause is not Cause.ENDED:
        return True
    if policy.condition is RestartCondition.ON_FAILURE and task.status.state is TaskState.COMPLETE:
        return False
    return not policy.max_attempts or attempts_before(task, slot_tasks, policy.window) < policy.max_attempts


def start_after(task: Task, cause: Cause, now: int) -> int:
    """The earliest start of the replacement of `task`.

    One that waits for its own start already passes its waiting on, whatever happened to it.
    """
    inherited = parse_time(task.start_after) if task.start_after and task.desired_state is TaskState.READY else 0
    return max(inherited, now + policy_of(task.spec).delay if cause is Cause.ENDED else 0)


def starts_at(earliest_start: int, created: int, others: Iterable[Task], node_of: NodeOf) -> int:
    """When a task made at `created` may start: after its delay, and after the others of its slot that are to stop."""
    if any(stopping(other, node_of) for other in others):
        return max(earliest_start, created + OLD_TASK_TIMEOUT)
    return earliest_start


def _ended_at(task: Task) -> int:
    return parse_time(task.status.timestamp) if task.status.timestamp else 0


RECHECK = 20 * MILLISECOND
"""After which a start that somebody else's pending change held back is looked at again."""


class DelayedStarts(ControlLoop):
    """Promotes tasks from READY to RUNNING when their time has come."""

    kinds: ClassVar[tuple[type, ...]] = (Task, Node)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._waiting: dict[str, tuple[str, SlotKey]] = {}
        self._in_slot: dict[tuple[str, SlotKey], set[str]] = {}
        self._due: dict[str, int] = {}
        """Waiting tasks that need a look, with the time of it (0: now)."""

    async def load(self) -> None:
        self._waiting, self._in_slot, self._due = {}, {}, {}
        async for task in sliced(self.store.view(lambda tx: tx.all(Task))):
            self._note(task)

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.object, Task):
                self._observe_task(event.object, event.kind)
            elif isinstance(event.object, Node) and down(None if event.kind is EventKind.REMOVE else event.object):
                self._look_at_node(event.object.id)

    def _observe_task(self, task: Task, kind: EventKind) -> None:
        if kind is EventKind.REMOVE:
            self._forget(task.id)
        else:
            self._note(task)
        if kind is EventKind.REMOVE or ended(task) or not wanted(task):
            for waiting in self._in_slot.get(slot_key(task), ()):
                self._due[waiting] = 0

    def _note(self, task: Task) -> None:
        if task.desired_state is not TaskState.READY or ended(task):
            self._forget(task.id)
        elif task.id not in self._waiting:
            key = slot_key(task)
            self._waiting[task.id] = key
            self._in_slot.setdefault(key, set()).add(task.id)
            self._due[task.id] = 0

    def _forget(self, task_id: str) -> None:
        key = self._waiting.pop(task_id, None)
        self._due.pop(task_id, None)
        if key is not None:
            self._in_slot[key].discard(task_id)
            if not self._in_slot[key]:
                del self._in_slot[key]

    def _look_at_node(self, node_id: str) -> None:
        for task in self.store.view(lambda tx: tx.find(Task, "node", node_id)):
            for waiting in self._in_slot.get(slot_key(task), ()):
                self._due[waiting] = 0

    async def act(self) -> int | None:
        now = self.clock()
        for task_id in [task_id for task_id, when in self._due.items() if when <= now]:
            self._due[task_id] = self.store.view(lambda tx, task_id=task_id: _start_of(tx, task_id))  # type: ignore[misc]
        ready = [task_id for task_id, when in self._due.items() if when <= now]
        for begin in range(0, len(ready), BATCH):
            batch = ready[begin : begin + BATCH]
            await self.store.update(lambda tx, batch=batch: _promote(tx, batch, now))  # type: ignore[misc]
            for task_id in batch:
                # Forgotten when its commit is observed; one that a pending change held back is looked at again.
                self._due[task_id] = now + RECHECK
        return earliest(*self._due.values())


def _start_of(tx: ReadTx, task_id: str) -> int:
    """When the task may start; the past for one that is gone, which promoting then skips."""
    task = tx.get(Task, task_id)
    if task is None:
        return 0
    others = [other for other in read_slot(tx, *slot_key(task)) if other.id != task_id]
    begin = parse_time(task.start_after) if task.start_after else 0
    return starts_at(begin, parse_time(task.created_at), others, lambda node_id: tx.get(Node, node_id))


def _promote(tx: WriteTx, task_ids: Iterable[str], now: int) -> None:
    for task_id in task_ids:
        task = tx.get(Task, task_id)
        if task is None or task.desired_state is not TaskState.READY or ended(task):
            continue
        if _start_of(tx, task_id) <= now:
            tx.update(msgspec.structs.replace(task, desired_state=TaskState.RUNNING))


def start_text(start: int) -> str:
    """`start` as the task's `start_after`; empty for no delay."""
    return format_time(start) if start else ""
