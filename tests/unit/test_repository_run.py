"""The script `run`: what it says, above all when something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "cat", "cksum", "date", "mktemp", "sleep", "rm", "id", "printf", "pwd", "env", "kill")


class Machine:
    """A folder with the script in it, and a PATH that holds only what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs = folder / "bin"
        self._programs.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is not None:
                (self._programs / tool).symlink_to(found)
        for name in ("run", "pyproject.toml"):
            shutil.copy(ROOT / name, folder / name)

    def program(self, name: str, script: str, folder: Path | None = None) -> None:
        """Put a shell script in the place of a program."""
        path = (folder or self._programs) / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.folder / "run"), *arguments],
            env={"PATH": str(self._programs), "TMPDIR": str(self.folder)},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.program("id", "echo 1000")
    return made


# Makes an environment whose Python notes how it is called.
PYTHON = """
case "$*" in
*"-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
*"-m pip install"*) echo installed >> "$(dirname "$0")/installs" ;;
*"-m pytest"*) echo "pytest ran: $*" ;;
esac
exit 0
"""


def test_help_lists_every_command(machine: Machine) -> None:
    done = machine.run("help")
    assert done.returncode == 0
    for command in ("playground", "check", "test", "bench", "simulate", "soak", "screenshots"):
        assert f"./run {command}" in done.stdout
    assert machine.run().stdout == done.stdout


def test_an_unknown_command_is_named(machine: Machine) -> None:
    done = machine.run("fly")
    assert done.returncode == 1
    assert "unknown command 'fly'" in done.stderr


def test_without_python_a_person_is_told_what_to_install(machine: Machine) -> None:
    done = machine.run("check")
    assert done.returncode == 1
    assert "missing: python3 python3-venv" in done.stderr


def test_an_old_python_is_named_with_its_version(machine: Machine) -> None:
    machine.program("python3", 'case "$1" in --version) echo Python 3.9.2; exit 0;; esac; exit 1')
    done = machine.run("check")
    assert done.returncode == 1
    assert "Python 3.11 or later is needed; this machine has Python 3.9.2" in done.stderr


def test_a_python_without_venv_is_told_as_a_package(machine: Machine) -> None:
    machine.program("python3", 'case "$*" in *ensurepip*) exit 1;; esac; exit 0')
    done = machine.run("check")
    assert done.returncode == 1
    assert "missing: python3-venv" in done.stderr


def test_a_failing_step_shows_what_it_said(machine: Machine) -> None:
    machine.program("python3", 'case "$*" in *"-m venv"*) echo no space left; exit 1;; esac; exit 0')
    done = machine.run("check")
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert "failed; what it said is above" in done.stderr


def test_the_environment_is_made_once_and_again_when_the_project_changes(machine: Machine) -> None:
    for tool in ("mkdir", "cp"):
        (machine.folder / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    machine.program("python3", PYTHON)
    installs = machine.folder / ".venv" / "bin" / "installs"
    for _ in range(2):
        done = machine.run("bench")
        assert "pytest ran: -m pytest tests/benchmarks -s" in done.stdout, done.stderr
    assert installs.read_text() == "installed\n"
    with open(machine.folder / "pyproject.toml", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    machine.run("bench")
    assert installs.read_text() == "installed\n" * 2


@pytest.mark.parametrize("arguments", [(), ("SEEDS=",), ("SEEDS=many",), ("10",)])
def test_simulate_wants_a_number(machine: Machine, arguments: tuple[str, ...]) -> None:
    done = machine.run("simulate", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("run: simulate: ")


def test_the_ci_script_runs_the_two_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text().splitlines() if line.startswith("./run")] == [
        "./run check",
        "./run test",
    ]
