"""Slots: the places of a service, each with one wanted task at a time and the ones that were there before it.

A slot of a replicated service is a number, a slot of a global service is a node. Whether a task is wanted is what the
orchestrators decide (`desired_state`), whether it has ended is what its node reports (`status.state`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from agent.api_types.node import Node, NodeAvailability, NodeState
from agent.api_types.service import Service
from agent.api_types.task import EndpointSpec, Placement, Task, TaskSpec, TaskState
from agent.manager.constraints import placement_fits
from agent.store.transactions import ReadTx

NodeOf = Callable[[str], Node | None]
"""Looks a node up by its id."""

SlotKey = int | str
"""A slot number, or the node id of a global service's task."""

_WANTED = frozenset(state for state in TaskState if state.rank <= TaskState.COMPLETE.rank)
_ENDED = frozenset(state for state in TaskState if state.terminal)
_BY_ITSELF = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})

CONSTRAINTS_NOT_MET = "assigned node no longer meets constraints"
"""The Err of a task that the constraint enforcer rejected."""


def wanted(task: Task) -> bool:
    """Whether the task is to run (or to become ready, or to run to completion)."""
    return task.desired_state in _WANTED


def ended(task: Task) -> bool:
    """Whether the task has stopped for good."""
    return task.status.state in _ENDED


def ended_by_itself(task: Task) -> bool:
    """Whether the task ended without being asked to: finished, failed or refused by its node."""
    return task.status.state in _BY_ITSELF and task.status.err != CONSTRAINTS_NOT_MET


def down(node: Node | None) -> bool:
    """Whether nothing can be known of the node's tasks: it is down, or no part of the cluster any more."""
    return node is None or node.status.state is NodeState.DOWN


def unfit(node: Node | None) -> bool:
    """Whether the node may not keep tasks: down, gone or drained."""
    return node is None or node.status.state is NodeState.DOWN or node.spec.availability is NodeAvailability.DRAIN


def stopping(task: Task, node_of: NodeOf) -> bool:
    """Whether a task that is not wanted may still run somewhere."""
    return (
        not wanted(task)
        and not ended(task)
        and task.status.state.rank >= TaskState.ASSIGNED.rank
        and not down(node_of(task.node_id))
    )


def same_spec_version(task: Task, service: Service) -> bool:
    """Whether the task was made from the spec that the service has now."""
    return task.spec_version == service.spec_version


class Slot:
    """The tasks of one slot as they were seen, oldest first. Never changed; two looks at a slot are two objects."""

    __slots__ = ("key", "tasks", "wanted")

    def __init__(self, key: SlotKey, tasks: Iterable[Task]) -> None:
        self.key = key
        self.tasks: tuple[Task, ...] = tuple(sorted(tasks, key=_age))
        self.wanted: tuple[Task, ...] = tuple(task for task in self.tasks if task.desired_state in _WANTED)

    @property
    def newest(self) -> Task | None:
        """The task that was made last."""
        return self.tasks[-1] if self.tasks else None

    def unchanged(self, tasks: Iterable[Task]) -> bool:
        """Whether `tasks` are these, in the versions that were seen."""
        now = {task.id: task.version for task in tasks}
        return len(now) == len(self.tasks) and all(now.get(task.id) == task.version for task in self.tasks)


def _age(task: Task) -> tuple[str, str]:
    return task.created_at, task.id


def slots_of(service: Service, tasks: Iterable[Task]) -> dict[SlotKey, Slot]:
    """The slots of a service, from all of its tasks."""
    is_global = is_global_service(service)
    grouped: dict[SlotKey, list[Task]] = {}
    for task in tasks:
        grouped.setdefault(task.node_id if is_global else task.slot, []).append(task)
    return {key: Slot(key, group) for key, group in grouped.items()}


def read_slot(tx: ReadTx, service_id: str, key: SlotKey) -> list[Task]:
    """The tasks of one slot."""
    if isinstance(key, int):
        return tx.find(Task, "slot", f"{service_id}.{key}")
    return [task for task in tx.find(Task, "node", key) if task.service_id == service_id and not task.slot]


def slot_key(task: Task) -> tuple[str, SlotKey]:
    """The service and the slot of a task: every replica has a number above 0, a global task none."""
    return task.service_id, task.slot or task.node_id


def is_global_service(service: Service) -> bool:
    """Whether the service runs one task a node."""
    return service.spec.mode.global_service is not None


def is_job(service: Service) -> bool:
    """Whether the service's tasks run to completion."""
    mode = service.spec.mode
    return mode.replicated_job is not None or mode.global_job is not None


def is_replicated_service(service: Service) -> bool:
    """Whether the service has a number of replicas; a mode that names nothing means that too."""
    return not is_global_service(service) and not is_job(service)


def replicas_of(service: Service) -> int:
    """How many replicas a replicated service is to have; one when its spec does not say."""
    replicated = service.spec.mode.replicated
    return 1 if replicated is None or replicated.replicas is None else replicated.replicas


def task_spec_of(service: Service) -> TaskSpec:
    """The spec of the service's tasks. Networks may be given at the service (the older place) or at the task."""
    template = service.spec.task_template
    if template.networks or not service.spec.networks:
        return template
    return msgspec.structs.replace(template, networks=service.spec.networks)


def up_to_date(task: Task, service: Service, node_of: NodeOf) -> bool:
    """Whether the task is what the service's spec asks for.

    A task stays when only the placement changed and its node satisfies the new one, and when other credentials are given to
    fetch the image with: it has its image, and the next task of the slot uses the new ones.
    """
    if task.spec_version is not None and same_spec_version(task, service):
        return True
    spec = task_spec_of(service)
    if task.endpoint is not None and task.endpoint.spec != (service.spec.endpoint_spec or EndpointSpec()):
        return False
    have, want = _without_credentials(task.spec), _without_credentials(spec)
    if have == want:
        return True
    if _without_placement(have) != _without_placement(want):
        return False
    node = node_of(task.node_id) if task.node_id else None
    return node is not None and placement_fits(spec.placement, node)


def _without_placement(spec: TaskSpec) -> TaskSpec:
    return msgspec.structs.replace(spec, placement=Placement())


def _without_credentials(spec: TaskSpec) -> TaskSpec:
    container = spec.container_spec
    if container is None or container.pull_options is None:
        return spec
    return msgspec.structs.replace(spec, container_spec=msgspec.structs.replace(container, pull_options=None))
