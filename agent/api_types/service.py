"""Services: a task template, how many of them, and how they change (moby api/types/swarm/service.go)."""

from __future__ import annotations

from enum import StrEnum

from agent.api_types.common import Version
from agent.api_types.fields import ApiObject, nested, omitempty, present
from agent.api_types.network import NetworkAttachmentConfig
from agent.api_types.task import Endpoint, EndpointSpec, TaskSpec


class FailureAction(StrEnum):
    """What an update does when too many of its tasks fail."""

    PAUSE = "pause"
    CONTINUE = "continue"
    ROLLBACK = "rollback"


class UpdateOrder(StrEnum):
    """Whether the old task stops before the new one starts."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class UpdateState(StrEnum):
    """Where an update or a rollback is."""

    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"


class ReplicatedService(ApiObject, frozen=True):
    """A number of replicas; None means Docker's default of one."""

    replicas: int | None = omitempty("Replicas", None)


class ReplicatedJob(ApiObject, frozen=True):
    """Tasks that run to completion, so many at a time."""

    max_concurrent: int | None = omitempty("MaxConcurrent", None)
    total_completions: int | None = omitempty("TotalCompletions", None)


class GlobalService(ApiObject, frozen=True):
    """One task on every node that fits."""


class GlobalJob(ApiObject, frozen=True):
    """One task to completion on every node that fits."""


class ServiceMode(ApiObject, frozen=True):
    """Exactly one member is set; none means one replica."""

    replicated: ReplicatedService | None = omitempty("Replicated", None)
    global_service: GlobalService | None = omitempty("Global", None)
    replicated_job: ReplicatedJob | None = omitempty("ReplicatedJob", None)
    global_job: GlobalJob | None = omitempty("GlobalJob", None)


class UpdateConfig(ApiObject, frozen=True):
    """How an update rolls: tasks at a time (0 all), nanoseconds between and after, what a failure does."""

    parallelism: int = present("Parallelism", 0)
    delay: int = omitempty("Delay", 0)
    failure_action: str = omitempty("FailureAction", "")
    monitor: int = omitempty("Monitor", 0)
    max_failure_ratio: float = present("MaxFailureRatio", 0)
    order: str = present("Order", "")


class ServiceSpec(ApiObject, frozen=True):
    """What a service is to be."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    task_template: TaskSpec = nested("TaskTemplate", TaskSpec)
    mode: ServiceMode = nested("Mode", ServiceMode)
    update_config: UpdateConfig | None = omitempty("UpdateConfig", None)
    rollback_config: UpdateConfig | None = omitempty("RollbackConfig", None)
    networks: list[NetworkAttachmentConfig] = omitempty("Networks", [])
    endpoint_spec: EndpointSpec | None = omitempty("EndpointSpec", None)


class UpdateStatus(ApiObject, frozen=True):
    """The state of the last update; times are None while they have not come."""

    state: str = omitempty("State", "")
    started_at: str | None = omitempty("StartedAt", None)
    completed_at: str | None = omitempty("CompletedAt", None)
    message: str = omitempty("Message", "")


class ServiceStatus(ApiObject, frozen=True):
    """Counts of tasks, added to a list of services when asked for with `status=true`."""

    running_tasks: int = present("RunningTasks", 0)
    desired_tasks: int = present("DesiredTasks", 0)
    completed_tasks: int = present("CompletedTasks", 0)


class JobStatus(ApiObject, frozen=True):
    """The iteration that a job is in."""

    job_iteration: Version = nested("JobIteration", Version)
    last_execution: str = omitempty("LastExecution", "")


class Service(ApiObject, frozen=True):
    """A service; `spec_version` and `previous_spec_version` (our additions) tell which tasks are up to date."""

    id: str = present("ID", "")
    version: Version = nested("Version", Version)
    created_at: str = omitempty("CreatedAt", "")
    updated_at: str = omitempty("UpdatedAt", "")
    spec: ServiceSpec = nested("Spec", ServiceSpec)
    previous_spec: ServiceSpec | None = omitempty("PreviousSpec", None)
    endpoint: Endpoint = nested("Endpoint", Endpoint)
    update_status: UpdateStatus | None = omitempty("UpdateStatus", None)
    service_status: ServiceStatus | None = omitempty("ServiceStatus", None)
    job_status: JobStatus | None = omitempty("JobStatus", None)
    spec_version: Version | None = omitempty("SpecVersion", None)
    previous_spec_version: Version | None = omitempty("PreviousSpecVersion", None)
