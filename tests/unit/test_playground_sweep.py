"""Which processes a sweep takes for a session's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmtui.playground import kernel
from swarmtui.playground.places import SESSION_VARIABLE, ProcessMark, Record, base_lock, make_session
from swarmtui.playground.sweep import owned_by, sweep

WAITING = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.communicate()


def start(
    processes: list[subprocess.Popen[bytes]], *, mark: str = "", output: Path | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """A process that waits for the end of its input."""
    environment = {**os.environ, **({SESSION_VARIABLE: mark} if mark else {})}
    if output is None:
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=cwd
        )
        assert process.stdout is not None
        process.stdout.readline()
    else:
        with open(output, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=file, env=environment
            )
    processes.append(process)
    return process


def test_the_marked_and_those_that_write_into_the_folder_are_its_own(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    marked = start(processes, mark="abcdef")
    writing = start(processes, output=tmp_path / "task.log")
    start(processes, mark="ghijkl")
    start(processes, cwd=tmp_path)
    assert owned_by("abcdef", tmp_path) == {marked.pid, writing.pid}


def test_a_folder_whose_name_begins_alike_is_another(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    for name in ("abc", "abcd"):
        (tmp_path / name).mkdir()
    start(processes, output=tmp_path / "abcd" / "task.log")
    assert owned_by("abc", tmp_path / "abc") == set()


def test_a_sweep_ends_the_processes_of_the_dead_and_spares_those_that_only_share_a_number(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    base = tmp_path / "base"
    with base_lock(base):
        dead, lock = make_session(base)
        living, living_lock = make_session(base)
    recorded, reused, marked = start(processes), start(processes), start(processes, mark=dead.name)
    begun = kernel.start_time(recorded.pid)
    assert begun is not None
    marks = [ProcessMark(recorded.pid, begun), ProcessMark(reused.pid, begun - 1)]
    Record(dead.name, "loopback", processes=marks).write(dead)
    spared = start(processes, mark=living.name)
    os.close(lock)
    with base_lock(base):
        assert sweep(base) == [dead.name]
    assert recorded.wait(10) == marked.wait(10) == -9
    assert reused.poll() is None
    assert spared.poll() is None
    assert living.exists()
    assert not dead.exists()
    os.close(living_lock)
