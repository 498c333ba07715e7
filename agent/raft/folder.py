"""One agent a folder: the lock that says that a log is in use."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FolderInUse(Exception):
    """Another agent runs on this data folder."""


class FolderLock:
    """Held from when it is made until `release`, or until the process ends. Makes the folder where there is none."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise FolderInUse(f"another agent uses {folder}; stop it or choose another --data-dir") from None

    def release(self) -> None:
        """Let another one have the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
