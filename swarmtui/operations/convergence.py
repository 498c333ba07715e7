"""How far a service is on its way to what its specification says: pure, from one reading of the cluster.

The counting is that of the docker CLI (docker/cli cli/command/service/progress), with two things it lacks: a replica
that will not be restarted any more ends the wait with its error, and failures are told while waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarmtui.docker_api.times import SECOND
from swarmtui.docker_api.types import Node, Service, Task
from swarmtui.model.row_making import counts, moment, runs, service_mode, task_name, task_row, wanted_replicas
from swarmtui.model.states import Glyph, task_rank
from swarmtui.operations.base import SlotProgress

DEFAULT_MONITOR = 5 * SECOND
"""Docker's default for how long tasks must stay up before an update counts as done."""

SLOTS_SHOWN = 50
"""A progress report carries so many replicas at most, those that are not yet there first."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a service's convergence."""

    done: int
    total: int
    slots: tuple[SlotProgress, ...]
    errors: tuple[str, ...]
    """Distinct texts of failed tasks and of what keeps tasks waiting, newest first."""
    abandoned: tuple[str, ...]
    """Names of replicas that have ended and have no successor on its way."""
    message: str
    """The update's own message while it goes back to the previous version."""
    failure: str
    """Why the cluster has given up: the update was paused or rolled back; "" while it has not."""
    whole: bool
    """Everything that is wanted runs (or has completed)."""
    nodes_decide: bool
    """No number was asked for: a global service has as many as nodes fit."""
    monitor: int
    """Nanoseconds that it should stay so."""


def read(
    service: Service, tasks: Sequence[Task], nodes: Mapping[str, Node], *, since: int = 0, going_back: bool = False
) -> Reading:
    """`tasks` are those of the newest specification; failures before `since` (nanoseconds) are old news.

    `going_back`: a rollback is what is wanted, so that its completion is no failure.
    """
    mode = service_mode(service)
    job = mode.endswith("job")
    places = _places(service, tasks, nodes, mode)
    done, slots, abandoned = 0, [], []
    for key in sorted(places, key=lambda place: (isinstance(place, str), place)):
        members = places[key]
        best = max(members, key=lambda task: _rank(task, mode)) if members else None
        name = task_name(best, service) if best else f"{service.spec.name}.{key}"
        if best is not None and _arrived(best, nodes, mode):
            done += 1
            slots.append(SlotProgress(name, best.status.state, Glyph.COMPLETE if job else Glyph.RUNNING))
        elif best is None:
            slots.append(SlotProgress(name, "new", Glyph.PENDING))
        else:
            row = task_row(best, service, nodes.get(best.node_id))
            slots.append(SlotProgress(name, row.state, row.glyph, row.error))
            if not counts(best) and moment(best.status.timestamp) >= since:
                abandoned.append(name)
    total = len(places)
    update = service.update_status
    state, message = (update.state, update.message) if update else ("", "")
    failure = ""
    if state in ("paused", "rollback_paused"):
        failure = f"the {'update' if state == 'paused' else 'rollback'} was paused: {message}"
    elif state == "rollback_completed" and not going_back:
        failure = f"the service was rolled back to its previous version: {message}"
    return Reading(
        done=done,
        total=total,
        slots=_worth_showing(slots),
        errors=_errors(tasks, since),
        abandoned=tuple(abandoned),
        message=message if state in ("updating", "rollback_started") else "",
        failure=failure,
        nodes_decide=wanted_replicas(service) is None,
        whole=done >= total and state not in ("updating", "rollback_started"),
        # An update that the cluster calls completed has been watched for that long already.
        monitor=0 if job or state in ("completed", "rollback_completed") else _monitor(service),
    )


def _places(
    service: Service, tasks: Sequence[Task], nodes: Mapping[str, Node], mode: str
) -> dict[int | str, list[Task]]:
    """The tasks by what they fill: a slot or a node. All slots that are wanted are there, empty ones too."""
    places: dict[int | str, list[Task]] = {}
    replicas = wanted_replicas(service)
    if mode.endswith("job") and service.job_status is not None:
        iteration = service.job_status.job_iteration.index
        tasks = [task for task in tasks if task.job_iteration is None or task.job_iteration.index == iteration]
    if replicas is None:
        for task in tasks:
            if task.node_id and (_is_wanted(task, mode) or _failed_on_a_good_node(task, nodes)):
                places.setdefault(task.node_id, []).append(task)
        return places
    wanted = [task for task in tasks if _is_wanted(task, mode)]
    slots = sorted({task.slot for task in wanted})
    # The slots in use come first: after scaling down they need not be 1 to N. A job's slots begin with 0.
    for slot in slots[:replicas]:
        places[slot] = []
    free = 0 if mode == "replicated job" else 1
    while len(places) < replicas:
        if free not in places:
            places[free] = []
        free += 1
    for task in tasks:
        if task.slot in places:
            places[task.slot].append(task)
    return places


def _failed_on_a_good_node(task: Task, nodes: Mapping[str, Node]) -> bool:
    """A failure that is not the node's: where a node was drained or is down, history is all there is to be."""
    node = nodes.get(task.node_id)
    good = node is not None and node.status.state == "ready" and node.spec.availability == "active"
    return good and task.status.state in ("failed", "rejected")


def _is_wanted(task: Task, mode: str) -> bool:
    return counts(task) or (mode.endswith("job") and task.status.state == "complete")


def _rank(task: Task, mode: str) -> tuple[bool, int, int]:
    """The task that speaks for its slot: one that is wanted, of those the furthest, of the others the newest."""
    wanted = _is_wanted(task, mode)
    return wanted, task_rank(task.status.state) if wanted else 0, moment(task.created_at)


def _monitor(service: Service) -> int:
    config = service.spec.update_config
    return config.monitor if config and config.monitor else DEFAULT_MONITOR


def _arrived(task: Task, nodes: Mapping[str, Node], mode: str) -> bool:
    if mode.endswith("job"):
        return task.status.state == "complete"
    return runs(task, nodes.get(task.node_id))


def _errors(tasks: Sequence[Task], since: int) -> tuple[str, ...]:
    told = [
        (moment(task.status.timestamp), task.status.err)
        for task in tasks
        if task.status.err and moment(task.status.timestamp) >= since
    ]
    return tuple(dict.fromkeys(text for _, text in sorted(told, reverse=True)))


def _worth_showing(slots: list[SlotProgress]) -> tuple[SlotProgress, ...]:
    if len(slots) <= SLOTS_SHOWN:
        return tuple(slots)
    waiting = [slot for slot in slots if slot.glyph is not Glyph.RUNNING]
    arrived = [slot for slot in slots if slot.glyph is Glyph.RUNNING]
    return tuple((waiting + arrived)[:SLOTS_SHOWN])
