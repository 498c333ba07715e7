"""The output of containers as a real engine gives it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine import IMAGE, PrivateEngine

from agent.api_types.common import Driver
from agent.api_types.container import ContainerSpec
from agent.api_types.identity import new_id
from agent.api_types.task import Task, TaskSpec
from agent.worker.executors.docker import DockerExecutor
from agent.worker.executors.docker.controller import DockerController
from agent.worker.interface import Dependencies, LogLine, RejectedByExecutor

pytestmark = [pytest.mark.engine, pytest.mark.root]


@pytest.fixture
async def executor(engine: PrivateEngine) -> AsyncIterator[DockerExecutor]:
    one = DockerExecutor(engine.address, secrets_root=Path("/dev/shm/none"), prefer_local_images=True)
    yield one
    await one.close()


async def started(
    executor: DockerExecutor, script: str, *, driver: Driver | None = None, **container: object
) -> DockerController:
    spec = ContainerSpec(image=IMAGE, args=["sh", "-c", script], **container)
    task = Task(id=new_id(), slot=1, service_id="s", spec=TaskSpec(container_spec=spec, log_driver=driver))
    controller = await executor.controller(task, Dependencies())
    await controller.prepare()
    await controller.start()
    return controller


async def read(controller: DockerController, since: int = 0, follow: bool = False, tail: int = -1) -> list[LogLine]:
    return [line async for line in controller.logs(since, follow, tail)]


def texts(lines: list[LogLine]) -> list[str]:
    return [line.data.decode() for line in lines]


async def test_lines_come_with_their_stream_and_in_order_of_time(executor: DockerExecutor) -> None:
    before = time.time_ns()
    controller = await started(
        executor, "for i in 1 2 3; do echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done"
    )
    await controller.wait()
    lines = await read(controller)
    assert [(line.stream.value, line.data) for line in lines] == [
        (stream, f"{stream[3:]} {i}".encode()) for i in (1, 2, 3) for stream in ("stdout", "stderr")
    ]
    times = [line.timestamp for line in lines]
    assert times == sorted(times)
    assert before < times[0] < times[-1] < time.time_ns()


async def test_tail_since_and_both(executor: DockerExecutor) -> None:
    controller = await started(executor, "for i in $(seq 10); do echo $i; done")
    await controller.wait()
    lines = await read(controller)
    assert texts(lines) == [str(number) for number in range(1, 11)]
    assert texts(await read(controller, tail=3)) == ["8", "9", "10"]
    assert texts(await read(controller, tail=0)) == []
    assert texts(await read(controller, since=lines[6].timestamp))[-4:] == ["7", "8", "9", "10"]
    assert all(line.timestamp >= lines[6].timestamp for line in await read(controller, since=lines[6].timestamp))
    assert texts(await read(controller, since=lines[6].timestamp, tail=2)) == ["9", "10"]


async def test_following_ends_with_the_container(executor: DockerExecutor) -> None:
    controller = await started(executor, "echo first; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo last")
    seen: list[str] = []
    container, _ = await controller.status()
    assert container is not None
    async for line in controller.logs(0, True, -1):
        seen.append(line.data.decode())
        if seen == ["first"]:
            await executor._engine.request(
                "POST", f"containers/{container.container_id}/exec", body={"Cmd": ["touch", "/tmp/go"]}
            )
            created = await executor._engine.request(
                "POST", f"containers/{container.container_id}/exec", body={"Cmd": ["touch", "/tmp/go"]}
            )
            exec_id = created.decode().split('"')[3]
            await executor._engine.request("POST", f"exec/{exec_id}/start", body={"Detach": True})
    assert seen == ["first", "last"]


async def test_a_terminal_has_no_frames(executor: DockerExecutor) -> None:
    controller = await started(executor, "echo one; echo two >&2; printf three", tty=True)
    await controller.wait()
    assert [(line.stream.value, line.data) for line in await read(controller)] == [
        ("stdout", b"one"),
        ("stdout", b"two"),
        ("stdout", b"three"),
    ]


async def test_long_lines_and_bytes_that_are_no_text_arrive_whole(executor: DockerExecutor) -> None:
    controller = await started(
        executor, r"""head -c 200000 /dev/zero | tr '\0' x; echo; printf 'a\377\000b\n'; echo; printf 'no end'"""
    )
    await controller.wait()
    lines = [line.data for line in await read(controller)]
    # The engine keeps its logs as JSON, where a byte that is no UTF-8 becomes U+FFFD.
    assert lines == [b"x" * 200_000, "a\ufffd\0b".encode(), b"", b"no end"]


async def test_a_driver_that_cannot_be_read_says_so(executor: DockerExecutor) -> None:
    controller = await started(executor, "echo gone", driver=Driver(name="none"))
    await controller.wait()
    with pytest.raises(RejectedByExecutor, match="does not support reading"):
        await read(controller)


async def test_a_task_without_a_container_has_no_lines(executor: DockerExecutor) -> None:
    controller = await executor.controller(Task(id=new_id(), service_id="s"), Dependencies())
    assert await read(controller) == []


async def test_a_reader_that_leaves_closes_its_connection(executor: DockerExecutor) -> None:
    controller = await started(executor, "while :; do echo x; sleep 0.01; done", stop_grace_period=0)
    for _ in range(20):
        lines = controller.logs(0, True, -1)
        async for _ in lines:
            break
        await lines.aclose()
    connector = executor._engine._client.connector
    # What is left in use is the one connection that the events come on.
    assert len(connector._acquired) == 1


async def test_following_survives_a_restart_of_the_engine(executor: DockerExecutor, engine: PrivateEngine) -> None:
    controller = await started(
        executor, "trap 'echo stopped; exit' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    )
    seen: list[LogLine] = []
    enough = asyncio.Event()

    async def follow() -> None:
        async for line in controller.logs(0, True, -1):
            seen.append(line)
            if len(seen) == 5:
                enough.set()

    following = asyncio.create_task(follow())
    await enough.wait()
    await asyncio.to_thread(engine.stop, kill=True)
    await asyncio.to_thread(engine.start)
    await following
    numbers = [int(line.data) for line in seen if line.data.isdigit()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len({line.timestamp for line in seen}) == len(seen)


async def test_a_flood_is_read_at_the_speed_of_the_reader(executor: DockerExecutor) -> None:
    controller = await started(executor, "seq 100000")
    await controller.wait()
    begun = time.perf_counter()
    lines = await read(controller)
    duration = time.perf_counter() - begun
    assert len(lines) == 100_000
    assert lines[-1].data == b"100000"
    print(f"{len(lines) / duration:.0f} lines/s")
