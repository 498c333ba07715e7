"""The replacement of a slot's tasks that ended or lost their node."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState
from agent.api_types.times import parse_time
from agent.manager.orchestrator.changes import NewTask, SlotChange
from agent.manager.restart import Cause, cause_of, may_restart, start_after, start_text, starts_at
from agent.manager.slots import NodeOf, Slot, up_to_date


def restart_slot(service: Service, slot: Slot, node_of: NodeOf, now: int) -> SlotChange | None:
    """What a slot needs whose wanted tasks ended or lost their nodes; None when all of them are well.

    The replacement is made from the spec that the service has now. Where a start-first update already has its task in
    place, an old one that is lost is not replaced.
    """
    lost = [
        (task, cause)
        for task in slot.wanted
        if (cause := cause_of(task, node_of)) is not None and _held_until(task, cause, now) is None
    ]
    if not lost:
        return None
    lost_ids = {task.id for task, _ in lost}
    desired = tuple((task, TaskState.SHUTDOWN) for task, _ in lost)
    staying = [task for task in slot.wanted if task.id not in lost_ids]
    if any(up_to_date(task, service, node_of) for task in staying):
        return SlotChange(slot, desired)
    task, cause = _deciding(lost, service, node_of)
    if not may_restart(task, slot.tasks, cause):
        return SlotChange(slot, desired)
    begin = start_after(task, cause, now)
    before = [_unwanted(other) if other.id in lost_ids else other for other in slot.tasks]
    if starts_at(begin, now, before, node_of) <= now:
        return SlotChange(slot, desired, NewTask(TaskState.RUNNING))
    return SlotChange(slot, desired, NewTask(TaskState.READY, start_text(begin) if begin > now else ""))


def held_until(slot: Slot, node_of: NodeOf, now: int) -> int | None:
    """When a slot is to be looked at again because a task of it failed before its own delay was over; None for no such.

    A task that is refused while it is made ready, for want of its image say, would otherwise be replaced as fast as nodes
    refuse it: the delay counts from failure to failure, as SwarmKit's supervisor has it.
    """
    times = [
        when
        for task in slot.wanted
        if (cause := cause_of(task, node_of)) is not None and (when := _held_until(task, cause, now)) is not None
    ]
    return min(times, default=None)


def _held_until(task: Task, cause: Cause, now: int) -> int | None:
    if cause is not Cause.ENDED or task.desired_state is not TaskState.READY or not task.start_after:
        return None
    due = parse_time(task.start_after)
    return due if due > now else None


def _deciding(lost: Sequence[tuple[Task, Cause]], service: Service, node_of: NodeOf) -> tuple[Task, Cause]:
    """Of several lost tasks of a slot (start-first) the one of the newest spec decides how it goes on."""
    current = [(task, cause) for task, cause in lost if up_to_date(task, service, node_of)]
    return (current or lost)[-1]


def _unwanted(task: Task) -> Task:
    return msgspec.structs.replace(task, desired_state=TaskState.SHUTDOWN)
