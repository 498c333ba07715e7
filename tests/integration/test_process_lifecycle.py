"""The life of a task as a process, with namespaces and without: prepare, start, wait, stop, remove."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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

from agent.api_types.container import (
    ConfigReference,
    HealthConfig,
    ReferenceFileTarget,
    SecretReference,
)
from agent.api_types.task import Endpoint, PortConfig, Task
from agent.api_types.times import MILLISECOND, SECOND
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.interface import Dependencies, ExitStatus, RejectedByExecutor, Stream, TemporaryFailure

ROOT = os.geteuid() == 0


@pytest.fixture(params=["isolated", "plain"])
async def executor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProcessExecutor]:
    if request.param == "isolated" and not ROOT:
        pytest.skip("namespaces need root here")
    async with executor_in(tmp_path / "state", request.param == "isolated") as made:
        if request.param == "isolated":
            assert (await made._open()).host.no_isolation == ""
        yield made


async def ask(address: tuple[str, int], path: str = "/") -> str:
    while True:
        try:
            reader, writer = await asyncio.open_connection(*address)
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.005)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer.partition("\r\n\r\n")[2]


async def test_whoami_answers_on_its_own_address(executor: ProcessExecutor) -> None:
    controllers = [await started(executor, make_task(f"t{n}", "swarmtui/whoami", slot=n)) for n in (1, 2)]
    addresses = [controller.address(8000, "tcp") for controller in controllers]
    assert addresses == [(str(NETWORK[2]), 8000), (str(NETWORK[3]), 8000)]
    for number, address in enumerate(addresses, 1):
        assert address is not None
        # What counts as running listens: a balancer may send it connections at once.
        with socket.create_connection(address):
            pass
        facts = json.loads(await ask(address, "/api"))
        assert facts["task"] == f"web.{number}.t{number}"
        assert facts["slot"] == number
        assert facts["node"] == "node1"
        assert facts["address"] == f"{address[0]}:8000"
    await says(controllers[0], "GET /api 200")
    for controller in controllers:
        await controller.shutdown()
        assert await controller.wait() == ExitStatus(0)
        assert controller.address(8000, "tcp") is None


@pytest.mark.parametrize(
    ("image", "expected"),
    [("swarmtui/web:1.0", "Version 1.0"), ("swarmtui/web", "Version 1.1"), ("nginx:1.25", "nginx"), ("httpd", "httpd")],
)
async def test_pages_answer_on_port_80_wherever_they_listen(
    executor: ProcessExecutor, image: str, expected: str
) -> None:
    controller = await started(executor, make_task("t1", image))
    address = controller.address(80, "tcp")
    assert address is not None
    assert expected in await ask(address)
    await controller.shutdown()


async def test_output_exit_code_and_environment(executor: ProcessExecutor) -> None:
    script = 'echo "$GREETING $TASK_SLOT $TASK_NAME"; echo oops >&2; pwd; printf unfinished; exit 3'
    task = make_task(
        "t1", args=["sh", "-c", script], env=["GREETING=hello {{.Service.Name}} on {{.Node.Hostname}}"], dir="/tmp"
    )
    controller = await started(executor, task)
    assert await controller.wait() == ExitStatus(3, "task: non-zero exit (3)")
    assert await controller.wait() == ExitStatus(3, "task: non-zero exit (3)")
    lines = [line async for line in controller.logs(0, False, -1)]
    by_stream = {
        stream: [line.data for line in lines if line.stream is stream and not line.data.startswith(b"swarmtui: ")]
        for stream in Stream
    }
    assert by_stream == {
        Stream.STDOUT: [b"hello web on node1 1 web.1.t1", b"/tmp", b"unfinished"],
        Stream.STDERR: [b"oops"],
    }
    status, ports = await controller.status()
    assert status is not None
    assert (status.exit_code, status.pid, len(status.container_id)) == (3, 0, 64)
    assert ports.ports == []


async def test_it_inherits_its_three_streams_and_no_signal_that_is_blocked_or_ignored(
    executor: ProcessExecutor,
) -> None:
    script = "ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; readlink /proc/self/fd/0; umask"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script]))
    await controller.wait()
    lines = await output(controller)
    # 3 is what ls reads the folder with.
    assert lines == ["0", "1", "2", "3", "SigBlk:\t" + "0" * 16, "SigIgn:\t" + "0" * 16, "/dev/null", "0022"]


async def test_the_log_begins_with_what_a_person_must_know(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["true"], tty=True))
    assert await controller.wait() == ExitStatus(0)
    head = [line.data.decode() async for line in controller.logs(0, False, -1)]
    assert head[0].startswith("swarmtui: alpine is a stand-in that ships with swarmtui")
    assert head[1] == "swarmtui: a service's process has no terminal here: tty is ignored"


@pytest.mark.parametrize(
    ("name", "number"), [("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM), ("SIGSEGV", signal.SIGSEGV)]
)
async def test_killed_from_outside_it_ends_with_the_signals_code(
    executor: ProcessExecutor, name: str, number: int
) -> None:
    controller = await started(executor, make_task("t1", args=["sleep", "1000"]))
    status, _ = await controller.status()
    assert status is not None
    os.kill(status.pid, number)
    assert await controller.wait() == ExitStatus(128 + number, f"task: non-zero exit ({128 + number})")


async def test_what_the_first_process_leaves_behind_dies_with_it(executor: ProcessExecutor) -> None:
    mark = f"98765{os.getpid()}"
    script = f"sleep {mark} & (setsid sleep {mark} &) ; nohup sleep {mark} >/dev/null 2>&1 & echo ready; exit 0"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script]))
    assert await controller.wait() == ExitStatus(0)
    assert await output(controller) == ["ready"]
    assert processes_with(mark) == []


async def test_orphans_are_reaped(executor: ProcessExecutor) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 0' &); done; sleep 0.1; echo ready; exec sleep 1000"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script]))
    await says(controller, "ready")
    shim = container_of(executor, "t1").run.shim  # type: ignore[union-attr]

    def children() -> list[str]:
        return Path(f"/proc/{shim}/task/{shim}/children").read_text().split()

    await until(lambda: len(children()) == 1)


async def test_a_task_that_ignores_the_signal_is_killed_after_the_grace_period(executor: ProcessExecutor) -> None:
    script = "trap 'echo ignored' TERM; echo ready; while :; do sleep 0.01; done"
    task = make_task("t1", args=["sh", "-c", script], stop_grace_period=300 * MILLISECOND)
    controller = await started(executor, task)
    await says(controller, "ready")
    begun = asyncio.get_running_loop().time()
    await controller.shutdown()
    assert asyncio.get_running_loop().time() - begun >= 0.3
    assert await controller.wait() == ExitStatus(137)
    assert "ignored" in await output(controller)


async def test_the_stop_signal_is_the_services_own(executor: ProcessExecutor) -> None:
    script = "trap 'echo usr1; exit 7' USR1; trap '' TERM; echo ready; while :; do sleep 0.01; done"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script], stop_signal="USR1"))
    await says(controller, "ready")
    await controller.shutdown()
    assert await controller.wait() == ExitStatus(7)
    assert await output(controller) == ["ready", "usr1"]


async def test_terminate_does_not_wait(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["sh", "-c", "trap '' TERM; sleep 1000"]))
    await controller.terminate()
    assert await controller.wait() == ExitStatus(137)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["nosuch", "x"], 'exec: "nosuch": executable file not found in $PATH'),
        (["/no/such"], 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc"], 'exec: "/etc": permission denied'),
    ],
)
async def test_a_command_that_is_not_there(executor: ProcessExecutor, argv: list[str], text: str) -> None:
    controller = await executor.controller(make_task("t1", args=argv), Dependencies())
    await controller.prepare()
    for _ in range(2):
        with pytest.raises(RejectedByExecutor) as caught:
            await controller.start()
        assert str(caught.value) == f"starting container failed: {text}: unknown"
    status, _ = await controller.status()
    assert status is not None
    assert status.exit_code in (126, 127)


async def test_an_image_that_is_not_there(executor: ProcessExecutor) -> None:
    controller = await executor.controller(make_task("t1", "redis"), Dependencies())
    with pytest.raises(RejectedByExecutor, match=r"No such image: redis:latest; this node runs swarmtui/whoami,"):
        await controller.prepare()
    assert await executor.known_tasks() == []
    assert await controller.status() == (None, (await controller.status())[1])
    await controller.shutdown()
    await controller.terminate()
    await controller.remove()
    assert await output(controller) == []


async def test_the_order_is_the_workers_and_repetition_harmless(executor: ProcessExecutor) -> None:
    controller = await executor.controller(make_task("t1", args=["sleep", "1000"]), Dependencies())
    with pytest.raises(TemporaryFailure):
        await controller.start()
    await controller.prepare()
    with pytest.raises(TemporaryFailure, match="not started"):
        await controller.wait()
    await asyncio.gather(controller.prepare(), controller.start(), controller.start())
    status, _ = await controller.status()
    assert status is not None
    again = await executor.controller(make_task("t1", args=["sleep", "1000"]), Dependencies())
    await again.prepare()
    await again.start()
    assert await again.status() == await controller.status()
    await asyncio.gather(again.shutdown(), controller.shutdown(), again.remove(), controller.remove())
    assert not is_alive(status.pid)
    assert await executor.known_tasks() == []
    await again.remove()


async def test_a_task_stopped_before_it_started_stays_so(executor: ProcessExecutor) -> None:
    controller = await executor.controller(make_task("t1", args=["sleep", "1000"]), Dependencies())
    await controller.prepare()
    await controller.shutdown()
    status, _ = await controller.status()
    assert status is not None
    assert status.pid == 0


async def test_a_task_without_a_spec_is_what_is_left_of_one(executor: ProcessExecutor) -> None:
    await started(executor, make_task("t1", args=["sleep", "1000"]))
    status, _ = await (await executor.controller(Task(id="t1"), Dependencies())).status()
    assert status is not None
    await (await executor.controller(Task(id="t1"), Dependencies())).remove()
    assert not is_alive(status.pid)
    stranger = await executor.controller(Task(id="t2"), Dependencies())
    with pytest.raises(RejectedByExecutor, match="unsupported runtime"):
        await stranger.prepare()
    with pytest.raises(RejectedByExecutor, match="invalid task id"):
        await executor.controller(Task(id="../x"), Dependencies())


async def test_secrets_and_configs(executor: ProcessExecutor, tmp_path: Path) -> None:
    task = make_task(
        "t1",
        args=["sh", "-c", 'cat "$TASK_FILES/run/secrets/token" "$TASK_FILES/srv/app/my.conf"; sleep 1000'],
        secrets=[
            SecretReference(secret_id="s1", secret_name="token", file=ReferenceFileTarget(name="token", mode=0o400))
        ],
        configs=[
            ConfigReference(
                config_id="c1", config_name="conf", file=ReferenceFileTarget(name="/srv/app/my.conf", mode=0o444)
            )
        ],
    )
    dependencies = Dependencies({"s1": b"top-secret-words\n"}, {"c1": b"configured\n"})
    controller = await started(executor, task, dependencies)
    await says(controller, "configured")
    assert await output(controller) == ["top-secret-words", "configured"]
    memory = Path(f"/dev/shm/swarmtui-{container_of(executor, 't1').record.container_id[:32]}")
    if not container_of(executor, "t1").record.isolated:
        assert memory.stat().st_mode & 0o777 == 0o700
        assert (memory / "run/secrets/token").stat().st_mode & 0o777 == 0o400
    # The log aside, nothing on the disk knows it.
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file() and not path.name.startswith("log."):
            assert b"top-secret" not in path.read_bytes()
    await controller.shutdown()
    assert not memory.exists()


async def test_a_secret_that_has_not_arrived(executor: ProcessExecutor) -> None:
    secret = SecretReference(secret_id="s1", secret_name="token", file=ReferenceFileTarget(name="token", mode=0o400))
    controller = await executor.controller(make_task("t1", args=["true"], secrets=[secret]), Dependencies())
    await controller.prepare()
    with pytest.raises(RejectedByExecutor, match="secret of /run/secrets/token is not here"):
        await controller.start()
    status, _ = await controller.status()
    assert status is not None
    assert status.pid == 0


@pytest.mark.parametrize("form", ["CMD", "CMD-SHELL"])
async def test_start_waits_until_it_is_healthy(executor: ProcessExecutor, tmp_path: Path, form: str) -> None:
    flag = "/tmp/healthy" if container_isolated(executor) else str(tmp_path / "healthy")
    test = ["CMD", "test", "-e", flag] if form == "CMD" else ["CMD-SHELL", f"test -e {flag}"]
    task = make_task(
        "t1",
        args=["sh", "-c", f"sleep 0.2; touch {flag}; echo touched; exec sleep 1000"],
        healthcheck=HealthConfig(test=test, interval=20 * MILLISECOND, retries=1000),
    )
    controller = await started(executor, task)
    assert await output(controller) == ["touched"]
    await asyncio.wait_for(controller.start(), 0.05)
    waiting = asyncio.ensure_future(controller.wait())
    await controller.shutdown()
    assert await waiting == ExitStatus(143)


def container_isolated(executor: ProcessExecutor) -> bool:
    return executor._isolate


async def test_an_unhealthy_task_is_stopped_and_fails(executor: ProcessExecutor) -> None:
    check = HealthConfig(test=["CMD-SHELL", "echo broken; exit 1"], interval=10 * MILLISECOND, retries=2)
    controller = await executor.controller(make_task("t1", args=["sleep", "1000"], healthcheck=check), Dependencies())
    await controller.prepare()
    with pytest.raises(RejectedByExecutor) as caught:
        await controller.start()
    assert str(caught.value) == "task: non-zero exit (143): dockerexec: unhealthy container"
    results = container_of(executor, "t1").health.results  # type: ignore[union-attr]
    assert [(one.exit_code, one.output) for one in results] == [(1, "broken\n"), (1, "broken\n")]


async def test_a_task_that_becomes_unhealthy_later(executor: ProcessExecutor, tmp_path: Path) -> None:
    flag = "/tmp/sick" if container_isolated(executor) else str(tmp_path / "sick")
    check = HealthConfig(test=["CMD-SHELL", f"test ! -e {flag}"], interval=10 * MILLISECOND, retries=1)
    script = f"trap 'exit 0' TERM; echo ready; sleep 0.3; touch {flag}; while :; do sleep 0.01; done"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script], healthcheck=check))
    assert await controller.wait() == ExitStatus(0, "dockerexec: unhealthy container")


async def test_a_check_that_takes_too_long_is_a_failure_and_leaves_nothing(executor: ProcessExecutor) -> None:
    mark = f"87654{os.getpid()}"
    check = HealthConfig(
        test=["CMD-SHELL", f"sleep {mark}"], interval=10 * MILLISECOND, timeout=100 * MILLISECOND, retries=1
    )
    controller = await executor.controller(make_task("t1", args=["sleep", "1000"], healthcheck=check), Dependencies())
    await controller.prepare()
    with pytest.raises(RejectedByExecutor, match="unhealthy"):
        await controller.start()
    result = container_of(executor, "t1").health.results[0]  # type: ignore[union-attr]
    assert (result.exit_code, result.output) == (-1, "Health check exceeded timeout (0.1s)")
    await until(lambda: processes_with(mark) == [])


async def test_a_task_that_ends_before_it_is_healthy(executor: ProcessExecutor) -> None:
    check = HealthConfig(test=["CMD", "false"], interval=SECOND, retries=1000)
    controller = await executor.controller(
        make_task("t1", "swarmtui/fail", env=["EXIT_CODE=9"], healthcheck=check), Dependencies()
    )
    await controller.prepare()
    with pytest.raises(RejectedByExecutor) as caught:
        await controller.start()
    assert str(caught.value) == "task: non-zero exit (9)"
    assert "ends with exit code 9 after 0 s, as asked for" in await output(controller)


async def test_following_a_log_from_before_the_start_to_after_the_end(executor: ProcessExecutor) -> None:
    controller = await executor.controller(
        make_task("t1", "swarmtui/logger", env=["RATE=max", "COUNT=5000"]), Dependencies()
    )
    await controller.prepare()
    following = asyncio.ensure_future(output(controller, follow=True))
    await asyncio.sleep(0)
    await controller.start()
    lines = await following
    assert sorted(int(line.split()[1]) for line in lines) == list(range(1, 5001))
    assert await output(controller, tail=3) == lines[-3:]
    times = [line.timestamp async for line in controller.logs(0, False, -1)]
    assert times == sorted(set(times))


async def test_published_ports_of_mode_host_are_reported_while_it_runs(executor: ProcessExecutor) -> None:
    port = PortConfig(protocol="tcp", target_port=8000, published_port=18080, publish_mode="host")
    other = PortConfig(protocol="tcp", target_port=8001, published_port=18081, publish_mode="ingress")
    task = make_task("t1", "swarmtui/whoami")
    task = type(task)(
        **{**{name: getattr(task, name) for name in task.__struct_fields__}, "endpoint": Endpoint(ports=[port, other])}
    )
    controller = await started(executor, task)
    assert (await controller.status())[1].ports == [port]
    await controller.shutdown()
    assert (await controller.status())[1].ports == []


async def test_describe_and_the_addresses_of_many(executor: ProcessExecutor) -> None:
    description = await executor.describe()
    assert description.hostname == "node1"
    assert description.platform.os == "linux"
    assert description.resources.nano_cpus >= 10**9
    assert description.resources.memory_bytes > 2**20
    assert description.engine.labels["swarmtui.executor"] == "process"


async def test_none_of_the_output_is_kept_with_the_driver_none(executor: ProcessExecutor) -> None:
    from agent.api_types.common import Driver

    task = make_task("t1", args=["sh", "-c", "echo x; echo y >&2"])
    spec: Any = {name: getattr(task.spec, name) for name in task.spec.__struct_fields__}
    spec["log_driver"] = Driver(name="none")
    fields: Any = {name: getattr(task, name) for name in task.__struct_fields__}
    fields["spec"] = type(task.spec)(**spec)
    controller = await started(executor, type(task)(**fields))
    assert await controller.wait() == ExitStatus(0)
    with pytest.raises(RejectedByExecutor, match="configured logging driver does not support reading"):
        await output(controller)
