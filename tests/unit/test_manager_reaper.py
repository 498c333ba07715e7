from __future__ import annotations

from manager_objects import a_spec, a_task

from agent.api_types.swarm import Cluster, OrchestrationConfig, SwarmSpec
from agent.api_types.task import RestartPolicy, Task, TaskSpec, TaskState
from agent.manager.reaper import history_limit, may_delete, surplus
from agent.manager.slots import Slot


def over(number: int, state: TaskState = TaskState.FAILED, spec: TaskSpec | None = None, version: int = 10) -> Task:
    return a_task(
        f"t{number}", state=state, desired=TaskState.SHUTDOWN, made=number, spec=spec, version=version, node="n1"
    )


def ids(tasks: list[Task]) -> list[str]:
    return [task.id for task in tasks]


def test_a_slot_keeps_five_the_running_one_counted() -> None:
    running = a_task("now", made=100)
    assert ids(surplus(Slot(1, [*(over(n) for n in range(4)), running]), 5)) == []
    assert ids(surplus(Slot(1, [*(over(n) for n in range(7)), running]), 5)) == ["t0", "t1", "t2"]


def test_what_is_wanted_or_still_stops_is_kept() -> None:
    stopping = a_task("stopping", made=-5, desired=TaskState.SHUTDOWN)
    running = a_task("now", made=100)
    assert ids(surplus(Slot(1, [stopping, *(over(n) for n in range(3)), running]), 1)) == ["t0", "t1", "t2"]


def test_what_never_got_a_node_goes_too() -> None:
    waited = a_task("waited", state=TaskState.PENDING, desired=TaskState.SHUTDOWN, node="", made=-5)
    assert ids(surplus(Slot(1, [waited, a_task("now", made=1)]), 1)) == ["waited"]


def test_limits() -> None:
    slot = Slot(1, [over(1), over(2)])
    assert ids(surplus(slot, 0)) == ["t1", "t2"]
    assert surplus(slot, None) == []


def test_attempts_raise_the_limit() -> None:
    spec = a_spec(restart=RestartPolicy(condition="any", max_attempts=8))
    tasks = [over(n, spec=spec) for n in range(12)]
    assert ids(surplus(Slot(1, tasks), 5)) == ["t0", "t1", "t2"]


def test_losses_of_nodes_do_not_make_a_slot_forget_its_attempts() -> None:
    spec = a_spec(restart=RestartPolicy(condition="any", max_attempts=2))
    failures = [over(n, spec=spec) for n in range(2)]
    losses = [over(n, TaskState.SHUTDOWN, spec) for n in range(2, 12)]
    assert not set(ids(failures)) & set(ids(surplus(Slot(1, [*failures, *losses]), 5)))


def test_the_limit_of_the_cluster() -> None:
    def cluster(limit: int | None) -> Cluster:
        return Cluster(spec=SwarmSpec(orchestration=OrchestrationConfig(task_history_retention_limit=limit)))

    assert [history_limit([cluster(limit)]) for limit in (None, 0, 3, -1)] == [5, 0, 3, None]
    assert history_limit([]) == 5


def test_a_task_to_be_removed_goes_once_it_is_over_or_its_node_is_gone() -> None:
    def remove(state: TaskState, node: str = "n1") -> Task:
        return a_task("t", state=state, desired=TaskState.REMOVE, node=node)

    assert not may_delete(remove(TaskState.RUNNING), {"n1"})
    assert may_delete(remove(TaskState.RUNNING), {"n2"})
    assert may_delete(remove(TaskState.SHUTDOWN), {"n1"})
    assert may_delete(remove(TaskState.PENDING), {"n1"})
    assert may_delete(remove(TaskState.NEW, ""), {"n1"})
