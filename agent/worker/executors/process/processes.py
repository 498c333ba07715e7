"""Processes of the host, each known for good: id and start time together, held by a descriptor once found."""

from __future__ import annotations

import asyncio
import os
import signal

from agent.worker.executors.process.shim.kernel import start_time


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none, or only its remains."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if stat[stat.rindex(b")") + 2 :][:1] in b"ZX":
        return None
    return start_time(stat)


class Process:
    """A living process. Needs a running loop; `close` it."""

    def __init__(self, pid: int, start: int, descriptor: int) -> None:
        self.pid = pid
        self._start = start
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._note)

    @classmethod
    def find(cls, pid: int, start: int) -> Process | None:
        """The process of this id and start time, None when it is gone."""
        if pid <= 0:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        # Looked at after it is held: from here on the id cannot come to mean another process.
        if process_start(pid) != start:
            os.close(descriptor)
            return None
        return cls(pid, start, descriptor)

    @property
    def ended(self) -> bool:
        """Whether it has ended; known as soon as the kernel knows."""
        return process_start(self.pid) != self._start

    async def gone(self) -> None:
        """Return when it has ended, or was closed: look again."""
        await self._ended.wait()

    def send(self, number: int) -> bool:
        """Send a signal; False when the process is gone. PermissionError when it is somebody else's."""
        if self._descriptor < 0:
            return False
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._ended.set()

    def _note(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._ended.set()


def marked(variable: str) -> list[int]:
    """Processes of ours whose environment has `variable` (`NAME=value`) as they were started with it."""
    wanted = variable.encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environment = file.read()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(name))
    return found
