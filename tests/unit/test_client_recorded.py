"""Our types against the recorded answers of a real engine: everything is read, nothing that is shown is lost."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swarmtui.docker_api.engine_types import Event, Swarm
from swarmtui.docker_api.errors import NotAManager, OutOfSequence, api_error
from swarmtui.docker_api.frames import FrameDecoder
from swarmtui.docker_api.types import Config, Info, Network, Node, Secret, Service, Task
from swarmtui.logs.framing import LineAssembler
from swarmtui.logs.records import LogLine, LogStream

RECORDING = Path(__file__).parents[1] / "recordings" / "docker-cli-28.2.2-against-engine-20.10.jsonl.gz"
LISTS: dict[str, type] = {
    "/nodes": Node, "/services": Service, "/tasks": Task, "/networks": Network, "/secrets": Secret, "/configs": Config,
}  # fmt: skip
ONE: dict[str, type] = {
    "nodes": Node, "services": Service, "tasks": Task, "networks": Network, "secrets": Secret, "configs": Config,
}  # fmt: skip


@cache
def recorded() -> list[dict[str, Any]]:
    with gzip.open(RECORDING, "rt") as lines:
        return [entry for line in lines if (entry := json.loads(line))["type"] == "http"]


def answers(status: int = 200) -> Iterator[dict[str, Any]]:
    return (entry for entry in recorded() if entry["status"] == status and entry["method"] == "GET")


def test_every_recorded_answer_is_read() -> None:
    seen: dict[str, int] = {}
    for entry in answers():
        path, body = entry["path"], entry["resp_body"]
        parts = path.strip("/").split("/")
        kind: Any = None
        if path in LISTS:
            kind = list[LISTS[path]] | None  # type: ignore[valid-type]
        elif len(parts) == 2 and parts[0] in ONE:
            kind = ONE[parts[0]]
        elif path in ("/info", "/swarm"):
            kind = Info if path == "/info" else Swarm
        if kind is not None:
            msgspec.json.decode(json.dumps(body), type=kind)
            seen[parts[0]] = seen.get(parts[0], 0) + 1
    assert {"nodes", "services", "tasks", "networks", "secrets", "configs", "info", "swarm"} <= seen.keys()
    assert sum(seen.values()) > 1000


def test_the_fields_that_are_shown_have_their_values() -> None:
    for entry in answers():
        if entry["path"] == "/tasks":
            for raw in entry["resp_body"]:
                task = msgspec.convert(raw, Task)
                assert task.id == raw["ID"]
                assert task.version.index == raw["Version"]["Index"]
                assert task.status.state == raw["Status"]["State"]
                assert task.status.err == raw["Status"].get("Err", "")
                assert task.desired_state == raw["DesiredState"]
                assert task.spec.image == raw["Spec"]["ContainerSpec"]["Image"]
                assert task.slot == raw.get("Slot", 0)


def test_recorded_refusals_get_their_kinds() -> None:
    kinds = {type(api_error(entry["status"], entry["resp_body"]["message"])).__name__ for entry in answers(503)}
    assert kinds == {"NotAManager"}
    assert isinstance(api_error(503, "This node is not a swarm manager. Worker nodes can't"), NotAManager)
    assert isinstance(api_error(500, "rpc error: code = Unknown desc = update out of sequence"), OutOfSequence)


def test_recorded_events_are_read() -> None:
    events = [
        msgspec.convert(line, Event)
        for entry in answers()
        if entry["path"] == "/events"
        for line in (entry["resp_body"] or {}).get("_jsonl", [])
    ]
    assert len(events) > 10
    assert all(event.type and event.action and event.actor.id and event.time_nano for event in events)


def log_bodies(details: bool, timestamps: bool) -> list[bytes]:
    found = []
    for entry in answers():
        query = entry["query"]
        if entry["path"].endswith("/logs") and ("details" in query, "timestamps" in query) == (details, timestamps):
            body = entry["resp_body"]
            found.append(base64.b64decode(body["_b64"]) if "_b64" in body else body["_text"].encode())
    assert found
    return found


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_recorded_logs_are_read_however_they_arrive(step: int) -> None:
    for body in log_bodies(details=True, timestamps=True):
        assembler = LineAssembler(terminal=False)
        events = [event for at in range(0, len(body), step) for event in assembler.feed(body[at : at + step])]
        events += assembler.finish()
        lines = [event for event in events if isinstance(event, LogLine)]
        assert len(lines) == len(events) > 0
        for line in lines:
            assert line.text in ("line", "err")
            assert line.stream is (LogStream.STDOUT if line.text == "line" else LogStream.STDERR)
            assert line.timestamp > 1_795_253_000_000_000_000
            assert (len(line.task_id), len(line.node_id), len(line.service_id)) == (25, 25, 25)


def test_recorded_logs_without_details_or_times_are_read() -> None:
    for details, timestamps in ((True, False), (False, False)):
        for body in log_bodies(details, timestamps):
            lines = LineAssembler(terminal=False).feed(body)
            assert {line.text for line in lines} == {"line", "err"}
            assert all(isinstance(line, LogLine) and bool(line.task_id) == details for line in lines)


def test_recorded_logs_are_whole_frames() -> None:
    for body in log_bodies(details=True, timestamps=False):
        decoder = FrameDecoder()
        assert b"".join(frame.payload for frame in decoder.feed(body))
        assert decoder.unfinished == 0
