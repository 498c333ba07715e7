"""Shared by the tests of the process executor: tasks, executors for both ways of running, looking at processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from agent.api_types.common import Limits
from agent.api_types.container import ContainerSpec
from agent.api_types.task import ResourceRequirements, ServiceAnnotations, Task, TaskSpec
from agent.worker.executors.process.container import Container
from agent.worker.executors.process.controller import ProcessController
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.interface import Controller, Dependencies, LogLine

NETWORK = IPv4Network(f"127.{100 + os.getpid() // 250 % 150}.{os.getpid() % 250}.0/24")
"""Where tasks get their addresses: tests that run at the same time on one machine keep apart."""


def make_task(task_id: str, image: str = "alpine", *, limits: Limits | None = None, slot: int = 1, **spec: Any) -> Task:
    return Task(
        id=task_id,
        service_id="service1",
        slot=slot,
        node_id="node1",
        service_annotations=ServiceAnnotations(name="web", labels={"tier": "front"}),
        spec=TaskSpec(
            container_spec=ContainerSpec(image=image, **spec),
            resources=ResourceRequirements(limits=limits) if limits is not None else None,
        ),
    )


@asynccontextmanager
async def executor_in(
    folder: Path, isolate: bool, keep: bool = False, **settings: Any
) -> AsyncIterator[ProcessExecutor]:
    """An executor; at the end everything that it runs is removed, or goes on if `keep`."""
    executor = ProcessExecutor(folder, hostname="node1", addresses=NETWORK, isolate=isolate, **settings)
    try:
        yield executor
    finally:
        for task_id in [] if keep else await executor.known_tasks():
            await (await executor.controller(Task(id=task_id), Dependencies())).remove()
        await executor.close()


async def started(executor: ProcessExecutor, task: Task, dependencies: Dependencies | None = None) -> Controller:
    controller = await executor.controller(task, dependencies or Dependencies())
    await controller.prepare()
    await controller.start()
    return controller


def container_of(executor: ProcessExecutor, task_id: str) -> Container:
    return executor._containers[task_id]


async def output(controller: Controller | ProcessController, **options: Any) -> list[str]:
    settings = {"since": 0, "follow": False, "tail": -1, **options}
    return [line.data.decode() async for line in controller.logs(**settings) if not line.data.startswith(b"swarmtui: ")]


async def first_line(controller: Controller, wanted: Callable[[LogLine], bool]) -> LogLine:
    others = []
    async for line in controller.logs(0, True, -1):
        if wanted(line):
            return line
        others.append(line.data)
    raise AssertionError(f"the container ended without that line: {others[-5:]}, {await controller.status()}")


async def says(controller: Controller, text: str) -> LogLine:
    return await first_line(controller, lambda line: text in line.data.decode())


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat[stat.rindex(b")") + 2 :][:1] not in b"ZX"


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """For what the kernel does in its own time and nothing announces."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.005)


def processes_with(mark: str) -> list[int]:
    """Processes whose command line has `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes() and is_alive(int(entry.name)):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return [pid for pid in found if pid != os.getpid()]
