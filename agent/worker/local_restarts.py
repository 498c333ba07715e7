"""Restarts that a node decides by itself, while the managers have no leader who would replace what fails.

The rules are the leader's (agent.manager.restart): the same policy, the delay from the end of the task, the attempts within
the window. What differs is that the task itself runs again, under its id, because only a leader can make another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.api_types.restart_policy import policy_of
from agent.api_types.task import ContainerStatus, PortStatus, RestartCondition, Task, TaskState, TaskStatus
from agent.api_types.times import format_time, parse_time

_BY_ITSELF = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})
_WANTED = frozenset({TaskState.RUNNING, TaskState.COMPLETE})
"""Desired states of a task that is to run; a job's is COMPLETE."""


def due(task: Task, state: TaskState, ends: Sequence[int]) -> int | None:
    """When a task that ended by itself is to run again, in nanoseconds since the epoch; None for never.

    `state` is the one it ended in. `ends` are the times of all ends of its slot that this node knows of, its own newest
    one last. A leader that had a task's end in the store made its desired state SHUTDOWN together with the replacement,
    so one that is still wanted was not replaced.
    """
    policy = policy_of(task.spec)
    if not ends or task.desired_state not in _WANTED or state not in _BY_ITSELF:
        return None
    if policy.condition is RestartCondition.NONE:
        return None
    is_done = task.desired_state is TaskState.COMPLETE or policy.condition is RestartCondition.ON_FAILURE
    if state is TaskState.COMPLETE and is_done:
        return None
    last = ends[-1]
    before = sum(1 for end in ends[:-1] if not policy.window or end >= last - policy.window)
    if policy.max_attempts and before >= policy.max_attempts:
        return None
    return last + policy.delay


def ends_before(task: Task, others: Iterable[tuple[Task, TaskStatus]]) -> list[int]:
    """When the other tasks of this node that are of the same slot and spec version ended by themselves, oldest first."""
    return sorted(
        parse_time(status.timestamp)
        for other, status in others
        if other.id != task.id
        and (other.service_id, other.slot, other.spec_version) == (task.service_id, task.slot, task.spec_version)
        and status.state in _BY_ITSELF
        and status.timestamp
    )


def revived(count: int, now: int, container: ContainerStatus | None, ports: PortStatus) -> TaskStatus:
    """The status of a task that runs again, for the `count`th time.

    To the cluster it never ended: no store has heard of its ends, or one that did does not take this one for it.
    """
    times = "once" if count == 1 else f"{count} times"
    return TaskStatus(
        timestamp=format_time(now),
        state=TaskState.RUNNING,
        message=f"restarted {times} by the node while the managers had no leader",
        container_status=container,
        port_status=ports,
    )
