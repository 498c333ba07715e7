"""What is kept of a container on disk: `container` by the agent before anything runs, `run` and `exit` by its shim.

All are JSON, written whole or not at all. Together they survive the agent; secrets are in none of them. A file that cannot
be read (a host that lost power may leave it empty) counts as missing.
"""

from __future__ import annotations

import hashlib
import os
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.api_types.container import HealthConfig
from agent.api_types.task import PortConfig
from agent.worker.executors.process.cgroups import Group

FORMAT = 1
CONTAINER = "container"
GROUPS = "groups"
RUN = "run"
EXIT = "exit"
STOPPING = "stopping"
"""An empty file: the end that comes is wanted."""

R = TypeVar("R", bound=msgspec.Struct)


class Phase(StrEnum):
    """Where a container is, in Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class FileRecord(msgspec.Struct, frozen=True, gc=False):
    """A secret or config that the container reads at `path`; its content is not here."""

    path: str
    object_id: str
    secret: bool
    uid: int
    gid: int
    mode: int


class MountRecord(msgspec.Struct, frozen=True, gc=False):
    """A mount: `kind` bind, volume or tmpfs; `source` a path of the host, `name` a volume's; size in bytes, 0 unbounded."""

    kind: str
    target: str
    source: str = ""
    name: str = ""
    read_only: bool = False
    size: int = 0
    mode: int = 0


class ContainerRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All that is decided before a container starts. Times in nanoseconds since the epoch, sizes in bytes."""

    format: int = FORMAT
    container_id: str
    name: str
    task_id: str
    created_at: int
    image: str
    image_id: str
    labels: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    argv: list[str]
    """What is executed; `entrypoint` and `command` are what a person sees."""
    announces: bool
    """It is a server of ours, which tells when it listens: it counts as running only then."""
    env: list[str]
    cwd: str
    user: str
    uid: int
    gid: int
    groups: list[int] | None
    hostname: str
    address: str
    exposed: list[str]
    port_shift: int
    published: list[PortConfig]
    stop_signal: int
    stop_grace: int
    health: HealthConfig | None
    tty: bool
    nano_cpus: int
    memory_bytes: int
    pids: int
    log_driver: str
    log_bytes: int
    log_files: int
    isolated: bool
    mounts: list[MountRecord]
    files: list[FileRecord]
    host_files: dict[str, str]
    """Content of /etc/hosts and the like, by path."""
    read_only: bool
    no_new_privileges: bool
    capabilities: list[int] | None
    rlimits: list[tuple[int, int, int]]
    oom_score_adj: int | None
    notices: list[str]
    network: str = ""
    """The file of the network namespace that it lives in; empty for the host's."""


class RunRecord(msgspec.Struct, frozen=True, gc=False):
    """The processes of a container that was started: ids and start times (clock ticks since boot)."""

    shim: int
    shim_start: int
    task: int
    task_start: int
    started_at: int


class GroupsRecord(msgspec.Struct, frozen=True, gc=False):
    """The control groups that were made for a container, by whichever agent started it."""

    groups: list[Group]


class ExitRecord(msgspec.Struct, frozen=True, gc=False):
    """How a container ended; `error` is set when it was not by itself."""

    code: int
    finished_at: int
    error: str = ""


def container_id(task_id: str) -> str:
    """The container's id, 64 hexadecimal digits: always the same for a task."""
    return hashlib.sha256(f"swarmtui container of task {task_id}".encode()).hexdigest()


def write_record(folder: Path, name: str, record: msgspec.Struct) -> None:
    """Replace a record, whole or not at all."""
    fresh = folder / f"{name}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(record))
    fresh.replace(folder / name)


def read_record(folder: Path, name: str, kind: type[R]) -> R | None:
    """A record, or None when it is missing or was never written whole."""
    try:
        return msgspec.json.decode((folder / name).read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
