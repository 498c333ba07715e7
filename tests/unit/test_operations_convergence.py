"""Convergence: what is counted, what is told, when it is over; the pure reading and the wait around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from client_fake_engine import FakeEngine, make_node, make_service, make_task, problem, running

from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.types import Node, Service, Task
from swarmtui.operations.base import OperationFailed, Phase, Progress
from swarmtui.operations.convergence import Reading, read
from swarmtui.operations.waiting import Timing, wait_for_service


def nodes(**states: str) -> dict[str, Node]:
    made = {"n1": {}, "n2": {}, **{key: {"state": state} for key, state in states.items()}}
    return {key: msgspec.convert(make_node(key, key, **more), Node) for key, more in made.items()}


def service(replicas: int = 2, **more: Any) -> Service:
    return msgspec.convert(make_service("s1", "web", replicas, **more), Service)


def task(slot: int, **more: Any) -> Task:
    made = make_task(more.pop("id", f"t{slot}"), "s1", slot, more.pop("node", "n1"), **more)
    return msgspec.convert(made, Task)


def look(subject: Service, *tasks: Task, **states: str) -> Reading:
    return read(subject, tasks, nodes(**states))


def test_a_new_service_has_all_its_slots_before_there_is_a_task() -> None:
    reading = look(service(3))
    assert (reading.done, reading.total, reading.whole) == (0, 3, False)
    assert [slot.name for slot in reading.slots] == ["web.1", "web.2", "web.3"]


def test_running_tasks_on_living_nodes_count() -> None:
    reading = look(service(3), task(1), task(2, state="starting"), task(3, node="n2"), n2="down")
    assert (reading.done, reading.total) == (1, 3)
    assert [slot.state for slot in reading.slots] == ["running", "starting", "lost"]


def test_slots_need_not_be_the_first_numbers() -> None:
    reading = look(service(2), task(4), task(7))
    assert (reading.done, reading.total, reading.whole) == (2, 2, True)


def test_the_successor_speaks_for_its_slot_and_the_failure_is_told() -> None:
    old = task(1, id="a", state="failed", desired="shutdown", err="task: non-zero exit (1)")
    reading = look(service(1), old, task(1, id="b", state="ready", created="2026-11-21T09:25:02Z"))
    assert [slot.state for slot in reading.slots] == ["ready"]
    assert reading.errors == ("task: non-zero exit (1)",)
    assert reading.abandoned == ()


def test_a_completed_task_does_not_hide_the_running_one() -> None:
    done = task(1, id="a", state="complete", desired="shutdown", created="2026-11-21T09:25:05Z")
    assert look(service(1), done, task(1, id="b")).whole


def test_a_slot_whose_task_ended_without_a_successor_is_abandoned() -> None:
    reading = look(service(2), task(1), task(2, state="failed", desired="shutdown", err="boom"))
    assert (reading.abandoned, reading.errors, reading.done) == (("web.2",), ("boom",), 1)


def test_old_failures_are_not_told() -> None:
    old = task(2, state="failed", desired="shutdown", err="boom", timestamp="2026-11-21T08:00:00Z")
    reading = read(service(2), [task(1), old], nodes(), since=1_795_253_000_000_000_000)
    assert (reading.errors, reading.abandoned) == ((), ())


def test_what_keeps_a_task_waiting_is_told_in_full() -> None:
    text = "no suitable node (" + "insufficient resources on 1 node; " * 20 + ")"
    reading = look(service(1), task(1, state="pending", node="", err=text))
    assert reading.errors == (text,)
    assert reading.slots[0].error == text


def test_scaled_to_nothing_is_whole_at_once() -> None:
    reading = look(service(0))
    assert (reading.total, reading.whole, reading.nodes_decide) == (0, True, False)


def test_a_global_service_has_a_place_on_each_node_that_takes_it() -> None:
    everywhere = service(mode={"Global": {}})
    gone = task(0, id="c", node="n3", state="shutdown", desired="shutdown")
    reading = look(everywhere, task(0, id="a"), task(0, id="b", node="n2", state="preparing"), gone)
    assert (reading.done, reading.total, reading.nodes_decide) == (1, 2, True)
    failed = task(0, id="d", node="n2", state="failed", desired="shutdown", err="boom")
    reading = look(everywhere, task(0, id="a"), failed)
    assert (reading.done, reading.total, reading.abandoned) == (1, 2, ("web.n2",))
    assert look(everywhere, task(0, id="a"), failed, n2="down").whole


def test_a_job_is_whole_when_enough_have_completed() -> None:
    job = service(mode={"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}})
    first = task(0, id="a", state="complete", desired="complete")
    assert not look(job, first, task(1, desired="complete")).whole
    reading = look(job, first, task(1, state="complete", desired="complete"))
    assert (reading.done, reading.total, reading.whole, reading.monitor) == (2, 2, True, 0)


def test_an_update_is_not_over_before_the_cluster_says_so() -> None:
    def at(state: str) -> Reading:
        return look(service(1, update_status={"State": state, "Message": "words"}), task(1))

    assert not at("updating").whole
    assert at("updating").message == "words"
    assert at("completed").whole
    assert at("completed").monitor == 0
    assert at("paused").failure == "the update was paused: words"
    assert at("rollback_completed").failure.startswith("the service was rolled back")
    assert at("rollback_paused").failure.startswith("the rollback was paused")


def test_a_rollback_that_was_wanted_is_no_failure() -> None:
    status = {"State": "rollback_completed", "Message": "rollback completed"}
    reading = read(service(1, update_status=status), [task(1)], nodes(), going_back=True)
    assert (reading.failure, reading.whole) == ("", True)


def test_a_huge_service_reports_what_is_missing_first() -> None:
    tasks = [task(slot, state="running" if slot < 900 else "pending") for slot in range(1, 1001)]
    reading = look(service(1000), *tasks)
    assert (reading.done, reading.total, len(reading.slots)) == (899, 1000, 50)
    assert {slot.state for slot in reading.slots} == {"pending"}


class Time:
    """A clock that only sleeping moves, and what a test does meanwhile."""

    def __init__(self, *steps: Callable[[], Any]) -> None:
        self.now = 0.0
        self.steps = list(steps)

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)
        if self.steps:
            self.steps.pop(0)()
        await asyncio.sleep(0)

    def timing(self, **more: Any) -> Timing:
        return Timing(monotonic=lambda: self.now, sleep=self.sleep, **more)


Story = Callable[[FakeEngine], list[Callable[[], Any]]]


async def wait(story: Story, subject: dict[str, Any], **more: Any) -> tuple[list[Progress], Time]:
    async with running(FakeEngine()) as engine, EngineClient(engine.address) as client:
        engine.put("services", subject)
        time = Time(*story(engine))
        reports: list[Progress] = []
        await wait_for_service(client, "s1", reports.append, timing=time.timing(), **more)
        return reports, time


def add(engine: FakeEngine, slot: int, **more: Any) -> None:
    engine.put("tasks", make_task(more.pop("id", f"t{slot}"), "s1", slot, **more))


async def test_the_wait_goes_from_nothing_to_all_and_watches_that_they_stay() -> None:
    reports, time = await wait(
        lambda engine: [lambda: add(engine, 1, state="starting"), lambda: add(engine, 1), lambda: add(engine, 2)],
        make_service("s1", "web", 2),
    )
    phases = list(dict.fromkeys(report.phase for report in reports))
    assert phases == [Phase.CONVERGING, Phase.VERIFYING, Phase.DONE]
    assert [report.done for report in reports if report.phase is Phase.CONVERGING] == [0, 0, 1]
    assert time.now == pytest.approx(0.6 + 5.0, abs=0.3)


async def test_a_task_that_falls_while_it_is_watched_starts_the_wait_again() -> None:
    def story(engine: FakeEngine) -> list[Callable[[], Any]]:
        def fall() -> None:
            add(engine, 1, state="failed", desired="shutdown", err="boom")
            add(engine, 1, id="new", state="ready", created="2026-11-21T09:25:03Z")

        return [lambda: add(engine, 1), lambda: None, fall, lambda: add(engine, 1, id="new")]

    reports, _ = await wait(story, make_service("s1", "web", 1))
    phases = [report.phase for report in reports]
    falls = phases.index(Phase.CONVERGING, phases.index(Phase.VERIFYING))
    assert reports[falls].errors == ("boom",)
    assert phases[-1] is Phase.DONE


async def test_a_replica_that_is_given_up_ends_the_wait_with_its_error() -> None:
    with pytest.raises(OperationFailed) as caught:
        await wait(
            lambda engine: [lambda: add(engine, 1, state="failed", desired="shutdown", err="task: non-zero exit (1)")],
            make_service("s1", "web", 1),
        )
    assert str(caught.value) == "web.1 ended and will not be started again\ntask: non-zero exit (1)"


async def test_a_paused_update_ends_the_wait() -> None:
    subject = make_service("s1", "web", 1, update_status={"State": "paused", "Message": "task x failed"})
    with pytest.raises(OperationFailed, match="the update was paused: task x failed"):
        await wait(lambda engine: [], subject)


async def test_a_global_service_that_no_node_takes_is_not_waited_for_for_ever() -> None:
    reports, time = await wait(lambda engine: [], make_service("s1", "web", mode={"Global": {}}))
    assert reports[-1].message == "converged: nothing is to run"
    assert time.now >= 3.0


async def test_a_service_that_is_removed_ends_the_wait() -> None:
    with pytest.raises(OperationFailed, match="was removed"):
        await wait(lambda engine: [lambda: engine.drop("services", "s1")], make_service("s1", "web", 1))


def refusing(engine: FakeEngine, status: int) -> Callable[[], None]:
    async def refuse(request: web.Request) -> web.Response:
        return problem(status, "rpc error: code = Unavailable desc = no leader")

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = refuse
    return lambda: engine.overrides.update({("GET", "/services/s1"): answer})


async def test_a_leader_that_changes_does_not_end_the_wait() -> None:
    reports, _ = await wait(
        lambda engine: [refusing(engine, 503), lambda: None, engine.overrides.clear, lambda: add(engine, 1)],
        make_service("s1", "web", 1),
    )
    assert any("no leader" in report.message for report in reports)
    assert reports[-1].phase is Phase.DONE


async def test_a_cluster_that_stays_away_ends_the_wait_and_says_that_the_change_was_accepted() -> None:
    with pytest.raises(OperationFailed, match=r"accepted.*no leader"):
        await wait(lambda engine: [refusing(engine, 503)], make_service("s1", "web", 1))
