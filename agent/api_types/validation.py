"""What the cluster refuses in a spec, with SwarmKit's texts (manager/controlapi).

Every function returns when the object is acceptable and raises an `ApiError` whose text is the one a Docker client is used
to. Where SwarmKit accepts what can never work (a port above 65535, a replica count that would exhaust any cluster) we
refuse, and the function says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.api_types.common import Limits, Resources
from agent.api_types.container import ConfigReference, ContainerSpec, HealthConfig, Mount, SecretReference
from agent.api_types.errors import ApiError, InvalidArgument
from agent.api_types.secret import ConfigSpec, SecretSpec
from agent.api_types.service import ServiceMode, ServiceSpec, UpdateConfig
from agent.api_types.swarm import SwarmSpec
from agent.api_types.task import EndpointSpec, ResourceRequirements, RestartPolicy, TaskSpec
from agent.api_types.times import MILLISECOND, SECOND

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY = 4 * 1024 * 1024
MAX_SECRET_SIZE = 500 * 1024
MAX_CONFIG_SIZE = 1000 * 1024
MIN_CERT_EXPIRY = 3600 * SECOND
MAX_REPLICAS = 1_000_000
"""Ours: SwarmKit takes any 64-bit number and then tries to make that many tasks."""

_DNS_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")
_SECRET_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_IMAGE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::[A-Za-z0-9_][\w.-]{{0,127}})?(?:@{_DIGEST})?",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")


def quoted(text: str) -> str:
    """`text` as Go's %q writes it, for the characters that occur in names."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def _refuse(text: str) -> ApiError:
    return InvalidArgument.grpc(text)


# -- names


def validate_name(name: str) -> None:
    """The name of a service or a network: a DNS label."""
    if not name:
        raise _refuse("meta: name must be provided")
    if not _DNS_NAME.fullmatch(name):
        raise _refuse("name must be valid as a DNS name component")
    if len(name) > 63:
        raise _refuse("name must be 63 characters or fewer")


def validate_secret_name(name: str) -> None:
    """The name of a secret or a config."""
    if not name:
        raise _refuse("name must be provided")
    if len(name) > 64 or not _SECRET_NAME.fullmatch(name):
        raise _refuse(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )


def is_image_reference(image: str) -> bool:
    """Whether `image` is a reference as the distribution grammar has it: name, optional tag, optional digest."""
    match = _IMAGE.fullmatch(image)
    return match is not None and len(match["name"]) <= 255 and not _IMAGE_ID.fullmatch(image)


# -- services


def validate_service_spec(spec: ServiceSpec) -> None:
    """Everything of a service that can be judged without looking at the cluster, in SwarmKit's order."""
    validate_name(spec.name)
    validate_task_spec(spec.task_template)
    validate_mode(spec.mode)
    if spec.mode.replicated_job is not None or spec.mode.global_job is not None:
        if spec.update_config is not None:
            raise _refuse("Jobs may not have an update config")
    else:
        validate_update(spec.update_config)
        validate_update(spec.rollback_config)
    validate_endpoint(spec.endpoint_spec)


def validate_task_spec(spec: TaskSpec) -> None:
    """The template of a service's tasks, except its constraints: who parses them refuses them (`agent.manager`)."""
    _validate_resources(spec.resources)
    _validate_restart(spec.restart_policy)
    if spec.placement is not None and spec.placement.max_replicas < 0:
        raise _refuse("TaskSpec: max-replicas-per-node cannot be negative")
    container = spec.container_spec
    if container is None:
        raise _refuse("TaskSpec: missing runtime")
    _validate_references("secret", container.secrets)
    _validate_references("config", container.configs)
    _validate_container(container)


def _validate_resources(requirements: ResourceRequirements | None) -> None:
    if requirements is None:
        return
    for resources in (requirements.limits, requirements.reservations):
        if resources is not None:
            _validate_amounts(resources)
    if requirements.limits is not None and requirements.limits.pids < 0:
        raise _refuse(f"invalid pids value {requirements.limits.pids}: Must not be negative")


def _validate_amounts(resources: Limits | Resources) -> None:
    if resources.nano_cpus != 0 and resources.nano_cpus < MIN_NANO_CPUS:
        raise _refuse(f"invalid cpu value {resources.nano_cpus / 1e9!r}: Must be at least {MIN_NANO_CPUS / 1e9!r}")
    if resources.memory_bytes != 0 and resources.memory_bytes < MIN_MEMORY:
        raise _refuse(f"invalid memory value {resources.memory_bytes}: Must be at least 4MiB")


def _validate_restart(policy: RestartPolicy | None) -> None:
    if policy is None:
        return
    if policy.delay is not None and policy.delay < 0:
        raise _refuse("TaskSpec: restart-delay cannot be negative")
    if policy.window is not None and policy.window < 0:
        raise _refuse("TaskSpec: restart-window cannot be negative")
    if policy.max_attempts is not None and policy.max_attempts < 0:
        raise _refuse("TaskSpec: restart-max-attempts cannot be negative")


def _validate_container(container: ContainerSpec) -> None:
    if not container.image:
        raise _refuse("ContainerSpec: image reference must be provided")
    if not is_image_reference(container.image):
        raise _refuse(f"ContainerSpec: {quoted(container.image)} is not a valid repository/tag")
    _validate_mounts(container.mounts)
    _validate_health(container.healthcheck)
    if container.stop_grace_period is not None and container.stop_grace_period < 0:
        raise _refuse("ContainerSpec: stop-grace-period cannot be negative")


def _validate_mounts(mounts: Iterable[Mount]) -> None:
    targets = set()
    for mount in mounts:
        if mount.target in targets:
            raise _refuse(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)


def _validate_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    durations = (("Interval", health.interval), ("Timeout", health.timeout), ("StartPeriod", health.start_period))
    for name, duration in durations:
        if duration != 0 and duration < MILLISECOND:
            raise _refuse(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.retries < 0:
        raise _refuse("ContainerSpec: Retries in HealthConfig cannot be negative")


def _validate_references(kind: str, references: Iterable[SecretReference | ConfigReference]) -> None:
    targets: dict[str, str] = {}
    for reference in references:
        if isinstance(reference, SecretReference):
            reference_id, name = reference.secret_id, reference.secret_name
        else:
            reference_id, name = reference.config_id, reference.config_name
        if not reference_id or not name:
            raise _refuse(f"malformed {kind} reference")
        if reference.file is None:
            raise _refuse(f"malformed {kind} reference, no target provided")
        target = reference.file.name
        if not target:
            raise _refuse(f"malformed file {kind} reference, invalid target file name provided")
        if target in targets:
            raise _refuse(f"{kind} references '{targets[target]}' and '{name}' have a conflicting target: '{target}'")
        targets[target] = name


def validate_mode(mode: ServiceMode) -> None:
    """Counts of replicas and of a job's completions."""
    if mode.replicated is not None:
        _validate_count("Number of replicas", mode.replicated.replicas)
    elif mode.replicated_job is not None:
        _validate_count("Maximum concurrent jobs", mode.replicated_job.max_concurrent, "not be negative")
        _validate_count("Total completed jobs", mode.replicated_job.total_completions, "not be negative")
    elif mode.global_service is None and mode.global_job is None:
        raise _refuse("Unrecognized service mode")


def _validate_count(what: str, count: int | None, wanted: str = "be non-negative") -> None:
    if count is None:
        return
    if count < 0:
        raise _refuse(f"{what} must {wanted}")
    if count > MAX_REPLICAS:
        raise _refuse(f"{what} must be at most {MAX_REPLICAS}")


def validate_update(update: UpdateConfig | None) -> None:
    """How an update or a rollback rolls; SwarmKit looks at the first only."""
    if update is None:
        return
    if update.delay < 0:
        raise _refuse("TaskSpec: update-delay cannot be negative")
    if update.monitor < 0:
        raise _refuse("TaskSpec: update-monitor cannot be negative")
    if not 0 <= update.max_failure_ratio <= 1:
        raise _refuse("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1")
    if update.parallelism < 0:
        raise _refuse("TaskSpec: update-parallelism cannot be negative")


def validate_endpoint(endpoint: EndpointSpec | None) -> None:
    """Published ports. Numbers outside of 1 to 65535 are refused here; in Docker such a service stays pending for ever."""
    if endpoint is None:
        return
    taken = set()
    for port in endpoint.ports:
        if endpoint.mode == "dnsrr" and port.publish_mode == "ingress":
            raise _refuse("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        if not 1 <= port.target_port <= 65535:
            raise _refuse(f"EndpointSpec: target port {port.target_port} is not between 1 and 65535")
        if not 0 <= port.published_port <= 65535:
            raise _refuse(f"EndpointSpec: published port {port.published_port} is not between 1 and 65535")
        if port.published_port == 0:
            continue
        key = (port.published_port, port.protocol)
        if key in taken:
            raise _refuse("EndpointSpec: duplicate published ports provided")
        taken.add(key)


# -- secrets, configs, the swarm


def validate_secret_spec(spec: SecretSpec) -> None:
    """A new secret."""
    validate_secret_name(spec.name)
    if spec.driver is not None:
        if spec.data:
            raise _refuse("secret data must not be specified when a secret driver is used")
        if not spec.driver.name:
            raise _refuse("secret driver must have a name")
        return
    if not 0 < len(spec.data) < MAX_SECRET_SIZE:
        raise _refuse(f"secret data must be larger than 0 and less than {MAX_SECRET_SIZE} bytes")


def validate_config_spec(spec: ConfigSpec) -> None:
    """A new config."""
    validate_secret_name(spec.name)
    if not 0 < len(spec.data) < MAX_CONFIG_SIZE:
        raise _refuse(f"config data must be larger than 0 and less than {MAX_CONFIG_SIZE} bytes")


def validate_swarm_spec(spec: SwarmSpec) -> None:
    """The settings of the swarm; the name is fixed."""
    if spec.name not in ("", "default"):
        raise InvalidArgument('swarm spec must be named "default"')
    expiry = spec.ca_config.node_cert_expiry
    if expiry != 0 and expiry < MIN_CERT_EXPIRY:
        raise _refuse("minimum certificate expiry time is: 1h0m0s")
    if spec.dispatcher.heartbeat_period < 0:
        raise _refuse("heartbeat time period cannot be a negative duration")
    retention = spec.orchestration.task_history_retention_limit
    if retention is not None and retention < 0:
        raise _refuse("task history retention limit cannot be negative")
