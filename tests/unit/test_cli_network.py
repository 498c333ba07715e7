"""`swarmtui network`, typed as a person does, against an engine over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from client_fake_engine import FakeEngine, in_a_thread, problem

from swarmtui.cli import cli

FRONT = "aaaabbbbccccddddeeeeffff1"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with in_a_thread(FakeEngine()) as fake:
        for key, name, driver, scope in (
            (FRONT, "front", "overlay", "swarm"), ("b" * 64, "bridge", "bridge", "local"),
        ):  # fmt: skip
            fake.put(
                "networks",
                {"ID": key, "Id": key, "Name": name, "Driver": driver, "Scope": scope, "Spec": {"Name": name}},
            )
        yield fake


def sw(engine: FakeEngine, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-H", str(engine.address), "network", *arguments], catch_exceptions=False)


def test_networks_are_listed_as_docker_lists_them(engine: FakeEngine) -> None:
    listed = sw(engine, "ls")
    assert listed.exit_code == 0
    assert listed.stdout.splitlines() == [
        "NETWORK ID     NAME      DRIVER    SCOPE",
        "bbbbbbbbbbbb   bridge    bridge    local",
        "aaaabbbbcccc   front     overlay   swarm",
    ]
    assert sw(engine, "ls", "-q").stdout.split() == ["b" * 12, FRONT[:12]]
    assert sw(engine, "ls", "-q", "--no-trunc").stdout.split() == ["b" * 64, FRONT]
    assert {each["Name"] for each in json.loads(sw(engine, "ls", "--json").stdout)} == {"front", "bridge"}


def test_filters_go_to_the_engine(engine: FakeEngine) -> None:
    assert sw(engine, "ls", "-q", "--filter", "name=fro").stdout.split() == [FRONT[:12]]
    method, path, _ = engine.requests[-1]
    assert method == "GET"
    assert path.startswith("/networks?filters=")
    assert sw(engine, "ls", "--filter", "nonsense").exit_code == 2


def test_inspect_prints_what_is_there_and_names_what_is_not(engine: FakeEngine) -> None:
    shown = sw(engine, "inspect", "--verbose", "front", "missing")
    assert shown.exit_code == 1
    assert [each["Name"] for each in json.loads(shown.stdout)] == ["front"]
    assert shown.stderr == "Error response from daemon: network missing not found\n"
    assert ("GET", "/networks/front?verbose=true", None) in engine.requests
    sw(engine, "inspect", "front")
    assert engine.requests[-1] == ("GET", "/networks/front", None)


def test_removal_goes_on_after_a_refusal(engine: FakeEngine) -> None:
    text = f"rpc error: code = FailedPrecondition desc = network {FRONT} is in use by service abc"

    async def refuse(request: web.Request) -> web.Response:
        return problem(400, text)

    engine.overrides["DELETE", "/networks/busy"] = refuse
    removed = sw(engine, "rm", "busy", "front", "missing")
    assert removed.exit_code == 1
    assert removed.stdout == "front\n"
    assert removed.stderr.splitlines() == [
        f"Error response from daemon: {text}",
        "Error response from daemon: network missing not found",
    ]
    assert FRONT not in engine.tables["networks"]
