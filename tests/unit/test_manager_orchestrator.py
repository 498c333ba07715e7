from __future__ import annotations

import asyncio
import math
from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from manager_objects import NOW, a_node, a_service, a_spec, a_task

from agent.api_types.node import Node, NodeAvailability, NodeState
from agent.api_types.service import Service
from agent.api_types.task import RestartPolicy, Task, TaskState
from agent.manager.control_loop import BATCH
from agent.manager.orchestrator.changes import NewTask, SlotChange, write_changes
from agent.manager.orchestrator.global_services import GlobalOrchestrator, is_settled
from agent.manager.orchestrator.reconciler import ServiceView
from agent.manager.orchestrator.replicated import resize, slots_to_close
from agent.manager.slots import Slot, SlotKey, slots_of
from agent.store.store import Store


def slots(*tasks: Task) -> dict[SlotKey, Slot]:
    return slots_of(a_service(), tasks)


def opened(changes: list[SlotChange]) -> list[SlotKey]:
    return [change.slot.key for change in changes if change.new is not None]


def test_the_lowest_free_numbers_are_opened() -> None:
    assert opened(resize(5, slots(a_task("a", 2), a_task("b", 4)))) == [1, 3, 5]


def test_a_slot_whose_replacement_waits_is_taken() -> None:
    waiting = a_task("b", 1, desired=TaskState.READY, state=TaskState.PENDING, made=1)
    old = a_task("a", 1, desired=TaskState.SHUTDOWN)
    assert resize(1, slots(old, waiting)) == []


def test_a_slot_that_ended_for_good_counts_and_one_to_be_removed_does_not() -> None:
    settled = a_task("a", 1, state=TaskState.COMPLETE, desired=TaskState.SHUTDOWN)
    removed = a_task("b", 2, desired=TaskState.REMOVE)
    assert opened(resize(2, slots(settled, removed))) == [2]


def test_closing_marks_everything_of_the_slot() -> None:
    (change,) = resize(
        0, slots(a_task("old", 1, state=TaskState.FAILED, desired=TaskState.SHUTDOWN), a_task("t", 1, made=1))
    )
    assert {task.id: state for task, state in change.desired} == {"old": TaskState.REMOVE, "t": TaskState.REMOVE}
    assert change.new is None


def test_what_does_not_run_goes_first() -> None:
    found = slots(
        a_task("a", 1, state=TaskState.PENDING, node=""),
        a_task("b", 2, node="n1"),
        a_task("c", 3, state=TaskState.STARTING, node="n2"),
        a_task("d", 4, node="n2"),
    )
    assert [slot.key for slot in slots_to_close(found.values(), 1)] == [1]
    assert [slot.key for slot in slots_to_close(found.values(), 2)] == [1, 3]


def test_the_fullest_nodes_lose_their_newest() -> None:
    found = slots(*(a_task(f"t{n}", n, node=node) for n, node in enumerate(["n1", "n1", "n1", "n2", "n3"], 1)))
    assert [slot.key for slot in slots_to_close(found.values(), 2)] == [3, 2]


@given(st.lists(st.sampled_from(["n1", "n2", "n3", ""]), max_size=30), st.integers(0, 30))
def test_what_stays_is_as_even_as_it_can_be(nodes: list[str], count: int) -> None:
    """No closed slot's node is left with fewer tasks than another node has, give or take one."""
    found = slots(
        *(
            a_task(f"t{n}", n, node=node, state=TaskState.RUNNING if node else TaskState.PENDING)
            for n, node in enumerate(nodes, 1)
        )
    )
    closed = slots_to_close(found.values(), count)
    assert len(closed) == min(count, len(nodes))
    assert len({slot.key for slot in closed}) == len(closed)
    gone = {slot.key for slot in closed}
    left = Counter(node for n, node in enumerate(nodes, 1) if n not in gone)
    for node in {nodes[int(key) - 1] for key in gone} - {""}:
        assert max((left[other] for other in left if other), default=0) <= left[node] + 1
        assert left[""] == 0, "what has no node goes first"


# -- global services


def view(service: Service, nodes: list[Node], *tasks: Task) -> ServiceView:
    return ServiceView(service, slots_of(service, tasks), {node.id: node for node in nodes}, NOW)


ORCHESTRATOR = GlobalOrchestrator(Store.in_memory(), lambda: NOW)
GLOBAL = a_service(replicas=None)


def test_every_node_that_fits_gets_a_task() -> None:
    nodes = [
        a_node("ready"),
        a_node("paused", availability=NodeAvailability.PAUSE),
        a_node("drained", availability=NodeAvailability.DRAIN),
        a_node("down", state=NodeState.DOWN),
        a_node("unknown", state=NodeState.UNKNOWN),
    ]
    assert opened(ORCHESTRATOR.resize(view(GLOBAL, nodes))) == ["ready"]
    picky = a_service(a_spec(constraints=["node.labels.zone == a"]), replicas=None)
    nodes = [a_node("a", labels={"zone": "a"}), a_node("b", labels={"zone": "b"})]
    assert opened(ORCHESTRATOR.resize(view(picky, nodes))) == ["a"]


def test_a_task_leaves_a_node_that_may_not_keep_it() -> None:
    picky = a_service(a_spec(constraints=["node.labels.zone == a"]), replicas=None)
    for node in (
        a_node("n1", availability=NodeAvailability.DRAIN, labels={"zone": "a"}),
        a_node("n1", state=NodeState.DOWN, labels={"zone": "a"}),
        a_node("n1", labels={"zone": "b"}),
    ):
        task = a_task("t", 0, node="n1")
        found = view(picky, [node], task)
        change = ORCHESTRATOR.restart(found, found.slots["n1"])
        assert change is not None
        assert change.desired == ((task, TaskState.SHUTDOWN),)
        assert change.new is None


def test_a_paused_node_keeps_its_task_and_gets_no_other_one() -> None:
    node = a_node("n1", availability=NodeAvailability.PAUSE)
    found = view(GLOBAL, [node], a_task("t", 0, node="n1"))
    assert ORCHESTRATOR.restart(found, found.slots["n1"]) is None
    found = view(GLOBAL, [node], a_task("t", 0, node="n1", state=TaskState.FAILED))
    assert ORCHESTRATOR.restart(found, found.slots["n1"]) is None
    assert ORCHESTRATOR.updatable(found, []) == []


def test_a_node_that_was_drained_gets_its_task_again_but_not_one_that_ended_for_good() -> None:
    drained = a_task("t", 0, node="n1", state=TaskState.SHUTDOWN, desired=TaskState.SHUTDOWN)
    assert opened(ORCHESTRATOR.resize(view(GLOBAL, [a_node("n1")], drained))) == ["n1"]
    once = a_service(a_spec(restart=RestartPolicy(condition="none")), replicas=None)
    over = a_task(
        "t",
        0,
        node="n1",
        state=TaskState.COMPLETE,
        desired=TaskState.SHUTDOWN,
        spec=once.spec.task_template,
    )
    assert is_settled(Slot("n1", [over]))
    assert opened(ORCHESTRATOR.resize(view(once, [a_node("n1")], over))) == []


# -- writing


async def test_a_decision_about_a_slot_that_changed_is_not_written() -> None:
    store = Store.in_memory()
    service = a_service()
    await store.update(lambda tx: (tx.create(service), tx.create(a_task("t")))[0] and None)
    stored = store.view(lambda tx: tx.get(Service, "service"))
    seen = store.view(lambda tx: tx.get(Task, "t"))
    assert stored is not None
    assert seen is not None
    change = SlotChange(Slot(1, [seen]), ((seen, TaskState.SHUTDOWN),), NewTask())
    overtaking = asyncio.ensure_future(
        store.update(lambda tx: tx.update(msgspec.structs.replace(seen, desired_state=TaskState.REMOVE)) and None)
    )
    await asyncio.sleep(0)
    assert await write_changes(store, stored, [change]) is False
    await overtaking
    assert [task.desired_state for task in store.view(lambda tx: tx.all(Task))] == [TaskState.REMOVE]


async def test_nothing_is_written_for_a_service_that_changed_or_went() -> None:
    store = Store.in_memory()
    await store.update(lambda tx: tx.create(a_service()) and None)
    stored = store.view(lambda tx: tx.get(Service, "service"))
    assert stored is not None
    await store.update(lambda tx: tx.update(stored) and None)
    change = SlotChange(Slot(1, []), new=NewTask())
    assert await write_changes(store, stored, [change]) is False
    await store.update(lambda tx: tx.delete(Service, "service"))
    assert await write_changes(store, stored, [change]) is False
    assert store.view(lambda tx: tx.count(Task)) == 0


async def test_many_changes_are_written_batch_by_batch() -> None:
    store = Store.in_memory()
    await store.update(lambda tx: tx.create(a_service(replicas=1000)) and None)
    stored = store.view(lambda tx: tx.get(Service, "service"))
    assert stored is not None
    before = store.index
    assert await write_changes(store, stored, resize(1000, {})) is True
    assert store.view(lambda tx: tx.count(Task)) == 1000
    assert store.index - before == math.ceil(1000 / (BATCH - 1))
