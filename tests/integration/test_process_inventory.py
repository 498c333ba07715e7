"""Containers of processes as the containers API shows and treats them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from process_tools import container_of, executor_in, make_task, output, processes_with, says, started, until

from agent.api_types.errors import ApiError, InvalidArgument, NotFound
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.executors.process.inventory import Inventory
from agent.worker.interface import Dependencies, ExitStatus, Stream

ROOT = os.geteuid() == 0


@pytest.fixture(params=[pytest.param(True, id="isolated"), pytest.param(False, id="plain")])
async def executor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProcessExecutor]:
    if request.param and not ROOT:
        pytest.skip("namespaces need root here")
    async with executor_in(tmp_path / "state", request.param) as made:
        yield made


async def run(inventory: Inventory, *argv: str, stdin: bytes | None = None, **options: Any) -> tuple[int, bytes, bytes]:
    process = await inventory.exec("web.1.t1", argv, stdin=stdin is not None, **options)
    try:
        if stdin is not None:
            await process.write(stdin)
            await process.end_input()
        parts = {Stream.STDOUT: b"", Stream.STDERR: b""}
        async for stream, data in process.output():
            parts[stream] += data
        return await process.wait(), parts[Stream.STDOUT], parts[Stream.STDERR]
    finally:
        process.close()


async def test_list_and_its_filters(executor: ProcessExecutor) -> None:
    inventory = executor.inventory
    assert await inventory.list_containers(all=True) == []
    first = await started(executor, make_task("t1", "swarmtui/whoami", labels={"colour": "red"}))
    second = await started(executor, make_task("t2", "alpine:3.19", slot=2, args=["sh", "-c", "sleep 1000"]))
    ended = await started(executor, make_task("t3", "swarmtui/fail", slot=3, env=["EXIT_CODE=4"]))
    await ended.wait()
    made = await executor.controller(make_task("t4", args=["true"], slot=4), Dependencies())
    await made.prepare()
    listed = await inventory.list_containers(all=True)
    assert [one["Names"] for one in listed] == [[f"/web.{n}.t{n}"] for n in (4, 3, 2, 1)]
    assert [one["State"] for one in listed] == ["created", "exited", "running", "running"]
    assert listed[1]["Status"] == "Exited (4) Less than a second ago"
    assert listed[2]["Command"] == "sh -c 'sleep 1000'"
    assert listed[2]["Image"] == "alpine:3.19"
    assert listed[3]["Ports"] == [{"PrivatePort": 8000, "Type": "tcp"}]
    assert listed[3]["Labels"]["com.docker.swarm.task.name"] == "web.1.t1"

    async def names(**filters: list[str]) -> list[str]:
        found = await inventory.list_containers(
            filters={name.replace("_", "-"): value for name, value in filters.items()}
        )
        return [one["Names"][0][-2:] for one in found]

    assert await names() == ["t2", "t1"]
    assert await names(status=["exited"]) == ["t3"]
    assert await names(status=["created", "exited"]) == ["t4", "t3"]
    assert await names(exited=["4"]) == ["t3"]
    assert await names(label=["colour"]) == ["t1"]
    assert await names(label=["colour=blue"]) == []
    assert await names(label=["com.docker.swarm.service.name=web", "colour=red"]) == ["t1"]
    assert await names(name=["web.2"]) == ["t2"]
    assert await names(id=[listed[2]["Id"][:9]]) == ["t2"]
    assert await names(ancestor=["alpine"]) == ["t2"]
    assert await names(ancestor=["docker.io/swarmtui/whoami:latest"]) == ["t1"]
    assert await names(ancestor=["redis"]) == []
    assert await names(health=["none"]) == ["t2", "t1"]
    assert await names(is_task=["true"]) == ["t2", "t1"]
    assert await names(expose=["8000"]) == ["t1"]
    assert await names(before=["web.2.t2"]) == ["t1"]
    assert await names(since=["web.1.t1"]) == ["t2"]
    assert len(await inventory.list_containers(limit=1)) == 1
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        await names(colour=["red"])
    assert first is not second


async def test_inspect_by_name_id_and_beginning(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", "swarmtui/web:1.0", env=["A=b"], hostname="box"))
    await says(controller, "listening on")
    inventory = executor.inventory
    found = await inventory.inspect("web.1.t1")
    assert found == await inventory.inspect(found["Id"]) == await inventory.inspect(f"/{found['Name'][1:]}")
    assert found == await inventory.inspect(found["Id"][:6])
    assert (found["Path"], found["Args"]) == ("/web", [])
    assert found["Config"]["Hostname"] == "box"
    assert "A=b" in found["Config"]["Env"]
    status, _ = await controller.status()
    assert status is not None
    assert found["State"]["Pid"] == status.pid
    await controller.shutdown()
    found = await inventory.inspect("web.1.t1")
    assert (found["State"]["Status"], found["State"]["ExitCode"], found["State"]["Pid"]) == ("exited", 0, 0)
    for wrong in ("nosuch", "", "web.1"):
        with pytest.raises(NotFound, match=f"No such container: {wrong}"):
            await inventory.inspect(wrong)


async def test_a_beginning_that_two_share(executor: ProcessExecutor) -> None:
    for number in range(1, 20):
        controller = await executor.controller(make_task(f"t{number}", args=["true"]), Dependencies())
        await controller.prepare()
    ids = [one["Id"] for one in await executor.inventory.list_containers(all=True)]
    shared = next(letter for letter in "0123456789abcdef" if sum(one.startswith(letter) for one in ids) > 1)
    with pytest.raises(InvalidArgument, match="Multiple IDs found with provided prefix"):
        await executor.inventory.inspect(shared)


async def test_programs_run_beside_the_task(executor: ProcessExecutor) -> None:
    await started(executor, make_task("t1", args=["sleep", "1000"], env=["A=b"], dir="/tmp"))
    inventory = executor.inventory
    script = "echo $A $B; pwd; cat; echo oops >&2; exit 3"
    assert await run(inventory, "sh", "-c", script, env=["B=c"], stdin=b"typed\n") == (
        3,
        b"b c\n/tmp\ntyped\n",
        b"oops\n",
    )
    assert (await run(inventory, "pwd", working_dir="/usr"))[1] == b"/usr\n"
    assert await run(inventory, "sh", "-c", "kill -9 $$") == (137, b"", b"")
    big = os.urandom(3_000_000)
    process = await inventory.exec("web.1.t1", ["cat"], stdin=True)

    async def send() -> None:
        await process.write(big)
        await process.end_input()

    sending = asyncio.ensure_future(send())
    received = b"".join([data async for _stream, data in process.output()])
    await sending
    assert received == big
    assert await process.wait() == 0
    process.close()
    with pytest.raises(InvalidArgument) as caught:
        await run(inventory, "nosuch")
    assert str(caught.value) == 'OCI runtime exec failed: exec: "nosuch": executable file not found in $PATH: unknown'
    with pytest.raises(InvalidArgument, match="No exec command"):
        await inventory.exec("web.1.t1", [])


async def test_what_a_program_leaves_in_the_background_is_not_waited_for_and_dies_with_the_task(
    executor: ProcessExecutor,
) -> None:
    mark = f"21098{os.getpid()}{int(executor._isolate)}"
    controller = await started(executor, make_task("t1", args=["sleep", "1000"]))
    code, out, _ = await asyncio.wait_for(run(executor.inventory, "sh", "-c", f"sleep {mark} & echo done"), 5)
    assert (code, out) == (0, b"done\n")
    assert processes_with(mark)
    await controller.shutdown()
    await until(lambda: processes_with(mark) == [])


async def test_a_program_ends_when_nobody_wants_it_or_the_task_ends(executor: ProcessExecutor) -> None:
    mark = f"10987{os.getpid()}{int(executor._isolate)}"
    controller = await started(executor, make_task("t1", args=["sleep", "1000"]))
    process = await executor.inventory.exec("web.1.t1", ["sleep", mark])
    await until(lambda: len(processes_with(mark)) == 1)
    process.close()
    process.close()
    await until(lambda: processes_with(mark) == [])
    process = await executor.inventory.exec("web.1.t1", ["sleep", mark])
    await controller.terminate()
    assert await process.wait() == 137
    process.close()
    await until(lambda: processes_with(mark) == [])
    with pytest.raises(ApiError, match="is not running") as caught:
        await executor.inventory.exec("web.1.t1", ["true"])
    assert caught.value.status == 409


async def test_a_terminal(executor: ProcessExecutor) -> None:
    await started(executor, make_task("t1", args=["sleep", "1000"]))
    process = await executor.inventory.exec("web.1.t1", ["sh"], tty=True, stdin=True)
    try:
        process.resize(40, 120)
        await process.write(b"tty; stty size; echo $TERM; exit 6\n")
        text = b"".join([data async for _stream, data in process.output()])
        assert b"/dev/pts/" in text
        assert b"40 120\r\n" in text
        assert b"xterm\r\n" in text
        assert await process.wait() == 6
    finally:
        process.close()


async def test_logs_with_bounds(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["sh", "-c", "echo a; echo b >&2; echo c"]))
    await controller.wait()
    inventory = executor.inventory
    lines = [line async for line in inventory.logs("web.1.t1") if not line.data.startswith(b"swarmtui:")]
    assert sorted(line.data for line in lines) == [b"a", b"b", b"c"]
    assert [line.data async for line in inventory.logs("web.1.t1", stderr=False)] == [b"a", b"c"]
    until_first = [line async for line in inventory.logs("web.1.t1", until=lines[0].timestamp)]
    assert until_first[-1] == lines[0]
    assert [line async for line in inventory.logs("web.1.t1", since=lines[-1].timestamp)] == [lines[-1]]


async def test_top_and_stats(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["sh", "-c", "echo ready; while :; do :; done"]))
    await says(controller, "ready")
    table = await executor.inventory.top("web.1.t1")
    assert table["Titles"][-1] == "CMD"
    status, _ = await controller.status()
    assert status is not None
    assert [row[1] for row in table["Processes"]] == [str(status.pid)]
    elements = [one async for one in executor.inventory.stats("web.1.t1", stream=False)]
    (element,) = elements
    spent = element["cpu_stats"]["cpu_usage"]["total_usage"] - element["precpu_stats"]["cpu_usage"]["total_usage"]
    assert 0 < spent < 3 * 10**9
    assert element["cpu_stats"]["system_cpu_usage"] > element["precpu_stats"]["system_cpu_usage"]
    assert element["memory_stats"]["usage"] > 0
    assert element["pids_stats"]["current"] >= 1
    await controller.terminate()
    assert [
        one["memory_stats"]["usage"] async for one in executor.inventory.stats("web.1.t1", one_shot=True, stream=False)
    ] == [0]
    with pytest.raises(ApiError, match="is not running"):
        await executor.inventory.top("web.1.t1")


async def test_stop_kill_and_remove_from_outside_end_the_task(executor: ProcessExecutor) -> None:
    inventory = executor.inventory
    controllers = [await started(executor, make_task(f"t{n}", args=["sleep", "1000"], slot=n)) for n in (1, 2, 3, 4)]
    waiting = [asyncio.ensure_future(controller.wait()) for controller in controllers]
    assert await inventory.stop("web.1.t1") is True
    assert await waiting[0] == ExitStatus(143, "task: non-zero exit (143)")
    assert await inventory.stop("web.1.t1") is False
    with pytest.raises(ApiError, match="is not running") as caught:
        await inventory.kill("web.1.t1")
    assert caught.value.status == 409
    await inventory.kill("web.2.t2", "USR1")
    assert await waiting[1] == ExitStatus(138, "task: non-zero exit (138)")
    with pytest.raises(InvalidArgument, match="Invalid signal: NOPE"):
        await inventory.kill("web.3.t3", "NOPE")
    with pytest.raises(ApiError, match="You cannot remove a running container") as caught:
        await inventory.remove("web.3.t3")
    assert caught.value.status == 409
    await inventory.remove("web.3.t3", force=True)
    assert (await waiting[2]).code == 137
    assert await inventory.wait("web.2.t2") == 138
    await inventory.remove("web.2.t2")
    assert len(await inventory.list_containers(all=True)) == 2
    await controllers[2].remove()
    assert await output(controllers[2]) == []
    assert await inventory.stop("web.4.t4", timeout=0) is True
    assert (await waiting[3]).code in (137, 143)
    assert container_of(executor, "t4").exit is not None


async def test_images(executor: ProcessExecutor) -> None:
    inventory = executor.inventory
    images = await inventory.images()
    assert "swarmtui/web:1.1" in [image["RepoTags"][0] for image in images]
    assert all(image["Size"] > 0 for image in images)
    assert [image["RepoTags"] for image in await inventory.images({"reference": ["swarmtui/web"]})] == [
        ["swarmtui/web:1.0"],
        ["swarmtui/web:1.1"],
    ]
    stand_ins = await inventory.images({"label": ["swarmtui.image=stand-in"]})
    assert len(stand_ins) == 4
    found = await inventory.image("swarmtui/whoami")
    assert found == await inventory.image(found["Id"])
    assert found["Config"]["ExposedPorts"] == {"8000/tcp": {}}
    with pytest.raises(NotFound, match="No such image: redis:latest"):
        await inventory.image("redis")
