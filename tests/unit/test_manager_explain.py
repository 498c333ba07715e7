from __future__ import annotations

import msgspec
from manager_objects import NOW, a_node, a_service, a_spec, a_task, at

from agent.api_types.node import Node, NodeAvailability, NodeState
from agent.api_types.service import Service, UpdateState, UpdateStatus
from agent.api_types.task import RestartPolicy, ServiceAnnotations, Task, TaskState
from agent.api_types.times import SECOND
from agent.manager.explain import Explainer
from agent.manager.explain_task import Explanation
from agent.manager.slots import CONSTRAINTS_NOT_MET
from agent.store.store import Store

NAMED = ServiceAnnotations(name="web")


def task(task_id: str, slot: int = 1, **fields: object) -> Task:
    return a_task(task_id, slot, service_annotations=NAMED, **fields)  # type: ignore[arg-type]


async def store_of(*objects: Node | Service | Task) -> Store:
    """A store that holds the objects as they are; the clock gives each task the time at which it was made."""
    moments = iter([NOW] * len(objects))
    store = Store.in_memory(clock=lambda: next(moments, NOW))
    tables = store._tables
    for obj in objects:
        tables.put(obj)
    return store


async def explain(task_id: str, *objects: Node | Service | Task, now: float = 10, suspected: str = "") -> Explanation:
    store = await store_of(a_service(), *objects)
    explainer = Explainer(store, lambda: NOW + round(now * SECOND), lambda node_id: node_id == suspected)
    result = explainer.explain_task(task_id)
    assert msgspec.json.decode(msgspec.json.encode(result))["id"] == task_id
    return result


async def test_why_a_task_waits_for_a_node() -> None:
    spec = a_spec(constraints=["node.labels.zone == a"], cpus=4)
    waiting = task("t", state=TaskState.PENDING, node="", spec=spec)
    nodes = [
        a_node("n1", labels={"zone": "a"}, cpus=2),
        a_node("n2", labels={"zone": "b"}),
        a_node("n3", state=NodeState.DOWN),
    ]
    found = await explain("t", waiting, *nodes)
    assert found.summary == "The task waits: no node can take it."
    assert found.reasons == [
        "Insufficient resources: host-n1.",
        "Scheduling constraints not satisfied: host-n2.",
        "Not available for new tasks: host-n3.",
    ]
    assert found.advice[1].startswith("Let a node satisfy node.labels.zone == a (docker node update --label-add)")
    assert [(verdict.node_id, verdict.fits) for verdict in found.nodes] == [("n1", False), ("n2", False), ("n3", False)]
    assert (await explain("t", waiting)).reasons == ["The cluster has no node."]


async def test_a_task_that_is_placed_in_a_moment() -> None:
    found = await explain("t", task("t", state=TaskState.PENDING, node=""), a_node("n1"))
    assert found.summary == "The task waits for the scheduler, which places it in a moment."


async def test_a_task_of_a_global_service_looks_at_its_own_node_alone() -> None:
    waiting = task("t", 0, state=TaskState.PENDING, node="n2")
    found = await explain("t", waiting, a_node("n1"), a_node("n2", availability=NodeAvailability.PAUSE))
    assert found.summary == "The task was made for node host-n2, which cannot take it."
    assert [verdict.node_id for verdict in found.nodes] == ["n2"]


async def test_a_task_that_waits_for_its_start() -> None:
    failed = task("old", state=TaskState.FAILED, desired=TaskState.SHUTDOWN, error="task: non-zero exit (1)")
    ready = task("t", state=TaskState.READY, desired=TaskState.READY, made=9, start_after=at(14))
    found = await explain("t", failed, ready, a_node("n1"))
    assert found.summary == "The task starts in 4.0 s on node host-n1."
    assert found.reasons == [
        "The restart policy delays a restart by 5.0 s.",
        "It took the place of task old: it failed (task: non-zero exit (1)).",
    ]


async def test_a_task_that_waits_for_the_one_before_to_stop() -> None:
    old = task("old", node="n2", desired=TaskState.SHUTDOWN)
    ready = task("t", state=TaskState.READY, desired=TaskState.READY, made=9)
    nodes = [a_node("n1"), a_node("n2", availability=NodeAvailability.DRAIN)]
    found = await explain("t", old, ready, *nodes)
    assert found.reasons == [
        "Task old of the same slot still stops on node host-n2.",
        "It took the place of task old: node host-n2 is drained.",
    ]


async def test_why_a_task_was_moved() -> None:
    async def why(old: Task, *nodes: Node) -> str:
        found = await explain("t", old, task("t", made=9), a_node("n1"), *nodes)
        return found.reasons[-1].removeprefix("It took the place of task old: ")

    lost = task("old", node="n2", desired=TaskState.SHUTDOWN)
    assert await why(lost, a_node("n2", state=NodeState.DOWN)) == "node host-n2 is down."
    assert await why(lost) == "its node n2 was removed from the cluster."
    assert await why(lost, a_node("n2")) == "node host-n2 was lost or drained at the time."
    misplaced = task("old", node="n2", state=TaskState.REJECTED, error=CONSTRAINTS_NOT_MET, desired=TaskState.SHUTDOWN)
    assert await why(misplaced, a_node("n2")) == "node host-n2 no longer met the constraints."
    updated = task("old", node="n2", spec=a_spec("web:0"), version=9, desired=TaskState.SHUTDOWN)
    assert await why(updated, a_node("n2")) == "the service was updated."


async def test_a_running_task_and_its_node() -> None:
    found = await explain("t", task("t"), a_node("n1"), suspected="n1")
    assert found.summary == f"The task runs on node host-n1 since {at(0)}."
    assert found.reasons == ["The connection to the node broke; when it stays silent the task is replaced elsewhere."]
    found = await explain("t", task("t"), a_node("n1", state=NodeState.DISCONNECTED))
    assert "expected back" in found.reasons[0]


async def test_why_a_task_is_not_started_again() -> None:
    spec = a_spec(restart=RestartPolicy(condition="any", max_attempts=1))
    failures = [
        task(f"t{n}", state=TaskState.FAILED, desired=TaskState.SHUTDOWN, made=n, spec=spec, error="exit 1")
        for n in range(2)
    ]
    found = await explain("t1", *failures, a_node("n1"))
    assert found.summary == f"The task failed on node host-n1 at {at(1)}."
    assert found.reasons == ["Exit 1.", "Its restart policy allows 1 attempts, and all are used."]
    assert found.advice == ["Mend what makes it fail, then start it again: docker service update --force web"]
    found = await explain("t0", *failures, a_node("n1"))
    assert found.reasons == ["Exit 1.", "Task t1 took its place."]


async def test_a_task_on_a_lost_node() -> None:
    lost = task("t", node="n1", desired=TaskState.SHUTDOWN)
    found = await explain("t", lost, task("new", made=1, node="n2"), a_node("n1", state=NodeState.DOWN), a_node("n2"))
    assert found.summary == "The task is being stopped on node host-n1."
    assert found.reasons[0] == "The node host-n1 is down or gone: nobody knows whether the task still runs there."
    assert found.reasons[1] == "Task new took its place."


async def service(*objects: Node | Task, **fields: object) -> Explanation:
    store = await store_of(a_service(replicas=3, **fields), *objects)  # type: ignore[arg-type]
    return Explainer(store, lambda: NOW, lambda node_id: False).explain_service("service")


async def test_a_service_says_what_its_tasks_say_once() -> None:
    picky = a_spec(constraints=["node.labels.zone == a"])
    waiting = [task(f"t{n}", n, state=TaskState.PENDING, node="", spec=picky) for n in (1, 2)]
    found = await service(*waiting, task("t3", 3), a_node("n1"))
    assert found.summary == "1 of 3 replicas run."
    assert found.reasons == [
        "web.1, web.2: The task waits: no node can take it. Scheduling constraints not satisfied: host-n1."
    ]
    assert len(found.advice) == 1


async def test_why_an_update_is_paused() -> None:
    status = UpdateStatus(
        state=UpdateState.PAUSED, message="update paused due to failure or early termination of task t9"
    )
    found = await service(update_status=status)
    assert found.reasons[0] == (
        "The update stopped half way: update paused due to failure or early termination of task t9."
    )
    assert any("docker service rollback web" in text for text in found.advice)


async def test_a_slot_that_is_given_up_is_told_of() -> None:
    over = task(
        "t",
        state=TaskState.FAILED,
        desired=TaskState.SHUTDOWN,
        spec=a_spec(restart=RestartPolicy(condition="none")),
        error="exit 1",
    )
    found = await service(over, a_node("n1"))
    assert found.reasons == [
        f"web.1: The task failed on node host-n1 at {at(0)}. Exit 1. Its restart policy is none: it is not started again."
    ]
