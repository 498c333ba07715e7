"""Tasks: one attempt to run a container on a node (moby api/types/swarm/task.go, swarmkit api/types.proto)."""

from __future__ import annotations

from enum import StrEnum

from agent.api_types.common import Driver, GenericResource, Limits, Platform, Resources, Version
from agent.api_types.container import ContainerSpec
from agent.api_types.fields import ApiObject, nested, omitempty, present
from agent.api_types.network import NetworkAttachment, NetworkAttachmentConfig


class TaskState(StrEnum):
    """The life of a task. The observed state only rises in this order (`rank`)."""

    NEW = "new"
    PENDING = "pending"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    PREPARING = "preparing"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETE = "complete"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    REJECTED = "rejected"
    REMOVE = "remove"
    ORPHANED = "orphaned"

    @property
    def rank(self) -> int:
        """The number that SwarmKit gives the state; larger is later."""
        return _RANK[self]

    @property
    def terminal(self) -> bool:
        """True once the task has ended and cannot run again (rank above RUNNING)."""
        return _RANK[self] > _RANK[TaskState.RUNNING]


_RANK = {
    TaskState.NEW: 0,
    TaskState.PENDING: 64,
    TaskState.ASSIGNED: 192,
    TaskState.ACCEPTED: 256,
    TaskState.PREPARING: 320,
    TaskState.READY: 384,
    TaskState.STARTING: 448,
    TaskState.RUNNING: 512,
    TaskState.COMPLETE: 576,
    TaskState.SHUTDOWN: 640,
    TaskState.FAILED: 704,
    TaskState.REJECTED: 768,
    TaskState.REMOVE: 800,
    TaskState.ORPHANED: 832,
}


class RestartCondition(StrEnum):
    """When a task that ended is replaced."""

    NONE = "none"
    ON_FAILURE = "on-failure"
    ANY = "any"


class RestartPolicy(ApiObject, frozen=True):
    """When, how soon (nanoseconds) and how often within `window` (nanoseconds, 0 = ever) a task is replaced."""

    condition: str = omitempty("Condition", "")
    delay: int | None = omitempty("Delay", None)
    max_attempts: int | None = omitempty("MaxAttempts", None)
    window: int | None = omitempty("Window", None)


class SpreadOver(ApiObject, frozen=True):
    """Spread tasks evenly over the values of a label."""

    spread_descriptor: str = omitempty("SpreadDescriptor", "")


class PlacementPreference(ApiObject, frozen=True):
    """One level of the spread tree."""

    spread: SpreadOver | None = omitempty("Spread", None)


class Placement(ApiObject, frozen=True):
    """Where a task may run. `max_replicas` a node, 0 for no bound."""

    constraints: list[str] = omitempty("Constraints", [])
    preferences: list[PlacementPreference] = omitempty("Preferences", [])
    max_replicas: int = omitempty("MaxReplicas", 0)
    platforms: list[Platform] = omitempty("Platforms", [])


class ResourceRequirements(ApiObject, frozen=True):
    """Upper bounds and reservations."""

    limits: Limits | None = omitempty("Limits", None)
    reservations: Resources | None = omitempty("Reservations", None)


class TaskSpec(ApiObject, frozen=True):
    """What a task is to be; a service's template of its tasks."""

    container_spec: ContainerSpec | None = omitempty("ContainerSpec", None)
    resources: ResourceRequirements | None = omitempty("Resources", None)
    restart_policy: RestartPolicy | None = omitempty("RestartPolicy", None)
    placement: Placement | None = omitempty("Placement", None)
    networks: list[NetworkAttachmentConfig] = omitempty("Networks", [])
    log_driver: Driver | None = omitempty("LogDriver", None)
    force_update: int = present("ForceUpdate", 0)
    runtime: str = omitempty("Runtime", "")


class PortConfig(ApiObject, frozen=True):
    """A published port; `publish_mode` is ingress (every node) or host (the task's node)."""

    name: str = omitempty("Name", "")
    protocol: str = omitempty("Protocol", "")
    target_port: int = omitempty("TargetPort", 0)
    published_port: int = omitempty("PublishedPort", 0)
    publish_mode: str = omitempty("PublishMode", "")


class PortStatus(ApiObject, frozen=True):
    """The host ports that a running task holds."""

    ports: list[PortConfig] = omitempty("Ports", [])


class ContainerStatus(ApiObject, frozen=True):
    """The container that a task became."""

    container_id: str = present("ContainerID", "")
    pid: int = present("PID", 0)
    exit_code: int = present("ExitCode", 0)


class TaskStatus(ApiObject, frozen=True):
    """What the node last reported. `err` is why the task waits, failed or was refused."""

    timestamp: str = omitempty("Timestamp", "")
    state: TaskState = present("State", TaskState.NEW)
    message: str = omitempty("Message", "")
    err: str = omitempty("Err", "")
    container_status: ContainerStatus | None = omitempty("ContainerStatus", None)
    port_status: PortStatus = nested("PortStatus", PortStatus)


class Task(ApiObject, frozen=True):
    """A task. Our additions: `spec_version` is the service's spec version that it was made from; `start_after` is the time
    before which a task whose desired state is READY is not started (the restart delay; empty: as soon as it can).
    """

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    spec: TaskSpec = nested("Spec", TaskSpec)
    service_id: str = omitempty("ServiceID", "")
    slot: int = omitempty("Slot", 0)
    node_id: str = omitempty("NodeID", "")
    assigned_generic_resources: list[GenericResource] = omitempty("AssignedGenericResources", [])
    status: TaskStatus = nested("Status", TaskStatus)
    desired_state: TaskState = present("DesiredState", TaskState.NEW)
    job_iteration: Version | None = omitempty("JobIteration", None)
    networks_attachments: list[NetworkAttachment] = omitempty("NetworksAttachments", [])
    spec_version: Version | None = omitempty("SpecVersion", None)
    service_annotations: ServiceAnnotations | None = omitempty("ServiceAnnotations", None)
    endpoint: Endpoint | None = omitempty("Endpoint", None)
    start_after: str = omitempty("StartAfter", "")


class ServiceAnnotations(ApiObject, frozen=True):
    """Name and labels of the service as they were when the task was made; the worker names its container from them."""

    name: str = present("Name", "")
    labels: dict[str, str] = omitempty("Labels", {})


class EndpointSpec(ApiObject, frozen=True):
    """How a service is reached; `mode` is vip or dnsrr."""

    mode: str = omitempty("Mode", "")
    ports: list[PortConfig] = omitempty("Ports", [])


class EndpointVirtualIP(ApiObject, frozen=True):
    """A service's address on a network, with prefix length."""

    network_id: str = omitempty("NetworkID", "")
    addr: str = omitempty("Addr", "")


class Endpoint(ApiObject, frozen=True):
    """What a service's endpoint became: ports with their numbers, virtual addresses."""

    spec: EndpointSpec = nested("Spec", EndpointSpec)
    ports: list[PortConfig] = omitempty("Ports", [])
    virtual_ips: list[EndpointVirtualIP] = omitempty("VirtualIPs", [])
