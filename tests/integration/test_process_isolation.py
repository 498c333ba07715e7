"""With root: what a container sees of the host, what bounds it, and what it may do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process_tools import container_of, executor_in, make_task, output, processes_with, says, started, until

from agent.api_types.common import Limits
from agent.api_types.container import (
    ConfigReference,
    Mount,
    Privileges,
    ReferenceFileTarget,
    TmpfsOptions,
    Ulimit,
)
from agent.worker.executors.images import programs
from agent.worker.executors.process import cgroups
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.executors.process.host import visible_folders
from agent.worker.executors.process.plan import CAPABILITIES
from agent.worker.interface import Dependencies, ExitStatus, RejectedByExecutor

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and control groups need root here"),
]


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[ProcessExecutor]:
    async with executor_in(tmp_path / "state", True) as made:
        yield made


async def run(
    executor: ProcessExecutor, script: str, name: str = "t1", limits: Limits | None = None, **spec: object
) -> list[str]:
    """What a shell script says in a container of its own; it must succeed."""
    controller = await started(executor, make_task(name, args=["sh", "-ec", script], limits=limits, **spec))
    end = await controller.wait()
    lines = await output(controller)
    assert end == ExitStatus(0), (end, lines)
    return lines


async def test_it_sees_programs_and_nobodys_files(executor: ProcessExecutor, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("x")
    script = f"""
        test ! -e {tmp_path}/private; test ! -e {tmp_path}/state
        ls /root /home /tmp /var/tmp
        for folder in /usr /etc /bin /sys /proc/sys; do ! touch $folder/x 2>/dev/null; done
        ! touch /etc/hosts-new 2>/dev/null; ! sh -c 'echo 1 > /proc/sys/kernel/panic' 2>/dev/null
        echo mine > /tmp/mine; echo mine > /root/mine; echo mine > /var/tmp/mine; echo mine > /run/mine; echo mine > /mine
        echo to nowhere > /dev/null; head -c 4 /dev/urandom | wc -c; test -d /dev/shm; test -w /dev/shm
    """
    # The product itself may lie in one of these folders, with the interpreter; nothing else of them is there.
    products = {
        Path(folder).relative_to(top).parts[0]
        for folder in visible_folders(Path(programs.__file__))
        for top in ("/home", "/root", "/tmp", "/var/tmp")
        if Path(folder).is_relative_to(top)
    }
    found = [line for line in await run(executor, script) if line not in products]
    assert found == ["/home:", "", "/root:", "", "/tmp:", "", "/var/tmp:", "4"]
    assert not Path("/mine").exists()
    assert not Path("/run/mine").exists()


async def test_it_is_alone_in_its_namespaces(executor: ProcessExecutor) -> None:
    script = (
        "hostname; cat /etc/hostname; ls /proc | grep -c '^[0-9]'; grep box1 /etc/hosts; ls -d /proc/[0-9]* | wc -l"
    )
    lines = await run(executor, script, hostname="box1", hosts=["10.1.2.3 db"])
    address = container_of(executor, "t1").record.address
    assert lines[:2] == ["box1", "box1"]
    assert int(lines[2]) < 8
    assert lines[3] == f"{address}\tbox1"
    assert (await run(executor, "hostname", "t2"))[0] == container_of(executor, "t2").record.container_id[:12]
    assert "10.1.2.3\tdb" in await run(executor, "cat /etc/hosts", "t3", hosts=["10.1.2.3 db"])


async def test_root_in_it_is_not_root_of_the_host(executor: ProcessExecutor) -> None:
    script = """
        ! mount -t tmpfs none /tmp 2>/dev/null
        ! mount -o remount,rw /usr 2>/dev/null
        ! mknod /dev/sda b 8 0 2>/dev/null || ! head -c 1 /dev/sda 2>/dev/null
        ! chroot /proc/1/root true 2>/dev/null || true
        ! hostname other 2>/dev/null
        grep CapEff /proc/self/status
    """
    lines = await run(executor, script)
    assert lines == ["CapEff:\t00000000a80425fb"]  # what Docker gives
    lines = await run(
        executor, "grep CapEff /proc/self/status", "t2", capability_drop=["ALL"], capability_add=["CAP_KILL"]
    )
    assert lines == ["CapEff:\t0000000000000020"]


def maps_users() -> bool:
    return int(Path("/proc/self/uid_map").read_text().split()[2]) > 65534


@pytest.mark.skipif(not maps_users(), reason="there is one user in this user namespace")
async def test_another_user(executor: ProcessExecutor) -> None:
    script = "id; grep CapEff /proc/self/status; ! touch /x 2>/dev/null; touch /tmp/x"
    lines = await run(executor, script, user="nobody")
    assert "uid=65534(nobody)" in lines[0]
    assert lines[1].endswith("0" * 16)
    lines = await run(executor, "id -u; id -g; id -G", "t2", user="1234:4321", groups=["7"])
    assert lines == ["1234", "4321", "4321 7"]
    controller = await executor.controller(make_task("t3", user="nosuch"), Dependencies())
    with pytest.raises(RejectedByExecutor, match="unable to find user nosuch: no matching entries in passwd file"):
        await controller.prepare()


@pytest.mark.skipif(not maps_users(), reason="there is one user in this user namespace")
async def test_another_user_runs_our_programs_wherever_they_lie(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", "swarmtui/web", user="nobody"))
    await says(controller, f"listening on {container_of(executor, 't1').record.address}:8080")
    address = controller.address(80, "tcp")
    assert address is not None
    assert address[1] == 8080


def may_lower_oom_score() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective >> CAPABILITIES["SYS_RESOURCE"] & 1)


@pytest.mark.skipif(not may_lower_oom_score(), reason="root has no CAP_SYS_RESOURCE here")
async def test_the_shim_is_spared_when_memory_runs_out(executor: ProcessExecutor) -> None:
    controller = await started(executor, make_task("t1", args=["sleep", "1000"]))
    run_record = container_of(executor, "t1").run
    assert run_record is not None
    assert Path(f"/proc/{run_record.shim}/oom_score_adj").read_text() == "-998\n"
    assert Path(f"/proc/{run_record.task}/oom_score_adj").read_text() == "0\n"
    process = await executor.inventory.exec("web.1.t1", ["cat", "/proc/self/oom_score_adj"])
    assert [data async for _stream, data in process.output()] == [b"0\n"]
    process.close()
    await controller.terminate()


async def test_privileges_and_limits_of_the_process(executor: ProcessExecutor) -> None:
    lines = await run(
        executor,
        "grep NoNewPrivs /proc/self/status; ulimit -n; cat /proc/self/oom_score_adj",
        privileges=Privileges(no_new_privileges=True),
        ulimits=[Ulimit(name="nofile", soft=77, hard=88)],
        oom_score_adj=100,
    )
    assert lines == ["NoNewPrivs:\t1", "77", "100"]


async def test_a_read_only_root(executor: ProcessExecutor) -> None:
    tmpfs = Mount(type="tmpfs", target="/scratch", tmpfs_options=TmpfsOptions(size_bytes=65536, mode=0o700))
    lines = await run(
        executor,
        "! touch /x 2>/dev/null; ! touch /tmp/x 2>/dev/null; echo y > /scratch/x; ls /scratch; df -P /scratch | tail -1",
        read_only=True,
        mounts=[tmpfs],
    )
    assert lines[0] == "x"
    assert lines[1].split()[1] == "64"


async def test_binds_and_volumes(executor: ProcessExecutor, tmp_path: Path) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    (source / "file").write_text("from the host\n")
    bind = Mount(type="bind", source=str(source), target="/data/in")
    fixed = Mount(type="bind", source=str(source / "file"), target="/etc/fixed.conf.d/file", read_only=True)
    volume = Mount(type="volume", source="pool-{{.Task.Slot}}", target="/pool")
    lines = await run(
        executor, "cat /data/in/file; echo kept > /pool/x; echo new > /data/in/new", mounts=[bind, volume]
    )
    assert lines == ["from the host"]
    assert (source / "new").read_text() == "new\n"
    assert await run(executor, "cat /pool/x", "t2", mounts=[volume]) == ["kept"]
    controller = await executor.controller(make_task("t3", args=["true"], mounts=[fixed]), Dependencies())
    await controller.prepare()
    with pytest.raises(RejectedByExecutor, match=r"starting container failed: .*"):
        await controller.start()
    missing = Mount(type="bind", source=str(tmp_path / "no"), target="/data")
    controller = await executor.controller(make_task("t4", args=["true"], mounts=[missing]), Dependencies())
    await controller.prepare()
    with pytest.raises(RejectedByExecutor, match="bind source path does not exist"):
        await controller.start()


async def test_a_config_may_cover_a_file_of_the_host(executor: ProcessExecutor) -> None:
    config = ConfigReference(config_id="c", config_name="c", file=ReferenceFileTarget(name="/etc/passwd", mode=0o444))
    task = make_task("t1", args=["cat", "/etc/passwd"], configs=[config])
    controller = await started(executor, task, Dependencies({}, {"c": b"covered\n"}))
    assert await controller.wait() == ExitStatus(0)
    assert await output(controller) == ["covered"]
    assert "covered" not in Path("/etc/passwd").read_text()


async def needs(executor: ProcessExecutor, controller: str) -> None:
    if controller not in (await executor._open()).host.controllers:
        pytest.skip(f"no control groups with {controller} here")


@pytest.mark.parametrize("isolate", [True, False])
async def test_a_fork_bomb_is_bounded(tmp_path: Path, isolate: bool) -> None:
    async with executor_in(tmp_path / "other", isolate) as executor:
        await needs(executor, "pids")
        script = "bomb() { bomb | bomb & }; echo ready; bomb; sleep 1000"
        controller = await started(executor, make_task("t1", args=["sh", "-c", script], limits=Limits(pids=50)))
        container = container_of(executor, "t1")
        await says(controller, "ready")
        await until(lambda: cgroups.usage(container.groups).pids >= 20)
        assert len(cgroups.members(container.groups)) <= 50
        await controller.terminate()
        assert cgroups.members(container.groups) == []
        assert cgroups.entries(container.groups) == []


async def test_memory_is_bounded_and_the_reason_told(executor: ProcessExecutor) -> None:
    await needs(executor, "memory")
    script = "x=a; while :; do x=$x$x; done"
    controller = await started(
        executor, make_task("t1", args=["sh", "-c", script], limits=Limits(memory_bytes=16 * 2**20))
    )
    end = await asyncio.wait_for(controller.wait(), 30)
    assert end == ExitStatus(137, "task: non-zero exit (137): out of memory")
    inspected = await executor.inventory.inspect("web.1.t1")
    assert inspected["State"]["OOMKilled"] is True


async def test_cpu_time_is_bounded(executor: ProcessExecutor) -> None:
    await needs(executor, "cpu")
    task = make_task("t1", args=["sh", "-c", "while :; do :; done"], limits=Limits(nano_cpus=100_000_000))
    await started(executor, task)
    container = container_of(executor, "t1")
    await until(lambda: cgroups.usage(container.groups).throttled_periods >= 3)


async def test_no_mounts_of_containers_show_on_the_host(executor: ProcessExecutor) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    await started(executor, make_task("t1", args=["sleep", "1000"]))
    assert Path("/proc/self/mountinfo").read_text() == before


async def test_when_the_shim_dies_the_kernel_ends_everything(executor: ProcessExecutor) -> None:
    mark = f"54321{os.getpid()}"
    script = f"(setsid nohup sleep {mark} >/dev/null 2>&1 &); echo ready; sleep {mark}"
    controller = await started(executor, make_task("t1", args=["sh", "-c", script]))
    await says(controller, "ready")
    run_record = container_of(executor, "t1").run
    assert run_record is not None
    os.kill(run_record.shim, 9)
    await until(lambda: processes_with(mark) == [])
    assert (await controller.wait()).code == 137
