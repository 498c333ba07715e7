"""What a container's processes are, and what they use: `docker top` and `docker stats`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import psutil

from agent.api_types.times import SECOND, ZERO_TIME, format_time
from agent.worker.executors.process import cgroups
from agent.worker.executors.process.cgroups import Usage
from agent.worker.executors.process.container import Container
from agent.worker.executors.process.docker_json import Json
from agent.worker.executors.process.shim.kernel import descendants

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
"""Columns of `ps -ef`, which is what Docker runs by default."""


def members(container: Container) -> list[int]:
    """Processes of a running container, its shim left out."""
    found = cgroups.members(container.groups)
    if found or container.run is None:
        return found
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sorted(descendants(proc, container.run.shim))
    finally:
        os.close(proc)


def top(pids: Sequence[int]) -> Json:
    """Processes as `ps -ef` shows them; those that end meanwhile are left out."""
    rows = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                spent = sum(process.cpu_times()[:2])
                age = max(time.time() - process.create_time(), 0.001)
                rows.append(
                    [
                        process.username(),
                        str(pid),
                        str(process.ppid()),
                        str(min(99, int(100 * spent / age))),
                        time.strftime("%H:%M", time.localtime(process.create_time())),
                        (process.terminal() or "?").removeprefix("/dev/"),
                        time.strftime("%H:%M:%S", time.gmtime(spent)),
                        " ".join(process.cmdline()) or f"[{process.name()}]",
                    ]
                )
        except psutil.NoSuchProcess:
            continue
    return {"Titles": TITLES, "Processes": rows}


def measure(container: Container) -> Usage:
    """What a container uses, from its control groups, or added up over its processes where there are none."""
    groups = container.groups
    if any(group.controllers for group in groups):
        return cgroups.usage(groups)
    memory = user = system = 0
    pids = members(container)
    for pid in pids:
        try:
            process = psutil.Process(pid)
            memory += process.memory_info().rss
            times = process.cpu_times()
            user, system = user + int(times.user * SECOND), system + int(times.system * SECOND)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return Usage(memory_bytes=memory, cpu_total=user + system, cpu_user=user, cpu_system=system, pids=len(pids))


def system_cpu() -> int:
    """CPU time of the whole host since boot, idle time included, in nanoseconds."""
    with open("/proc/stat") as file:
        ticks = sum(int(word) for word in file.readline().split()[1:8])
    return ticks * SECOND // os.sysconf("SC_CLK_TCK")


def stats(container: Container, usage: Usage, before: Json | None, now: int, host_memory: int, cpus: int) -> Json:
    """One element of GET /containers/ID/stats; `before` is the element before it."""
    return {
        "read": format_time(now),
        "preread": before["read"] if before is not None else ZERO_TIME,
        "pids_stats": {"current": usage.pids, **({"limit": usage.pids_limit} if usage.pids_limit else {})},
        "blkio_stats": {"io_service_bytes_recursive": None, "io_serviced_recursive": None},
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(usage, cpus),
        "precpu_stats": before["cpu_stats"] if before is not None else _no_cpu(),
        "memory_stats": {
            "usage": usage.memory_bytes,
            "stats": {"cache": usage.memory_cache, "total_inactive_file": usage.memory_cache},
            "limit": usage.memory_limit or host_memory,
        },
        "name": f"/{container.record.name}",
        "id": container.record.container_id,
    }


def _cpu(usage: Usage, cpus: int) -> Json:
    return {
        "cpu_usage": {
            "total_usage": usage.cpu_total,
            "usage_in_kernelmode": usage.cpu_system,
            "usage_in_usermode": usage.cpu_user,
        },
        "system_cpu_usage": system_cpu(),
        "online_cpus": cpus,
        "throttling_data": {
            "periods": 0,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_time,
        },
    }


def _no_cpu() -> Json:
    return {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
