"""kill -9 of the agent, the spawner, the shim, the task: what the next agent finds and reports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from process_tools import (
    NETWORK,
    container_of,
    executor_in,
    is_alive,
    make_task,
    output,
    processes_with,
    says,
    started,
    until,
)

from agent.api_types.task import Task
from agent.worker.executors.process.records import EXIT, RUN, RunRecord, read_record, write_record
from agent.worker.interface import Dependencies, ExitStatus

ROOT = os.geteuid() == 0
REPOSITORY = Path(__file__).parents[2]

AGENT = """
import asyncio, sys
from ipaddress import IPv4Network
from pathlib import Path
import msgspec
from agent.api_types.task import Task
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.interface import Dependencies

async def main(folder, isolate, network, repeat, encoded):
    executor = ProcessExecutor(Path(folder), hostname="node1", addresses=IPv4Network(network), isolate=isolate == "True")
    for number in range(int(repeat)):
        task = msgspec.json.decode(encoded.replace("TASKID", f"t{number + 1}"), type=Task)
        controller = await executor.controller(task, Dependencies())
        await controller.prepare()
        print("prepared", flush=True)
        await controller.start()
        print((await controller.status())[0].pid, flush=True)
    await controller.wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(params=[pytest.param(True, id="isolated"), pytest.param(False, id="plain")])
def isolate(request: pytest.FixtureRequest) -> bool:
    if request.param and not ROOT:
        pytest.skip("namespaces need root here")
    return bool(request.param)


@asynccontextmanager
async def agent_process(
    folder: Path, isolate: bool, task: Task, repeat: int = 1
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own that runs `task` (its id stands for t1, t2...) as an agent would, and waits for it."""
    encoded = msgspec.json.encode(task).decode()
    arguments = [str(folder), str(isolate), str(NETWORK), str(repeat), encoded]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, *arguments, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def run_record(folder: Path, task_id: str = "t1") -> RunRecord:
    record = read_record(folder / "containers" / task_id, RUN, RunRecord)
    assert record is not None
    return record


async def test_a_killed_agents_task_goes_on_and_is_found_again(tmp_path: Path, isolate: bool) -> None:
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"
    async with agent_process(tmp_path, isolate, make_task("TASKID", args=["sh", "-c", script])) as agent:
        assert await line_of(agent) == "prepared"
        pid = int(await line_of(agent))
        agent.kill()
        await agent.wait()
    async with executor_in(tmp_path, isolate) as executor:
        assert await executor.known_tasks() == ["t1"]
        controller = await executor.controller(make_task("t1", args=["sh", "-c", script]), Dependencies())
        await controller.prepare()
        await controller.start()
        status, _ = await controller.status()
        assert status is not None
        assert status.pid == pid
        seen = 0
        async for line in controller.logs(0, True, -1):
            if line.data.startswith(b"line "):
                seen += 1
                assert line.data == b"line %d" % seen
            if seen > 10:
                break
        waiting = asyncio.ensure_future(controller.wait())
        await controller.shutdown()
        assert await waiting == ExitStatus(143)
        assert not is_alive(pid)


async def test_a_task_that_ended_while_no_agent_ran_is_reported_with_its_code(tmp_path: Path, isolate: bool) -> None:
    task = make_task("TASKID", args=["sh", "-c", "sleep 0.3; echo last words; exit 5"])
    async with agent_process(tmp_path / "state", isolate, task) as agent:
        assert await line_of(agent) == "prepared"
        pid = int(await line_of(agent))
        agent.kill()
        await agent.wait()
    await until(lambda: not is_alive(pid))
    async with executor_in(tmp_path / "state", isolate) as executor:
        controller = await executor.controller(make_task("t1"), Dependencies())
        await controller.start()
        assert await controller.wait() == ExitStatus(5, "task: non-zero exit (5)")
        assert await output(controller) == ["last words"]


async def test_killed_from_outside_while_no_agent_ran(tmp_path: Path, isolate: bool) -> None:
    async with agent_process(tmp_path, isolate, make_task("TASKID", args=["sleep", "1000"])) as agent:
        assert await line_of(agent) == "prepared"
        pid = int(await line_of(agent))
        agent.kill()
        await agent.wait()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not is_alive(run_record(tmp_path).shim))
    async with executor_in(tmp_path, isolate) as executor:
        controller = await executor.controller(make_task("t1"), Dependencies())
        assert await controller.wait() == ExitStatus(137, "task: non-zero exit (137)")


async def test_a_killed_shim_takes_its_container_along(tmp_path: Path, isolate: bool) -> None:
    mark = f"76543{os.getpid()}{int(isolate)}"
    task = make_task("t1", args=["sh", "-c", f"sleep {mark} & (setsid sleep {mark} &); echo ready; sleep {mark}"])
    async with executor_in(tmp_path, isolate) as executor:
        controller = await started(executor, task)
        await says(controller, "ready")
        assert len(processes_with(mark)) >= 3
        waiting = asyncio.ensure_future(controller.wait())
        os.kill(run_record(tmp_path).shim, signal.SIGKILL)
        assert await waiting == ExitStatus(137, "task: non-zero exit (137): the task's shim was killed")
        assert processes_with(mark) == []
        assert await output(controller) == ["ready"]


async def test_a_shim_that_was_killed_while_no_agent_ran(tmp_path: Path, isolate: bool) -> None:
    mark = f"76542{os.getpid()}{int(isolate)}"
    task = make_task("t1", args=["sh", "-c", f"sleep {mark} & (setsid sleep {mark} &); echo ready; sleep {mark}"])
    async with executor_in(tmp_path, isolate, keep=True) as executor:
        await says(await started(executor, task), "ready")
    shim = run_record(tmp_path).shim
    os.kill(shim, signal.SIGKILL)
    await until(lambda: not is_alive(shim))
    async with executor_in(tmp_path, isolate) as executor:
        controller = await executor.controller(task, Dependencies())
        assert await controller.wait() == ExitStatus(137, "task: non-zero exit (137): the task's shim was killed")
        assert processes_with(mark) == []


async def test_a_killed_shim_after_a_wanted_stop_is_no_failure(tmp_path: Path, isolate: bool) -> None:
    async with executor_in(tmp_path, isolate) as executor:
        controller = await started(executor, make_task("t1", args=["sh", "-c", "trap '' TERM; echo ready; sleep 1000"]))
        await says(controller, "ready")
        stopping = asyncio.ensure_future(controller.shutdown())
        await until(lambda: container_of(executor, "t1").stopping)
        os.kill(run_record(tmp_path).shim, signal.SIGKILL)
        await stopping
        assert await controller.wait() == ExitStatus(137)


async def test_a_killed_spawner_is_replaced(tmp_path: Path, isolate: bool) -> None:
    async with executor_in(tmp_path, isolate) as executor:
        first = await started(executor, make_task("t1", args=["sleep", "1000"]))
        spawner = (await executor._open()).spawner._process
        assert spawner is not None
        os.kill(spawner.pid, signal.SIGKILL)
        second = await started(executor, make_task("t2", args=["sleep", "1000"]))
        for controller in (first, second):
            status, _ = await controller.status()
            assert status is not None
            assert is_alive(status.pid)
            await controller.shutdown()
            assert await controller.wait() == ExitStatus(143)


async def test_after_a_power_cut_the_task_is_gone_whoever_has_its_process_ids_now(
    tmp_path: Path, isolate: bool
) -> None:
    async with executor_in(tmp_path, isolate, keep=True) as executor:
        controller = await started(executor, make_task("t1", args=["sleep", "1000"]))
        await controller.terminate()
    folder = tmp_path / "containers" / "t1"
    (folder / EXIT).unlink()
    (folder / "stopping").unlink()
    # The ids are ours: were they believed, this test would be killed.
    write_record(folder, RUN, RunRecord(os.getpid(), 1, os.getpid(), 1, started_at=1))
    async with executor_in(tmp_path, isolate) as executor:
        controller = await executor.controller(make_task("t1"), Dependencies())
        await controller.start()
        assert await controller.wait() == ExitStatus(137, "task: non-zero exit (137): the host went down")
        await controller.terminate()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"shim": 1}', b"\xff\xfe"])
@pytest.mark.parametrize("damaged", ["exit", "run", "container", "groups"])
async def test_records_that_were_torn_by_a_power_cut(
    tmp_path: Path, isolate: bool, damaged: str, damage: bytes
) -> None:
    task = make_task("t1", args=["true"])
    async with executor_in(tmp_path, isolate, keep=True) as executor:
        await (await started(executor, task)).wait()
    (tmp_path / "containers" / "t1" / damaged).write_bytes(damage)
    async with executor_in(tmp_path, isolate) as executor:
        assert await executor.known_tasks() == ["t1"]
        controller = await executor.controller(task, Dependencies())
        await controller.status()
        await controller.prepare()
        await controller.start()
        await controller.wait()
        await controller.remove()
        assert await executor.known_tasks() == []


async def test_an_agent_killed_at_any_moment_of_a_start(tmp_path: Path, isolate: bool) -> None:
    """However far the start came, the next agent brings it to one running process, and no second one."""
    mark = f"65432{os.getpid()}{int(isolate)}"
    task = make_task("TASKID", args=["sleep", mark])
    for number in range(8):
        folder = tmp_path / str(number)
        async with agent_process(folder, isolate, task) as agent:
            assert await line_of(agent) == "prepared"
            await asyncio.sleep(number * 0.003)
            agent.kill()
            await agent.wait()
        async with executor_in(folder, isolate) as executor:
            controller = await executor.controller(make_task("t1", args=["sleep", mark]), Dependencies())
            await controller.prepare()
            await controller.start()
            status, _ = await controller.status()
            assert status is not None
            assert [pid for pid in processes_with(mark) if is_task(pid)] == [status.pid]
            await controller.shutdown()
            assert await controller.wait() == ExitStatus(143)
        assert [pid for pid in processes_with(mark) if is_task(pid)] == []


def is_task(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="a process namespace needs root here")
async def test_a_power_cut_of_the_instance_takes_everything_along(tmp_path: Path, isolate: bool) -> None:
    """The agent lives in a machine of its own: process and network namespaces, where 127.77.x is its own too."""
    mark = f"98123{os.getpid()}{int(isolate)}"
    script = f"(setsid sleep {mark} &); echo ready; sleep {mark}"
    task = msgspec.json.encode(make_task("TASKID", args=["sh", "-c", script])).decode()
    inside = f"ip link set lo up; exec {sys.executable} -c '{AGENT}' \"$@\""
    words = ["unshare", "--mount-proc", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", inside, "sh"]
    machine = await asyncio.create_subprocess_exec(
        *words, str(tmp_path), str(isolate), str(NETWORK), "1", task, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY
    )
    try:
        assert await line_of(machine) == "prepared"
        assert int(await line_of(machine)) < 100
        await until(lambda: len(processes_with(mark)) >= 3)
    finally:
        machine.kill()
        await machine.wait()
    await until(lambda: processes_with(mark) == [])
    async with executor_in(tmp_path, isolate) as executor:
        controller = await executor.controller(make_task("t1"), Dependencies())
        await controller.start()
        end = await controller.wait()
        assert end.code == 137
        assert end.error in (
            f"task: non-zero exit (137): {reason}" for reason in ("the task's shim was killed", "the host went down")
        )


async def test_addresses_of_living_tasks_are_not_given_out_again(tmp_path: Path, isolate: bool) -> None:
    async with agent_process(tmp_path, isolate, make_task("TASKID", args=["sleep", "1000"]), repeat=2) as agent:
        for _ in range(4):
            await line_of(agent)
        agent.kill()
        await agent.wait()
    async with executor_in(tmp_path, isolate) as executor:
        third = await started(executor, make_task("t3", args=["sleep", "1000"]))
        controllers = [await executor.controller(Task(id=name), Dependencies()) for name in ("t1", "t2")]
        addresses = [controller.address(80, "tcp") for controller in (*controllers, third)]
        assert len({address[0] for address in addresses if address is not None}) == 3
        await third.remove()
        fourth = await started(executor, make_task("t4", args=["sleep", "1000"]))
        assert fourth.address(80, "tcp") not in addresses


async def test_container_ids_are_the_same_for_the_next_agent(tmp_path: Path, isolate: bool) -> None:
    seen: list[dict[str, Any]] = []
    async with executor_in(tmp_path, isolate, keep=True) as executor:
        await started(executor, make_task("t1", args=["sleep", "1000"]))
        seen += await executor.inventory.list_containers()
    async with executor_in(tmp_path, isolate) as executor:
        seen += await executor.inventory.list_containers()
    assert len(seen) == 2
    assert json.dumps({**seen[0], "Status": ""}) == json.dumps({**seen[1], "Status": ""})
