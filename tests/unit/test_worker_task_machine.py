"""The decisions about a task, one by one and all together."""

from __future__ import annotations

import itertools

import pytest

from agent.api_types.network import NetworkAttachment
from agent.api_types.task import (
    ContainerStatus,
    Endpoint,
    EndpointSpec,
    PortConfig,
    PortStatus,
    Task,
    TaskState,
    TaskStatus,
)
from agent.worker.interface import ExitStatus
from agent.worker.task_machine import (
    Advance,
    Finished,
    Rest,
    Situation,
    Work,
    advanced,
    drains,
    ended,
    explained,
    failed,
    later,
    next_step,
)

NODE_STATES = [state for state in TaskState if state is not TaskState.REMOVE]


def step(desired: TaskState, observed: TaskState, **rest: object) -> object:
    return next_step(Situation(desired=desired, observed=observed, **rest))


def test_the_way_to_running_has_swarmkits_steps_and_messages() -> None:
    desired = TaskState.RUNNING
    assert step(desired, TaskState.ASSIGNED) == Advance(TaskState.ACCEPTED, "accepted")
    assert step(desired, TaskState.ACCEPTED) == Advance(TaskState.PREPARING, "preparing")
    assert step(desired, TaskState.PREPARING) is Work.PREPARE
    assert step(desired, TaskState.READY) == Advance(TaskState.STARTING, "starting")
    assert step(desired, TaskState.STARTING) is Work.START
    assert step(desired, TaskState.RUNNING) is Work.WATCH


def test_ready_waits_until_more_is_wanted() -> None:
    assert step(TaskState.READY, TaskState.READY) == Rest()
    assert step(TaskState.READY, TaskState.ACCEPTED) == Advance(TaskState.PREPARING, "preparing")
    assert step(TaskState.COMPLETE, TaskState.READY) == Advance(TaskState.STARTING, "starting")


def test_a_task_that_runs_is_watched_even_where_less_is_wanted() -> None:
    assert step(TaskState.READY, TaskState.RUNNING) is Work.WATCH


@pytest.mark.parametrize("observed", [state for state in NODE_STATES if not state.terminal])
@pytest.mark.parametrize("desired", [TaskState.SHUTDOWN, TaskState.REMOVE])
def test_what_is_unwanted_stops_from_every_state(observed: TaskState, desired: TaskState) -> None:
    assert step(desired, observed) is Work.STOP
    assert step(TaskState.RUNNING, observed, forgotten=True) is Work.STOP
    assert step(desired, observed, confirmed=False) is Work.STOP


@pytest.mark.parametrize("observed", [state for state in NODE_STATES if state.terminal])
def test_what_ended_stays_for_its_logs_until_it_is_to_be_removed(observed: TaskState) -> None:
    assert step(TaskState.RUNNING, observed) == Rest()
    assert step(TaskState.SHUTDOWN, observed) == Rest()
    assert step(TaskState.REMOVE, observed) is Work.REMOVE
    assert step(TaskState.RUNNING, observed, forgotten=True) is Work.REMOVE
    assert step(TaskState.REMOVE, observed, removed=True) == Rest()
    assert step(TaskState.REMOVE, observed, removed=True, forgotten=True) == Finished()


def test_a_task_that_others_call_ended_is_stopped_first() -> None:
    assert step(TaskState.RUNNING, TaskState.ORPHANED, settled=False) is Work.STOP
    assert step(TaskState.REMOVE, TaskState.FAILED, settled=False) is Work.STOP


def test_nothing_new_starts_before_a_manager_named_it() -> None:
    for observed in (TaskState.ASSIGNED, TaskState.PREPARING, TaskState.READY, TaskState.STARTING):
        assert step(TaskState.RUNNING, observed, confirmed=False) == Rest()
    assert step(TaskState.RUNNING, TaskState.RUNNING, confirmed=False) is Work.WATCH


def test_missing_secrets_hold_a_task_back_and_say_so() -> None:
    missing = ("secret a", "config b")
    assert step(TaskState.RUNNING, TaskState.ASSIGNED, missing=missing) == Advance(TaskState.ACCEPTED, "accepted")
    assert step(TaskState.RUNNING, TaskState.ACCEPTED, missing=missing) == Rest("waiting for secret a, config b")
    assert step(TaskState.RUNNING, TaskState.RUNNING, missing=missing) is Work.WATCH


def test_no_step_lowers_the_state_and_every_situation_has_one() -> None:
    flags = [False, True]
    for desired, observed, confirmed, forgotten, settled, removed in itertools.product(
        TaskState, NODE_STATES, flags, flags, flags, flags
    ):
        decided = step(
            desired, observed, confirmed=confirmed, forgotten=forgotten, settled=settled, removed=removed and forgotten
        )
        if isinstance(decided, Advance):
            assert decided.state.rank > observed.rank
        if decided is Work.REMOVE:
            assert observed.terminal
            assert settled
        if decided in (Work.PREPARE, Work.START):
            assert desired.rank < TaskState.SHUTDOWN.rank
            assert not forgotten


def test_an_error_rejects_before_starting_and_fails_after() -> None:
    for state in (TaskState.ACCEPTED, TaskState.PREPARING, TaskState.READY):
        assert failed(TaskStatus(state=state), "no", 1).state is TaskState.REJECTED
    for state in (TaskState.STARTING, TaskState.RUNNING):
        status = failed(TaskStatus(state=state, message="m"), "no", 1)
        assert (status.state, status.err, status.message) == (TaskState.FAILED, "no", "m")


def test_the_end_of_a_container_is_complete_or_failed_with_its_code() -> None:
    running = TaskStatus(state=TaskState.RUNNING, message="started")
    container = ContainerStatus(container_id="c", exit_code=3)
    clean = ended(running, ExitStatus(0), 1, None)
    assert (clean.state, clean.message, clean.err) == (TaskState.COMPLETE, "finished", "")
    broken = ended(running, ExitStatus(3, "task: non-zero exit (3)"), 1, container)
    assert (broken.state, broken.message, broken.err) == (TaskState.FAILED, "started", "task: non-zero exit (3)")
    assert broken.container_status == container
    assert ended(running, ExitStatus(4), 1, None).err == "task: non-zero exit (4)"
    assert ended(running, ExitStatus(0, "dockerexec: unhealthy container"), 1, None).state is TaskState.FAILED


def test_an_advance_clears_the_error_and_never_falls() -> None:
    waiting = explained(TaskStatus(state=TaskState.PREPARING), "engine away", 5)
    assert waiting.err == "engine away"
    assert explained(waiting, "engine away", 6) is waiting
    ports = PortStatus(ports=[PortConfig(target_port=80)])
    container = ContainerStatus(container_id="c")
    ready = advanced(waiting, TaskState.READY, "prepared", 7, container, ports)
    assert (ready.err, ready.container_status, ready.port_status.ports) == ("", None, [])
    running = advanced(ready, TaskState.RUNNING, "started", 8, container, ports)
    assert (running.container_status, running.port_status) == (container, ports)
    with pytest.raises(ValueError, match="only rises"):
        advanced(running, TaskState.READY, "prepared", 9)


def test_the_later_of_two_statuses_wins_and_ours_on_a_tie() -> None:
    ours = TaskStatus(state=TaskState.RUNNING, message="ours")
    assert later(ours, TaskStatus(state=TaskState.RUNNING, message="theirs")) is ours
    assert later(ours, TaskStatus(state=TaskState.STARTING)) is ours
    assert later(ours, TaskStatus(state=TaskState.FAILED)).state is TaskState.FAILED


def test_only_what_is_balanced_drains() -> None:
    def published(mode: str) -> Task:
        ports = [PortConfig(target_port=80, publish_mode=mode)]
        return Task(id="t", endpoint=Endpoint(spec=EndpointSpec(ports=ports)))

    assert not drains(Task(id="t"))
    assert drains(published("ingress"))
    assert not drains(published("host"))
    assert drains(Task(id="t", networks_attachments=[NetworkAttachment()]))
