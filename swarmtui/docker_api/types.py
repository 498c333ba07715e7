"""What the console reads of the API's objects, typed. Unknown fields are ignored; null is the zero value.

Only what a view, an operation or a log needs is declared here. Whatever else an object holds is not lost: updates are
made on the raw JSON (`EngineClient.raw_service` and friends), never on these types.
"""

from __future__ import annotations

import msgspec


class Object(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base: immutable, keyword-only, outside the garbage collector (it can hold no cycle)."""


class Version(Object, frozen=True):
    """When an object last changed; an update must name it."""

    index: int = msgspec.field(name="Index", default=0)


class Platform(Object, frozen=True):
    """Processor and operating system."""

    architecture: str = msgspec.field(name="Architecture", default="")
    os: str = msgspec.field(name="OS", default="")


class Resources(Object, frozen=True):
    """CPU in billionths of a core, memory in bytes."""

    nano_cpus: int = msgspec.field(name="NanoCPUs", default=0)
    memory_bytes: int = msgspec.field(name="MemoryBytes", default=0)


class ResourceRequirements(Object, frozen=True):
    """Upper bounds and reservations of a task."""

    limits: Resources | None = msgspec.field(name="Limits", default=None)
    reservations: Resources | None = msgspec.field(name="Reservations", default=None)


class EngineDescription(Object, frozen=True):
    """A node's engine."""

    engine_version: str = msgspec.field(name="EngineVersion", default="")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class NodeSpec(Object, frozen=True):
    """What a person decides about a node; `role` is manager or worker, `availability` active, pause or drain."""

    name: str = msgspec.field(name="Name", default="")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    role: str = msgspec.field(name="Role", default="worker")
    availability: str = msgspec.field(name="Availability", default="active")


class NodeDescription(Object, frozen=True):
    """What a node says of itself."""

    hostname: str = msgspec.field(name="Hostname", default="")
    platform: Platform = msgspec.field(name="Platform", default=Platform())
    resources: Resources = msgspec.field(name="Resources", default=Resources())
    engine: EngineDescription = msgspec.field(name="Engine", default=EngineDescription())


class NodeStatus(Object, frozen=True):
    """`state` is ready, down, unknown or disconnected; `addr` has no port."""

    state: str = msgspec.field(name="State", default="unknown")
    message: str = msgspec.field(name="Message", default="")
    addr: str = msgspec.field(name="Addr", default="")


class ManagerStatus(Object, frozen=True):
    """A manager's place in the Raft group; `reachability` is reachable, unreachable or unknown."""

    leader: bool = msgspec.field(name="Leader", default=False)
    reachability: str = msgspec.field(name="Reachability", default="")
    addr: str = msgspec.field(name="Addr", default="")


class Node(Object, frozen=True):
    """A host of the swarm."""

    id: str = msgspec.field(name="ID", default="")
    version: Version = msgspec.field(name="Version", default=Version())
    created_at: str = msgspec.field(name="CreatedAt", default="")
    updated_at: str = msgspec.field(name="UpdatedAt", default="")
    spec: NodeSpec = msgspec.field(name="Spec", default=NodeSpec())
    description: NodeDescription = msgspec.field(name="Description", default=NodeDescription())
    status: NodeStatus = msgspec.field(name="Status", default=NodeStatus())
    manager_status: ManagerStatus | None = msgspec.field(name="ManagerStatus", default=None)


class ContainerSpec(Object, frozen=True):
    """What a task runs; `command` replaces the image's entrypoint, `args` its command."""

    image: str = msgspec.field(name="Image", default="")
    command: list[str] | None = msgspec.field(name="Command", default=None)
    args: list[str] | None = msgspec.field(name="Args", default=None)
    env: list[str] | None = msgspec.field(name="Env", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    tty: bool = msgspec.field(name="TTY", default=False)


class Placement(Object, frozen=True):
    """Where a task may run; `max_replicas` a node, 0 for no bound."""

    constraints: list[str] | None = msgspec.field(name="Constraints", default=None)
    max_replicas: int = msgspec.field(name="MaxReplicas", default=0)


class NetworkTarget(Object, frozen=True):
    """A network that a task asks for, by id; services that were made long ago may name it."""

    target: str = msgspec.field(name="Target", default="")


class TaskSpec(Object, frozen=True):
    """What a task is to be."""

    container_spec: ContainerSpec | None = msgspec.field(name="ContainerSpec", default=None)
    resources: ResourceRequirements | None = msgspec.field(name="Resources", default=None)
    placement: Placement | None = msgspec.field(name="Placement", default=None)
    force_update: int = msgspec.field(name="ForceUpdate", default=0)
    networks: list[NetworkTarget] | None = msgspec.field(name="Networks", default=None)

    @property
    def image(self) -> str:
        """The image as the person wrote it, with its digest when the engine resolved one."""
        return self.container_spec.image if self.container_spec else ""


class Port(Object, frozen=True):
    """A published port; `publish_mode` is ingress or host."""

    name: str = msgspec.field(name="Name", default="")
    protocol: str = msgspec.field(name="Protocol", default="tcp")
    target_port: int = msgspec.field(name="TargetPort", default=0)
    published_port: int = msgspec.field(name="PublishedPort", default=0)
    publish_mode: str = msgspec.field(name="PublishMode", default="ingress")


class EndpointSpec(Object, frozen=True):
    """How a service is reached; `mode` is vip or dnsrr."""

    mode: str = msgspec.field(name="Mode", default="")
    ports: list[Port] | None = msgspec.field(name="Ports", default=None)


class VirtualIP(Object, frozen=True):
    """A service's address on a network, with prefix length."""

    network_id: str = msgspec.field(name="NetworkID", default="")
    addr: str = msgspec.field(name="Addr", default="")


class Endpoint(Object, frozen=True):
    """What a service's endpoint became."""

    spec: EndpointSpec | None = msgspec.field(name="Spec", default=None)
    ports: list[Port] | None = msgspec.field(name="Ports", default=None)
    virtual_ips: list[VirtualIP] | None = msgspec.field(name="VirtualIPs", default=None)


class Replicated(Object, frozen=True):
    """A number of replicas; None is Docker's default of one."""

    replicas: int | None = msgspec.field(name="Replicas", default=None)


class ReplicatedJob(Object, frozen=True):
    """Tasks that run to completion, so many at a time; None is one."""

    max_concurrent: int | None = msgspec.field(name="MaxConcurrent", default=None)
    total_completions: int | None = msgspec.field(name="TotalCompletions", default=None)


class Anywhere(Object, frozen=True):
    """One task on every node that fits; the mode has no settings."""


class ServiceMode(Object, frozen=True):
    """At most one member is set; none is one replica."""

    replicated: Replicated | None = msgspec.field(name="Replicated", default=None)
    global_service: Anywhere | None = msgspec.field(name="Global", default=None)
    replicated_job: ReplicatedJob | None = msgspec.field(name="ReplicatedJob", default=None)
    global_job: Anywhere | None = msgspec.field(name="GlobalJob", default=None)


class UpdateConfig(Object, frozen=True):
    """How an update rolls; times in nanoseconds."""

    parallelism: int = msgspec.field(name="Parallelism", default=1)
    delay: int = msgspec.field(name="Delay", default=0)
    failure_action: str = msgspec.field(name="FailureAction", default="")
    monitor: int = msgspec.field(name="Monitor", default=0)
    order: str = msgspec.field(name="Order", default="")


class ServiceSpec(Object, frozen=True):
    """What a service is to be."""

    name: str = msgspec.field(name="Name", default="")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    task_template: TaskSpec = msgspec.field(name="TaskTemplate", default=TaskSpec())
    mode: ServiceMode = msgspec.field(name="Mode", default=ServiceMode())
    update_config: UpdateConfig | None = msgspec.field(name="UpdateConfig", default=None)
    endpoint_spec: EndpointSpec | None = msgspec.field(name="EndpointSpec", default=None)
    networks: list[NetworkTarget] | None = msgspec.field(name="Networks", default=None)
    """Where clients before API 1.25 wrote what `task_template.networks` says."""


class UpdateStatus(Object, frozen=True):
    """Where the last update is: updating, paused, completed, rollback_started, rollback_paused, rollback_completed."""

    state: str = msgspec.field(name="State", default="")
    started_at: str | None = msgspec.field(name="StartedAt", default=None)
    completed_at: str | None = msgspec.field(name="CompletedAt", default=None)
    message: str = msgspec.field(name="Message", default="")


class ServiceStatus(Object, frozen=True):
    """Counts of tasks, in a list asked for with `status`."""

    running_tasks: int = msgspec.field(name="RunningTasks", default=0)
    desired_tasks: int = msgspec.field(name="DesiredTasks", default=0)
    completed_tasks: int = msgspec.field(name="CompletedTasks", default=0)


class JobStatus(Object, frozen=True):
    """The iteration that a job is in."""

    job_iteration: Version = msgspec.field(name="JobIteration", default=Version())
    last_execution: str = msgspec.field(name="LastExecution", default="")


class Service(Object, frozen=True):
    """A service. `spec_version` comes from our agents only; it tells which tasks are up to date."""

    id: str = msgspec.field(name="ID", default="")
    version: Version = msgspec.field(name="Version", default=Version())
    created_at: str = msgspec.field(name="CreatedAt", default="")
    updated_at: str = msgspec.field(name="UpdatedAt", default="")
    spec: ServiceSpec = msgspec.field(name="Spec", default=ServiceSpec())
    endpoint: Endpoint | None = msgspec.field(name="Endpoint", default=None)
    update_status: UpdateStatus | None = msgspec.field(name="UpdateStatus", default=None)
    service_status: ServiceStatus | None = msgspec.field(name="ServiceStatus", default=None)
    job_status: JobStatus | None = msgspec.field(name="JobStatus", default=None)
    spec_version: Version | None = msgspec.field(name="SpecVersion", default=None)


class ContainerStatus(Object, frozen=True):
    """The container that a task became."""

    container_id: str = msgspec.field(name="ContainerID", default="")
    pid: int = msgspec.field(name="PID", default=0)
    exit_code: int = msgspec.field(name="ExitCode", default=0)


class PortStatus(Object, frozen=True):
    """The host ports that a running task holds."""

    ports: list[Port] | None = msgspec.field(name="Ports", default=None)


class TaskStatus(Object, frozen=True):
    """What the node last reported; `err` is why the task waits, failed or was refused."""

    timestamp: str = msgspec.field(name="Timestamp", default="")
    state: str = msgspec.field(name="State", default="new")
    message: str = msgspec.field(name="Message", default="")
    err: str = msgspec.field(name="Err", default="")
    container_status: ContainerStatus | None = msgspec.field(name="ContainerStatus", default=None)
    port_status: PortStatus | None = msgspec.field(name="PortStatus", default=None)


class Task(Object, frozen=True):
    """One attempt to run a container on a node."""

    id: str = msgspec.field(name="ID", default="")
    version: Version = msgspec.field(name="Version", default=Version())
    created_at: str = msgspec.field(name="CreatedAt", default="")
    updated_at: str = msgspec.field(name="UpdatedAt", default="")
    name: str = msgspec.field(name="Name", default="")
    spec: TaskSpec = msgspec.field(name="Spec", default=TaskSpec())
    service_id: str = msgspec.field(name="ServiceID", default="")
    slot: int = msgspec.field(name="Slot", default=0)
    node_id: str = msgspec.field(name="NodeID", default="")
    status: TaskStatus = msgspec.field(name="Status", default=TaskStatus())
    desired_state: str = msgspec.field(name="DesiredState", default="running")
    job_iteration: Version | None = msgspec.field(name="JobIteration", default=None)
    spec_version: Version | None = msgspec.field(name="SpecVersion", default=None)


class NetworkDriver(Object, frozen=True):
    """What makes a network, and its options (only in our agents' watch)."""

    name: str = msgspec.field(name="Name", default="")
    options: dict[str, str] | None = msgspec.field(name="Options", default=None)


class NetworkSpec(Object, frozen=True):
    """What a network of the swarm is to be (only in our agents' watch)."""

    name: str = msgspec.field(name="Name", default="")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    attachable: bool = msgspec.field(name="Attachable", default=False)
    ingress: bool = msgspec.field(name="Ingress", default=False)
    internal: bool = msgspec.field(name="Internal", default=False)
    ipv6: bool = msgspec.field(name="IPv6Enabled", default=False)
    driver_configuration: NetworkDriver | None = msgspec.field(name="DriverConfiguration", default=None)


class IPAMConfig(Object, frozen=True):
    """One subnet."""

    subnet: str = msgspec.field(name="Subnet", default="")
    gateway: str = msgspec.field(name="Gateway", default="")


class IPAM(Object, frozen=True):
    """Subnets of a network; `configs` is the watch's spelling of the same list."""

    config: list[IPAMConfig] | None = msgspec.field(name="Config", default=None)
    configs: list[IPAMConfig] | None = msgspec.field(name="Configs", default=None)


class Network(Object, frozen=True):
    """A network, in either spelling: `/networks` says Id and Name, the watch says ID and Spec."""

    id: str = msgspec.field(name="ID", default="")
    other_id: str = msgspec.field(name="Id", default="")
    name: str = msgspec.field(name="Name", default="")
    driver: str = msgspec.field(name="Driver", default="")
    scope: str = msgspec.field(name="Scope", default="")
    created: str = msgspec.field(name="Created", default="")
    created_at: str = msgspec.field(name="CreatedAt", default="")
    attachable: bool = msgspec.field(name="Attachable", default=False)
    ingress: bool = msgspec.field(name="Ingress", default=False)
    internal: bool = msgspec.field(name="Internal", default=False)
    ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    options: dict[str, str] | None = msgspec.field(name="Options", default=None)
    driver_state: NetworkDriver | None = msgspec.field(name="DriverState", default=None)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    spec: NetworkSpec | None = msgspec.field(name="Spec", default=None)
    ipam: IPAM | None = msgspec.field(name="IPAM", default=None)
    ipam_options: IPAM | None = msgspec.field(name="IPAMOptions", default=None)


class NamedSpec(Object, frozen=True):
    """What a secret or config is to be; its data is not read."""

    name: str = msgspec.field(name="Name", default="")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class Secret(Object, frozen=True):
    """A secret; its data never leaves the managers."""

    id: str = msgspec.field(name="ID", default="")
    version: Version = msgspec.field(name="Version", default=Version())
    created_at: str = msgspec.field(name="CreatedAt", default="")
    updated_at: str = msgspec.field(name="UpdatedAt", default="")
    spec: NamedSpec = msgspec.field(name="Spec", default=NamedSpec())


class Config(Object, frozen=True):
    """A config."""

    id: str = msgspec.field(name="ID", default="")
    version: Version = msgspec.field(name="Version", default=Version())
    created_at: str = msgspec.field(name="CreatedAt", default="")
    updated_at: str = msgspec.field(name="UpdatedAt", default="")
    spec: NamedSpec = msgspec.field(name="Spec", default=NamedSpec())


class SwarmSpec(Object, frozen=True):
    """What the swarm is to be."""

    name: str = msgspec.field(name="Name", default="")
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)


class RemoteManager(Object, frozen=True):
    """A manager that this node knows."""

    node_id: str = msgspec.field(name="NodeID", default="")
    addr: str = msgspec.field(name="Addr", default="")


class ClusterInfo(Object, frozen=True):
    """The swarm as `/info` shows it to a manager: without tokens."""

    id: str = msgspec.field(name="ID", default="")
    spec: SwarmSpec = msgspec.field(name="Spec", default=SwarmSpec())


class SwarmInfo(Object, frozen=True):
    """This node's place in a swarm; `local_node_state` is inactive, pending, active, error or locked."""

    node_id: str = msgspec.field(name="NodeID", default="")
    node_addr: str = msgspec.field(name="NodeAddr", default="")
    local_node_state: str = msgspec.field(name="LocalNodeState", default="inactive")
    control_available: bool = msgspec.field(name="ControlAvailable", default=False)
    error: str = msgspec.field(name="Error", default="")
    remote_managers: list[RemoteManager] | None = msgspec.field(name="RemoteManagers", default=None)
    cluster: ClusterInfo | None = msgspec.field(name="Cluster", default=None)
    """On managers only."""


class Info(Object, frozen=True):
    """What `/info` says that the console shows."""

    name: str = msgspec.field(name="Name", default="")
    server_version: str = msgspec.field(name="ServerVersion", default="")
    cpus: int = msgspec.field(name="NCPU", default=0)
    memory_bytes: int = msgspec.field(name="MemTotal", default=0)
    swarm: SwarmInfo | None = msgspec.field(name="Swarm", default=None)
