"""Tables, times and progress as text: the docker CLI's, letter by letter where it was recorded."""

from __future__ import annotations

import gzip
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from client_fake_engine import make_service, make_task
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.commands.events import event_line
from swarmtui.commands.output import ago, human_duration, printable, table
from swarmtui.commands.progress import ProgressPrinter, lines
from swarmtui.commands.task_table import task_table
from swarmtui.docker_api.engine_types import Event
from swarmtui.docker_api.times import SECOND
from swarmtui.docker_api.types import Node, Service, Task
from swarmtui.model.states import Glyph
from swarmtui.operations.base import Phase, Progress, SlotProgress

RECORDING = Path(__file__).parents[1] / "recordings" / "docker-cli-28.2.2-against-engine-20.10.jsonl.gz"


@cache
def command(number: int) -> tuple[dict[str, Any], str, float]:
    bodies, printed, moment = {}, "", 0.0
    with gzip.open(RECORDING, "rt") as recording:
        for line in recording:
            entry = json.loads(line)
            if entry["cmd_id"] == number and entry["type"] == "http":
                bodies[entry["path"]] = entry["resp_body"]
                moment = entry["t"]
            elif entry["cmd_id"] == number and entry["type"] == "cmd_end":
                printed = entry["stdout"]
    return bodies, printed, moment


@pytest.mark.parametrize("number", [84, 86, 87, 88])
def test_the_tasks_of_a_service_are_dockers_table(number: int) -> None:
    bodies, printed, moment = command(number)
    services = {b["ID"]: msgspec.convert(b, Service) for p, b in bodies.items() if p.startswith("/services/")}
    nodes = {b["ID"]: msgspec.convert(b, Node) for p, b in bodies.items() if p.startswith("/nodes/")}
    tasks = msgspec.convert(bodies["/tasks"], list[Task])
    ours = task_table(tasks, services, nodes, now=int(moment * SECOND))
    theirs = printed.strip("\n")
    assert squeezed(ours)[0] == squeezed(theirs)[0]
    # Which replica of a job without slots comes first is not fixed; ages may differ by the time the answer took.
    assert sorted(without_ages(ours)) == sorted(without_ages(theirs))


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def without_ages(text: str) -> list[list[str]]:
    return [[word for word in line if not word.isdecimal()] for line in squeezed(text)]


def test_history_is_indented_and_errors_are_never_cut() -> None:
    service = msgspec.convert(make_service("s1", "web"), Service)
    error = "e" * 200
    tasks = [
        make_task("a", "s1", 1, state="failed", desired="shutdown", err=error, created="2026-11-21T09:00:00Z"),
        make_task("b", "s1", 1, created="2026-11-21T09:00:01Z"),
        make_task("c", "s1", 10),
        make_task("d", "s1", 2),
    ]
    text = task_table(msgspec.convert(tasks, list[Task]), {"s1": service}, {}, now=0)
    names = [line.split("   ")[0:2] for line in text.splitlines()]
    order = [line.split()[0] for line in text.splitlines()[1:]]
    assert order == ["b", "a", "d", "c"]
    assert " \\_ web.1" in text.splitlines()[2]
    assert error in text
    assert names[0][0].startswith("ID")
    assert task_table(msgspec.convert(tasks, list[Task]), {}, {}, now=0, quiet=True).splitlines() == [
        "b",
        "a",
        "d",
        "c",
    ]


def test_a_table_has_dockers_columns() -> None:
    assert table(("ID", "NAME"), [("1", "a"), ("123456789012", "bb")]) == (
        "ID             NAME\n1              a\n123456789012   bb"
    )
    assert table(("ID", "NAME"), []) == "ID        NAME"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"), (1, "1 second"), (49, "49 seconds"), (60, "About a minute"), (150, "2 minutes"),
        (3600, "About an hour"), (7200, "2 hours"), (47 * 3600, "47 hours"), (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"), (100 * 86400, "3 months"), (800 * 86400, "2 years"), (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_durations_are_dockers_words(seconds: int, words: str) -> None:
    assert human_duration(seconds * SECOND) == words


def test_an_unknown_time_is_no_time() -> None:
    assert ago(0, 10**18) == ""


@given(st.text())
def test_nothing_that_could_act_on_a_terminal_gets_through(text: str) -> None:
    shown = printable(text)
    assert all(letter.isprintable() or letter == "\t" for letter in shown)
    if text.isprintable():
        assert shown == text


def test_escapes_are_readable() -> None:
    assert printable("a\x1b[31mb\x07\x9b\u2028\t") == "a^[[31mb^G\\x9b\\u2028\t"


def test_an_event_is_dockers_line() -> None:
    event = {
        "Type": "service", "Action": "update", "scope": "swarm", "timeNano": 1_795_253_216_759_913_474,
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "a": "b"}},
    }  # fmt: skip
    assert event_line(msgspec.convert(event, Event)) == (
        "2026-11-21T09:26:56.759913474Z service update abc (a=b, name=web)"
    )


SLOTS = tuple(SlotProgress(f"web.{n}", "running", Glyph.RUNNING) for n in range(1, 31))


def test_the_progress_block_fits() -> None:
    progress = Progress(Phase.CONVERGING, 3, 30, "words\nmore", SLOTS)
    block = lines(progress, 40)
    assert len(block) <= 20
    assert all(len(line) <= 40 and "\n" not in line for line in block)
    assert "3 out of 30" in block[0]
    assert "… and 14 more" in block


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_in_place() -> None:
    screen = Terminal()
    printer = ProgressPrinter(stream=screen)
    printer.report(Progress(Phase.CONVERGING, 0, 2, "", SLOTS[:2]))
    printer.report(Progress(Phase.DONE, 2, 2, "converged", SLOTS[:2]))
    assert "\x1b[3F\x1b[J" in screen.getvalue()


def test_a_file_gets_a_line_when_something_changed() -> None:
    file = io.StringIO()
    printer = ProgressPrinter(stream=file)
    for done in (0, 0, 1, 1):
        printer.report(Progress(Phase.CONVERGING, done, 2, errors=("boom",)))
    for left in (5, 4, 3):
        printer.report(Progress(Phase.VERIFYING, 2, 2, f"waiting {left} s"))
    printer.report(Progress(Phase.DONE, 2, 2, "converged"))
    written = file.getvalue()
    assert written.count("task failed: boom") == 1
    assert written.count("\n") == 5
    assert written.isascii()


def test_quiet_says_nothing() -> None:
    file = io.StringIO()
    ProgressPrinter(quiet=True, stream=file).report(Progress(Phase.DONE))
    assert file.getvalue() == ""
