"""Control groups of instances: one a session, below it one an instance, in every hierarchy that this machine has.

Version 1 (a hierarchy a controller), version 2 (one for all) and both side by side. Groups lie at the root of each
hierarchy, where an engine puts its own too: below our own group, version 2 would allow no controllers.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_V1_CONTROLLERS = frozenset(
    {
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "net_cls",
        "net_prio",
        "perf_event",
        "hugetlb",
        "rdma",
        "misc",
    }
)


_LEAF = "init"
"""Where an instance's own programs are in version 2."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy. `options` are what mounting it again needs: controllers, or the name of one without any."""

    point: str
    version: int
    options: str = ""

    @property
    def controllers(self) -> frozenset[str]:
        """Controllers of a version 1 hierarchy."""
        return frozenset(self.options.split(",")) & _V1_CONTROLLERS


def parse_mountinfo(text: str) -> list[Hierarchy]:
    """Hierarchies in the text of /proc/self/mountinfo, in its order, each once."""
    found: dict[str, Hierarchy] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator:
            continue
        point = before.split()[4]
        kind, _source, options = after.split(" ", 2)
        if kind == "cgroup2":
            found[point] = Hierarchy(point, 2)
        elif kind == "cgroup":
            words = options.split(",")
            named = [word for word in words if word.startswith("name=")]
            wanted = [word for word in words if word in _V1_CONTROLLERS]
            # A hierarchy without controllers must be asked for by name, and with the word "none".
            found[point] = Hierarchy(point, 1, ",".join(wanted + (["none", *named] if named and not wanted else named)))
    return list(found.values())


def mounted() -> list[Hierarchy]:
    """Hierarchies of this machine."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def obstacle(hierarchies: list[Hierarchy]) -> str | None:
    """Why no groups can be made here, or None."""
    if not hierarchies:
        return "no control groups are mounted"
    closed = [hierarchy.point for hierarchy in hierarchies if not os.access(hierarchy.point, os.W_OK)]
    return f"{closed[0]} is not writable" if closed else None


def session_group(session: str) -> str:
    """Name of a session's group."""
    return f"swarmtui-{session}"


def create(hierarchies: list[Hierarchy], session: str, instance: str) -> None:
    """Make an instance's groups, with all controllers that the hierarchy can hand down."""
    for hierarchy in hierarchies:
        root = Path(hierarchy.point)
        parent = root / session_group(session)
        child = parent / instance
        for group in (parent, child):
            group.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                # A new cpuset group has neither processors nor memory, and no process can enter it before it has.
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (group / name).read_text().strip():
                        (group / name).write_text((group.parent / name).read_text())
                (group / "cgroup.clone_children").write_text("1")
        if hierarchy.version == 2:
            # Only below our own group: what the root hands down is the host's affair.
            _hand_down(parent)
            (child / _LEAF).mkdir(exist_ok=True)
        if "memory" in hierarchy.controllers and not (child / "memory.use_hierarchy").read_text().startswith("1"):
            (child / "memory.use_hierarchy").write_text("1")


def enter(hierarchies: list[Hierarchy], session: str, instance: str, *, top: bool) -> None:
    """Move this process to an instance's groups.

    In version 2 a group with processes of its own can hand no controllers down to those of tasks, so it is a leaf that is
    entered; with `top` it is the group itself, as a cgroup namespace has its root where it was made, and `settle` goes on there.
    """
    for hierarchy in hierarchies:
        group = Path(hierarchy.point) / session_group(session) / instance
        if hierarchy.version == 2 and not top:
            _hand_down(group)
            group /= _LEAF
        (group / "cgroup.procs").write_text("0")


def settle(root: Path) -> None:
    """In a new cgroup namespace of version 2: leave the root to groups."""
    for pid in (root / "cgroup.procs").read_text().split():
        (root / _LEAF / "cgroup.procs").write_text(pid)
    _hand_down(root)


def freeze(hierarchies: list[Hierarchy], session: str, instance: str, frozen: bool) -> bool:
    """Stop every process of an instance between two instructions, or let them go on. False when no hierarchy can."""
    for hierarchy in hierarchies:
        group = Path(hierarchy.point) / session_group(session) / instance
        if not group.exists():
            continue
        if "freezer" in hierarchy.controllers:
            (group / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
            return True
        if hierarchy.version == 2 and (group / "cgroup.freeze").exists():
            (group / "cgroup.freeze").write_text("1" if frozen else "0")
            return True
    return False


def remove(
    hierarchies: list[Hierarchy], session: str, instance: str | None = None, pause: Callable[[float], None] = time.sleep
) -> list[str]:
    """Remove an instance's groups, or the whole session's. Returns those that still hold processes after 2 s.

    A killed process leaves its group only when the kernel has taken it apart, and nothing tells when: hence the pauses.
    """
    left = []
    for hierarchy in hierarchies:
        top = Path(hierarchy.point) / session_group(session)
        if instance is not None:
            top /= instance
        for _ in range(100):
            if _remove_tree(top):
                break
            pause(0.02)
        else:
            left.append(str(top))
    return left


def members(hierarchies: list[Hierarchy], session: str) -> set[int]:
    """Processes in any group of a session."""
    found: set[int] = set()
    for hierarchy in hierarchies:
        top = Path(hierarchy.point) / session_group(session)
        for folder, _folders, files in os.walk(top):
            if "cgroup.procs" in files:
                try:
                    found.update(int(word) for word in Path(folder, "cgroup.procs").read_text().split())
                except OSError as error:
                    # A threaded group of version 2 has no list of processes; its parent has.
                    if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.ENODEV):
                        raise
    return found - {0}


def _hand_down(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    for controller in available:
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            # Some controllers refuse while a group has processes or real-time threads: an instance does without them.
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
                raise


def _remove_tree(top: Path) -> bool:
    for folder, _folders, _files in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
    return not top.exists()
