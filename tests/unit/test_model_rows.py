"""Rows: words, glyphs and counts, against the recorded tables of the docker CLI and case by case."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from client_fake_engine import make_node, make_service, make_task

from swarmtui.docker_api.types import Network, Node, Port, Service, Task
from swarmtui.model.row_making import network_row, node_row, ports_text, service_row, task_row
from swarmtui.model.rows import ServiceRow
from swarmtui.model.states import Glyph

RECORDING = Path(__file__).parents[1] / "recordings" / "docker-cli-28.2.2-against-engine-20.10.jsonl.gz"


@cache
def command(number: int) -> tuple[dict[str, Any], str]:
    """Path to body of a recorded command's answers, and what it printed."""
    bodies, printed = {}, ""
    with gzip.open(RECORDING, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["cmd_id"] == number and entry["type"] == "http":
                bodies[entry["path"]] = entry["resp_body"]
            elif entry["cmd_id"] == number and entry["type"] == "cmd_end":
                printed = entry["stdout"]
    return bodies, printed


def node(**more: Any) -> Node:
    return msgspec.convert(make_node(more.pop("id", "n1"), more.pop("hostname", "node1"), **more), Node)


def task(slot: int = 1, **more: Any) -> Task:
    made = make_task(more.pop("id", f"t{slot}"), "s1", slot, more.pop("node", "n1"), **more)
    return msgspec.convert(made, Task)


def service(replicas: int = 1, **more: Any) -> Service:
    return msgspec.convert(make_service("s1", "web", replicas, **more), Service)


def row(subject: Service, *tasks: Task, nodes: dict[str, Node] | None = None) -> ServiceRow:
    return service_row(subject, tasks, nodes or {"n1": node(), "n2": node(id="n2", hostname="node2")})


def test_the_tasks_of_a_recorded_service_have_dockers_names_and_nodes() -> None:
    for number in (84, 85, 86, 87, 88):
        bodies, printed = command(number)
        services = {b["ID"]: msgspec.convert(b, Service) for p, b in bodies.items() if p.startswith("/services/")}
        nodes = {b["ID"]: msgspec.convert(b, Node) for p, b in bodies.items() if p.startswith("/nodes/")}
        for raw in bodies["/tasks"]:
            made = msgspec.convert(raw, Task)
            shown = task_row(made, services[made.service_id], nodes.get(made.node_id))
            line = next(line for line in printed.splitlines() if line.startswith(shown.id[:12]))
            assert f" {shown.name} " in line
            assert shown.image in line
            assert shown.node in line
            assert shown.state.capitalize() in line
            assert shown.error[:20] in line  # The docker CLI cuts what we show in full.
            assert not shown.ports or shown.ports.split(", ")[0] in line


def test_a_recorded_list_of_services_has_dockers_ports() -> None:
    bodies, printed = command(80)
    for raw in bodies["/services"]:
        shown = service_row(msgspec.convert(raw, Service), [], {})
        line = next(line for line in printed.splitlines() if line.startswith(shown.id[:12]))
        assert shown.name in line
        assert shown.mode in line
        assert shown.image in line
        assert line.rstrip().endswith(shown.ports or shown.image)


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([(80, 8080)], "*:8080->80/tcp"),
        ([(80, 8080), (81, 8081), (82, 8082)], "*:8080-8082->80-82/tcp"),
        ([(80, 8080), (81, 8090)], "*:8080->80/tcp, *:8090->81/tcp"),
        ([(80, 0)], ""),
    ],
)
def test_ports_are_written_as_docker_does(ports: list[tuple[int, int]], text: str) -> None:
    assert ports_text([Port(target_port=t, published_port=p) for t, p in ports]) == text


def test_a_whole_service_runs() -> None:
    shown = row(service(2), task(1), task(2))
    assert (shown.state, shown.glyph, shown.replicas, shown.error, shown.healthy) == (
        "running", Glyph.RUNNING, "2/2", "", True,
    )  # fmt: skip


def test_a_service_whose_tasks_are_on_their_way_starts() -> None:
    shown = row(service(2), task(1), task(2, state="preparing"))
    assert (shown.state, shown.glyph, shown.replicas) == ("starting", Glyph.STARTING, "1/2")


def test_a_service_that_cannot_be_placed_says_why_in_full() -> None:
    text = "no suitable node (scheduling constraints not satisfied on 5 nodes; " + "x" * 300 + ")"
    shown = row(service(1), task(1, state="pending", err=text, node=""))
    assert (shown.state, shown.glyph, shown.error) == ("pending", Glyph.PENDING, text)
    assert row(service(2), task(1), task(2, state="pending", err=text)).glyph is Glyph.WARNING


def test_a_failing_service_shows_the_newest_error() -> None:
    old = task(1, id="a", state="failed", desired="shutdown", err="old", timestamp="2026-11-21T09:00:00Z")
    new = task(1, id="b", state="failed", desired="shutdown", err="new", timestamp="2026-11-21T09:00:01.5Z")
    now = task(1, id="c", state="ready")
    shown = row(service(1), old, new, now)
    assert (shown.state, shown.glyph, shown.error, shown.failed_recently) == ("failing", Glyph.FAILED, "new", 2)


def test_a_slot_that_runs_again_has_no_open_failure() -> None:
    old = task(1, id="a", state="failed", desired="shutdown", err="old")
    shown = row(service(1), old, task(1, id="b"))
    assert (shown.state, shown.error, shown.failed_recently) == ("running", "", 0)


def test_tasks_on_a_node_that_is_down_are_lost() -> None:
    down = {"n1": node(state="down")}
    shown = task_row(task(1), service(1), down["n1"])
    assert (shown.state, shown.glyph) == ("lost", Glyph.WARNING)
    assert row(service(1), task(1), nodes=down).running == 0


def test_a_task_that_is_told_to_stop_is_not_counted() -> None:
    leaving = task(2, desired="shutdown")
    assert task_row(leaving, service(1), node()).state == "stopping"
    assert row(service(1), task(1), leaving).running == 1


def test_scaled_to_nothing_is_as_wanted() -> None:
    shown = row(service(0))
    assert (shown.state, shown.glyph, shown.replicas, shown.healthy) == ("scaled to 0", Glyph.SHUTDOWN, "0/0", True)


def test_a_global_service_wants_as_many_as_nodes_have_it() -> None:
    everywhere = service(mode={"Global": {}})
    shown = row(everywhere, task(0, id="a"), task(0, id="b", node="n2", state="starting"))
    assert (shown.mode, shown.replicas, shown.state) == ("global", "1/2", "starting")
    assert task_row(task(0, id="a"), everywhere, node()).name == "web.n1"


def test_an_update_shows_how_far_it_is() -> None:
    status = {"State": "updating", "StartedAt": "2026-11-21T09:00:00Z", "Message": "update in progress"}
    subject = service(3, update_status=status, spec_version=9, image="web:2")
    new = {"ContainerSpec": {"Image": "web:2"}, "ForceUpdate": 0}
    shown = row(subject, task(1, spec=new), task(2, spec=new, state="starting"), task(3))
    assert (shown.state, shown.glyph) == ("updating", Glyph.STARTING)
    assert shown.update is not None
    assert (shown.update.done, shown.update.total) == (1, 3)


def test_up_to_date_is_decided_by_version_or_by_content() -> None:
    subject = service(1, spec_version=9, image="web:2")
    assert task_row(task(1, spec_version=9), subject, node()).up_to_date
    assert not task_row(task(1, spec_version=8), subject, node()).up_to_date
    # A version that rose without a change of the tasks' specification (scaling) makes no task old.
    same = {"ContainerSpec": {"Image": "web:2"}, "ForceUpdate": 0}
    assert task_row(task(1, spec_version=8, spec=same), subject, node()).up_to_date


def test_a_paused_update_needs_a_person() -> None:
    text = "update paused due to failure or early termination of task t9"
    shown = row(service(1, update_status={"State": "paused", "Message": text}), task(1))
    assert (shown.state, shown.glyph, shown.error) == ("update paused", Glyph.WARNING, text)


def test_a_service_that_was_rolled_back_says_so_and_is_healthy() -> None:
    shown = row(service(1, update_status={"State": "rollback_completed", "Message": "rolled back"}), task(1))
    assert (shown.state, shown.glyph, shown.error) == ("rolled back", Glyph.RUNNING, "rolled back")


def test_a_job_counts_what_it_has_completed() -> None:
    job = service(mode={"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 4}})
    done = [task(slot, state="complete", desired="complete") for slot in range(2)]
    shown = row(job, *done, task(2, desired="complete"), task(3, desired="complete", state="starting"))
    assert (shown.replicas, shown.state) == ("1/2 (2/4 completed)", "running")
    shown = row(job, *(task(slot, state="complete", desired="complete") for slot in range(4)))
    assert (shown.replicas, shown.state, shown.glyph) == ("0/0 (4/4 completed)", "complete", Glyph.COMPLETE)


@pytest.mark.parametrize(
    ("more", "state", "glyph"),
    [
        ({}, "ready", Glyph.RUNNING),
        ({"availability": "drain"}, "drained", Glyph.PENDING),
        ({"availability": "pause"}, "paused", Glyph.PENDING),
        ({"state": "down"}, "down", Glyph.FAILED),
        ({"state": "down", "availability": "drain"}, "down", Glyph.FAILED),
        ({"state": "unknown"}, "unknown", Glyph.WARNING),
        ({"state": "from-the-future"}, "from-the-future", Glyph.WARNING),
    ],
)
def test_nodes_have_one_word(more: dict[str, str], state: str, glyph: Glyph) -> None:
    shown = node_row(node(**more), [])
    assert (shown.state, shown.glyph) == (state, glyph)


def test_a_node_counts_its_tasks_and_what_they_reserve() -> None:
    spec = {"Resources": {"Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 1 << 20}}}
    tasks = [task(1, spec=spec), task(2, spec=spec, state="starting"), task(3, state="failed", desired="shutdown")]
    shown = node_row(node(role="manager", leader=True, labels={"b": "2", "a": "1"}), tasks)
    assert (shown.tasks_running, shown.tasks_wanted, shown.reserved_nano_cpus) == (1, 2, 500_000_000)
    assert (shown.role_glyph, shown.labels, shown.platform) == (
        Glyph.LEADER, (("a", "1"), ("b", "2")), "linux/x86_64",
    )  # fmt: skip


def test_a_state_that_we_do_not_know_is_shown_as_it_is() -> None:
    shown = task_row(task(1, state="hibernating"), None, None)
    assert (shown.state, shown.glyph, shown.name) == ("hibernating", Glyph.WARNING, "s1.1")


def test_a_network_is_read_in_both_spellings() -> None:
    listed = {"Id": "x", "Name": "ov", "Driver": "overlay", "Scope": "swarm", "Attachable": True,
              "IPAM": {"Config": [{"Subnet": "10.0.1.0/24"}]}}  # fmt: skip
    watched = {"ID": "x", "Spec": {"Name": "ov", "Attachable": True},
               "IPAMOptions": {"Configs": [{"Subnet": "10.0.1.0/24"}]}}  # fmt: skip
    rows = [network_row(msgspec.convert(raw, Network)) for raw in (listed, watched)]
    assert rows[0] == rows[1]
    assert (rows[0].id, rows[0].name, rows[0].subnet) == ("x", "ov", "10.0.1.0/24")
