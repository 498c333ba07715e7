"""What an agent costs while nothing happens: five nodes, fifty tasks."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from cluster import running_cluster

WINDOW = 20.0
"""Seconds of CPU time that are looked at; heartbeats come every second."""

LEADER_CPU, WORKER_CPU, MEMORY_MB = 1.5, 0.5, 110
"""Figures to reach: percent of a core, megabytes of resident memory."""


@pytest.mark.timeout(180)
async def test_idle_with_fifty_tasks() -> None:
    async with running_cluster(5) as swarm:
        await swarm.manager.docker(
            "service",
            "create",
            "-d",
            "--name",
            "many",
            "--replicas",
            "50",
            "--publish",
            "18083:8000",
            "swarmtui/whoami",
        )
        await swarm.until_running("many", 50, within=60)
        processes = [psutil.Process(node.process.pid) for node in swarm.nodes if node.process is not None]
        await asyncio.sleep(3)
        before = [sum(process.cpu_times()[:2]) for process in processes]
        await asyncio.sleep(WINDOW)
        used = [
            100 * (sum(process.cpu_times()[:2]) - start) / WINDOW
            for process, start in zip(processes, before, strict=True)
        ]
        memory = [process.memory_info().rss / 1e6 for process in processes]
        load = os.getloadavg()[0]
    print(
        f"bench: idle with 50 tasks: leader {used[0]:.2f} % (reach {LEADER_CPU}), workers "
        f"{max(used[1:]):.2f} % at most (reach {WORKER_CPU}), memory {max(memory):.0f} MB (reach {MEMORY_MB}); "
        f"load {load:.1f}"
    )
    assert used[0] < 2 * LEADER_CPU
    assert max(used[1:]) < 2 * WORKER_CPU
    assert max(memory) < MEMORY_MB
