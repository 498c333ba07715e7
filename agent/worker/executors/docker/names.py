"""How a task's container is named and labelled: as Docker Swarm does, so that people and tools find it.

(moby daemon/cluster/executor/container/container.go, swarmkit api/naming.)
"""

from __future__ import annotations

from agent.api_types.task import Task

PREFIX = "com.docker.swarm"
TASK_ID = f"{PREFIX}.task.id"
OWNER = "swarmtui.agent"
"""Our addition: which agent made the container. An engine that was part of a real Docker Swarm holds containers with the
same labels otherwise, and those are not ours to remove."""
OVERLAY = "swarmtui.network"
"""Our addition: the overlay network that a bridge network of the engine stands for on this host."""


def slot_of(task: Task) -> str:
    """The slot, or the node for a task of a global service."""
    return str(task.slot) if task.slot else task.node_id


def task_name(task: Task) -> str:
    """`service.slot.taskid`; for a task of a global service the node stands for the slot."""
    if task.name:
        return task.name
    service = task.service_annotations.name if task.service_annotations else ""
    return ".".join(part for part in (service or task.service_id, slot_of(task), task.id) if part)


def labels(task: Task, owner: str) -> dict[str, str]:
    """The spec's labels under the task's under the system's."""
    spec = task.spec.container_spec
    return {
        **(spec.labels if spec is not None else {}),
        **task.labels,
        f"{PREFIX}.task": "",
        TASK_ID: task.id,
        f"{PREFIX}.task.name": task_name(task),
        f"{PREFIX}.node.id": task.node_id,
        f"{PREFIX}.service.id": task.service_id,
        f"{PREFIX}.service.name": task.service_annotations.name if task.service_annotations else "",
        OWNER: owner,
    }
