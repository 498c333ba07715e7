"""Messages and bytes a second over one connection, and what an idle one costs. Figures are printed with -s."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__)

_SCRIPT = """
import asyncio, resource, sys, time
sys.path.insert(0, {unit!r})
from contextlib import AsyncExitStack
from rpc_cluster import Heartbeat, TestCluster, connected, echo, listening, record
from agent.rpc.client import dial
from agent.rpc.errors import StreamEnded
from agent.rpc.peer import Purpose


async def count(stream, opening, connection):
    received = 0
    try:
        while True:
            await stream.receive()
            received += 1
    except StreamEnded:
        await stream.send(record(str(received).encode()))


async def sink(stream, opening, connection):
    received = 0
    while data := await stream.receive_bytes():
        received += len(data)
    await stream.send(record(str(received).encode()))


async def one_way(number, size):
    async with connected(TestCluster(), {{"count": count}}) as (dialled, _):
        message = record(b"x" * size)
        stream = await dialled.open("count", message)
        begin = time.perf_counter()
        for _ in range(number):
            await stream.send(message)
        await stream.end()
        answer = await stream.receive()
        assert int(answer.data) == number, answer
        return number / (time.perf_counter() - begin)


async def round_trips(number):
    async with connected(TestCluster()) as (dialled, _):
        stream = await dialled.open("echo", Heartbeat())
        await stream.receive()
        begin = time.perf_counter()
        for _ in range(number):
            await stream.send(Heartbeat())
            await stream.receive()
        return number / (time.perf_counter() - begin)


async def relay(total, piece):
    async with connected(TestCluster(), {{"sink": sink}}) as (dialled, _):
        stream = await dialled.open("sink", Heartbeat())
        data = b"x" * piece
        begin = time.perf_counter()
        for _ in range(total // piece):
            await stream.send_bytes(data)
        await stream.end()
        answer = await stream.receive()
        assert int(answer.data) == total // piece * piece
        return total / (time.perf_counter() - begin) / 1e6


async def heartbeats(connections, seconds):
    cluster = TestCluster()
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(listening(cluster))
        streams = []
        for n in range(connections):
            dialled = await stack.enter_async_context(
                await dial(listener.address, cluster.identity(f"worker{{n}}"), purpose=Purpose.CONTROL)
            )
            streams.append(await dialled.open("echo", Heartbeat()))
        for stream in streams:
            await stream.receive()
        before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for _ in range(seconds):
            await asyncio.sleep(1)
            for stream in streams:
                await stream.send(Heartbeat())
                await stream.receive()
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return used / (time.perf_counter() - begin) * 100


async def handshakes(number):
    cluster = TestCluster()
    identity = cluster.identity("worker1")
    async with listening(cluster) as listener:
        begin = time.perf_counter()
        for _ in range(number):
            connection = await dial(listener.address, identity, purpose=Purpose.CONTROL)
            await connection.shut("enough")
        return number / (time.perf_counter() - begin)


print(asyncio.run({call}))
"""


def measure(call: str) -> float:
    """Both ends in one process of its own, on one core; the median of three runs."""
    script = _SCRIPT.format(unit=str(HERE.parents[1] / "unit"), call=call)
    figures = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            capture_output=True,
            text=True,
            cwd=HERE.parents[2],
            check=False,
        )
        assert done.returncode == 0, done.stderr
        figures.append(float(done.stdout))
    return sorted(figures)[1]


@pytest.mark.parametrize(
    ("call", "unit", "at_least"),
    [
        ("one_way(50_000, 100)", "messages/s of 100 bytes, one way", 20_000),
        ("one_way(5_000, 10_000)", "messages/s of 10 kB, one way", 5_000),
        ("round_trips(5_000)", "round trips/s, one at a time", 1_000),
        ("relay(200_000_000, 65536)", "MB/s relayed in 64 kB pieces", 100),
        ("relay(20_000_000, 1024)", "MB/s relayed in 1 kB pieces", 10),
        ("handshakes(100)", "TLS handshakes and hellos/s, both ends", 50),
    ],
)
def test_throughput(call: str, unit: str, at_least: float) -> None:
    figure = measure(call)
    print(f"\nbench rpc: {figure:,.0f} {unit} (at least {at_least:,})")
    assert figure >= at_least


def test_heartbeats_cost_next_to_nothing() -> None:
    """Ten ends of five connections in one process, one heartbeat and answer a second each."""
    figure = measure("heartbeats(5, 3)")
    print(f"\nbench rpc: {figure:.2f} % of a core for 5 connections with 1 heartbeat/s, both ends (at most 1 %)")
    assert figure < 1
