"""Where sessions live on disk, and which of them are alive.

One folder a session, `<base>/<session>/`, one below it an instance. The base is short, as socket paths must stay under 108
bytes, and on a disk, as engines keep images there. A session is alive while somebody holds the lock on its `lock` file: its
keeper does, for as long as it runs, and the kernel lets go of it however the keeper ends.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BASE_VARIABLE = "SWARMTUI_PLAYGROUND_DIR"
SESSION_VARIABLE = "SWARMTUI_PLAYGROUND"
"""In the environment of everything that a session starts: its id."""

LONGEST_SOCKET_PATH = 107
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LONGEST_NAME = "/k3x9q2/node200/docker.sock"


class UnusableBase(Exception):
    """The folder for sessions cannot be used; the text says why and what to do."""


def base_folder(environment: dict[str, str], user: int) -> Path:
    """Folder of all sessions of a user: /var/tmp/swarmtui-UID, or what SWARMTUI_PLAYGROUND_DIR says."""
    chosen = environment.get(BASE_VARIABLE)
    return Path(chosen).absolute() if chosen else Path(f"/var/tmp/swarmtui-{user}")


def open_base(base: Path) -> None:
    """Make the base folder, ours alone. Raises UnusableBase for one that somebody else could have laid there."""
    if len(os.fsencode(f"{base}{_LONGEST_NAME}")) > LONGEST_SOCKET_PATH:
        raise UnusableBase(
            f"{base}: sockets below it would have paths over {LONGEST_SOCKET_PATH} bytes; set {BASE_VARIABLE} to a shorter folder"
        )
    if base.is_relative_to("/run") or base.resolve().is_relative_to("/run"):
        raise UnusableBase(
            f"{base}: instances have a /run of their own and could not see it; set {BASE_VARIABLE} to another folder"
        )
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UnusableBase(f"{base} is not a folder that only you can write to; remove it or set {BASE_VARIABLE}")


@contextmanager
def base_lock(base: Path) -> Iterator[None]:
    """Held while sessions are made, looked through or removed, so that two starts at once do not meet."""
    while True:
        open_base(base)
        try:
            descriptor = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_file(base / "lock", descriptor):
            break
        # The last session of before removed the folder while this one waited for its lock.
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class ProcessMark:
    """A process for good: the id alone is used again by others."""

    pid: int
    start_time: int


@dataclass(slots=True)
class Record:
    """What a session owns outside its folder, written before it is made, so that a sweep finds all of it."""

    session: str
    tier: str
    subnet: str | None = None
    offset: int = 0
    host_link: str | None = None
    processes: list[ProcessMark] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Replace the record on disk, whole or not at all."""
        fresh = folder / "record.new"
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(folder / "record.json")

    @classmethod
    def read(cls, folder: Path) -> Record:
        """The record on disk; an empty one for a session that did not come so far."""
        try:
            known: dict[str, Any] = json.loads((folder / "record.json").read_text())
        except FileNotFoundError:
            return cls(session=folder.name, tier="")
        return cls(**{**known, "processes": [ProcessMark(**mark) for mark in known["processes"]]})


def make_session(base: Path) -> tuple[Path, int]:
    """A new session's folder and its lock, held. Call under `base_lock`. The descriptor may be handed to the keeper."""
    while True:
        folder = base / "".join(secrets.choice(_ALPHABET) for _ in range(6))
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder, descriptor


def sessions(base: Path) -> tuple[list[Path], list[Path]]:
    """Folders of living and of dead sessions. Call under `base_lock`."""
    living: list[Path] = []
    dead: list[Path] = []
    for folder in sorted(path for path in base.iterdir() if path.is_dir() and not path.is_symlink()):
        (living if _is_locked(folder) else dead).append(folder)
    return living, dead


def leave_base(base: Path) -> None:
    """Remove the base folder when no session is in it."""
    with base_lock(base):
        if {entry.name for entry in base.iterdir()} != {"lock"}:
            return
        (base / "lock").unlink()
        try:
            base.rmdir()
        except OSError as error:
            # Somebody waits for this lock and has made the file anew: the folder is theirs now.
            if error.errno != errno.ENOTEMPTY:
                raise


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
