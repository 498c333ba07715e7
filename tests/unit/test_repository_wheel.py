"""The wheel that people install: what is in it, and that it works away from the source tree."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source tree."""
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, as an installation lays it out."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run_from(unpacked: Path, code: str) -> str:
    """Run code in a Python that finds the unpacked wheel first, from a folder that is not the source tree."""
    first = f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", first + code], cwd=unpacked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_both_packages_come_whole(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    present = {
        str(path.relative_to(ROOT))
        for package in ("swarmtui", "agent")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(present) > 50
    assert present - names == set()


def test_nothing_else_comes(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top.partition("-")[0] for top in tops} == {"swarmtui", "agent"}
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".pyc")]


def test_every_theme_is_found_by_the_installed_console(unpacked: Path) -> None:
    themes = sorted(path.name for path in (ROOT / "themes").glob("*.yaml"))
    assert len(themes) >= 2
    assert sorted(path.name for path in (unpacked / "swarmtui" / "themes").glob("*.yaml")) == themes
    code = "from swarmtui.ui import theme; print(theme.folder())"
    assert run_from(unpacked, code) == str(unpacked / "swarmtui" / "themes")


def test_the_licence_comes_along(unpacked: Path) -> None:
    (licence,) = unpacked.glob("swarmtui-*.dist-info/licenses/LICENSE")
    assert licence.read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [("swarmtui", ["--help"], "playground"), ("swarmtui-agent", ["--help"], "--data-dir")],
)
def test_the_console_scripts_start(unpacked: Path, script: str, arguments: list[str], said: str) -> None:
    (entries,) = unpacked.glob("swarmtui-*.dist-info/entry_points.txt")
    parser = ConfigParser()
    parser.read(entries)
    module, _, function = parser["console_scripts"][script].partition(":")
    code = (
        f"from {module} import {function}\n"
        f"assert sys.modules[{module!r}].__file__.startswith({str(unpacked)!r})\n"
        f"sys.argv = {[script, *arguments]!r}\n"
        f"{function}()"
    )
    assert said in run_from(unpacked, code)
