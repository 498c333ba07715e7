"""Secrets and configs as files in memory, for containers without a root of their own. Never on a disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agent.worker.executors.process.records import FileRecord
from agent.worker.executors.process.shim.supervise import remove_tree
from agent.worker.interface import RejectedByExecutor


def is_in_memory(folder: Path, mounts: str | None = None) -> bool:
    """Whether a folder lies on a tmpfs or ramfs, by /proc/self/mounts (or the text given)."""
    if mounts is None:
        with open("/proc/self/mounts") as file:
            mounts = file.read()
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        point = Path(fields[1].encode().decode("unicode_escape"))
        # Later mounts cover earlier ones at the same place.
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind in ("tmpfs", "ramfs")


def write_files(folder: Path, files: list[FileRecord], contents: Mapping[str, bytes]) -> None:
    """Make `folder`, ours alone, with the files at their paths below it; what was there before is replaced.

    RejectedByExecutor when the folder would lie on a disk.
    """
    if not is_in_memory(folder.parent):
        raise RejectedByExecutor(f"secrets and configs cannot be given to tasks: {folder.parent} is not in memory")
    remove_files(folder)
    folder.mkdir(mode=0o700)
    for file in files:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(contents[file.path])
        path.chmod(file.mode)


def remove_files(folder: Path) -> None:
    """Remove the folder and what is in it. Idempotent."""
    if folder.is_symlink():
        folder.unlink()
    else:
        remove_tree(str(folder))
