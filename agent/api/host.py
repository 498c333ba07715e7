"""Facts about this host that do not change while the agent runs, for `/info` and `/version` without an engine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Names and sizes as `docker info` shows them."""

    operating_system: str
    os_version: str
    cgroup_version: str
    go_architecture: str
    cpus: int
    memory_bytes: int

    @property
    def open_files(self) -> int:
        """File descriptors of the agent, now."""
        return len(os.listdir("/proc/self/fd"))


@lru_cache(maxsize=1)
def host_facts() -> HostFacts:
    """Read once."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {"PRETTY_NAME": platform.system(), "VERSION_ID": ""}
    machine = platform.machine()
    return HostFacts(
        operating_system=release.get("PRETTY_NAME", platform.system()),
        os_version=release.get("VERSION_ID", ""),
        cgroup_version="2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1",
        go_architecture=_GO_ARCHITECTURES.get(machine, machine),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
