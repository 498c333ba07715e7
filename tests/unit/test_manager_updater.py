from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from manager_objects import NOW, a_node, a_service, a_spec, a_task, at

from agent.api_types.common import Version
from agent.api_types.container import PullOptions
from agent.api_types.node import Node
from agent.api_types.service import Service, UpdateConfig, UpdateState, UpdateStatus
from agent.api_types.task import Task, TaskState
from agent.api_types.times import SECOND
from agent.manager.orchestrator.changes import SlotChange
from agent.manager.orchestrator.updater import UpdatePlan, plan_update, rolled_back
from agent.manager.slots import Slot, up_to_date

NODES = {"n1": a_node("n1", labels={"zone": "a"}), "n2": a_node("n2", labels={"zone": "b"})}
OLD, NEW = a_spec("web:1"), a_spec("web:2")


def node_of(node_id: str) -> Node | None:
    return NODES.get(node_id)


def updating(
    config: UpdateConfig | None = None, state: UpdateState = UpdateState.UPDATING, began: float = 0, **fields: object
) -> Service:
    """A service whose update to version 20 began at second `began`."""
    return a_service(
        NEW,
        version=20,
        update=config,
        update_status=UpdateStatus(state=state, started_at=at(began), message="update in progress"),
        previous_spec=a_service(OLD).spec,
        previous_spec_version=Version(index=10),
        **fields,
    )


def old(slot: int, **fields: object) -> Task:
    return a_task(f"old{slot}", slot, spec=OLD, version=10, made=-100, **fields)  # type: ignore[arg-type]


def new(slot: int, name: str = "new", **fields: object) -> Task:
    return a_task(f"{name}{slot}", slot, **{"spec": NEW, "version": 20, "made": 1, **fields})  # type: ignore[arg-type]


def plan(service: Service, *tasks: Task, now: float = 1, ran: dict[str, float] | None = None) -> UpdatePlan:
    slots: dict[int, list[Task]] = {}
    for task in tasks:
        slots.setdefault(task.slot, []).append(task)
    return plan_update(
        service,
        [Slot(key, group) for key, group in sorted(slots.items())],
        node_of=node_of,
        ran_for=lambda task: round((ran or {})[task.id] * SECOND) if task.id in (ran or {}) else None,
        now=NOW + round(now * SECOND),
    )


def replaced(changes: Sequence[SlotChange]) -> list[object]:
    return [change.slot.key for change in changes if change.new is not None]


def stopped(changes: Sequence[SlotChange]) -> list[str]:
    return [task.id for change in changes for task, state in change.desired if state is TaskState.SHUTDOWN]


def test_nothing_to_do_leaves_the_status_alone() -> None:
    service = a_service(NEW, version=20)
    assert plan(service, new(1), new(2)) == UpdatePlan()


def test_an_update_begins_with_one_slot_and_says_so() -> None:
    result = plan(a_service(NEW, version=20), old(1), old(2), old(3))
    assert replaced(result.changes) == [1]
    assert stopped(result.changes) == ["old1"]
    assert result.status == UpdateStatus(state="updating", started_at=at(1), message="update in progress")


@pytest.mark.parametrize(("parallelism", "slots"), [(1, [1]), (2, [1, 2]), (0, [1, 2, 3])])
def test_parallelism(parallelism: int, slots: list[int]) -> None:
    service = a_service(NEW, version=20, update=UpdateConfig(parallelism=parallelism))
    assert replaced(plan(service, old(1), old(2), old(3)).changes) == slots


def test_the_next_slot_waits_until_the_one_before_runs() -> None:
    assert replaced(plan(updating(), new(1, state=TaskState.STARTING), old(2)).changes) == []
    assert replaced(plan(updating(), new(1, state=TaskState.RUNNING), old(2)).changes) == [2]


def test_the_next_slot_waits_for_the_delay() -> None:
    service = updating(UpdateConfig(parallelism=1, delay=10 * SECOND))
    waiting = plan(service, new(1, since=5), old(2), now=14)
    assert replaced(waiting.changes) == []
    assert waiting.wake_at == NOW + 15 * SECOND
    assert replaced(plan(service, new(1, since=5), old(2), now=15).changes) == [2]


def test_an_update_is_complete_after_the_monitor_period() -> None:
    watching = plan(updating(), new(1, since=2), new(2, since=3), now=7)
    assert watching.status is None
    assert watching.wake_at == NOW + 8 * SECOND
    assert plan(updating(), new(1, since=2), new(2, since=3), now=8).status == UpdateStatus(
        state="completed", started_at=at(0), completed_at=at(8), message="update completed"
    )


def test_start_first_keeps_the_old_task_until_the_new_one_runs() -> None:
    service = updating(UpdateConfig(parallelism=1, order="start-first"))
    begun = plan(service, old(1))
    assert replaced(begun.changes) == [1]
    assert stopped(begun.changes) == []
    assert begun.changes[0].new is not None
    assert begun.changes[0].new.desired is TaskState.RUNNING
    assert stopped(plan(service, old(1), new(1, state=TaskState.STARTING)).changes) == []
    assert stopped(plan(service, old(1), new(1)).changes) == ["old1"]


def test_start_first_stops_at_once_what_did_not_run() -> None:
    service = updating(UpdateConfig(parallelism=1, order="start-first"))
    between = a_task("between", 1, spec=a_spec("web:1.5"), version=15, made=-1, state=TaskState.PREPARING)
    assert stopped(plan(service, old(1), between).changes) == ["between"]


def test_stop_first_waits_in_ready_and_has_nothing_to_wait_for_where_nothing_runs() -> None:
    (change,) = plan(updating(), old(1)).changes
    assert change.new is not None
    assert change.new.desired is TaskState.READY
    (change,) = plan(updating(), old(1, state=TaskState.PENDING, node="")).changes
    assert change.new is not None
    assert change.new.desired is TaskState.RUNNING


FAILED = TaskState.FAILED


def test_a_failure_within_the_monitor_period_pauses_with_the_engines_words() -> None:
    failed = new(1, "bad", state=FAILED, desired=TaskState.SHUTDOWN, since=3)
    result = plan(updating(), failed, new(1, made=4, state=TaskState.STARTING), old(2), ran={"bad1": 0.5})
    assert result.changes == ()
    assert result.status is not None
    assert (result.status.state, result.status.message) == (
        "paused",
        "update paused due to failure or early termination of task bad1",
    )


def test_a_failure_after_the_monitor_period_is_none() -> None:
    failed = new(1, "bad", state=FAILED, desired=TaskState.SHUTDOWN, since=30)
    result = plan(updating(), failed, new(1, made=31, since=32), old(2), now=40, ran={"bad1": 20})
    assert replaced(result.changes) == [2]


def test_a_task_that_was_rejected_never_ran() -> None:
    failed = new(1, "bad", state=TaskState.REJECTED, since=300)
    assert plan(updating(), failed, old(2)).status is not None


def test_a_task_that_was_asked_to_stop_did_not_fail() -> None:
    gone = new(1, "gone", state=TaskState.SHUTDOWN, desired=TaskState.SHUTDOWN, since=3)
    assert replaced(plan(updating(), gone, new(1, made=4), old(2), now=5).changes) == [2]


def test_some_failures_may_be_tolerated() -> None:
    tolerant = updating(UpdateConfig(parallelism=1, max_failure_ratio=0.5))
    bad = [new(slot, "bad", state=FAILED, desired=TaskState.SHUTDOWN, since=2) for slot in (1, 2, 3)]
    again = [new(slot, made=3, since=4) for slot in (1, 2, 3)]
    half = plan(tolerant, bad[0], again[0], bad[1], again[1], old(3), old(4), now=5)
    assert replaced(half.changes) == [3]
    most = plan(tolerant, *bad, *again, old(4), now=5)
    assert most.status is not None
    assert most.status.state == "paused"


def test_continue_goes_on_and_ends() -> None:
    service = updating(UpdateConfig(parallelism=1, failure_action="continue"))
    bad = new(1, "bad", state=FAILED, desired=TaskState.SHUTDOWN, since=2)
    again = new(1, made=3, state=TaskState.READY, desired=TaskState.READY)
    assert replaced(plan(service, bad, again, old(2)).changes) == [2]
    done = plan(service, bad, again, new(2, since=4), now=30)
    assert done.status is not None
    assert done.status.state == "completed"


def test_rollback_exchanges_the_specs() -> None:
    service = updating(UpdateConfig(parallelism=1, failure_action="rollback"))
    result = plan(service, new(1, "bad", state=FAILED, since=2), old(2))
    assert result.rollback
    assert result.status is not None
    assert (result.status.state, result.status.message) == (
        "rollback_started",
        "update rolled back due to failure or early termination of task bad1",
    )
    back = rolled_back(service, result.status)
    assert back.spec.task_template == OLD
    assert back.spec_version == Version(index=10)
    assert back.previous_spec is not None
    assert back.previous_spec.task_template == NEW
    assert rolled_back(back, result.status).spec == service.spec


def test_without_a_spec_before_a_failure_pauses() -> None:
    service = msgspec.structs.replace(
        updating(UpdateConfig(parallelism=1, failure_action="rollback")), previous_spec=None
    )
    result = plan(service, new(1, "bad", state=FAILED, since=2), old(2))
    assert not result.rollback
    assert result.status is not None
    assert result.status.state == "paused"


def rolling_back(config: UpdateConfig | None = None) -> Service:
    return a_service(
        OLD,
        version=10,
        rollback=config,
        update_status=UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=at(0)),
        previous_spec=a_service(NEW).spec,
        previous_spec_version=Version(index=20),
    )


def test_a_rollback_replaces_what_was_updated_and_leaves_the_rest() -> None:
    result = plan(rolling_back(), new(1), old(2))
    assert replaced(result.changes) == [1]
    back = a_task("back", 1, spec=OLD, version=10, made=5, since=6)
    done = plan(rolling_back(), back, old(2), now=12)
    assert done.status is not None
    assert (done.status.state, done.status.message) == ("rollback_completed", "rollback completed")


def test_a_failing_rollback_is_paused_whatever_its_config_says() -> None:
    service = rolling_back(UpdateConfig(parallelism=1, failure_action="rollback"))
    bad = a_task("bad", 1, spec=OLD, version=10, made=5, since=6, state=FAILED)
    result = plan(service, bad, new(2))
    assert result.status is not None
    assert result.status.state == "rollback_paused"
    assert result.status.message == "rollback paused due to failure or early termination of task bad"


@pytest.mark.parametrize("state", [UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED])
def test_a_paused_update_does_nothing(state: UpdateState) -> None:
    assert plan(updating(state=state), old(1), old(2)) == UpdatePlan()


def test_a_slot_whose_task_ended_for_good_is_updated_too() -> None:
    ended = old(1, state=TaskState.COMPLETE, desired=TaskState.SHUTDOWN)
    (change,) = plan(updating(), ended).changes
    assert change.new is not None
    assert change.new.desired is TaskState.RUNNING


def test_a_settled_slot_of_the_new_spec_is_done() -> None:
    ended = new(1, state=TaskState.COMPLETE, desired=TaskState.SHUTDOWN, since=20)
    result = plan(updating(), ended, now=30, ran={"new1": 15})
    assert result.status is not None
    assert result.status.state == "completed"


def test_a_rollback_by_hand_gets_a_beginning() -> None:
    service = updating(state=UpdateState.ROLLBACK_STARTED)
    undated = msgspec.structs.replace(service, update_status=UpdateStatus(state=UpdateState.ROLLBACK_STARTED))
    result = plan(undated, old(1), now=9)
    assert result.status is not None
    assert result.status.started_at == at(9)


def test_only_the_placement_changed_and_the_node_still_fits() -> None:
    narrower = a_spec("web:1", constraints=["node.labels.zone == a"])
    service = a_service(narrower, version=20)
    assert up_to_date(old(1, node="n1"), service, node_of)
    assert not up_to_date(old(1, node="n2"), service, node_of)
    assert not up_to_date(old(1, node="", state=TaskState.PENDING), service, node_of)


def test_other_credentials_for_the_registry_replace_no_task() -> None:
    container = NEW.container_spec
    assert container is not None
    with_key = msgspec.structs.replace(
        NEW, container_spec=msgspec.structs.replace(container, pull_options=PullOptions("k"))
    )
    service = a_service(with_key, version=30)
    assert up_to_date(new(1), service, node_of)
    assert up_to_date(new(1, spec=with_key), a_service(NEW, version=30), node_of)
    assert not up_to_date(old(1), service, node_of)


def test_a_new_version_with_the_same_template_updates_nothing() -> None:
    result = plan(a_service(OLD, version=30, replicas=5), old(1), old(2))
    assert (list(result.changes), result.status) == ([], None)


def test_start_first_keeps_the_old_task_of_a_slot_whose_new_one_failed_for_good() -> None:
    config = UpdateConfig(parallelism=1, order="start-first", failure_action="continue")
    dead = new(1, state=FAILED, desired=TaskState.SHUTDOWN, since=2)
    going_on = plan(updating(config), old(1), dead, old(2), now=5)
    assert replaced(going_on.changes) == [2]
    assert stopped(going_on.changes) == []
    done = plan(updating(config), old(1), dead, new(2, since=6), now=30)
    assert done.status is not None
    assert done.status.state == "completed"
    after = plan(updating(config, state=UpdateState.COMPLETED), old(1), dead, new(2), now=40)
    assert (list(after.changes), after.status) == ([], None), "and it is not tried for ever"


def test_start_first_stops_the_old_task_once_the_new_one_has_finished_well() -> None:
    config = UpdateConfig(parallelism=1, order="start-first", failure_action="continue")
    finished = new(1, state=TaskState.COMPLETE, desired=TaskState.SHUTDOWN, since=20)
    assert stopped(plan(updating(config), old(1), finished, now=21, ran={"new1": 19}).changes) == ["old1"]
