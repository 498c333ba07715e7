"""What this host allows the process executor to do; found out once, by trying."""

from __future__ import annotations

import errno
import grp
import os
import platform
import pwd
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

LOW_PORT = 1024
PORT_SHIFT = 8000
"""Added to ports under 1024 where those are kept to root: 80 becomes 8080 inside; `Controller.address` knows."""

MARKS = ("SWARMTUI_PLAYGROUND",)
"""Variables that whoever started the agent finds its processes by, to clean up; so tasks have them too."""


@dataclass(frozen=True, slots=True)
class Host:
    """Facts of the host. `no_isolation` is empty where containers get namespaces and a root of their own, else why not."""

    hostname: str
    architecture: str
    cpus: int
    memory_bytes: int
    root: bool
    no_isolation: str
    low_ports: bool
    controllers: frozenset[str]
    interpreter: tuple[str, ...]
    programs: str
    """Path of the module that runs the shipped images' programs."""
    visible: tuple[str, ...]
    """Folders that the interpreter and the programs need and that may lie anywhere."""
    marks: tuple[str, ...] = ()
    """Variables (`NAME=value`) of the agent's own environment that say whose processes these are."""

    @property
    def isolated(self) -> bool:
        """Whether containers get namespaces."""
        return not self.no_isolation


@dataclass(frozen=True, slots=True)
class Account:
    """Who a container runs as; `groups` are further groups, None to keep this process's own."""

    uid: int
    gid: int
    groups: tuple[int, ...] | None
    home: str


class UnknownAccount(Exception):
    """There is no such user or group; the text is Docker's."""


def find_account(user: str, groups: tuple[str, ...] = ()) -> Account:
    """The account of `user`, `user:group` or numbers; empty for the agent's own."""
    name, _, group = user.partition(":")
    entry: pwd.struct_passwd | None = None
    try:
        number = int(name) if name.isdigit() else os.geteuid()
        entry = pwd.getpwnam(name) if name and not name.isdigit() else pwd.getpwuid(number)
    except KeyError:
        if name and not name.isdigit():
            raise UnknownAccount(f"unable to find user {name}: no matching entries in passwd file") from None
    uid = entry.pw_uid if entry is not None else int(name or os.geteuid())
    gid = _find_group(group) if group else (entry.pw_gid if entry is not None else (0 if name else os.getegid()))
    more = tuple(_find_group(item) for item in groups)
    own = uid == os.geteuid() and not group and not more and os.geteuid() != 0
    return Account(uid, gid, None if own else more, entry.pw_dir if entry is not None else "/")


def _find_group(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise UnknownAccount(f"unable to find group {text}: no matching entries in group file") from None


def has_pidfds() -> bool:
    """Whether the kernel can hold a process by a descriptor, without which an id could come to mean another one."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return False
    return True


def may_bind_low_ports() -> bool:
    """Whether this process may listen on ports under 1024 of the loopback network."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 1))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EADDRINUSE):
                raise
            return error.errno == errno.EADDRINUSE
    return True


def memory_bytes() -> int:
    """Memory of the host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def look(hostname: str, controllers: frozenset[str], interpreter: list[str], programs: Path) -> Host:
    """The facts of this host, but for `no_isolation`, which only trying shows."""
    return Host(
        hostname=hostname,
        architecture=platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=memory_bytes(),
        root=os.geteuid() == 0,
        no_isolation="",
        low_ports=may_bind_low_ports(),
        controllers=controllers,
        interpreter=tuple(interpreter),
        programs=str(programs),
        visible=visible_folders(programs),
        marks=tuple(f"{name}={os.environ[name]}" for name in MARKS if name in os.environ),
    )


def visible_folders(programs: Path) -> tuple[str, ...]:
    """Where the interpreter and the `agent` package that holds `programs` lie."""
    package = next(parent for parent in programs.parents if parent.name == "agent")
    folders = [sys.base_prefix, sys.base_exec_prefix, os.path.dirname(os.path.realpath(sys.executable)), str(package)]
    return tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders if folder != "/"))
