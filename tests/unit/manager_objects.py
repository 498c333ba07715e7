"""Objects for tests of the manager's pure parts; times are seconds after a fixed moment."""

from __future__ import annotations

from typing import Any

from agent.api_types.common import DiscreteGenericResource, GenericResource, Platform, Resources, Version
from agent.api_types.container import ContainerSpec
from agent.api_types.node import (
    EngineDescription,
    Node,
    NodeAvailability,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from agent.api_types.service import GlobalService, ReplicatedService, Service, ServiceMode, ServiceSpec, UpdateConfig
from agent.api_types.task import (
    Placement,
    PlacementPreference,
    ResourceRequirements,
    RestartPolicy,
    SpreadOver,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from agent.api_types.times import SECOND, format_time

NOW = 1_800_000_000 * SECOND


def at(seconds: float) -> str:
    """The moment `seconds` after `NOW`."""
    return format_time(NOW + round(seconds * SECOND))


def a_node(
    node_id: str,
    *,
    state: NodeState = NodeState.READY,
    availability: NodeAvailability = NodeAvailability.ACTIVE,
    labels: dict[str, str] | None = None,
    engine_labels: dict[str, str] | None = None,
    cpus: float = 8,
    memory: int = 1 << 30,
    gpus: int = 0,
    platform: tuple[str, str] = ("linux", "x86_64"),
    address: str = "10.0.0.1",
    role: NodeRole = NodeRole.WORKER,
) -> Node:
    generic = [GenericResource(discrete=DiscreteGenericResource(kind="gpu", value=gpus))] if gpus else []
    return Node(
        id=node_id,
        spec=NodeSpec(labels=labels or {}, availability=availability, role=role),
        status=NodeStatus(state=state, addr=address),
        description=NodeDescription(
            hostname=f"host-{node_id}",
            platform=Platform(os=platform[0], architecture=platform[1]),
            resources=Resources(nano_cpus=round(cpus * SECOND), memory_bytes=memory, generic_resources=generic),
            engine=EngineDescription(labels=engine_labels or {}),
        ),
    )


def a_spec(
    image: str = "web:1",
    *,
    constraints: list[str] | None = None,
    spread: list[str] | None = None,
    max_replicas: int = 0,
    platforms: list[Platform] | None = None,
    cpus: float = 0,
    memory: int = 0,
    gpus: int = 0,
    restart: RestartPolicy | None = None,
) -> TaskSpec:
    generic = [GenericResource(discrete=DiscreteGenericResource(kind="gpu", value=gpus))] if gpus else []
    return TaskSpec(
        container_spec=ContainerSpec(image=image),
        placement=Placement(
            constraints=constraints or [],
            preferences=[PlacementPreference(spread=SpreadOver(spread_descriptor=each)) for each in spread or []],
            max_replicas=max_replicas,
            platforms=platforms or [],
        ),
        resources=ResourceRequirements(
            reservations=Resources(nano_cpus=round(cpus * SECOND), memory_bytes=memory, generic_resources=generic)
        ),
        restart_policy=restart,
    )


def a_service(
    spec: TaskSpec | None = None,
    *,
    replicas: int | None = 1,
    version: int = 10,
    update: UpdateConfig | None = None,
    rollback: UpdateConfig | None = None,
    **fields: Any,
) -> Service:
    """`replicas` None makes it global."""
    mode = (
        ServiceMode(global_service=GlobalService())
        if replicas is None
        else ServiceMode(replicated=ReplicatedService(replicas=replicas))
    )
    return Service(
        id="service",
        version=Version(index=version),
        spec=ServiceSpec(
            name="web", task_template=spec or a_spec(), mode=mode, update_config=update, rollback_config=rollback
        ),
        spec_version=Version(index=version),
        **fields,
    )


def a_task(
    task_id: str,
    slot: int = 1,
    *,
    state: TaskState = TaskState.RUNNING,
    desired: TaskState = TaskState.RUNNING,
    node: str = "n1",
    spec: TaskSpec | None = None,
    version: int = 10,
    made: float = 0,
    since: float | None = None,
    error: str = "",
    service: str = "service",
    **fields: Any,
) -> Task:
    """`made` is when the task was made, `since` when its state was reached and written (by default the same)."""
    reached = at(made if since is None else since)
    return Task(
        id=task_id,
        service_id=service,
        slot=slot,
        node_id=node,
        spec=spec or a_spec(),
        spec_version=Version(index=version),
        version=Version(index=1),
        created_at=at(made),
        updated_at=reached,
        status=TaskStatus(timestamp=reached, state=state, err=error),
        desired_state=desired,
        **fields,
    )
