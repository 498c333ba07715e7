"""Cancellation at every await, floods, full disks, closing half-way, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from process_tools import container_of, executor_in, is_alive, make_task, output, processes_with, says, started, until

from agent.api_types.container import ReferenceFileTarget, SecretReference
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.interface import Controller, Dependencies, ExitStatus, TemporaryFailure

ROOT = os.geteuid() == 0


@pytest.fixture(params=[pytest.param(True, id="isolated"), pytest.param(False, id="plain")])
def isolate(request: pytest.FixtureRequest) -> bool:
    if request.param and not ROOT:
        pytest.skip("namespaces need root here")
    return bool(request.param)


@pytest.fixture
async def executor(tmp_path: Path, isolate: bool) -> AsyncIterator[ProcessExecutor]:
    async with executor_in(tmp_path / "state", isolate) as made:
        yield made


async def cancelled_after(turns: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Begin `work`, cancel it after some turns of the loop; whether it was still going on."""
    task = asyncio.ensure_future(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    going = task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return going
    return False


async def test_cancelling_any_step_at_any_await_leaves_what_the_next_call_finds(executor: ProcessExecutor) -> None:
    mark = f"43210{os.getpid()}{int(executor._isolate)}"
    for turns in (0, 1, 2, 3, 4, 6, 9, 14, 22):
        controller = await executor.controller(make_task(f"t{turns}", args=["sleep", mark]), Dependencies())
        await cancelled_after(turns, controller.prepare)
        await controller.prepare()
        await cancelled_after(turns, controller.start)
        await controller.start()
        status, _ = await controller.status()
        assert status is not None
        assert is_alive(status.pid)
        assert await cancelled_after(turns, controller.wait)
        await cancelled_after(turns, controller.shutdown)
        await controller.shutdown()
        assert await controller.wait() == ExitStatus(143)
        await cancelled_after(turns, controller.remove)
        await controller.remove()
        await controller.remove()
    assert await executor.known_tasks() == []
    assert processes_with(mark) == []


async def test_a_cancelled_start_can_be_stopped_or_removed_at_once(executor: ProcessExecutor) -> None:
    mark = f"32109{os.getpid()}{int(executor._isolate)}"
    for turns in range(0, 24, 3):
        for name in ("shutdown", "terminate", "remove"):
            controller = await executor.controller(make_task(f"{name}{turns}", args=["sleep", mark]), Dependencies())
            await controller.prepare()
            await cancelled_after(turns, controller.start)
            await getattr(controller, name)()
            assert [pid for pid in processes_with(mark) if b"sleep\0" in cmdline(pid)] == []
            await controller.remove()


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def test_nothing_is_left_open_by_what_was_cancelled(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["sleep", "1000"]))
    inventory = executor.inventory

    async def run() -> None:
        process = await inventory.exec("web.1.t1", ["sh", "-c", "echo x; sleep 1000"], stdin=True)
        try:
            async for _stream, _data in process.output():
                pass
        finally:
            process.close()

    async def follow() -> None:
        async for _line in controller.logs(0, True, -1):
            pass

    await cancelled_after(50, run)
    before = len(os.listdir("/proc/self/fd"))
    for turns in (0, 1, 2, 3, 5, 8, 13, 21):
        assert await cancelled_after(turns, run)
        assert await cancelled_after(turns, follow)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_flood_of_output_uses_a_bounded_part_of_the_disk(executor: ProcessExecutor) -> None:
    script = "yes 'a line of a flood of a hundred megabytes' | head -c 100000000; echo; echo the end"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script]))
    assert await controller.wait() == ExitStatus(0)
    folder = container_of(executor, "t1").folder
    size = sum(path.stat().st_size for path in folder.iterdir())
    record = container_of(executor, "t1").record
    assert size < record.log_bytes * record.log_files + 65536
    assert (await output(controller, tail=1)) == ["the end"]


async def test_a_follower_of_a_flood_sees_order_and_is_told_what_it_missed(executor: ProcessExecutor) -> None:
    task = make_task("t1", "swarmtui/logger", env=["RATE=max", "COUNT=400000", "STREAM=stdout", "SIZE=100"])
    controller = await started(executor, task)
    seen = lost = last = 0
    async for line in controller.logs(0, True, -1):
        if line.data.startswith(b"swarmtui: "):
            lost += int(line.data.split()[1])
            continue
        number = int(line.data.split()[1])
        assert number == last + 1 or lost
        last, seen = number, seen + 1
    assert last == 400_000
    assert seen + lost == 400_000


async def test_a_slow_reader_never_makes_the_task_wait(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", "swarmtui/logger", env=["RATE=max", "COUNT=200000"]))
    lines = controller.logs(0, True, -1)
    await anext(lines)
    assert await controller.wait() == ExitStatus(0)
    await lines.aclose()  # type: ignore[attr-defined]


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="mounting needs root")
async def test_a_full_disk_does_not_stop_a_task(tmp_path: Path, isolate: bool) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        async with executor_in(disk, isolate) as executor:
            script = "yes 'full soon' | head -c 2000000; echo waits; read x; echo goes on; exit 4"
            task = make_task("t1", args=["sh", "-c", f"{script}"], healthcheck=None)
            controller = await executor.controller(task, Dependencies())
            await controller.prepare()
            await controller.start()
            assert await controller.wait() == ExitStatus(4, "task: non-zero exit (4)")
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            another = await executor.controller(make_task("t2", args=["true"]), Dependencies())
            with pytest.raises(TemporaryFailure, match=os.strerror(errno.ENOSPC)):
                await another.prepare()
                await another.start()
            filler.unlink()
            await controller.remove()
            await another.prepare()
            await another.start()
            assert await another.wait() == ExitStatus(0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_fifty_tasks_at_once(executor: ProcessExecutor) -> None:
    controllers: list[Controller] = await asyncio.gather(
        *(started(executor, make_task(f"t{number}", "swarmtui/whoami", slot=number)) for number in range(50))
    )
    addresses = {controller.address(8000, "tcp") for controller in controllers}
    assert len(addresses) == 50
    await asyncio.gather(*(says(controller, "listening on") for controller in controllers))
    listed = await executor.inventory.list_containers()
    assert len(listed) == 50
    await asyncio.gather(*(controller.shutdown() for controller in controllers))
    ends = await asyncio.gather(*(controller.wait() for controller in controllers))
    assert set(ends) == {ExitStatus(0)}


async def test_closing_lets_starts_finish_and_refuses_new_ones(tmp_path: Path, isolate: bool) -> None:
    async with executor_in(tmp_path, isolate, keep=True) as executor:
        controller = await executor.controller(make_task("t1", args=["sleep", "1000"]), Dependencies())
        await controller.prepare()
        starting = asyncio.ensure_future(controller.start())
        await asyncio.sleep(0)
        await executor.close()
        await asyncio.wait({starting})
        starting.exception()
        with pytest.raises(TemporaryFailure, match="closed"):
            await executor.controller(make_task("t2"), Dependencies())
    async with executor_in(tmp_path, isolate) as executor:
        found = await executor.controller(make_task("t1"), Dependencies())
        await found.start()
        status, _ = await found.status()
        assert status is not None
        assert is_alive(status.pid)


async def test_removed_while_it_is_waited_for_and_read(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["sh", "-c", "echo ready; sleep 1000"]))
    await says(controller, "ready")
    waiting = asyncio.ensure_future(controller.wait())
    reading = asyncio.ensure_future(output(controller, follow=True))
    await asyncio.sleep(0)
    await controller.remove()
    assert (await waiting).code == 137
    assert await reading == ["ready"]
    with pytest.raises(TemporaryFailure):
        await controller.start()


async def test_a_setuid_like_daemon_cannot_hold_the_end(executor: ProcessExecutor) -> None:
    """A process that keeps the output open from outside delays the end by a second at most."""
    controller = await started(executor, make_task("t1", args=["sh", "-c", "echo ready; sleep 1000"]))
    await says(controller, "ready")
    run = container_of(executor, "t1").run
    assert run is not None
    if executor._isolate:
        pytest.skip("nobody outside can be given the pipe of a container with a process namespace by accident")
    holder = os.open(f"/proc/{run.task}/fd/1", os.O_WRONLY)
    try:
        begun = asyncio.get_running_loop().time()
        await controller.shutdown()
        assert asyncio.get_running_loop().time() - begun < 5
        assert await controller.wait() == ExitStatus(143)
    finally:
        os.close(holder)


async def test_a_task_whose_folder_is_removed_ends(tmp_path: Path, isolate: bool) -> None:
    mark = f"20987{os.getpid()}{int(isolate)}"
    async with executor_in(tmp_path, isolate, keep=True) as executor:
        secret = SecretReference(secret_id="s", secret_name="s", file=ReferenceFileTarget(name="s", mode=0o400))
        script = f"(setsid sleep {mark} &); echo ready; sleep {mark}"
        task = make_task("t1", args=["sh", "-c", script], secrets=[secret])
        await says(await started(executor, task, Dependencies({"s": b"hidden"})), "ready")
        memory = Path("/dev/shm", f"swarmtui-{container_of(executor, 't1').record.container_id[:32]}")
        assert memory.exists() is not isolate
        shim = container_of(executor, "t1").run.shim  # type: ignore[union-attr]
    shutil.rmtree(tmp_path / "containers")
    await until(lambda: processes_with(mark) == [] and not is_alive(shim))
    assert not memory.exists()


async def test_no_process_of_ours_is_left(tmp_path: Path, isolate: bool) -> None:
    async with executor_in(tmp_path / "state", isolate) as executor:
        await started(executor, make_task("t1", args=["sleep", "1000"]))
        shim = container_of(executor, "t1").run.shim  # type: ignore[union-attr]
        spawner = (await executor._open()).spawner._process.pid  # type: ignore[union-attr]
    await until(lambda: not is_alive(shim) and not is_alive(spawner))
