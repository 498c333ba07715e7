"""From the fault of the leader to the first write that another manager acknowledges: real agents, 20 rounds. Figures with -s."""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from cables import POSSIBLE, cabled_cluster
from cluster import AgentProcess, Cluster, running_cluster
from managers import create, leader_and_others

ROUNDS = 20
MEDIAN = 1.0
WORST = 2.0
"""Seconds."""

Fault = Callable[[AgentProcess], None]


async def measure(cluster: Cluster, fault: Fault, repair: Fault) -> list[float]:
    """Seconds of each round. The other managers are asked in turn."""
    took = []
    managers = cluster.nodes[:3]
    for number in range(ROUNDS):
        leader, others = await leader_and_others(cluster, managers)
        fault(leader)
        took.append(await create(others[number % 2], f"round-{number}"))
        await asyncio.to_thread(repair, leader)
        await leader.ready()
    return sorted(took)


def report(what: str, took: list[float]) -> None:
    median = statistics.median(took)
    print(f"\n{what}: median {median:.2f} s, worst {took[-1]:.2f} s, best {took[0]:.2f} s of {len(took)}")
    assert median < MEDIAN
    assert took[-1] < WORST


def start_again(node: AgentProcess) -> None:
    assert node.process is not None
    node.process.wait()
    node.start()


@pytest.mark.timeout(400)
async def test_the_leader_is_killed() -> None:
    async with running_cluster(5, managers=3) as cluster:
        took = await measure(cluster, lambda node: _signal(node, signal.SIGKILL), start_again)
    report("killed", took)


@pytest.mark.timeout(400)
async def test_the_leader_is_frozen() -> None:
    async with running_cluster(5, managers=3) as cluster:
        took = await measure(
            cluster, lambda node: _signal(node, signal.SIGSTOP), lambda node: _signal(node, signal.SIGCONT)
        )
    report("frozen", took)


@pytest.mark.timeout(400)
@pytest.mark.skipif(not POSSIBLE, reason="needs root and ip")
async def test_the_leaders_link_is_cut() -> None:
    async with cabled_cluster(5, managers=3) as cluster:
        took = await measure(cluster, cluster.pull, cluster.plug)
    report("cut", took)


def _signal(node: AgentProcess, number: signal.Signals) -> None:
    assert node.process is not None
    node.process.send_signal(number)


@pytest.mark.timeout(120)
async def test_reads_while_the_quorum_is_lost() -> None:
    async with running_cluster(3, managers=3) as cluster:
        leader, (other, left) = await leader_and_others(cluster, cluster.nodes[:3])
        await create(left, "known")
        for dead in (leader, other):
            dead.kill()
        took = []
        for _ in range(100):
            began = time.monotonic()
            status, _ = await left.api("GET", "/services")
            took.append(time.monotonic() - began)
            assert status == 200
            await asyncio.sleep(0.05)
    took.sort()
    print(f"\nreads after the loss of the quorum: median {took[50] * 1000:.0f} ms, worst {took[-1] * 1000:.0f} ms")
    assert took[-1] < 0.3
