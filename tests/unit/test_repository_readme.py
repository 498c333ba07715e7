"""The README says what is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def keys() -> ModuleType:
    """The script that writes the key table."""
    spec = importlib.util.spec_from_file_location("readme_keys", ROOT / "tests" / "readme_keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_key_table_is_the_registrys(keys: ModuleType) -> None:
    assert "| `Ctrl+Q` |" in keys.with_keys(README)
    assert keys.with_keys(README) == README, "run: python tests/readme_keys.py"


def test_every_command_of_the_script_that_it_names_exists() -> None:
    script = (ROOT / "run").read_text()
    named = set(re.findall(r"\./run ([a-z]+)", README))
    assert {"playground", "test", "check"} <= named
    assert [name for name in named if not re.search(rf"^{name}\b.*\)", script, re.MULTILINE)] == []


def test_every_file_that_it_shows_or_links_is_there() -> None:
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]
    assert linked
    assert [target for target in linked if not (ROOT / target).exists()] == []


def test_the_changelog_has_the_version_or_what_comes_next() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(Unreleased|\d+\.\d+\.\d+)\]", text, re.MULTILINE)
