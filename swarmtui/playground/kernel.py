"""Kernel calls that Python 3.11 has no function for, and what /proc tells about processes.

Numbers are those of the kernel's user API headers (`linux/sched.h`, `linux/mount.h`, `linux/prctl.h`), the same on every
architecture.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the given namespaces (CLONE_NEW...) for new ones. With CLONE_NEWPID the next child is process 1 of the new one."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def enter_namespace(descriptor: int, kind: int) -> None:
    """Move this thread to the namespace of `kind` (a CLONE_NEW... flag) that `descriptor` was opened on."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount; the error names the target."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(result, f"mount {kind or 'bind'} on {target}")


def detach_mount(target: str) -> None:
    """Take a mount out of the tree at once; it ends when nothing uses it any more."""
    _checked(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"unmount {target}")


def adopt_orphans() -> None:
    """Make this process the one that orphaned descendants are handed to (a subreaper), and so the one that reaps them."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however that happens."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0), "prctl")


def call_process(name: str) -> None:
    """Set what `ps -o comm` shows, 15 bytes at most."""
    _checked(_libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0), "prctl")


def parent_of(pid: int) -> int | None:
    """The parent's process id, or None when there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since boot: with the id it names a process for good, as ids are used again."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits to be reaped."""
    fields = _stat(pid)
    return bool(fields) and fields[0] == "Z"


def children_of(pid: int) -> list[int]:
    """Direct children, in no order."""
    return [other for other in processes() if parent_of(other) == pid]


def processes() -> list[int]:
    """Ids of all processes that this pid namespace can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def inner_pid(pid: int) -> int | None:
    """The id that a process has in its own, innermost pid namespace."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; the second, a name, may hold blanks and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
