"""The options of `service create` and `service update`, and the specification that they make.

An option with a single value is a row of `SCALARS`: its name, its place in the API's JSON, its parser. What is a list in
the API has its own lines in `build` (create) and in `swarmtui.commands.service_update`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from swarmtui.commands import values
from swarmtui.commands.session import Value
from swarmtui.docker_api.answers import Json
from swarmtui.operations.services import tagged
from swarmtui.operations.spec_changes import child, put_at, value_at

F = TypeVar("F", bound=Callable[..., Any])

_CONTAINER = ("TaskTemplate", "ContainerSpec")
_RESOURCES = ("TaskTemplate", "Resources")
_RESTART = ("TaskTemplate", "RestartPolicy")
_PLACEMENT = ("TaskTemplate", "Placement")
_HEALTH = (*_CONTAINER, "Healthcheck")

DURATION = Value("duration", values.duration)
MEMORY = Value("bytes", values.memory)
CPUS = Value("cpus", values.cpus)
PORT = Value("port", values.port)
MOUNT = Value("mount", values.mount)
KEY_VALUE = Value("key=value", values.key_value)
ULIMIT = Value("ulimit", values.ulimit)
HOST = Value("host:ip", values.extra_host)
PREFERENCE = Value("preference", values.preference)
SECRET = Value("secret", values.reference)
CAPABILITY = Value("capability", values.capability)
GENERIC = Value("kind=value", values.generic_resource)
CONFIG = Value("config", lambda text: values.reference(text, prefix="/"))

UPDATE_DEFAULTS: Json = {
    "Parallelism": 1,
    "Monitor": 5_000_000_000,
    "FailureAction": "pause",
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}
"""What the docker CLI fills a new block with (recorded traffic): left out, the engine would take 0 tasks at a time for all."""

BLOCK_DEFAULTS: Mapping[tuple[str, ...], Json] = {
    ("UpdateConfig",): UPDATE_DEFAULTS,
    ("RollbackConfig",): UPDATE_DEFAULTS,
    _RESTART: {"Condition": "any", "Delay": 5_000_000_000},
}

MODES = ("replicated", "global", "replicated-job", "global-job")
_ORDERS = click.Choice(["start-first", "stop-first"])


@dataclass(frozen=True, slots=True)
class Scalar:
    """One option with one value."""

    option: str
    path: tuple[str, ...]
    kind: Any
    help: str

    @property
    def parameter(self) -> str:
        """click's name of it."""
        return self.option.lstrip("-").replace("-", "_")


def _update_options(prefix: str, block: str, verb: str) -> tuple[Scalar, ...]:
    actions = ["pause", "continue"] + (["rollback"] if prefix == "update" else [])
    return (
        Scalar(
            f"--{prefix}-parallelism", (block, "Parallelism"), click.IntRange(0), f"Tasks {verb} at a time (0: all)."
        ),
        Scalar(f"--{prefix}-delay", (block, "Delay"), DURATION, "Pause between tasks."),
        Scalar(f"--{prefix}-monitor", (block, "Monitor"), DURATION, "How long a task is watched for a failure."),
        Scalar(f"--{prefix}-failure-action", (block, "FailureAction"), click.Choice(actions), "What a failure does."),
        Scalar(f"--{prefix}-max-failure-ratio", (block, "MaxFailureRatio"), float, "Failures to put up with (0 to 1)."),
        Scalar(f"--{prefix}-order", (block, "Order"), _ORDERS, "Which task goes first."),
    )


SCALARS: tuple[Scalar, ...] = (
    Scalar("--hostname", (*_CONTAINER, "Hostname"), str, "Hostname inside the container."),
    Scalar("--workdir", (*_CONTAINER, "Dir"), str, "Working folder inside the container."),
    Scalar("--user", (*_CONTAINER, "User"), str, "User or uid, and group or gid: user[:group]."),
    Scalar("--stop-signal", (*_CONTAINER, "StopSignal"), str, "Signal that stops the container."),
    Scalar("--stop-grace-period", (*_CONTAINER, "StopGracePeriod"), DURATION, "Time before it is killed."),
    Scalar("--isolation", (*_CONTAINER, "Isolation"), str, "Isolation of the container."),
    Scalar("--health-interval", (*_HEALTH, "Interval"), DURATION, "Time between two checks."),
    Scalar("--health-timeout", (*_HEALTH, "Timeout"), DURATION, "Time one check may take."),
    Scalar("--health-start-period", (*_HEALTH, "StartPeriod"), DURATION, "Time to start before failures count."),
    Scalar("--health-retries", (*_HEALTH, "Retries"), click.IntRange(0), "Failures in a row for unhealthy."),
    Scalar("--limit-cpu", (*_RESOURCES, "Limits", "NanoCPUs"), CPUS, "CPUs it may use."),
    Scalar("--limit-memory", (*_RESOURCES, "Limits", "MemoryBytes"), MEMORY, "Memory it may use."),
    Scalar("--limit-pids", (*_RESOURCES, "Limits", "Pids"), click.IntRange(0), "Processes it may have (0: no limit)."),
    Scalar("--reserve-cpu", (*_RESOURCES, "Reservations", "NanoCPUs"), CPUS, "CPUs kept free for it."),
    Scalar("--reserve-memory", (*_RESOURCES, "Reservations", "MemoryBytes"), MEMORY, "Memory kept free for it."),
    Scalar(
        "--restart-condition",
        (*_RESTART, "Condition"),
        click.Choice(["none", "on-failure", "any"]),
        "When a task that ended is replaced.",
    ),
    Scalar("--restart-delay", (*_RESTART, "Delay"), DURATION, "Pause before a task is replaced."),
    Scalar("--restart-max-attempts", (*_RESTART, "MaxAttempts"), click.IntRange(0), "Replacements before giving up."),
    Scalar("--restart-window", (*_RESTART, "Window"), DURATION, "Time in which attempts are counted."),
    Scalar("--replicas-max-per-node", (*_PLACEMENT, "MaxReplicas"), click.IntRange(0), "Tasks a node (0: no bound)."),
    Scalar("--endpoint-mode", ("EndpointSpec", "Mode"), click.Choice(["vip", "dnsrr"]), "How its name resolves."),
    Scalar("--log-driver", ("TaskTemplate", "LogDriver", "Name"), str, "Driver of its logs."),
    *_update_options("update", "UpdateConfig", "updated"),
    *_update_options("rollback", "RollbackConfig", "rolled back"),
)


def many(*names: str, kind: Any = str, metavar: str | None = None, help: str = "") -> Callable[[F], F]:
    """An option that may be given several times."""
    return click.option(*names, multiple=True, type=kind, metavar=metavar, help=help)


def scalar_options(function: F) -> F:
    """Adds every option of `SCALARS`, and the switches that create and update share."""
    shorts = {"--workdir": ["-w"], "--user": ["-u"]}
    for scalar in reversed(SCALARS):
        names = [*shorts.get(scalar.option, []), scalar.option]
        function = click.option(*names, type=scalar.kind, default=None, help=scalar.help)(function)
    for name, text in (
        ("--health-cmd", "Command that checks health."),
        ("--entrypoint", "Command instead of the image's entrypoint."),
    ):
        function = click.option(name, default=None, help=text)(function)
    function = click.option("--no-healthcheck", is_flag=True, help="Leave out the image's health check.")(function)
    function = click.option("--init/--no-init", default=None, help="Run an init that forwards signals.")(function)
    function = click.option("--read-only/--no-read-only", default=None, help="Root file system read-only.")(function)
    return click.option("--tty/--no-tty", "-t", default=None, help="Give it a terminal.")(function)


def put_scalars(spec: Json, options: Mapping[str, Any]) -> None:
    """Writes every scalar option that was given to its place."""
    for scalar in SCALARS:
        value = options.get(scalar.parameter)
        if value is not None:
            for block, defaults in BLOCK_DEFAULTS.items():
                if scalar.path[: len(block)] == block and value_at(spec, block) is None:
                    put_at(spec, block, dict(defaults))
            put_at(spec, scalar.path, value)
    container = child(spec, *_CONTAINER)
    for parameter, key in (("init", "Init"), ("read_only", "ReadOnly"), ("tty", "TTY")):
        if options.get(parameter) is not None:
            container[key] = options[parameter]
    if options.get("entrypoint") is not None:
        container["Command"] = split_command(options["entrypoint"])
    if options.get("no_healthcheck"):
        if options.get("health_cmd"):
            raise click.UsageError("--no-healthcheck and --health-cmd exclude each other")
        container["Healthcheck"] = {"Test": ["NONE"]}
    elif options.get("health_cmd"):
        child(container, "Healthcheck")["Test"] = ["CMD-SHELL", options["health_cmd"]]


def split_command(text: str) -> list[str]:
    """A command line in one option, with a shell's quotes."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise click.UsageError(f"{text!r} cannot be split into words: {error}") from None


def environment(given: Sequence[str], files: Sequence[Path]) -> list[str]:
    """`KEY=VALUE` lines: of the files first, then those given; `KEY` alone takes the value of this shell."""

    lines: list[str] = []
    for path in files:
        try:
            lines += [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{path} cannot be read: {error}") from None
    found: dict[str, str] = {}
    for entry in (*lines, *given):
        key, separator, _ = entry.partition("=")
        if not key.strip():
            raise click.UsageError(f"{entry!r} has no name; write NAME=VALUE")
        if separator:
            found[key] = entry
        elif key in os.environ:
            found[key] = f"{key}={os.environ[key]}"
    return list(found.values())


def build(image: str, arguments: Sequence[str], options: Mapping[str, Any]) -> Json:
    """The specification of a new service; networks, secrets and configs still by name (see `lookups`)."""
    container: Json = {"Image": tagged(image)}
    if arguments:
        container["Args"] = list(arguments)
    spec: Json = {
        "Name": options["name"] or "",
        "Labels": dict(options["label"]),
        "TaskTemplate": {
            "ContainerSpec": container,
            "Resources": {"Limits": {}, "Reservations": {}},
            "Placement": {},
            "ForceUpdate": 0,
        },
        "Mode": mode(options["mode"], options["replicas"], options["max_concurrent"]),
        "EndpointSpec": {"Mode": "vip"},
    }
    put_scalars(spec, options)
    _set(container, "Labels", dict(options["container_label"]))
    _set(container, "Env", environment(options["env"], options["env_file"]))
    _set(container, "Mounts", list(options["mount"]))
    _set(container, "Groups", list(options["group"]))
    _set(container, "Hosts", list(options["host"]))
    _set(container, "CapabilityAdd", list(options["cap_add"]))
    _set(container, "CapabilityDrop", list(options["cap_drop"]))
    _set(spec["TaskTemplate"]["Resources"]["Reservations"], "GenericResources", list(options["generic_resource"]))
    _set(container, "Sysctls", dict(options["sysctl"]))
    _set(container, "Ulimits", list(options["ulimit"]))
    if options["dns"]:
        container["DNSConfig"] = {"Nameservers": list(options["dns"])}
    placement = spec["TaskTemplate"]["Placement"]
    _set(placement, "Constraints", list(options["constraint"]))
    _set(placement, "Preferences", list(options["placement_pref"]))
    if options["log_opt"]:
        child(spec, "TaskTemplate", "LogDriver")["Options"] = dict(options["log_opt"])
    _set(spec["EndpointSpec"], "Ports", [each for group in options["publish"] for each in group])
    return spec


def mode(name: str, replicas: int | None, max_concurrent: int | None) -> Json:
    """The mode's JSON; UsageError for options that do not go with it."""
    if max_concurrent is not None and name != "replicated-job":
        raise click.UsageError("--max-concurrent can only be used with --mode replicated-job")
    if name in ("global", "global-job"):
        if replicas is not None:
            raise click.UsageError("replicas can only be used with replicated or replicated-job mode")
        return {"Global": {}} if name == "global" else {"GlobalJob": {}}
    if name == "replicated-job":
        total = 1 if replicas is None else replicas
        return {"ReplicatedJob": {"TotalCompletions": total, "MaxConcurrent": max_concurrent or total}}
    return {"Replicated": {} if replicas is None else {"Replicas": replicas}}


def _set(place: Json, key: str, value: Any) -> None:
    if value:
        place[key] = value
