"""The worker on a real engine: many tasks at once, an engine that restarts, an agent that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest
from engine import IMAGE, PrivateEngine

from agent.api_types.container import ContainerSpec
from agent.api_types.identity import new_id
from agent.api_types.task import ServiceAnnotations, Task, TaskSpec, TaskState, TaskStatus
from agent.rpc.messages import Assignments, TaskReport
from agent.worker.executors.docker import DockerExecutor
from agent.worker.worker import Worker

pytestmark = [pytest.mark.engine, pytest.mark.root]

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
RUNNING, SHUTDOWN, REMOVE = TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE


def a_task(task_id: str, desired: TaskState = RUNNING, script: str = FOREVER, image: str = IMAGE) -> Task:
    return Task(
        id=task_id,
        spec=TaskSpec(container_spec=ContainerSpec(image=image, args=["sh", "-c", script])),
        service_id="service1",
        slot=1,
        node_id="node1",
        service_annotations=ServiceAnnotations(name="web"),
        status=TaskStatus(state=TaskState.ASSIGNED),
        desired_state=desired,
    )


class Reports:
    """What was reported, in order; ranks that fall are an error at once."""

    def __init__(self) -> None:
        self.seen: dict[str, list[TaskStatus]] = {}
        self._news = asyncio.Condition()

    async def add(self, report: TaskReport) -> None:
        statuses = self.seen.setdefault(report.task_id, [])
        assert not statuses or statuses[-1].state.rank <= report.status.state.rank, (statuses[-1], report.status)
        statuses.append(report.status)
        async with self._news:
            self._news.notify_all()

    async def until(self, state: TaskState, *task_ids: str) -> None:
        def there() -> bool:
            return all(any(one.state is state for one in self.seen.get(task_id, [])) for task_id in task_ids)

        async with self._news:
            await self._news.wait_for(there)

    async def until_error(self, task_id: str, text: str) -> None:
        async with self._news:
            await self._news.wait_for(lambda: any(text in one.err for one in self.seen.get(task_id, [])))


@contextlib.asynccontextmanager
async def worker_on(engine: PrivateEngine, folder: Path) -> AsyncIterator[tuple[Worker, Reports]]:
    executor = DockerExecutor(
        engine.address, owner="worker", secrets_root=Path("/dev/shm/none"), prefer_local_images=True
    )
    worker, reports = Worker(executor, state_dir=folder), Reports()

    async def read() -> None:
        while True:
            for report in await worker.outbox.take():
                await reports.add(report)

    tasks = [asyncio.create_task(worker.run()), asyncio.create_task(read())]
    try:
        await worker.restored.wait()
        yield worker, reports
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await executor.close()
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def test_many_tasks_come_fail_stop_and_are_forgotten(engine: PrivateEngine, tmp_path: Path) -> None:
    ids = [new_id() for _ in range(8)]
    async with worker_on(engine, tmp_path) as (worker, reports):
        worker.apply(Assignments(1, True, tasks=[a_task(one) for one in ids]))
        await reports.until(RUNNING, *ids)
        assert len(engine.containers()) == 8
        await asyncio.to_thread(engine.call, "POST", f"/containers/web.1.{ids[0]}/kill")
        await reports.until(TaskState.FAILED, ids[0])
        failed = reports.seen[ids[0]][-1]
        assert failed.err == "task: non-zero exit (137)"
        assert failed.container_status is not None
        assert failed.container_status.exit_code == 137
        worker.apply(Assignments(2, False, tasks=[a_task(ids[1], SHUTDOWN), a_task(ids[2], REMOVE)]))
        await reports.until(SHUTDOWN, ids[1], ids[2])
        worker.apply(Assignments(3, True, tasks=[a_task(ids[1], SHUTDOWN), a_task(ids[3])]))
        for one in set(ids) - {ids[1], ids[3]}:
            await worker.gone(one)
        names = {name for container in engine.containers() for name in container["Names"]}
        assert names == {f"/web.1.{ids[1]}", f"/web.1.{ids[3]}"}
        await worker.clear()
        assert engine.containers() == []
        assert list((tmp_path / "tasks").iterdir()) == []


async def test_tasks_live_through_an_engine_that_restarts(engine: PrivateEngine, tmp_path: Path) -> None:
    before, during = new_id(), new_id()
    async with worker_on(engine, tmp_path) as (worker, reports):
        worker.apply(Assignments(1, True, tasks=[a_task(before)]))
        await reports.until(RUNNING, before)
        await asyncio.to_thread(engine.stop, kill=True)
        worker.apply(Assignments(2, False, tasks=[a_task(during)]))
        await reports.until_error(during, "Docker Engine")
        waiting = reports.seen[during][-1]
        assert waiting.state is TaskState.PREPARING
        assert reports.seen[before][-1].state is RUNNING
        await asyncio.to_thread(engine.start)
        await reports.until(RUNNING, during)
        assert reports.seen[during][-1].err == ""
        # The engine took the container down when it came back; the task says so and is not started again.
        await asyncio.wait_for(worker.runner(before).reached(TaskState.COMPLETE), 30)
        assert len(engine.containers()) == 2
        await worker.clear()


class AgentProcess:
    """A worker in its own process."""

    def __init__(self, engine: PrivateEngine, folder: Path, reports: Reports) -> None:
        self._arguments = (engine.address, str(folder), "/dev/shm/none")
        self._reports = reports
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        program = Path(__file__).with_name("worker_process.py")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def assign(self, *tasks: Task) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(Assignments(1, True, tasks=list(tasks))) + b"\n")

    async def kill(self) -> None:
        assert self._process is not None
        assert self._reading is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        await self._reading
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def stop(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reading is not None
        self._process.stdin.close()
        assert await self._process.wait() == 0
        await self._reading

    async def _read(self, output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            if line.endswith(b"\n"):
                await self._reports.add(msgspec.json.decode(line, type=TaskReport))


async def test_an_agent_killed_at_any_moment_finds_its_containers(engine: PrivateEngine, tmp_path: Path) -> None:
    source = random.Random(4)
    reports = Reports()
    agent = AgentProcess(engine, tmp_path, reports)
    ids: list[str] = []
    await agent.start()
    for moment in (0.02, 0.1, 0.2, 0.35, 0.5):
        ids += [new_id() for _ in range(2)]
        agent.assign(*(a_task(one) for one in ids))
        await asyncio.sleep(moment + source.random() / 20)
        await agent.kill()
        await agent.start()
    agent.assign(*(a_task(one) for one in ids))
    await reports.until(RUNNING, *ids)
    containers = [engine.inspect(str(container["Id"])) for container in engine.containers()]
    assert len(containers) == len(ids)
    started = {container["Name"]: container["State"]["StartedAt"] for container in containers}
    await agent.kill()
    # While no agent runs, the containers do; one of them ends, and that is known when the agent is back.
    await asyncio.to_thread(engine.call, "POST", f"/containers/web.1.{ids[0]}/kill")
    await agent.start()
    await reports.until(TaskState.FAILED, ids[0])
    again = {name: engine.inspect(name.strip("/"))["State"]["StartedAt"] for name in started}
    assert again == started
    agent.assign()
    while await asyncio.to_thread(engine.containers):
        await asyncio.sleep(0.1)
    await agent.stop()
    assert list((tmp_path / "tasks").iterdir()) == []


async def test_an_idle_worker_takes_next_to_nothing(engine: PrivateEngine, tmp_path: Path) -> None:
    agent, reports = AgentProcess(engine, tmp_path, Reports()), None
    reports = agent._reports
    ids = [new_id() for _ in range(10)]
    await agent.start()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    agent.assign(*(a_task(one, script="sleep 1000") for one in ids))
    await reports.until(RUNNING, *ids)
    up = loop.time() - begun
    process = psutil.Process(agent.pid)
    before = process.cpu_times()
    await asyncio.sleep(5)
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / 5
    print(f"10 tasks up in {up:.1f} s; idle {share:.2%} of a core, {process.memory_info().rss >> 20} MiB")
    # Nothing is polled: what is left is the loop's own housekeeping. Twice the figure of the design.
    assert share < 0.01
    await agent.kill()
