"""What the command prints."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path

from click.testing import CliRunner

from swarmtui.playground.booting import Step
from swarmtui.playground.command import playground
from swarmtui.playground.instance import Instance, Role
from swarmtui.playground.report import ProgressLines, as_json, table


class Session:
    """What the JSON is made of."""

    def __init__(self) -> None:
        self.instances = [
            Instance(1, "node1", Role.MANAGER, IPv4Address("192.168.210.11"), Path("/b/k/node1"), pid=11, agent_pid=12)
        ]
        self.expires_at = datetime(2026, 1, 1, 14, 30, 15, 999, tzinfo=UTC)


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def test_the_json_is_one_line_with_what_was_promised() -> None:
    text = as_json(Session())
    assert "\n" not in text
    assert json.loads(text) == {
        "instances": [
            {
                "name": "node1",
                "role": "manager",
                "address": "192.168.210.11",
                "docker_host": "unix:///b/k/node1/docker.sock",
                "pid": 11,
                "agent_pid": 12,
            }
        ],
        "expires_at": "2026-01-01T14:30:15Z",
    }


def test_the_end_is_told_in_utc_whatever_the_clock_is_set_to() -> None:
    session = Session()
    session.expires_at = datetime(2026, 1, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    assert json.loads(as_json(session))["expires_at"] == "2026-01-01T12:30:00Z"


def test_columns_line_up() -> None:
    assert table([("A", "BB"), ("aaa", "b")]) == ["A    BB", "aaa  b"]


def test_progress_in_a_log_is_one_line_for_each_that_is_ready() -> None:
    stream = io.StringIO()
    lines = ProgressLines(["node1", "node2"], stream)
    lines("node1", Step.MACHINE, 0.2)
    lines("node1", Step.AGENT, 0.7)
    assert stream.getvalue() == ""
    lines("node1", Step.READY, 1.25)
    assert stream.getvalue() == "node1: machine 0.2 s · agent 0.7 s · ready 1.2 s\n"


def test_progress_on_a_terminal_is_drawn_in_place_and_taken_away() -> None:
    stream = Terminal()
    lines = ProgressLines(["node1", "node2"], stream, width=80)
    lines("node1", Step.MACHINE, 0.2)
    assert stream.getvalue().count("\n") == 2
    assert "starting" in stream.getvalue()
    lines("node2", Step.MACHINE, 0.3)
    assert stream.getvalue().count("\x1b[2A") == 1
    lines.clear()
    assert stream.getvalue().endswith("\x1b[2A\x1b[J")


def test_progress_never_wraps_on_a_narrow_terminal() -> None:
    for width in (80, 30):
        stream = Terminal()
        lines = ProgressLines(["node1"], stream, width)
        for step in Step:
            lines("node1", step, 12.34)
        drawn = stream.getvalue().split("\x1b[K")[-1].rstrip("\n")
        assert len(drawn) < width
        if width == 80:
            assert drawn.endswith("ready 12.3 s")


def test_wrong_options_are_refused_before_anything_is_made() -> None:
    runner = CliRunner()
    for arguments, text in (
        (["--json"], "--json needs --headless"),
        (["--headless", "--nodes", "0"], "0 is not in the range"),
        (["--headless", "--template", "5m", "--nodes", "3"], "leave --nodes and --managers out"),
        (["--headless", "--nodes", "2", "--managers", "3"], "3 managers do not fit into 2 nodes"),
        (["--headless", "--template", "7m"], "is not one of '3m2w', '5m', '1m1w', '1m4w'"),
        (["--headless", "--tier", "cloud"], "'cloud' is not one of 'auto', 'engine', 'namespaces', 'loopback'"),
        (["--headless", "--hours", "0"], "0.0 is not in the range"),
        ([], "the console needs a terminal"),
    ):
        result = runner.invoke(playground, arguments)
        assert result.exit_code == 2, arguments
        assert text in result.output
