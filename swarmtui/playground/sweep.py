"""Clean up after sessions whose keeper was killed: only what their records and marks name, never by a pattern of names."""

from __future__ import annotations

import os
import select
import shutil
import signal
from pathlib import Path

from swarmtui.playground import cgroups, kernel
from swarmtui.playground.links import delete_link
from swarmtui.playground.places import SESSION_VARIABLE, Record, sessions

_ROUNDS = 20
"""How often to look for processes: each may have started another just before it was killed."""


def sweep(base: Path) -> list[str]:
    """Remove all that dead sessions left; returns their ids. Call under `base_lock`. Blocks as long as processes take to end."""
    _living, dead = sessions(base)
    for folder in dead:
        clear(folder)
    return [folder.name for folder in dead]


def clear(folder: Path) -> None:
    """Remove one dead session: processes, groups, link, then its folder, so that a clearing that is cut off is done again."""
    record = Record.read(folder)
    hierarchies = cgroups.mounted() if os.geteuid() == 0 else []
    own = {mark.pid for mark in record.processes if kernel.start_time(mark.pid) == mark.start_time}
    for name in {path.name for path in folder.iterdir() if path.is_dir()}:
        cgroups.freeze(hierarchies, record.session, name, False)
    for _ in range(_ROUNDS):
        found = _alive(own | cgroups.members(hierarchies, record.session) | owned_by(record.session, folder))
        if not found:
            break
        for pid in found:
            _kill(pid)
    cgroups.remove(hierarchies, record.session)
    if record.host_link:
        delete_link(record.host_link)
    shutil.rmtree(folder)


def owned_by(session: str, folder: Path) -> set[int]:
    """Processes that a session started: they carry its mark, or write their output into its folder.

    A session without privileges has neither a pid namespace nor groups that would name them. A person's `tail -f` in the
    folder has a file of it open too, but not as its output.
    """
    mark = f"{SESSION_VARIABLE}={session}".encode()
    return {pid for pid in kernel.processes() if _has_mark(pid, mark) or _writes_into(pid, f"{folder}/")}


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        # Ended meanwhile, or another user's: not one of ours.
        return False


def _writes_into(pid: int, inside: str) -> bool:
    for descriptor in (1, 2):
        try:
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(inside):
                return True
        except OSError:
            continue
    return False


def _alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids - {os.getpid()} if kernel.start_time(pid) is not None and not kernel.is_zombie(pid)}


def _kill(pid: int) -> None:
    """Kill and wait for the end, which a pidfd tells also of a process that is nobody's child here."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _await_end(descriptor)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _await_end(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(2000)
