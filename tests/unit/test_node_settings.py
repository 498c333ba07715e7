"""The agent's command line and the rules of its addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.api_types.errors import InvalidArgument
from agent.node.addresses import resolve_advertise, resolve_listen
from agent.node.record import RecordDamaged, SwarmRecord, load_record, save_record
from agent.node.settings import parse

TWO = {"eth0": ["10.0.0.5"], "eth1": ["192.168.1.5"]}


def test_settings_of_the_readme() -> None:
    settings = parse(["--data-dir", "d", "--socket", "s", "--listen", "10.0.0.1:2377", "--engine", "process"])
    assert settings.engine is None
    assert (settings.listen_host, settings.listen_port) == ("10.0.0.1", 2377)
    assert settings.data_dir == Path.cwd() / "d"
    assert parse(["--engine", "unix:///x/docker.sock"]).engine == "/x/docker.sock"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--socket", "/" + "x" * 107], "108 bytes"),
        (["--engine", "tcp://x"], "neither"),
        (["--listen", "10.0.0.1:port"], "--listen"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_settings_say_which_and_why(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_wildcard_means_the_address_given_with_listen() -> None:
    assert resolve_listen("0.0.0.0:2377", "127.77.1.1", 2377) == ("127.77.1.1", 2377)
    assert resolve_listen("", "127.77.1.1", 2377) == ("127.77.1.1", 2377)
    assert resolve_listen("10.0.0.9", "0.0.0.0", 2377) == ("10.0.0.9", 2377)


@pytest.mark.parametrize(
    ("given", "listen", "interfaces", "expected"),
    [
        ("10.9.9.9", "0.0.0.0", TWO, "10.9.9.9:2377"),
        ("10.9.9.9:4000", "0.0.0.0", TWO, "10.9.9.9:4000"),
        ("eth1", "0.0.0.0", TWO, "192.168.1.5:2377"),
        ("", "10.0.0.5", TWO, "10.0.0.5:2377"),
        ("", "0.0.0.0", {"eth0": ["10.0.0.5"]}, "10.0.0.5:2377"),
        ("eth0", "127.77.1.1", {}, "127.77.1.1:2377"),
    ],
)
def test_advertised_address(given: str, listen: str, interfaces: dict[str, list[str]], expected: str) -> None:
    assert resolve_advertise(given, listen, 2377, interfaces) == expected


@pytest.mark.parametrize(
    ("given", "interfaces", "text"),
    [
        (
            "",
            TWO,
            "could not choose an IP address to advertise since this system has multiple addresses on different "
            "interfaces (10.0.0.5 on eth0 and 192.168.1.5 on eth1) - specify one with --advertise-addr",
        ),
        (
            "",
            {"eth0": ["10.0.0.5", "10.0.0.6"]},
            "could not choose an IP address to advertise since this system has multiple addresses on interface eth0 "
            "(10.0.0.5 and 10.0.0.6) - specify one with --advertise-addr",
        ),
        ("", {}, "could not find the system's IP address - specify one with --advertise-addr"),
        (
            "wlan9",
            TWO,
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        ),
        (
            "0.0.0.0",
            TWO,
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        ),
    ],
)
def test_an_address_that_cannot_be_chosen_is_refused_as_docker_does(
    given: str, interfaces: dict[str, list[str]], text: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        resolve_advertise(given, "0.0.0.0", 2377, interfaces)
    assert str(refused.value) == text


def test_the_record_survives_and_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "swarm"
    assert load_record(folder) is None
    record = SwarmRecord("c", "n", "0.0.0.0:2377", "10.0.0.1:2377", ["10.0.0.2:2377"])
    save_record(folder, record)
    assert load_record(folder) == record
    (folder / "swarm.json").write_text("{")
    with pytest.raises(RecordDamaged, match=r"swarm\.json is damaged"):
        load_record(folder)
    (folder / "swarm.json").write_text('{"cluster_id":"","node_id":"","listen":"","advertise":"","format":9}')
    with pytest.raises(RecordDamaged, match="upgrade"):
        load_record(folder)
