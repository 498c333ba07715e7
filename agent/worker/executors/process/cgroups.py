"""Control groups of containers: bounds, accounts, and a list of members. Version 1, version 2, or none where not allowed.

Containers' groups lie below the agent's own (`swarmtui/<first 16 digits of the container id>`), so that whoever bounds or
kills the agent's group means its tasks too. They are written down with the container: the next agent may live elsewhere.
Version 2 hands no controllers down from a group that has processes of its own; where that is so, a group beside the agent's is
used, else one at the root of the hierarchy, as engines do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

WANTED = ("memory", "cpu", "cpuacct", "pids")
PERIOD = 100_000
"""Microseconds of the window in which CPU time is bounded."""
PARENT = "swarmtui"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a container may use at most: bytes, billionths of a core, processes. 0 for no bound."""

    memory_bytes: int = 0
    nano_cpus: int = 0
    pids: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses: bytes, nanoseconds of CPU, processes; bounds are 0 where there are none."""

    memory_bytes: int = 0
    memory_limit: int = 0
    memory_cache: int = 0
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    pids: int = 0
    pids_limit: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    out_of_memory_kills: int = 0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: where this process's own group lies in it, and what it controls."""

    version: int
    base: Path
    root: Path
    controllers: frozenset[str]


def parse_hierarchies(mountinfo: str, own: str) -> list[Hierarchy]:
    """Hierarchies in /proc/self/mountinfo with this process's groups in /proc/self/cgroup.

    A mount may show a part of the hierarchy only (its root field); an own group outside of that part is not to be seen.
    """
    groups: dict[str, str] = {}
    for line in own.splitlines():
        number, names, path = line.split(":", 2)
        groups["" if number == "0" else names] = path
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kinds = before.split(), after.split(" ", 2)
        if not separator or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        shown, point = fields[3], Path(fields[4])
        if kinds[0] == "cgroup2":
            version, controllers = 2, frozenset(WANTED)
            key: str | None = ""
        else:
            options = kinds[2].split(",")
            version, controllers = 1, frozenset(options) & frozenset(WANTED)
            key = next((names for names in groups if names and set(names.split(",")) <= set(options)), None)
        if key is None or key not in groups or not controllers:
            continue
        path = groups[key]
        inside = path.removeprefix(shown.rstrip("/")) if path.startswith(shown) else "/"
        found.append(Hierarchy(version, point / inside.lstrip("/"), point, controllers))
    return found


class Group(msgspec.Struct, frozen=True, gc=False):
    """One control group of a container: the hierarchy's version, the folder, the controllers it has there."""

    version: int
    path: str
    controllers: list[str]


class Parents:
    """Where containers' groups can be made. `controllers` names what can be bounded there."""

    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        found = [_usable_v1(one) if one.version == 1 else _usable_v2(one) for one in hierarchies]
        parents = [parent for parent in found if parent is not None]
        # Beside version 1, which then has the controllers, version 2 would only cost time.
        first = any(parent.version == 1 for parent in parents)
        self._parents = [parent for parent in parents if parent.controllers or not first]

    @classmethod
    def of_host(cls) -> Parents:
        """What this host has and this process may write to."""
        with open("/proc/self/mountinfo") as mounts, open("/proc/self/cgroup") as own:
            return cls(parse_hierarchies(mounts.read(), own.read()))

    @property
    def controllers(self) -> frozenset[str]:
        """Controllers that containers' groups have."""
        return frozenset().union(*(parent.controllers for parent in self._parents))

    def remove(self) -> None:
        """Remove what holds no container's group, of whichever agent."""
        for parent in self._parents:
            with contextlib.suppress(OSError):
                os.rmdir(parent.path)

    def groups(self, container_id: str) -> list[Group]:
        """The groups that a container made now would have."""
        return [
            Group(parent.version, os.path.join(parent.path, container_id[:16]), parent.controllers)
            for parent in self._parents
        ]


def create(groups: Sequence[Group], bounds: Bounds) -> list[str]:
    """Make a container's groups; the files through which a process enters them. Idempotent."""
    for group in groups:
        parent = Path(group.path).parent
        if not parent.is_dir():
            _make_parent(parent, group.version)
        os.makedirs(group.path, exist_ok=True)
        for name, value in _settings(group, bounds):
            path = Path(group.path, name)
            if path.exists():
                path.write_text(value)
    return entries(groups)


def entries(groups: Sequence[Group]) -> list[str]:
    """The files through which a process enters the groups that exist."""
    return [os.path.join(group.path, "cgroup.procs") for group in groups if os.path.isdir(group.path)]


def members(groups: Sequence[Group]) -> list[int]:
    """Processes in a container's groups."""
    return sorted({int(word) for group in groups for word in _read(Path(group.path, "cgroup.procs")).split()})


def kill(groups: Sequence[Group]) -> bool:
    """Kill all members; False when there were none. To be repeated until then: one that was about to fork may have."""
    for group in groups:
        if "pids" in group.controllers and os.path.isdir(group.path):
            Path(group.path, "pids.max").write_text("0")
    found = members(groups)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def remove(groups: Sequence[Group]) -> bool:
    """Remove a container's groups; False when a process is still in one of them."""
    gone = True
    for group in groups:
        try:
            os.rmdir(group.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            gone = False
    return gone


def usage(groups: Sequence[Group]) -> Usage:
    """What a container uses now; zeros for what is not accounted here."""
    values: dict[str, int] = {}
    for group in groups:
        if os.path.isdir(group.path):
            found = _usage_v1(group) if group.version == 1 else _usage_v2(group)
            # Where both versions are mounted each knows a part.
            values |= {name: value for name, value in found.items() if value}
    return Usage(**values)


def _usable_v1(hierarchy: Hierarchy) -> Group | None:
    parent = hierarchy.base / PARENT
    return Group(1, str(parent), sorted(hierarchy.controllers)) if _make(parent) else None


def _usable_v2(hierarchy: Hierarchy) -> Group | None:
    above = hierarchy.base.parent if hierarchy.base != hierarchy.root else hierarchy.root
    found: list[Group] = []
    for base in dict.fromkeys((hierarchy.base, above, hierarchy.root)):
        parent = base / PARENT
        if not _make(parent):
            continue
        _make_parent(parent, 2)
        controllers = sorted(set(_read(parent / "cgroup.subtree_control").split()) & set(WANTED))
        found.append(Group(2, str(parent), controllers))
    # The nearest of those that have the most; `max` keeps the first of equals.
    best = max(found, key=lambda group: len(group.controllers), default=None)
    for group in found:
        if group is not best:
            # Another agent may use it, and then it is not empty.
            with contextlib.suppress(OSError):
                os.rmdir(group.path)
    return best


def _make_parent(parent: Path, version: int) -> None:
    parent.mkdir(exist_ok=True)
    if version == 2:
        for group in (parent.parent, parent):
            for controller in WANTED:
                _hand_down(group, controller)


def _make(group: Path) -> bool:
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            raise
        return False
    return os.access(group, os.W_OK)


def _hand_down(group: Path, controller: str) -> None:
    try:
        (group / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError as error:
        # A group with processes hands nothing down, and not every host has every controller.
        if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
            raise


def _settings(group: Group, bounds: Bounds) -> list[tuple[str, str]]:
    # The kernel takes no less than a millisecond.
    quota = max(1000, bounds.nano_cpus * PERIOD // 1_000_000_000) if bounds.nano_cpus else 0
    memory, pids, controllers = bounds.memory_bytes, bounds.pids, group.controllers
    settings: list[tuple[str, str]] = []
    if group.version == 1:
        if "memory" in controllers:
            settings.append(("memory.limit_in_bytes", str(memory or -1)))
            # Without this a container at its bound would only move to swap.
            settings.append(("memory.memsw.limit_in_bytes", str(memory or -1)))
        if "cpu" in controllers:
            settings += [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(quota or -1))]
    else:
        if "memory" in controllers:
            settings += [("memory.max", str(memory or "max")), ("memory.swap.max", "0" if memory else "max")]
        if "cpu" in controllers:
            settings.append(("cpu.max", f"{quota or 'max'} {PERIOD}"))
    if "pids" in controllers:
        settings.append(("pids.max", str(pids or "max")))
    return settings


def _usage_v1(group: Group) -> dict[str, int]:
    values: dict[str, int] = {}
    folder, controllers = Path(group.path), group.controllers
    if "memory" in controllers:
        stat = _pairs(folder / "memory.stat")
        values["memory_bytes"] = _number(folder / "memory.usage_in_bytes")
        values["memory_limit"] = _bounded(_number(folder / "memory.limit_in_bytes"))
        values["memory_cache"] = stat.get("total_inactive_file", 0)
        values["out_of_memory_kills"] = _pairs(folder / "memory.oom_control").get("oom_kill", 0)
    if "cpuacct" in controllers:
        values["cpu_total"] = _number(folder / "cpuacct.usage")
        values["cpu_user"] = _number(folder / "cpuacct.usage_user")
        values["cpu_system"] = _number(folder / "cpuacct.usage_sys")
    if "cpu" in controllers:
        stat = _pairs(folder / "cpu.stat")
        values["throttled_periods"] = stat.get("nr_throttled", 0)
        values["throttled_time"] = stat.get("throttled_time", 0)
    if "pids" in controllers:
        values["pids"] = _number(folder / "pids.current")
        values["pids_limit"] = _number(folder / "pids.max")
    return values


def _usage_v2(group: Group) -> dict[str, int]:
    folder = Path(group.path)
    memory, cpu = _pairs(folder / "memory.stat"), _pairs(folder / "cpu.stat")
    return {
        "memory_bytes": _number(folder / "memory.current"),
        "memory_limit": _number(folder / "memory.max"),
        "memory_cache": memory.get("inactive_file", 0),
        "out_of_memory_kills": _pairs(folder / "memory.events").get("oom_kill", 0),
        "cpu_total": cpu.get("usage_usec", 0) * 1000,
        "cpu_user": cpu.get("user_usec", 0) * 1000,
        "cpu_system": cpu.get("system_usec", 0) * 1000,
        "throttled_periods": cpu.get("nr_throttled", 0),
        "throttled_time": cpu.get("throttled_usec", 0) * 1000,
        "pids": _number(folder / "pids.current"),
        "pids_limit": _number(folder / "pids.max"),
    }


def _bounded(limit: int) -> int:
    """Version 1 writes "no bound" as the largest number of pages."""
    return 0 if limit >= 1 << 62 else limit


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        # A group that is gone, or a file that this kernel does not have.
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return ""


def _number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _pairs(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
