"""A task as the body of `POST /containers/create` (moby daemon/cluster/executor/container/container.go)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.api_types.container import ContainerSpec, Mount
from agent.api_types.task import PortConfig, ResourceRequirements, Task
from agent.api_types.times import SECOND
from agent.worker.executors.docker import names
from agent.worker.executors.docker.files import Delivered
from agent.worker.interface import RejectedByExecutor

CPU_PERIOD = 100_000
"""Microseconds in which a container may use its share; the engine's own default."""

NODE_NETWORKS = ("host", "none")
"""Networks of the engine itself that replace the default bridge."""

STOP_GRACE = 10 * SECOND
"""Docker's default time between the stop signal and the kill, in nanoseconds."""

Body = dict[str, Any]
"""An object of the engine's API."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What a container needs beside its task: the agent's label and the files of its secrets and configs.

    `network` is the engine's network that it begins with when that is an overlay, `endpoint` its place there; `resolvers`
    know the names on its overlays.
    """

    owner: str
    files: tuple[Delivered, ...] = ()
    network: str = ""
    endpoint: Body | None = None
    resolvers: tuple[str, ...] = ()


def create_body(task: Task, spec: ContainerSpec, placement: Placement) -> Body:
    """The whole body. `spec` is the task's container with its templates expanded. RejectedByExecutor for what no Linux
    engine can do."""
    check(spec)
    body: Body = {
        "Image": spec.image,
        "Labels": names.labels(task, placement.owner),
        "Hostname": spec.hostname,
        "Env": spec.env,
        "WorkingDir": spec.dir,
        "User": spec.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StopSignal": spec.stop_signal,
        "ExposedPorts": {_target(port): {} for port in host_ports(task)},
        "HostConfig": _host_config(task, spec, placement),
    }
    if placement.network:
        body["NetworkingConfig"] = {"EndpointsConfig": {placement.network: placement.endpoint}}
    if spec.command:
        # A command takes the place of the image's entrypoint and of its arguments.
        body["Entrypoint"] = spec.command
        body["Cmd"] = spec.args
    elif spec.args:
        body["Cmd"] = spec.args
    if spec.healthcheck is not None:
        body["Healthcheck"] = msgspec.to_builtins(spec.healthcheck)
    if spec.stop_grace_period is not None:
        # So that an engine that stops gives the container its time as well.
        body["StopTimeout"] = grace_seconds(spec.stop_grace_period)
    return body


def check(spec: ContainerSpec) -> None:
    """Refuse what cannot be carried out rather than leave it out silently."""
    if not spec.image:
        raise RejectedByExecutor("dockerexec: image required")
    if spec.privileges is not None and spec.privileges.credential_spec is not None:
        raise RejectedByExecutor("a credential spec is for Windows containers")
    for mount in spec.mounts:
        if mount.type == "cluster":
            raise RejectedByExecutor(f"mount {mount.target}: cluster volumes are not supported")


def grace_seconds(grace: int | None) -> int:
    """Nanoseconds of grace as the engine counts them, rounded up: half a second must not become none."""
    return -(-(STOP_GRACE if grace is None else grace) // SECOND)


def host_ports(task: Task) -> list[PortConfig]:
    """The ports that the engine publishes for this task alone."""
    if task.endpoint is None:
        return []
    ports = task.endpoint.ports or task.endpoint.spec.ports
    return [port for port in ports if port.publish_mode == "host"]


def _target(port: PortConfig) -> str:
    return f"{port.target_port}/{(port.protocol or 'tcp').lower()}"


def _host_config(task: Task, spec: ContainerSpec, placement: Placement) -> Body:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in host_ports(task):
        published = {"HostPort": str(port.published_port)} if port.published_port else {}
        bindings.setdefault(_target(port), []).append(published)
    config: Body = {
        "RestartPolicy": {"Name": "no"},
        "PortBindings": bindings,
        "NetworkMode": placement.network or network_mode(task),
        "ReadonlyRootfs": spec.read_only,
        "GroupAdd": spec.groups,
        "Sysctls": spec.sysctls,
        "CapAdd": spec.capability_add,
        "CapDrop": spec.capability_drop,
        "ExtraHosts": extra_hosts(spec.hosts),
        "Isolation": spec.isolation,
        "OomScoreAdj": spec.oom_score_adj,
        "Ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in spec.ulimits],
        "SecurityOpt": _security(spec),
        "Mounts": [*(_mount(mount) for mount in spec.mounts), *(_file(file) for file in placement.files)],
        **_limits(task.spec.resources),
    }
    if spec.init is not None:
        config["Init"] = spec.init
    if spec.dns_config is not None:
        config["Dns"] = spec.dns_config.nameservers
        config["DnsSearch"] = spec.dns_config.search
        config["DnsOptions"] = spec.dns_config.options
    if placement.resolvers:
        # The engine's own resolver asks them in turn; ours comes first and asks the host's for what is not ours.
        config["Dns"] = [*placement.resolvers, *config.get("Dns", [])]
    driver = task.spec.log_driver
    if driver is not None and driver.name:
        config["LogConfig"] = {"Type": driver.name, "Config": driver.options}
    return config


def network_mode(task: Task) -> str:
    """The engine's network that the container begins with."""
    asked = [attachment.network.spec.name for attachment in task.networks_attachments]
    asked += [network.target for network in task.spec.networks]
    return next((name for name in asked if name in NODE_NETWORKS), "default")


def extra_hosts(hosts: Iterable[str]) -> list[str]:
    """Lines of a hosts file (`IP name alias...`) as the engine's `name:IP`, each alias one of its own."""
    entries: list[str] = []
    for line in hosts:
        address, *host_names = line.split()
        entries += [f"{name}:{address}" for name in host_names]
    return entries


def _limits(resources: ResourceRequirements | None) -> Body:
    config: Body = {}
    if resources is None:
        return config
    if resources.reservations is not None and resources.reservations.memory_bytes:
        config["MemoryReservation"] = resources.reservations.memory_bytes
    limits = resources.limits
    if limits is not None:
        if limits.memory_bytes:
            config["Memory"] = limits.memory_bytes
        if limits.pids:
            config["PidsLimit"] = limits.pids
        if limits.nano_cpus:
            # A quota instead of NanoCpus: the engine refuses more of those than it has, and a limit may be generous.
            config["CpuPeriod"] = CPU_PERIOD
            config["CpuQuota"] = limits.nano_cpus * CPU_PERIOD // 1_000_000_000
    return config


def _security(spec: ContainerSpec) -> list[str]:
    privileges = spec.privileges
    if privileges is None:
        return []
    options: list[str] = []
    if privileges.no_new_privileges:
        options.append("no-new-privileges:true")
    context = privileges.selinux_context
    if context is not None:
        if context.disable:
            options.append("label=disable")
        parts = {"user": context.user, "role": context.role, "type": context.type, "level": context.level}
        options += [f"label={name}:{value}" for name, value in parts.items() if value]
    return options


def _mount(mount: Mount) -> Body:
    body = msgspec.to_builtins(mount)
    assert isinstance(body, dict)
    return body


def _file(file: Delivered) -> Body:
    return {"Type": "bind", "Source": str(file.source), "Target": file.target, "ReadOnly": True}
