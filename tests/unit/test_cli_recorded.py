"""Our command line sends what the docker CLI sent: its recorded commands, typed again, body against body."""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from client_fake_engine import FakeEngine, in_a_thread

from swarmtui.cli import cli
from swarmtui.operations.spec_changes import flat

RECORDING = Path(__file__).parents[1] / "recordings" / "docker-cli-28.2.2-against-engine-20.10.jsonl.gz"
NO_WAIT = ["service create", "service update", "service scale", "service rollback"]


NEEDS_A_REGISTRY = 70
"""`--with-registry-auth` is not an option here."""
REFUSED_HERE = (133, 135)
"""A failure action that does not exist, a rollback without a previous specification: refused before anything is sent."""


@cache
def recorded() -> dict[int, list[dict[str, Any]]]:
    commands: dict[int, list[dict[str, Any]]] = {}
    with gzip.open(RECORDING, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            commands.setdefault(entry["cmd_id"], []).append(entry)
    return commands


def numbers(*beginnings: str) -> Iterator[int]:
    """Commands that begin so and were sent to the engine as a change."""
    for number, entries in recorded().items():
        text = entries[0]["cmd"].removeprefix("docker ")
        if text.startswith(beginnings) and posts(number):
            yield number


def posts(number: int) -> list[dict[str, Any]]:
    return [e for e in recorded()[number] if e["type"] == "http" and e["method"] == "POST"]


def created(number: int) -> bool:
    return posts(number)[0]["path"] == "/services/create"


def prepare(engine: FakeEngine, number: int) -> None:
    """What the recorded command read, so that ours reads the same."""
    for entry in recorded()[number]:
        if entry["type"] != "http" or entry["method"] != "GET" or entry["status"] != 200:
            continue
        parts = entry["path"].strip("/").split("/")
        body = entry["resp_body"]
        if parts[0] == "networks" and len(parts) == 2:
            engine.tables["networks"][body["Id"]] = {**body, "ID": body["Id"], "Spec": {"Name": body["Name"]}}
        elif parts[0] in ("secrets", "configs") and len(parts) == 1:
            engine.tables[parts[0]].update({each["ID"]: each for each in body})
        elif parts[0] in ("services", "nodes") and len(parts) == 2 and not created(number):
            engine.tables[parts[0]].setdefault(body["ID"], body)


def arguments(number: int) -> list[str]:
    text = recorded()[number][0]["cmd"].removeprefix("docker ")
    words = shlex.split(text)
    if text.startswith(tuple(NO_WAIT)) and not {"-d", "--detach"} & set(words):
        words.insert(2, "--detach")
    return words


def sent(engine: FakeEngine) -> list[tuple[str, Any]]:
    return [(path, body) for method, path, body in engine.requests if method == "POST"]


def leaves(body: Any) -> dict[tuple[str, ...], Any]:
    """The values that mean something. The docker CLI writes Init=false for every new service; left out it is the same."""
    found = dict(flat(body))
    if found.get(("TaskTemplate", "ContainerSpec", "Init")) is False:
        del found["TaskTemplate", "ContainerSpec", "Init"]
    for path in [path for path, value in found.items() if value == ""]:
        del found[path]
    for path, value in found.items():
        if path[-1] in ("Mounts", "Networks", "Constraints"):
            found[path] = sorted(value, key=json.dumps)  # The docker CLI sorts where we keep the order.
    return found


@pytest.mark.parametrize("number", [number for number in numbers("service create") if number != NEEDS_A_REGISTRY])
def test_a_recorded_create_is_sent_the_same(number: int) -> None:
    engine = FakeEngine()
    prepare(engine, number)
    engine.orchestrate = lambda service: None
    with in_a_thread(engine):
        result = CliRunner().invoke(cli, ["-H", str(engine.address), *arguments(number)])
        assert result.exit_code == 0, result.output
        ((path, body),) = sent(engine)
    theirs = posts(number)[0]
    assert path == theirs["path"]
    assert leaves(body) == leaves(theirs["req_body"])


def succeeded(number: int) -> bool:
    return bool(recorded()[number][-1]["rc"] == 0)


UPDATES = ("service update", "service scale", "service rollback", "node update", "node promote", "node demote")


@pytest.mark.parametrize("number", [number for number in numbers(*UPDATES) if number not in REFUSED_HERE])
def test_a_recorded_update_is_sent_the_same(number: int) -> None:
    engine = FakeEngine()
    engine.tables["nodes"].clear()
    prepare(engine, number)
    engine.orchestrate = lambda service: None
    with in_a_thread(engine):
        result = CliRunner().invoke(cli, ["-H", str(engine.address), *arguments(number)])
        theirs = posts(number)
        assert result.exit_code == 0 or not succeeded(number), result.output
        ours = sent(engine)
    assert len(ours) == len(theirs)
    for (path, body), entry in zip(ours, theirs, strict=True):
        where, _, query = path.partition("?")
        assert where == entry["path"]
        assert f"version={entry['query']['version']}" in query
        assert ("rollback=previous" in query) == ("rollback" in entry["query"])
        assert leaves(body) == leaves(entry["req_body"])
