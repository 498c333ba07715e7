"""Containers and images as the Docker Engine's API shows them (recorded from engine 20.10). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.api_types.times import SECOND, ZERO_TIME, format_time
from agent.worker.executors.images.catalog import CREATED, Image
from agent.worker.executors.process.health import HealthState
from agent.worker.executors.process.records import ContainerRecord, ExitRecord, Phase, RunRecord

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """A container as it was looked at, at `now` (ns)."""

    record: ContainerRecord
    phase: Phase
    run: RunRecord | None
    exit: ExitRecord | None
    health: HealthState | None
    now: int
    out_of_memory: bool = False

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.container_id


def human_duration(nanoseconds: int) -> str:
    """`3 seconds`, `About a minute`, `2 weeks` (docker/go-units, HumanDuration)."""
    seconds = max(nanoseconds, 0) // SECOND
    minutes, hours = seconds // 60, (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for bound, unit, name in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < bound:
            return f"{hours // unit} {name}"
    return f"{seconds // 3600 // 24 // 365} years"


def status_text(view: View) -> str:
    """The STATUS column of `docker ps`."""
    if view.phase is Phase.CREATED or (view.run is None and view.exit is not None):
        return "Created"
    if view.exit is not None:
        return f"Exited ({view.exit.code}) {human_duration(view.now - view.exit.finished_at)} ago"
    assert view.run is not None
    up = f"Up {human_duration(view.now - view.run.started_at)}"
    if view.health is None:
        return up
    return f"{up} (health: starting)" if view.health.status == "starting" else f"{up} ({view.health.status})"


def state_name(view: View) -> str:
    """created, running or exited; a container that could not be started stays created, as in Docker."""
    return Phase.CREATED.value if view.run is None else view.phase.value


def command_text(record: ContainerRecord) -> str:
    """The COMMAND column: words with spaces in quotes, as the engine writes it."""
    path, *arguments = [*record.entrypoint, *record.command]
    return " ".join([path, *(f"'{word}'" if " " in word else word for word in arguments)])


def ports(view: View) -> list[Json]:
    """The PORTS column; nothing once the container has ended."""
    if view.phase is not Phase.RUNNING:
        return []
    published = [
        {
            "IP": "0.0.0.0",
            "PrivatePort": port.target_port,
            "PublicPort": port.published_port,
            "Type": port.protocol or "tcp",
        }
        for port in view.record.published
    ]
    held = {(port["PrivatePort"], port["Type"]) for port in published}
    exposed = [(int(number), protocol) for number, _, protocol in (text.partition("/") for text in view.record.exposed)]
    return [{"PrivatePort": number, "Type": kind} for number, kind in exposed if (number, kind) not in held] + published


def networks(record: ContainerRecord) -> Json:
    """The one network: the host's, with the task's own address."""
    return {
        "host": {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": record.address,
            "IPPrefixLen": 8,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "MacAddress": "",
            "DriverOpts": None,
        }
    }


def mounts(record: ContainerRecord) -> list[Json]:
    """Mounts as inspect and list show them."""
    return [
        {
            "Type": mount.kind,
            **({"Name": mount.name, "Driver": "local"} if mount.kind == "volume" else {}),
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": "",
            "RW": not mount.read_only,
            "Propagation": "rprivate" if mount.kind == "bind" else "",
        }
        for mount in record.mounts
    ]


def summary(view: View) -> Json:
    """An element of GET /containers/json."""
    record = view.record
    return {
        "Id": record.container_id,
        "Names": [f"/{record.name}"],
        "Image": record.image,
        "ImageID": record.image_id,
        "Command": command_text(record),
        "Created": record.created_at // SECOND,
        "Ports": ports(view),
        "Labels": record.labels,
        "State": state_name(view),
        "Status": status_text(view),
        "HostConfig": {"NetworkMode": "host"},
        "NetworkSettings": {"Networks": networks(record)},
        "Mounts": mounts(record),
    }


def inspection(view: View, image: Image | None, log_path: str) -> Json:
    """The answer of GET /containers/ID/json."""
    record = view.record
    path, *arguments = [*record.entrypoint, *record.command]
    return {
        "Id": record.container_id,
        "Created": format_time(record.created_at),
        "Path": path,
        "Args": arguments,
        "State": _state(view),
        "Image": record.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": log_path,
        "Name": f"/{record.name}",
        "RestartCount": 0,
        "Driver": "process",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(record),
        "GraphDriver": {"Data": None, "Name": "process"},
        "Mounts": mounts(record),
        "Config": _config(record, image),
        "NetworkSettings": _network_settings(view),
    }


def _state(view: View) -> Json:
    run, exit = view.run, view.exit
    running = view.phase is Phase.RUNNING
    state: Json = {
        "Status": state_name(view),
        "Running": running,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": view.out_of_memory,
        "Dead": False,
        "Pid": run.task if running and run is not None else 0,
        "ExitCode": exit.code if exit is not None else 0,
        "Error": exit.error if exit is not None and not view.out_of_memory else "",
        "StartedAt": format_time(run.started_at) if run is not None else ZERO_TIME,
        "FinishedAt": format_time(exit.finished_at) if exit is not None else ZERO_TIME,
    }
    if view.health is not None:
        state["Health"] = {
            "Status": view.health.status.value,
            "FailingStreak": view.health.failing_streak,
            "Log": [
                {
                    "Start": format_time(result.start),
                    "End": format_time(result.end),
                    "ExitCode": result.exit_code,
                    "Output": result.output,
                }
                for result in view.health.results
            ],
        }
    return state


def _host_config(record: ContainerRecord) -> Json:
    return {
        "Binds": None,
        "LogConfig": {
            "Type": record.log_driver,
            "Config": {"max-size": str(record.log_bytes), "max-file": str(record.log_files)}
            if record.log_files
            else {},
        },
        "NetworkMode": "host",
        "PortBindings": {
            f"{port.target_port}/{port.protocol or 'tcp'}": [{"HostIp": "", "HostPort": str(port.published_port)}]
            for port in record.published
        },
        "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "Privileged": False,
        "ReadonlyRootfs": record.read_only,
        "PidMode": "" if record.isolated else "host",
        "IpcMode": "private" if record.isolated else "host",
        "UTSMode": "" if record.isolated else "host",
        "Init": True,
        "NanoCpus": record.nano_cpus,
        "Memory": record.memory_bytes,
        "PidsLimit": record.pids or None,
        "OomScoreAdj": record.oom_score_adj or 0,
    }


def _config(record: ContainerRecord, image: Image | None) -> Json:
    return {
        "Hostname": record.hostname,
        "Domainname": "",
        "User": record.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": {port: {} for port in record.exposed},
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": record.env,
        "Cmd": record.command or None,
        "Image": record.image,
        "Volumes": None,
        "WorkingDir": record.cwd,
        "Entrypoint": record.entrypoint or None,
        "OnBuild": None,
        "Labels": record.labels,
        "StopSignal": str(record.stop_signal),
        "StopTimeout": record.stop_grace // SECOND,
        **({"Healthcheck": _health_config(record)} if record.health is not None else {}),
    }


def _health_config(record: ContainerRecord) -> Json:
    health = record.health
    assert health is not None
    named = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
        "Retries": health.retries,
    }
    return {"Test": health.test, **{name: value for name, value in named.items() if value}}


def _network_settings(view: View) -> Json:
    record = view.record
    bound: Json = {}
    for port in ports(view):
        key = f"{port['PrivatePort']}/{port['Type']}"
        bound[key] = [{"HostIp": port["IP"], "HostPort": str(port["PublicPort"])}] if "PublicPort" in port else None
    return {
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": bound,
        "SandboxKey": "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": record.address,
        "IPPrefixLen": 8,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": networks(record),
    }


def image_summaries(images: Sequence[Image], size: int) -> list[Json]:
    """The answer of GET /images/json; `size` in bytes is that of the programs, which all share."""
    return [
        {
            "Containers": -1,
            "Created": CREATED,
            "Id": image.id,
            "Labels": image.labels,
            "ParentId": "",
            "RepoDigests": None,
            "RepoTags": [image.reference],
            "SharedSize": -1,
            "Size": size,
            "VirtualSize": size,
        }
        for image in images
    ]


def image_inspection(image: Image, size: int, architecture: str) -> Json:
    """The answer of GET /images/NAME/json."""
    return {
        "Id": image.id,
        "RepoTags": [image.reference],
        "RepoDigests": [],
        "Parent": "",
        "Comment": image.about,
        "Created": format_time(CREATED * SECOND),
        "Container": "",
        "DockerVersion": "",
        "Author": "",
        "Config": {
            "Env": list(image.env),
            "Cmd": list(image.command) or None,
            "Entrypoint": list(image.entrypoint) or None,
            "ExposedPorts": {port: {} for port in image.ports},
            "Image": "",
            "Labels": image.labels,
            "User": "",
            "WorkingDir": "",
            "Volumes": None,
            "OnBuild": None,
        },
        "Architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(architecture, architecture),
        "Os": "linux",
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": {"Data": None, "Name": "process"},
        "RootFS": {"Type": "layers", "Layers": []},
        "Metadata": {"LastTagTime": ZERO_TIME},
    }
