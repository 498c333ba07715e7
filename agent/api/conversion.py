"""What Docker's front door makes of a service spec before the cluster sees it, and what it adds when it shows one.

Source: moby daemon/cluster/convert and swarmkit api/defaults. Values that a client left out and that the cluster needs are
filled in on the way in (mode, restart condition, update order); those that only matter to people are shown on demand
(`insertDefaults=true`). The store keeps neither the runtime "container", which is the only one, nor computed defaults.
"""

from __future__ import annotations

from msgspec.structs import replace

from agent.api_types.container import ContainerSpec, DNSConfig, Mount
from agent.api_types.errors import ApiError, InvalidArgument
from agent.api_types.service import (
    FailureAction,
    ReplicatedJob,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateOrder,
)
from agent.api_types.task import (
    EndpointSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    RestartCondition,
    RestartPolicy,
    TaskSpec,
)
from agent.api_types.times import SECOND
from agent.api_types.validation import quoted

CONTAINER_RUNTIME = "container"

DEFAULT_STOP_GRACE = 10 * SECOND
DEFAULT_RESTART = RestartPolicy(condition=RestartCondition.ANY, delay=5 * SECOND, max_attempts=0)
DEFAULT_UPDATE = UpdateConfig(
    parallelism=1, failure_action=FailureAction.PAUSE, monitor=5 * SECOND, order=UpdateOrder.STOP_FIRST
)

_MOUNT_TYPES = frozenset({"bind", "volume", "tmpfs", "npipe", "cluster"})
_PROPAGATIONS = frozenset({"rprivate", "private", "rshared", "shared", "rslave", "slave"})


def _refuse(text: str) -> ApiError:
    return InvalidArgument(text)


def accept_service_spec(spec: ServiceSpec) -> ServiceSpec:
    """`spec` as the cluster keeps it; InvalidArgument with moby's plain texts for words it does not know."""
    return replace(
        spec,
        task_template=_accept_task(spec.task_template),
        update_config=_accept_update(spec.update_config),
        rollback_config=_accept_update(spec.rollback_config),
        endpoint_spec=_accept_endpoint(spec.endpoint_spec),
        mode=_accept_mode(spec.mode),
    )


def _accept_task(spec: TaskSpec) -> TaskSpec:
    if spec.runtime not in ("", CONTAINER_RUNTIME, "plugin"):
        raise _refuse("unsupported runtime")
    if spec.runtime == "plugin" or spec.container_spec is None:
        raise _refuse("mismatched Runtime and *Spec fields")
    return replace(
        spec,
        runtime="",
        container_spec=_accept_container(spec.container_spec),
        restart_policy=_accept_restart(spec.restart_policy),
    )


def _accept_container(spec: ContainerSpec) -> ContainerSpec:
    isolation = spec.isolation.lower()
    return replace(
        spec,
        isolation=isolation if isolation in ("hyperv", "process") else "default",
        mounts=[_accept_mount(mount) for mount in spec.mounts],
    )


def _accept_mount(mount: Mount) -> Mount:
    kind = mount.type.lower()
    if kind and kind not in _MOUNT_TYPES:
        raise _refuse(f"invalid MountType: {quoted(mount.type)}")
    bind = mount.bind_options
    if bind is not None:
        propagation = bind.propagation.lower()
        if propagation and propagation not in _PROPAGATIONS:
            raise _refuse(f"invalid MountPropagation: {quoted(bind.propagation)}")
        bind = replace(bind, propagation=propagation)
    return replace(mount, type=kind or "bind", bind_options=bind)


def _accept_restart(policy: RestartPolicy | None) -> RestartPolicy | None:
    if policy is None:
        return None
    if policy.condition and policy.condition not in list(RestartCondition):
        raise _refuse(f"invalid RestartCondition: {quoted(policy.condition)}")
    return replace(policy, condition=policy.condition or RestartCondition.ANY, max_attempts=policy.max_attempts or 0)


def _accept_update(update: UpdateConfig | None) -> UpdateConfig | None:
    if update is None:
        return None
    if update.failure_action and update.failure_action not in list(FailureAction):
        raise _refuse(f"unrecognized update failure action {update.failure_action}")
    if update.order and update.order not in list(UpdateOrder):
        raise _refuse(f"unrecognized update order {update.order}")
    return replace(
        update,
        failure_action=update.failure_action or FailureAction.PAUSE,
        order=update.order or UpdateOrder.STOP_FIRST,
    )


def _accept_endpoint(endpoint: EndpointSpec | None) -> EndpointSpec | None:
    if endpoint is None:
        return None
    if endpoint.mode not in ("", "vip", "dnsrr"):
        raise _refuse(f"invalid resolution mode: {quoted(endpoint.mode)}")
    return replace(endpoint, mode=endpoint.mode or "vip", ports=[_accept_port(port) for port in endpoint.ports])


def _accept_port(port: PortConfig) -> PortConfig:
    """Docker takes an unknown protocol for tcp and an unknown publish mode for ingress; a typing error is told here."""
    protocol, mode = port.protocol.lower() or "tcp", port.publish_mode.lower() or "ingress"
    if protocol not in ("tcp", "udp", "sctp"):
        raise _refuse(f"invalid port protocol: {quoted(port.protocol)}")
    if mode not in ("ingress", "host"):
        raise _refuse(f"invalid port publish mode: {quoted(port.publish_mode)}")
    return replace(port, protocol=protocol, publish_mode=mode)


def _accept_mode(mode: ServiceMode) -> ServiceMode:
    members = (mode.replicated, mode.global_service, mode.replicated_job, mode.global_job)
    if sum(member is not None for member in members) > 1:
        raise _refuse("must specify only one service mode")
    if mode.global_service is not None or mode.global_job is not None:
        return mode
    if mode.replicated_job is not None:
        concurrent = mode.replicated_job.max_concurrent
        concurrent = 1 if concurrent is None else concurrent
        total = mode.replicated_job.total_completions
        total = concurrent if total is None else total
        return ServiceMode(replicated_job=ReplicatedJob(max_concurrent=concurrent, total_completions=total))
    replicas = None if mode.replicated is None else mode.replicated.replicas
    return ServiceMode(replicated=ReplicatedService(replicas=1 if replicas is None else replicas))


# -- the way out


def shown_spec(spec: ServiceSpec) -> ServiceSpec:
    """`spec` as clients see it: with its runtime, without credentials."""
    return replace(spec, task_template=replace(shown_template(spec.task_template), runtime=CONTAINER_RUNTIME))


def shown_template(template: TaskSpec) -> TaskSpec:
    """A task's spec without the credentials of the image's registry."""
    container = template.container_spec
    if container is None or container.pull_options is None:
        return template
    return replace(template, container_spec=replace(container, pull_options=None))


def with_defaults(spec: ServiceSpec) -> ServiceSpec:
    """`spec` with every default that applies to it spelled out (`insertDefaults=true`)."""
    return replace(
        spec,
        task_template=_task_with_defaults(spec.task_template),
        update_config=_update_with_defaults(spec.update_config),
        rollback_config=_update_with_defaults(spec.rollback_config),
    )


def _task_with_defaults(spec: TaskSpec) -> TaskSpec:
    container = spec.container_spec
    if container is not None:
        grace = container.stop_grace_period
        container = replace(
            container,
            stop_grace_period=DEFAULT_STOP_GRACE if grace is None else grace,
            dns_config=container.dns_config or DNSConfig(),
        )
    restart = spec.restart_policy
    if restart is None:
        restart = DEFAULT_RESTART
    elif restart.delay is None:
        restart = replace(restart, delay=DEFAULT_RESTART.delay)
    return replace(
        spec,
        container_spec=container,
        resources=spec.resources or ResourceRequirements(),
        restart_policy=restart,
        placement=spec.placement or Placement(),
    )


def _update_with_defaults(update: UpdateConfig | None) -> UpdateConfig:
    if update is None:
        return DEFAULT_UPDATE
    return update if update.monitor else replace(update, monitor=DEFAULT_UPDATE.monitor)
