"""What a worker keeps on disk, so that a restarted agent finds its tasks before it reaches a manager.

One file a task, written whole to a temporary name, synced and renamed; a line with format number and CRC before the JSON.
Secrets and configs are never part of it. A damaged file is put aside under `damaged/` and named in the log: the manager's
next complete assignment brings its task back. The functions here block; the worker calls them in a thread.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agent.api_types.task import Task, TaskStatus
from agent.rpc.messages import ManagerAddress

log = logging.getLogger(__name__)

FORMAT = 1
_HEADER = re.compile(rb"swarmtui-(?P<kind>[a-z]+) (?P<format>\d{1,9}) (?P<crc>[0-9a-f]{8})")
_TASK_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TEMPORARY = ".new"


class DamagedState(Exception):
    """A file of the worker's state is not what was written; the text names it and says what is wrong."""


class NewerState(Exception):
    """A file was written by a newer agent, whose format this one does not know."""


class KeptTask(msgspec.Struct, frozen=True):
    """A task as the manager last assigned it, and its status as this node last saw it."""

    task: Task
    status: TaskStatus


@dataclass(frozen=True, slots=True)
class Kept:
    """All that was found on disk."""

    tasks: list[KeptTask]
    managers: list[ManagerAddress]


def is_task_id(text: str) -> bool:
    """Whether `text` can name a task's file."""
    return _TASK_ID.fullmatch(text) is not None


class KeptState:
    """The files of a worker under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tasks = folder / "tasks"
        self._damaged = folder / "damaged"
        self._managers = folder / "managers.json"

    def load(self) -> Kept:
        """Read everything. NewerState when a newer agent wrote it: going on would lose what this one cannot read."""
        self._tasks.mkdir(parents=True, exist_ok=True, mode=0o700)
        tasks: list[KeptTask] = []
        for path in sorted(self._tasks.iterdir()):
            if path.name.endswith(_TEMPORARY):
                path.unlink()
                continue
            try:
                kept = msgspec.json.decode(_unwrapped(path, "task"), type=KeptTask)
                if path.stem != kept.task.id:
                    raise DamagedState(f"{path}: it holds task {kept.task.id}")
            except (DamagedState, msgspec.DecodeError) as error:
                self._put_aside(path, error)
            else:
                tasks.append(kept)
        managers: list[ManagerAddress] = []
        if self._managers.exists():
            try:
                managers = msgspec.json.decode(_unwrapped(self._managers, "managers"), type=list[ManagerAddress])
            except (DamagedState, msgspec.DecodeError) as error:
                self._put_aside(self._managers, error)
        return Kept(tasks, managers)

    def write_tasks(self, kept: Iterable[KeptTask], gone: Iterable[str]) -> None:
        """Make the newest state of some tasks durable, and that others are gone."""
        for one in kept:
            _replace(self._path(one.task.id), _wrapped("task", msgspec.json.encode(_without_credentials(one))))
        for task_id in gone:
            self._path(task_id).unlink(missing_ok=True)
        _sync_folder(self._tasks)

    def write_managers(self, managers: list[ManagerAddress]) -> None:
        """Make the managers' addresses durable."""
        _replace(self._managers, _wrapped("managers", msgspec.json.encode(managers)))
        _sync_folder(self.folder)

    def _path(self, task_id: str) -> Path:
        if not is_task_id(task_id):
            raise ValueError(f"not a task id: {task_id!r}")
        return self._tasks / f"{task_id}.json"

    def _put_aside(self, path: Path, error: Exception) -> None:
        self._damaged.mkdir(exist_ok=True, mode=0o700)
        aside = self._damaged / path.name
        number = 1
        while aside.exists():
            number += 1
            aside = self._damaged / f"{path.name}.{number}"
        os.rename(path, aside)
        log.error("damaged worker state %s: %s; put aside as %s, a manager will be asked again", path, error, aside)


def _wrapped(kind: str, body: bytes) -> bytes:
    return f"swarmtui-{kind} {FORMAT} {_checksum(FORMAT, body):08x}\n".encode() + body


def _checksum(format_number: int, body: bytes) -> int:
    """Covers the format's number too: a flipped bit there must not look like a newer agent's file."""
    return zlib.crc32(body, zlib.crc32(str(format_number).encode()))


def _unwrapped(path: Path, kind: str) -> bytes:
    head, newline, body = path.read_bytes().partition(b"\n")
    match = _HEADER.fullmatch(head)
    if not newline or match is None or match["kind"] != kind.encode():
        raise DamagedState(f"{path}: not a file of kind {kind}")
    number = int(match["format"])
    if _checksum(number, body) != int(match["crc"], 16):
        raise DamagedState(f"{path}: its checksum is wrong")
    if number > FORMAT:
        raise NewerState(f"{path} has format {number}, this agent reads up to {FORMAT}: upgrade the agent")
    return body


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + _TEMPORARY)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _without_credentials(one: KeptTask) -> KeptTask:
    """The task as it may go to a disk: a registry's credentials come again with the next assignment."""
    container = one.task.spec.container_spec
    if container is None or container.pull_options is None:
        return one
    spec = replace(one.task.spec, container_spec=replace(container, pull_options=None))
    return replace(one, task=replace(one.task, spec=spec))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
