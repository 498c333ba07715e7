"""System calls that Python 3.11 has no name for, and the identity of a process.

A process is known by its id and its start time (field 22 of /proc/PID/stat, in clock ticks since boot): ids are used again,
the pair is not.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWPID = 0x2000_0000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_SYS_MOUNT_SETATTR = 442  # the same on every architecture; glibc names it since 2.36 only
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process (its children, for process ids) to new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int) -> None:
    """Join the namespace that the descriptor of /proc/PID/ns/X refers to."""
    _check(_libc.setns(descriptor, 0), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    encoded = [ctypes.c_char_p(text.encode("utf-8", "surrogateescape")) for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {source} on {target}")


def make_read_only(target: str, recursive: bool) -> None:
    """Make a mount read-only, with all below it if `recursive` (Linux 5.12 and later)."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = ctypes.c_char_p(target.encode("utf-8", "surrogateescape"))
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(_AT_FDCWD), path, flags, attributes, ctypes.c_size_t(32)
    )
    _check(result, f"make {target} read-only")


def pivot_to(root: str) -> None:
    """Make `root`, a mount, the root of this mount namespace; the old root is let go."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), f"pivot_root to {root}")
    _check(_libc.umount2(b".", MNT_DETACH), "let go of the old root")
    os.chdir("/")


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one number."""
    _check(_libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0), f"prctl {option}")


def set_name(name: str) -> None:
    """The name that ps shows, 15 bytes at most."""
    _check(_libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0), "prctl name")


def limit_capabilities(kept: Iterable[int]) -> None:
    """Programs run from here on get the capabilities in `kept` at most, as root too."""
    keep = set(kept)
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if capability not in keep:
            prctl(PR_CAPBSET_DROP, capability)
    # What is inheritable passes by the bounding set, so it is emptied; effective and permitted stay for what is left to do.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets), "capget")
    sets[2] = sets[5] = 0
    _check(_libc.capset(header, sets), "capset")


def start_time(stat: bytes) -> int:
    """The start time in the text of /proc/PID/stat; the name in brackets may hold anything."""
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def identity(proc: int) -> tuple[int, int]:
    """Id and start time of this process, as the /proc behind descriptor `proc` counts them."""
    pid = int(os.readlink("self", dir_fd=proc))
    descriptor = os.open(f"{pid}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return pid, start_time(os.read(descriptor, 4096))
    finally:
        os.close(descriptor)


def descendants(proc: int, pid: int) -> list[int]:
    """All processes below `pid`, nearest first, by the /proc behind descriptor `proc`."""
    below: dict[int, list[int]] = {}
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            descriptor = os.open(f"{name}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        except FileNotFoundError:
            continue
        try:
            stat = os.read(descriptor, 4096)
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
        parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
        below.setdefault(parent, []).append(int(name))
    found: list[int] = []
    nearest = [pid]
    while nearest:
        nearest = [child for parent in nearest for child in below.get(parent, ())]
        found += nearest
    return found
