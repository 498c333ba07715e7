"""The console's lower rooms under load: a picture of 50,000 tasks, changes in it, and a log as fast as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from swarmtui.docker_api.frames import FrameDecoder
from swarmtui.docker_api.log_query import LogQuery
from swarmtui.docker_api.types import (
    ContainerSpec,
    Node,
    NodeDescription,
    NodeStatus,
    Replicated,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskStatus,
    Version,
)
from swarmtui.logs.records import LogOptions
from swarmtui.logs.session import LogSession
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.query import Difference, Table, tasks_of
from swarmtui.model.rows import TaskRow
from swarmtui.model.tables import ClusterObject, Upsert

TASKS = 50_000
PICTURE_SECONDS = 3.0
UPDATES_MS = 400.0
LAG_MS = 90.0
LINES_A_SECOND = 30_000.0

SPEC = TaskSpec(container_spec=ContainerSpec(image="web:1"))


def task(number: int, state: str = "running", version: int = 1) -> Task:
    return Task(
        id=f"t{number:024d}", version=Version(index=version), service_id=f"s{number % 100}", node_id=f"n{number // 500}",
        slot=number // 100 + 1, status=TaskStatus(state=state, timestamp="2026-11-21T09:25:01.536151102Z"),
        created_at="2026-11-21T09:25:01.536151102Z", spec=SPEC,
    )  # fmt: skip


class Lag:
    """How late the loop is, in milliseconds, while `async with` lasts."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    async def _measure(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.002)
            self.samples.append((time.perf_counter() - start - 0.002) * 1000)

    async def __aenter__(self) -> Lag:
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    @property
    def p99(self) -> float:
        return sorted(self.samples)[int(len(self.samples) * 0.99)] if self.samples else 0.0


async def test_a_picture_of_50000_tasks_and_1000_changes() -> None:
    nodes: list[ClusterObject] = [
        Node(id=f"n{i}", version=Version(index=1), description=NodeDescription(hostname=f"node{i}"),
             status=NodeStatus(state="ready")) for i in range(100)
    ]  # fmt: skip
    services: list[ClusterObject] = [
        Service(id=f"s{i}", version=Version(index=1),
                spec=ServiceSpec(name=f"web{i}", mode=ServiceMode(replicated=Replicated(replicas=500))))
        for i in range(100)
    ]  # fmt: skip
    tasks: list[ClusterObject] = [task(number) for number in range(TASKS)]
    model = ClusterModel()
    seen: dict[str, str] = {}
    news = asyncio.Event()

    def take(difference: Difference[TaskRow]) -> None:
        for row in (*difference.added, *difference.changed):
            seen[row.id] = row.state
        news.set()

    async def until_failed(count: int) -> None:
        while len(seen) < TASKS or sum(state == "failed" for state in seen.values()) < count:
            news.clear()
            await news.wait()

    model.subscribe(tasks_of(), take)
    async with Lag() as lag:
        start = time.perf_counter()
        with model.holding():
            for table, objects in ((Table.NODES, nodes), (Table.SERVICES, services), (Table.TASKS, tasks)):
                await model.replace(table, objects)
        await until_failed(0)
        picture = time.perf_counter() - start
        changes = [Upsert(Table.TASKS, task(number * 50, "failed", 2)) for number in range(1000)]
        start = time.perf_counter()
        model.apply(changes)
        await until_failed(1000)
        updates = (time.perf_counter() - start) * 1000
    print(f"\n{TASKS} tasks to rows {picture:.2f} s (bound {PICTURE_SECONDS}), 1000 changes {updates:.0f} ms "
          f"(bound {UPDATES_MS}), loop lag p99 {lag.p99:.1f} ms (bound {LAG_MS})")  # fmt: skip
    assert picture < PICTURE_SECONDS
    assert updates < UPDATES_MS
    assert lag.p99 < LAG_MS


class Stream:
    """A log that is there already: what is measured is reading it, not the socket."""

    content_type = ""

    def __init__(self, chunk: bytes, count: int) -> None:
        self._chunk, self._left = chunk, count

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        self._left -= 1
        return self._chunk if self._left >= 0 else b""


class Engine:
    """Just enough of a client."""

    def __init__(self, chunk: bytes, count: int, agent: bool) -> None:
        self._chunk, self._count, self._agent = chunk, count, agent

    async def service(self, service: str) -> Service:
        return Service(id=service)

    async def task(self, task: str) -> Task:
        raise AssertionError

    async def extended(self) -> bool:
        return self._agent

    @asynccontextmanager
    async def service_logs(self, service: str, query: LogQuery) -> AsyncIterator[Stream]:
        yield Stream(self._chunk, self._count)

    def task_logs(self, task: str, query: LogQuery) -> object:
        raise AssertionError


async def test_a_log_is_read_and_merged_as_fast_as_it_is_shown() -> None:
    prefix = "com.docker.swarm"
    chunk = b""
    for number in range(1000):
        text = (
            f"2026-11-21T09:25:43.{number:09d}Z {prefix}.node.id=n{number % 3},{prefix}.service.id=s1,"
            f"{prefix}.task.id=t{number % 6} INFO {number} GET /api/cart 200 12ms and so on to a hundred letters a line\n"
        ).encode()
        chunk += b"\1\0\0\0" + len(text).to_bytes(4, "big") + text
    assert len(FrameDecoder().feed(chunk)) == 1000
    rates = {}
    for agent in (True, False):
        lines = 0
        start = time.perf_counter()
        options = LogOptions(follow=False)
        async with LogSession(Engine(chunk, 100, agent), services=["s1"], options=options) as session:  # type: ignore[arg-type]
            async for batch in session.batches():
                lines += len(batch)
        assert lines == 100_000
        rates[agent] = lines / (time.perf_counter() - start)
    print(f"\nlog lines a second: merged by the engine {rates[True]:,.0f}, merged here {rates[False]:,.0f} "
          f"(bound {LINES_A_SECOND:,.0f})")  # fmt: skip
    assert min(rates.values()) > LINES_A_SECOND
