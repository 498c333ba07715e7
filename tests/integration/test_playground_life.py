"""A playground from its start to its end, whichever way it ends: what it promises, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playground_tiers import usable_tiers

from swarmtui.playground import kernel
from swarmtui.playground.places import BASE_VARIABLE, SESSION_VARIABLE
from swarmtui.playground.sweep import owned_by

STAND_IN = Path(__file__).with_name("playground_stand_in.py")
PATIENCE = 30.0

PROGRAM = "from swarmtui.playground.command import playground; playground()"


def await_end(pid: int) -> bool:
    """Wait for a process that is nobody's child here; True when it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def task_of(folder: Path) -> int:
    """The stand-in's task of one instance, as the host sees it."""
    log = f"{folder}/data/task.log"
    for pid in kernel.processes():
        try:
            if os.readlink(f"/proc/{pid}/fd/1") == log:
                return pid
        except OSError:
            continue
    raise AssertionError(f"no task of {folder}")


@dataclass
class Running:
    """A playground that was started through the command line."""

    process: subprocess.Popen[str]
    answer: dict[str, Any]

    @property
    def folder(self) -> Path:
        return Path(self.answer["instances"][0]["docker_host"].removeprefix("unix://")).parents[1]

    @property
    def session(self) -> str:
        return self.folder.name

    def instance(self, name: str) -> dict[str, Any]:
        return next(one for one in self.answer["instances"] if one["name"] == name)

    @property
    def keeper(self) -> int:
        """The parent of process 1 of the first instance."""
        parent = kernel.parent_of(self.answer["instances"][0]["pid"])
        assert parent is not None
        return parent

    def leftovers(self) -> dict[str, list[str]]:
        """Everything on this machine that carries the session's mark."""
        session = self.session
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
        groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/swarmtui-{session}")]
        groups += [str(path) for path in Path("/sys/fs/cgroup").glob(f"swarmtui-{session}")]
        named = Path("/run/netns")
        found = {
            "processes": [str(pid) for pid in owned_by(session, self.folder) if not kernel.is_zombie(pid)],
            "links": [line for line in links if session in line],
            "namespaces": [path.name for path in named.iterdir() if session in path.name] if named.exists() else [],
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if session in line],
            "groups": groups,
            "files": [str(self.folder)] if self.folder.exists() else [],
        }
        return {kind: left for kind, left in found.items() if left}


Start = Callable[..., Running]


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for sessions, short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    yield folder / "b"
    shutil.rmtree(folder)


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    """Starts playgrounds; those that still run at the end are ended."""
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PROGRAM,
                "--headless",
                "--json",
                "--agent",
                f"{sys.executable} {STAND_IN}",
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, BASE_VARIABLE: str(base)},
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"the playground said nothing but: {process.communicate()[1]}")
        running.append(Running(process, json.loads(line)))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
        one.process.communicate(timeout=PATIENCE)


def end(running: Running, number: int = signal.SIGTERM) -> int:
    """Send a signal and return the exit status."""
    running.process.send_signal(number)
    return running.process.wait(PATIENCE)


pytestmark = pytest.mark.parametrize("tier", usable_tiers())


async def test_every_instance_answers_and_has_the_processes_that_it_names(tier: str, start: Start) -> None:
    running = start("--tier", tier, "--nodes", "3")
    instances = running.answer["instances"]
    assert [one["name"] for one in instances] == ["node1", "node2", "node3"]
    assert [one["role"] for one in instances] == ["manager", "worker", "worker"]
    assert len({one["address"] for one in instances}) == 3
    assert running.answer["expires_at"].endswith("Z")
    for one in instances:
        path = one["docker_host"].removeprefix("unix://")
        assert len(path.encode()) <= 107
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as client,
            client.get("http://node/_ping") as answer,
        ):
            assert await answer.text() == "OK"
        # The host reaches every instance's own address.
        async with aiohttp.ClientSession() as client, client.get(f"http://{one['address']}:2377/_ping") as answer:
            assert answer.status == 200
        assert kernel.parent_of(one["agent_pid"]) == one["pid"]
        assert f"--hostname\0{one['name']}\0" in Path(f"/proc/{one['agent_pid']}/cmdline").read_text()
        if tier != "loopback":
            assert kernel.inner_pid(one["pid"]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_nothing_is_left(tier: str, number: int, start: Start, base: Path) -> None:
    running = start("--tier", tier, "--nodes", "2")
    tasks = [task_of(running.folder / name) for name in ("node1", "node2")]
    assert {"processes", "files"} <= running.leftovers().keys()
    assert end(running, number) == 0
    assert running.leftovers() == {}
    # They have ended; whoever adopted them may still have to read how.
    assert all(await_end(pid) for pid in tasks)
    assert not base.exists()


def test_killed_it_ends_all_the_same(tier: str, start: Start, base: Path) -> None:
    running = start("--tier", tier, "--nodes", "2")
    keeper = running.keeper
    running.process.kill()
    running.process.wait(PATIENCE)
    assert await_end(keeper)
    assert running.leftovers() == {}
    assert not base.exists()


def test_killed_with_its_keeper_it_is_swept_by_the_next_start(tier: str, start: Start, base: Path) -> None:
    running = start("--tier", tier, "--nodes", "2")
    tasks = [task_of(running.folder / name) for name in ("node1", "node2")]
    keeper = running.keeper
    for pid in (running.process.pid, keeper):
        os.kill(pid, signal.SIGKILL)
    running.process.wait(PATIENCE)
    assert await_end(keeper)
    for one in running.answer["instances"]:
        assert await_end(one["pid"])
    assert "files" in running.leftovers()
    second = start("--tier", tier, "--nodes", "1")
    assert running.leftovers() == {}
    # They have ended; whoever adopted them may still have to read how.
    assert all(await_end(pid) for pid in tasks)
    assert second.folder.exists()
    assert end(second) == 0
    assert not base.exists()


def test_a_sweep_leaves_the_living_alone(tier: str, start: Start) -> None:
    first = start("--tier", tier, "--nodes", "2")
    second = start("--tier", tier, "--nodes", "2")
    assert end(second) == 0
    assert second.leftovers() == {}
    for one in first.answer["instances"]:
        assert kernel.start_time(one["pid"]) is not None
        assert kernel.start_time(one["agent_pid"]) is not None
    addresses = [{one["address"] for one in running.answer["instances"]} for running in (first, second)]
    assert not addresses[0] & addresses[1]


def test_a_power_cut_takes_everything_in_the_instance_along(tier: str, start: Start) -> None:
    running = start("--tier", tier, "--nodes", "2")
    task = task_of(running.folder / "node2")
    node1, node2 = running.instance("node1"), running.instance("node2")
    os.kill(node2["pid"], signal.SIGKILL)
    for pid in (node2["pid"], node2["agent_pid"], task):
        assert await_end(pid)
    assert kernel.start_time(node1["agent_pid"]) is not None
    assert kernel.start_time(task_of(running.folder / "node1")) is not None


def test_a_killed_agent_leaves_its_tasks_running(tier: str, start: Start) -> None:
    running = start("--tier", tier, "--nodes", "2")
    node2 = running.instance("node2")
    task = task_of(running.folder / "node2")
    os.kill(node2["agent_pid"], signal.SIGKILL)
    assert await_end(node2["agent_pid"])
    assert kernel.start_time(task) is not None
    assert kernel.start_time(node2["pid"]) is not None
    assert end(running) == 0
    assert running.leftovers() == {}
    assert kernel.start_time(task) is None


def test_the_persons_environment_stays_outside(tier: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    running = start("--tier", tier, "--nodes", "1")
    environment = Path(f"/proc/{running.instance('node1')['agent_pid']}/environ").read_bytes().split(b"\0")
    assert f"{SESSION_VARIABLE}={running.session}".encode() in environment
    assert not [entry for entry in environment if entry.startswith(b"DOCKER_HOST=")]
