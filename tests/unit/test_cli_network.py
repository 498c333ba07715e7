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


async def made(request: web.Request) -> web.Response:
    return web.json_response({"Id": FRONT, "Warning": "careful"}, status=201)


def test_a_network_is_created_with_all_that_was_said(engine: FakeEngine) -> None:
    engine.overrides["POST", "/networks/create"] = made
    result = sw(
        engine, "create", "--attachable", "--internal", "--ipv6", "--label", "team=shop", "-o", "encrypted", "-o", "mtu=9000",
        "--subnet", "10.1.0.0/24", "--subnet", "fd00::/64", "--gateway", "fd00::1", "--gateway", "10.1.0.9",
        "--ip-range", "10.1.0.128/25", "front",
    )  # fmt: skip
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{FRONT}\n", "WARNING: careful\n")
    assert engine.requests[-1][2] == {
        "Name": "front", "CheckDuplicate": True, "Driver": "overlay", "Attachable": True, "Internal": True,
        "Ingress": False, "EnableIPv6": True, "Options": {"encrypted": "", "mtu": "9000"}, "Labels": {"team": "shop"},
        "IPAM": {"Driver": "default", "Config": [
            {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9", "IPRange": "10.1.0.128/25"},
            {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
        ]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--subnet", "10.1.0.0/24", "--subnet", "10.1.0.128/25"], "multiple overlapping subnet"),
        (["--gateway", "10.1.0.1"], "no matching subnet for gateway 10.1.0.1"),
        (["--subnet", "10.1.0.0/24", "--ip-range", "10.2.0.0/25"], "no matching subnet for range 10.2.0.0/25"),
        (
            ["--subnet", "10.1.0.0/24", "--gateway", "10.1.0.1", "--gateway", "10.1.0.2"],
            "cannot configure multiple gateways (10.1.0.1, 10.1.0.2) on one subnet",
        ),
        (["--subnet", "nonsense"], "nonsense"),
        (["--subnet", "10.1.0.0/24", "--gateway", "nonsense"], "nonsense"),
    ],
)
def test_subnets_that_do_not_fit_are_refused_before_anything_is_sent(
    engine: FakeEngine, options: list[str], text: str
) -> None:
    before = len(engine.requests)
    result = sw(engine, "create", *options, "front")
    assert result.exit_code == 2
    assert text in result.stderr
    assert len(engine.requests) == before or engine.requests[-1][0] == "GET"


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
