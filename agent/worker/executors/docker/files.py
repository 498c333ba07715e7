"""Secrets and configs as files for a container: in memory (tmpfs) only, a folder a task, gone when the task is.

The engine mounts each file where the task asks for it. Nothing is ever written to a disk: a folder that is not on a tmpfs
is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.api_types.container import ContainerSpec, ReferenceFileTarget
from agent.worker.interface import Dependencies, RejectedByExecutor

SECRETS = "/run/secrets"
_IN_MEMORY = {"tmpfs", "ramfs"}
_TASK_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Delivered:
    """A file on this host that shows up as `target` in the container."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: str
    id: str
    target: str
    file: ReferenceFileTarget
    data: bytes


class TaskFiles:
    """The files of one task under `root`, which must be on a tmpfs that the engine sees as well."""

    def __init__(self, root: Path, task_id: str) -> None:
        if _TASK_ID.fullmatch(task_id) is None:
            raise RejectedByExecutor(f"not a task id: {task_id!r}")
        self._root = root
        self._folder = root / task_id

    def deliver(self, spec: ContainerSpec, dependencies: Dependencies) -> tuple[Delivered, ...]:
        """Write what the task may read, with its owner and mode. Again with the same result."""
        wanted = list(_wanted(spec, dependencies))
        if not wanted:
            return ()
        self._make_folder()
        kind = filesystem(self._folder)
        if kind not in _IN_MEMORY:
            self.remove()
            raise RejectedByExecutor(f"secrets need a tmpfs and {self._root} is on {kind}")
        return tuple(self._write(number, one) for number, one in enumerate(wanted))

    def remove(self) -> None:
        """Forget them, and the folders above once they are empty. A task that had none is no error."""
        if self._folder.exists():
            shutil.rmtree(self._folder)
            # Not empty: other tasks, or other agents, have files there.
            with contextlib.suppress(OSError):
                self._root.rmdir()
                self._root.parent.rmdir()

    def _make_folder(self) -> None:
        while True:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                return self._folder.mkdir(exist_ok=True, mode=0o700)
            except FileNotFoundError:
                # Another agent took the folder above for abandoned in just this moment.
                continue

    def _write(self, number: int, wanted: _Wanted) -> Delivered:
        path = self._folder / f"{number}-{wanted.kind}"
        path.unlink(missing_ok=True)
        owner = [_number(wanted, name) for name in (wanted.file.uid, wanted.file.gid)]
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(wanted.data)
            try:
                os.fchown(fd, *owner)
            except PermissionError:
                if owner != [os.geteuid(), os.getegid()]:
                    raise RejectedByExecutor(
                        f"{wanted.kind} {wanted.target}: owner {owner[0]}:{owner[1]} needs an agent that runs as root"
                    ) from None
            os.fchmod(fd, wanted.file.mode & 0o7777)
        return Delivered(path, wanted.target)


def filesystem(path: Path) -> str:
    """The kind of file system that `path` is on, by the mount table of this process."""
    return filesystem_in(Path("/proc/self/mountinfo").read_text(), path.resolve())


def filesystem_in(mount_table: str, path: Path) -> str:
    """The kind of file system in `mount_table` (proc(5), mountinfo) that `path` is on."""
    longest, kind = -1, "nothing that is mounted"
    for line in mount_table.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        depth = len(mount_point.parts)
        # Of two mounts on one place the later one hides the earlier.
        if depth >= longest and path.is_relative_to(mount_point):
            longest, kind = depth, after.split()[0]
    return kind


def _wanted(spec: ContainerSpec, dependencies: Dependencies) -> Iterator[_Wanted]:
    for secret in spec.secrets:
        if secret.file is not None:
            target = secret.file.name or secret.secret_name
            target = target if target.startswith("/") else f"{SECRETS}/{target}"
            data = dependencies.secrets[secret.secret_id]
            yield _Wanted("secret", secret.secret_id, target, secret.file, data)
    for config in spec.configs:
        if config.file is not None:
            target = config.file.name or config.config_name
            target = target if target.startswith("/") else f"/{target}"
            data = dependencies.configs[config.config_id]
            yield _Wanted("config", config.config_id, target, config.file, data)


def _number(wanted: _Wanted, text: str) -> int:
    try:
        return int(text or "0")
    except ValueError:
        raise RejectedByExecutor(f"{wanted.kind} {wanted.target}: {text!r} is not a numeric user or group") from None
