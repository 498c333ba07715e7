"""What a task does next: the pure half of a task's life on its node.

The states, their order and the messages are SwarmKit's (agent/exec/controller.go): a task is accepted, prepared, waits in
READY until more is wanted, is started, watched until it ends, and stopped as soon as its desired state is SHUTDOWN or
later. An error that is final ends it REJECTED before STARTING and FAILED from there on. The observed state only rises.

`agent.worker.task_runner` carries out what this module decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from agent.api_types.task import ContainerStatus, PortStatus, Task, TaskState, TaskStatus
from agent.api_types.times import format_time
from agent.worker.interface import ExitStatus

MANAGERS_LAST = TaskState.ASSIGNED
"""The last state that a manager gives a task; the node's own come after it."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the next step depends on.

    `confirmed`: a manager named the task since the agent started; until then nothing new is started, since the task may
    long run elsewhere. `missing` names secrets and configs that have not arrived. `forgotten`: the manager no longer
    assigns it. `settled`: an ended task is known not to run; a task that a manager calls ended may still. `removed`:
    nothing of it is left here. `to_revive`: it ended, is still wanted, and no leader is there to replace it.
    """

    desired: TaskState
    observed: TaskState
    confirmed: bool = True
    missing: tuple[str, ...] = ()
    forgotten: bool = False
    settled: bool = True
    removed: bool = False
    to_revive: bool = False

    @property
    def unwanted(self) -> bool:
        """True when the task is to stop."""
        return self.forgotten or self.desired.rank >= TaskState.SHUTDOWN.rank


class Work(Enum):
    """A step that takes time and can be cut short."""

    PREPARE = "prepare"
    START = "start"
    WATCH = "watch"
    STOP = "stop"
    REMOVE = "remove"
    REVIVE = "run again"


@dataclass(frozen=True, slots=True)
class Advance:
    """Raise the observed state at once."""

    state: TaskState
    message: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until something changes; `reason` is for Status.Err when the task waits for what should be here."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The task is forgotten and nothing of it is left."""


Step = Work | Advance | Rest | Finished


def next_step(situation: Situation) -> Step:
    """What to do now; the same situation always gives the same step."""
    observed, desired = situation.observed, situation.desired
    if situation.removed:
        return Finished() if situation.forgotten else Rest()
    if observed.terminal:
        if situation.to_revive and not situation.unwanted:
            return Work.REVIVE
        if not situation.settled:
            return Work.STOP
        if situation.forgotten or desired is TaskState.REMOVE:
            return Work.REMOVE
        return Rest()
    if situation.unwanted:
        return Work.STOP
    if observed is TaskState.RUNNING:
        return Work.WATCH
    if not situation.confirmed or observed.rank > desired.rank:
        return Rest()
    if situation.missing and observed.rank >= TaskState.ACCEPTED.rank:
        return Rest("waiting for " + ", ".join(situation.missing))
    if observed is TaskState.PREPARING:
        return Work.PREPARE
    if observed is TaskState.STARTING:
        return Work.START
    if observed is desired:
        return Rest()
    if observed.rank < TaskState.ACCEPTED.rank:
        return Advance(TaskState.ACCEPTED, "accepted")
    if observed is TaskState.ACCEPTED:
        return Advance(TaskState.PREPARING, "preparing")
    return Advance(TaskState.STARTING, "starting")


def advanced(
    status: TaskStatus,
    state: TaskState,
    message: str,
    now: int,
    container: ContainerStatus | None = None,
    ports: PortStatus | None = None,
) -> TaskStatus:
    """`status` raised to `state`; the error that was shown meanwhile goes. ValueError when the state would fall."""
    if state.rank < status.state.rank:
        raise ValueError(f"a task's observed state only rises: {status.state} to {state}")
    return msgspec.structs.replace(
        status,
        timestamp=format_time(now),
        state=state,
        message=message,
        err="",
        container_status=container if state.rank >= TaskState.STARTING.rank else None,
        port_status=ports if ports is not None and state is TaskState.RUNNING else PortStatus(),
    )


def failed(status: TaskStatus, error: str, now: int, container: ContainerStatus | None = None) -> TaskStatus:
    """`status` after an error that is final: REJECTED before STARTING, FAILED from there on; the message stays.

    One that had ended already, and could not be run again, stays as it ended.
    """
    if status.state.terminal:
        return explained(status, error, now)
    state = TaskState.REJECTED if status.state.rank < TaskState.STARTING.rank else TaskState.FAILED
    return msgspec.structs.replace(advanced(status, state, status.message, now, container), err=error)


def explained(status: TaskStatus, error: str, now: int) -> TaskStatus:
    """`status` with the reason why it does not move; the same object when it already says so."""
    if status.err == error:
        return status
    return msgspec.structs.replace(status, err=error, timestamp=format_time(now))


def ended(status: TaskStatus, end: ExitStatus, now: int, container: ContainerStatus | None) -> TaskStatus:
    """`status` after the container ended by itself: COMPLETE, or FAILED with the reason."""
    if end.code == 0 and not end.error:
        return advanced(status, TaskState.COMPLETE, "finished", now, container)
    return failed(status, end.error or f"task: non-zero exit ({end.code})", now, container)


def later(ours: TaskStatus, theirs: TaskStatus) -> TaskStatus:
    """The status that is further on; ours when both say the same state."""
    return theirs if theirs.state.rank > ours.state.rank else ours


def drains(task: Task) -> bool:
    """True when balancers may know the task, so that connections need time to end before it stops.

    Ports of mode host are the engine's own mapping: nobody balances them.
    """
    if task.networks_attachments:
        return True
    ports = task.endpoint.ports or task.endpoint.spec.ports if task.endpoint is not None else []
    return any(port.publish_mode != "host" for port in ports)
