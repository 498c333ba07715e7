from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from manager_objects import NOW, a_node, a_spec, a_task

from agent.api_types.task import Task, TaskState
from agent.api_types.times import SECOND
from agent.manager.scheduler.filters import Pipeline
from agent.manager.scheduler.node_info import FAILURE_WINDOW, FAULTY, NodeInfo
from agent.manager.scheduler.spread import Spread


def place(count: int, infos: list[NodeInfo], task: Task) -> list[str]:
    """The nodes that `count` tasks like `task` get, in order."""
    pipeline = Pipeline()
    pipeline.set_task(task)
    spread = Spread(task, infos, pipeline.passes, NOW)
    placed = []
    for number in range(count):
        info = spread.next()
        if info is None:
            break
        info.add(msgspec.structs.replace(task, id=f"new{number}", node_id=info.node.id))
        spread.took(info)
        placed.append(info.node.id)
    return placed


def waiting(**fields: object) -> Task:
    return a_task("new", 1, state=TaskState.PENDING, node="", **fields)  # type: ignore[arg-type]


def test_the_node_with_fewest_tasks_of_the_service_then_fewest_of_all() -> None:
    infos = [NodeInfo(a_node(name)) for name in ("a", "b", "c")]
    infos[0].add(a_task("t1", service="other"))
    infos[1].add(a_task("t2"))
    assert place(5, infos, waiting()) == ["c", "a", "b", "c", "a"]


def test_tasks_that_are_to_stop_do_not_count() -> None:
    infos = [NodeInfo(a_node(name)) for name in ("a", "b")]
    infos[0].add(a_task("t1", desired=TaskState.SHUTDOWN))
    infos[1].add(a_task("t2"))
    assert place(1, infos, waiting()) == ["a"]


def test_a_faulty_node_comes_last_and_is_forgiven() -> None:
    infos = [NodeInfo(a_node(name)) for name in ("a", "b")]
    for _ in range(FAULTY - 1):
        infos[0].failed(("service", 10), NOW)
    assert place(1, infos, waiting()) == ["a"]
    infos[0].remove("new0")
    infos[0].failed(("service", 10), NOW)
    assert place(3, infos, waiting()) == ["b", "b", "b"]
    assert place(1, infos, waiting(service="other")) == ["a"]
    assert infos[0].failures(("service", 10), NOW + FAILURE_WINDOW + SECOND) == 0


def test_zones_of_different_size_get_as_many_each() -> None:
    infos = [NodeInfo(a_node(f"a{n}", labels={"zone": "a"})) for n in range(4)]
    infos += [NodeInfo(a_node("b0", labels={"zone": "b"})), NodeInfo(a_node("c0"))]
    placed = place(12, infos, waiting(spec=a_spec(spread=["node.labels.zone"])))
    assert Counter(name[0] for name in placed) == {"a": 4, "b": 4, "c": 4}
    assert Counter(name for name in placed if name[0] == "a") == {"a0": 1, "a1": 1, "a2": 1, "a3": 1}


def test_tasks_from_before_count_for_their_zone_even_on_nodes_that_take_no_more() -> None:
    infos = [
        NodeInfo(a_node("a0", labels={"zone": "a"}, cpus=2)),
        NodeInfo(a_node("a1", labels={"zone": "a"}, cpus=2)),
        NodeInfo(a_node("b0", labels={"zone": "b"}, cpus=8)),
    ]
    spec = a_spec(spread=["node.labels.zone"], cpus=1)
    for number in range(2):
        infos[0].add(a_task(f"old{number}", spec=spec))
    assert place(4, infos, waiting(spec=spec)) == ["b0", "b0", "a1", "b0"]


def test_a_full_branch_leaves_the_rest_to_the_others() -> None:
    infos = [
        NodeInfo(a_node("a0", labels={"zone": "a"}, cpus=1)),
        NodeInfo(a_node("b0", labels={"zone": "b"}, cpus=9)),
    ]
    spec = a_spec(spread=["node.labels.zone"], cpus=1)
    assert Counter(place(20, infos, waiting(spec=spec))) == {"a0": 1, "b0": 9}


def test_a_tree_of_two_levels() -> None:
    infos = [
        NodeInfo(a_node(f"{zone}{rack}{n}", labels={"zone": zone}, engine_labels={"rack": rack}))
        for zone, rack, count in (("a", "1", 1), ("a", "2", 3), ("b", "1", 2))
        for n in range(count)
    ]
    placed = place(12, infos, waiting(spec=a_spec(spread=["node.labels.zone", "engine.labels.rack"])))
    assert Counter(name[:2] for name in placed) == {"a1": 3, "a2": 3, "b1": 6}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=8),
    st.integers(0, 40),
)
def test_no_placement_could_have_been_more_even(nodes: list[tuple[str, int, int]], count: int) -> None:
    """Room is never exceeded, nothing is left over while there is room, and a zone gets more than another one only if
    it had to."""
    spec = a_spec(spread=["node.labels.zone"], cpus=1)
    infos = []
    for number, (zone, cpus, before) in enumerate(nodes):
        info = NodeInfo(a_node(f"n{number}", labels={"zone": zone}, cpus=cpus + before))
        for old in range(before):
            info.add(a_task(f"old{number}.{old}", spec=spec))
        infos.append(info)
    had = Counter({zone: 0 for zone, _, _ in nodes})
    room = Counter({zone: 0 for zone, _, _ in nodes})
    for zone, cpus, before in nodes:
        had[zone] += before
        room[zone] += cpus
    placed = Counter(infos[int(name[1:])].node.spec.labels["zone"] for name in place(count, infos, waiting(spec=spec)))
    assert sum(placed.values()) == min(count, sum(room.values()))
    for zone in room:
        assert placed[zone] <= room[zone]
        for other in room:
            if placed[zone] and placed[other] < room[other]:
                assert had[zone] + placed[zone] <= had[other] + placed[other] + 1
