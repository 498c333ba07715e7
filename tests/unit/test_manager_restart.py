from __future__ import annotations

import pytest
from manager_objects import NOW, a_node, a_service, a_spec, a_task, at

from agent.api_types.node import Node, NodeAvailability, NodeState
from agent.api_types.task import RestartPolicy, Task, TaskState
from agent.api_types.times import SECOND
from agent.manager.orchestrator.restarts import restart_slot
from agent.manager.restart import Cause, attempts_before, cause_of, may_restart, starts_at
from agent.manager.slots import CONSTRAINTS_NOT_MET, Slot

NODES = {
    "n1": a_node("n1"),
    "down": a_node("down", state=NodeState.DOWN),
    "drained": a_node("drained", availability=NodeAvailability.DRAIN),
    "paused": a_node("paused", availability=NodeAvailability.PAUSE),
    "unknown": a_node("unknown", state=NodeState.UNKNOWN),
    "away": a_node("away", state=NodeState.DISCONNECTED),
}


def node_of(node_id: str) -> Node | None:
    return NODES.get(node_id)


@pytest.mark.parametrize(
    ("task", "cause"),
    [
        (a_task("t"), None),
        (a_task("t", state=TaskState.FAILED), Cause.ENDED),
        (a_task("t", state=TaskState.COMPLETE, node="down"), Cause.ENDED),
        (a_task("t", state=TaskState.SHUTDOWN), Cause.REFUSED),
        (a_task("t", state=TaskState.REJECTED, error=CONSTRAINTS_NOT_MET), Cause.REFUSED),
        (a_task("t", node="down"), Cause.NODE_DOWN),
        (a_task("t", node="gone"), Cause.NODE_DOWN),
        (a_task("t", node="drained"), Cause.NODE_DRAINED),
        (a_task("t", node="paused"), None),
        (a_task("t", node="unknown"), None),
        (a_task("t", node="away"), None),
        (a_task("t", node="", state=TaskState.PENDING), None),
    ],
)
def test_why_a_task_is_replaced(task: Task, cause: Cause | None) -> None:
    assert cause_of(task, node_of) is cause


def policy(condition: str = "any", attempts: int = 0, window: float = 0, delay: float = 5) -> RestartPolicy:
    return RestartPolicy(
        condition=condition,
        delay=round(delay * SECOND),
        max_attempts=attempts,
        window=round(window * SECOND),
    )


@pytest.mark.parametrize(
    ("condition", "state", "cause", "allowed"),
    [
        ("any", TaskState.COMPLETE, Cause.ENDED, True),
        ("any", TaskState.FAILED, Cause.ENDED, True),
        ("", TaskState.COMPLETE, Cause.ENDED, True),
        ("on-failure", TaskState.COMPLETE, Cause.ENDED, False),
        ("on-failure", TaskState.FAILED, Cause.ENDED, True),
        ("on-failure", TaskState.RUNNING, Cause.NODE_DOWN, True),
        ("none", TaskState.FAILED, Cause.ENDED, False),
        ("none", TaskState.RUNNING, Cause.NODE_DOWN, False),
    ],
)
def test_the_condition_decides(condition: str, state: TaskState, cause: Cause, allowed: bool) -> None:
    task = a_task("t", state=state, spec=a_spec(restart=policy(condition)))
    assert may_restart(task, [task], cause) is allowed


def failures(*ends: float, version: int = 10, attempts: int = 2, window: float = 0) -> list[Task]:
    spec = a_spec(restart=policy(attempts=attempts, window=window))
    return [
        a_task(
            f"t{version}-{number}",
            state=TaskState.FAILED,
            desired=TaskState.SHUTDOWN,
            made=end - 1,
            since=end,
            spec=spec,
            version=version,
        )
        for number, end in enumerate(ends)
    ]


def test_attempts_are_counted_in_the_slots_history() -> None:
    tasks = failures(1, 2, 3)
    assert [attempts_before(task, tasks, 0) for task in tasks] == [0, 1, 2]
    assert [may_restart(task, tasks, Cause.ENDED) for task in tasks] == [True, True, False]


def test_attempts_of_another_spec_version_do_not_count() -> None:
    tasks = failures(1, 2, 3, version=5) + failures(10, 11, version=6)
    assert attempts_before(tasks[-1], tasks, 0) == 1


def test_going_back_to_an_old_version_begins_to_count_anew() -> None:
    tasks = failures(1, 2, 3, version=5) + failures(10, version=6) + failures(20, version=5)
    tasks[-1] = a_task(
        "again", state=TaskState.FAILED, made=20, since=21, version=5, spec=tasks[0].spec, desired=TaskState.SHUTDOWN
    )
    assert attempts_before(tasks[-1], tasks, 0) == 0


def test_the_window_looks_back_from_the_end_of_the_task() -> None:
    tasks = failures(0, 50, 100, 104, attempts=2, window=60)
    assert attempts_before(tasks[-1], tasks, 60 * SECOND) == 2
    assert may_restart(tasks[-1], tasks, Cause.ENDED) is False
    later = failures(0, 1, 100, 104, attempts=2, window=60)
    assert may_restart(later[-1], later, Cause.ENDED) is True


def test_lost_nodes_are_no_attempts() -> None:
    spec = a_spec(restart=policy(attempts=1))
    lost = [a_task(f"t{n}", state=TaskState.SHUTDOWN, desired=TaskState.SHUTDOWN, made=n, spec=spec) for n in range(5)]
    last = a_task("last", state=TaskState.FAILED, made=10, spec=spec)
    assert may_restart(last, [*lost, last], Cause.ENDED) is True


def restarted(slot: Slot, now: float = 100) -> tuple[dict[str, TaskState], TaskState | None, str]:
    """Desired states by task, the new task's desired state, and its start."""
    change = restart_slot(a_service(), slot, node_of, NOW + round(now * SECOND))
    assert change is not None
    desired = {task.id: state for task, state in change.desired}
    new = change.new
    return desired, None if new is None else new.desired, "" if new is None else new.start_after


def test_a_failed_task_is_replaced_after_the_delay() -> None:
    assert restarted(Slot(1, [a_task("t", state=TaskState.FAILED)])) == (
        {"t": TaskState.SHUTDOWN},
        TaskState.READY,
        at(105),
    )


def test_without_a_delay_at_once() -> None:
    spec = a_spec(restart=policy(delay=0))
    assert restarted(Slot(1, [a_task("t", state=TaskState.FAILED, spec=spec)]))[1:] == (TaskState.RUNNING, "")


def test_a_lost_node_replaces_at_once() -> None:
    assert restarted(Slot(1, [a_task("t", node="down")]))[1:] == (TaskState.RUNNING, "")


def test_a_drained_node_replaces_as_soon_as_the_old_task_has_stopped() -> None:
    assert restarted(Slot(1, [a_task("t", node="drained")]))[1:] == (TaskState.READY, "")


def test_a_replacement_that_is_lost_while_it_waits_passes_its_waiting_on() -> None:
    waiting = a_task("t", desired=TaskState.READY, state=TaskState.READY, node="down", start_after=at(104))
    assert restarted(Slot(1, [waiting]))[1:] == (TaskState.READY, at(104))


def test_a_replacement_that_is_lost_still_waits_for_the_one_that_stops() -> None:
    old = a_task("old", desired=TaskState.SHUTDOWN)
    waiting = a_task("t", desired=TaskState.READY, state=TaskState.READY, node="down", made=1)
    assert restarted(Slot(1, [old, waiting]))[1:] == (TaskState.READY, "")


def test_nothing_is_made_where_a_start_first_update_has_the_next_task_in_place() -> None:
    old = a_task("old", version=9, spec=a_spec("web:0"), state=TaskState.FAILED)
    new = a_task("new", made=1)
    assert restarted(Slot(1, [old, new])) == ({"old": TaskState.SHUTDOWN}, None, "")


def test_a_slot_that_is_well_is_left_alone() -> None:
    assert restart_slot(a_service(), Slot(1, [a_task("t")]), node_of, NOW) is None


def test_a_start_waits_for_the_old_task_a_minute_at_most() -> None:
    stopping = a_task("old", desired=TaskState.SHUTDOWN)
    assert starts_at(7, 0, [stopping], node_of) == 60 * SECOND
    for over in (
        a_task("old", desired=TaskState.SHUTDOWN, state=TaskState.SHUTDOWN),
        a_task("old", desired=TaskState.SHUTDOWN, node="down"),
        a_task("old", desired=TaskState.SHUTDOWN, node="gone"),
        a_task("old", desired=TaskState.SHUTDOWN, node="", state=TaskState.PENDING),
        a_task("old"),
    ):
        assert starts_at(7, 0, [over], node_of) == 7
