"""A real task that fails while the managers have no leader, on both executors: the same id, another container."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine import IMAGE, PrivateEngine
from process_tools import executor_in

from agent.api_types.container import ContainerSpec
from agent.api_types.identity import new_id
from agent.api_types.task import RestartPolicy, ServiceAnnotations, Task, TaskSpec, TaskState, TaskStatus
from agent.api_types.times import MILLISECOND
from agent.rpc.messages import Assignments
from agent.worker.executors.docker import DockerExecutor
from agent.worker.interface import Executor
from agent.worker.worker import Worker

SCRIPT = "sleep 0.3; exit 3"


def a_task(image: str, task_id: str, desired: TaskState = TaskState.RUNNING) -> Task:
    return Task(
        id=task_id,
        spec=TaskSpec(
            container_spec=ContainerSpec(image=image, args=["sh", "-c", SCRIPT]),
            restart_policy=RestartPolicy(delay=200 * MILLISECOND, max_attempts=2),
        ),
        service_id="service1",
        slot=1,
        node_id="node1",
        service_annotations=ServiceAnnotations(name="web"),
        status=TaskStatus(state=TaskState.ASSIGNED),
        desired_state=desired,
    )


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[tuple[list[TaskStatus], asyncio.Event]]:
    """The worker, every status it has to report, and an event for new ones."""
    statuses: list[TaskStatus] = []
    news = asyncio.Event()

    async def report() -> None:
        while True:
            statuses.extend(report.status for report in await worker.outbox.take())
            news.set()

    tasks = [asyncio.create_task(worker.run()), asyncio.create_task(report())]
    await worker.restored.wait()
    try:
        yield statuses, news
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def runs_again(executor: Executor, image: str, folder: Path) -> None:
    """It runs three times in all, then stays as it ended; every container is another one; nothing is left of it."""
    worker, task_id = Worker(executor, state_dir=folder), new_id()
    async with running(worker) as (statuses, news):
        worker.apply(Assignments(1, True, tasks=[a_task(image, task_id)]))
        worker.set_leaderless(True)

        def ends() -> int:
            return sum(status.state is TaskState.FAILED for status in statuses)

        async with asyncio.timeout(40):
            while ends() < 3:
                news.clear()
                await news.wait()
        seen = [status for status in statuses if status.state in (TaskState.RUNNING, TaskState.FAILED)]
        assert [status.state for status in seen] == [TaskState.RUNNING, TaskState.FAILED] * 3
        containers = [status.container_status.container_id for status in seen if status.container_status is not None]
        assert len(containers) == 6
        assert [containers[0], containers[2], containers[4]] == containers[1::2]
        assert "restarted 2 times" in seen[-1].message
        assert seen[-1].err.startswith("task: non-zero exit (3)")
        assert await executor.known_tasks() == [task_id]
        worker.apply(Assignments(2, True))
        await worker.gone(task_id)
        assert await executor.known_tasks() == []


@pytest.mark.parametrize("isolate", [False, True])
async def test_a_process_runs_again(tmp_path: Path, isolate: bool) -> None:
    if isolate and os.geteuid() != 0:
        pytest.skip("namespaces need root here")
    async with executor_in(tmp_path / "executor", isolate) as executor:
        await runs_again(executor, "alpine", tmp_path / "worker")


@pytest.mark.engine
@pytest.mark.root
async def test_a_container_runs_again(engine: PrivateEngine, tmp_path: Path) -> None:
    executor = DockerExecutor(
        engine.address, owner="again", secrets_root=Path("/dev/shm/none"), prefer_local_images=True
    )
    try:
        await runs_again(executor, IMAGE, tmp_path / "worker")
    finally:
        await executor.close()
