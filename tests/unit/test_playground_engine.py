"""How an instance's programs are called, and what an engine's answers mean."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from swarmtui.playground import agents, engine
from swarmtui.playground.instance import Instance, Role
from swarmtui.playground.tier import Tier

NODE = Instance(2, "node2", Role.WORKER, IPv4Address("192.168.210.12"), Path("/b/k/node2"))


def test_an_agent_gets_the_instances_engine_where_there_is_one() -> None:
    for tier, expected in (
        (Tier.ENGINE, "unix:///b/k/node2/engine.sock"),
        (Tier.NAMESPACES, "process"),
        (Tier.LOOPBACK, "process"),
    ):
        assert agents.command(NODE, tier, ["agent"]) == [
            "agent",
            "--data-dir",
            "/b/k/node2/data",
            "--socket",
            "/b/k/node2/docker.sock",
            "--listen",
            "192.168.210.12:2377",
            "--engine",
            expected,
            "--hostname",
            "node2",
        ]


def test_an_engine_touches_nothing_outside_the_instance() -> None:
    words = engine.command(NODE)
    options = dict(zip(words[1::2], words[2::2], strict=False))
    assert options["--host"] == "unix:///b/k/node2/engine.sock"
    assert options["--data-root"].startswith("/b/k/node2/")
    # /run and /etc are the instance's own.
    assert options["--exec-root"].startswith("/run/")
    assert options["--pidfile"].startswith("/run/")
    assert options["--config-file"].startswith("/etc/docker/")


@pytest.mark.parametrize(
    ("status", "text", "failure"),
    [
        (200, "", ""),
        (200, '{"stream":"Loaded image: swarmtui/fail:latest\\n"}\r\n', ""),
        (200, '{"stream":"x"}\n{"errorDetail":{"message":"no space left"},"error":"no space left"}\n', "no space left"),
        (500, '{"message":"unexpected EOF"}', '{"message":"unexpected EOF"}'),
        (503, "", "status 503"),
    ],
)
def test_a_load_that_failed_is_found_out_under_whatever_status(status: int, text: str, failure: str) -> None:
    assert engine.load_failure(status, text) == failure


async def test_images_that_cannot_be_made_are_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "EXPORT", ("sh", "-c", "echo ldd is needed >&2; exit 1"))
    with pytest.raises(engine.EngineFailed, match="cannot be made here: ldd is needed"):
        await engine.export_images(tmp_path / "images.tar", {"PATH": "/usr/bin:/bin"})


async def test_an_engine_that_is_gone_is_told_by_the_instances_name(tmp_path: Path) -> None:
    gone = Instance(1, "node1", Role.MANAGER, IPv4Address("127.77.1.1"), tmp_path)
    (tmp_path / "images.tar").write_bytes(b"")
    with pytest.raises(engine.EngineFailed, match="the engine of node1 did not take the images"):
        await engine.load_images(gone, tmp_path / "images.tar")
