"""The model: what subscribers hear always adds up to what the tables say."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from client_fake_engine import make_node, make_service, make_task
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmtui.docker_api.types import Node, Service, Task
from swarmtui.model.cluster import SLICE_SECONDS, ClusterModel
from swarmtui.model.query import Difference, Query, Table, all_nodes, all_services, tasks_of
from swarmtui.model.row_making import node_row, service_row, task_row
from swarmtui.model.rows import Row
from swarmtui.model.tables import ClusterObject, Delete, TableChange, Upsert

KINDS: dict[Table, type] = {Table.NODES: Node, Table.SERVICES: Service, Table.TASKS: Task}


def put(table: Table, raw: dict[str, Any], version: int = 0) -> Upsert:
    raw["Version"] = {"Index": version}
    return Upsert(table, msgspec.convert(raw, KINDS[table]))


class Mirror:
    """A view: builds its rows from differences alone, and refuses what a view could not make sense of."""

    def __init__(self, model: ClusterModel, query: Query[Any]) -> None:
        self.rows: dict[str, Row] = {}
        self.deliveries = 0
        self.subscription = model.subscribe(query, self.take)

    def take(self, difference: Difference[Any]) -> None:
        assert difference
        self.deliveries += 1
        for row in difference.added:
            assert row.id not in self.rows
            self.rows[row.id] = row
        for row in difference.changed:
            assert self.rows[row.id] != row
            self.rows[row.id] = row
        for key in difference.removed:
            del self.rows[key]


def expected(model: ClusterModel, query: Query[Any]) -> dict[str, Row]:
    """The rows made from scratch."""
    if query.table is Table.NODES:
        return {key: node_row(node, model.tasks_of(node_id=key)) for key, node in model.nodes.items()}
    if query.table is Table.SERVICES:
        return {key: service_row(each, model.tasks_of(service_id=key), model.nodes)
                for key, each in model.services.items()}  # fmt: skip
    return {
        key: task_row(task, model.services.get(task.service_id), model.nodes.get(task.node_id))
        for key, task in model.tasks.items()
        if query.service_id in (None, task.service_id) and query.node_id in (None, task.node_id)
    }


nodes_of = st.sampled_from(["n0", "n1", "n2", ""])
services_of = st.sampled_from(["s0", "s1"])
changes = st.one_of(
    st.builds(
        lambda i, state, name: ("node", f"n{i}", state, name),
        st.integers(0, 2), st.sampled_from(["ready", "down"]), st.sampled_from(["a", "b"]),
    ),
    st.builds(lambda i, n, image: ("service", f"s{i}", n, image), st.integers(0, 1), st.integers(0, 3),
              st.sampled_from(["web:1", "web:2"])),
    st.builds(
        lambda i, s, n, state: ("task", f"t{i}", s, n, state),
        st.integers(0, 5), services_of, nodes_of, st.sampled_from(["running", "failed", "pending"]),
    ),
    st.builds(lambda table, i: ("drop", table, i), st.sampled_from(["n", "s", "t"]), st.integers(0, 5)),
    st.just(("flush",)),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, max_size=40))
def test_differences_always_add_up(script: list[tuple[Any, ...]]) -> None:
    model = ClusterModel()
    queries: list[Query[Any]] = [all_nodes(), all_services(), tasks_of(), tasks_of("s0"), tasks_of("s0", "n1")]
    mirrors = [Mirror(model, query) for query in queries]
    for version, step in enumerate(script, 2):
        if step[0] == "node":
            model.apply([put(Table.NODES, make_node(step[1], step[3], state=step[2]), version)])
        elif step[0] == "service":
            model.apply([put(Table.SERVICES, make_service(step[1], step[1], step[2], image=step[3]), version)])
        elif step[0] == "task":
            made = make_task(step[1], step[2], 1, step[3], state=step[4])
            model.apply([put(Table.TASKS, made, version)])
        elif step[0] == "drop":
            table = {"n": Table.NODES, "s": Table.SERVICES, "t": Table.TASKS}[step[1]]
            model.apply([Delete(table, f"{step[1]}{step[2]}")])
        else:
            model.flush()
    model.flush()
    for mirror, query in zip(mirrors, queries, strict=True):
        assert mirror.rows == expected(model, query)
        late = Mirror(model, query)
        model.flush()
        assert late.rows == mirror.rows
    summary = model.summary
    assert summary.nodes == len(model.nodes)
    assert summary.services == len(model.services)
    rows = expected(model, all_services())
    assert summary.tasks_running == sum(row.running for row in rows.values())  # type: ignore[union-attr]


async def test_many_changes_are_one_delivery() -> None:
    model = ClusterModel(coalesce=0.01)
    mirror = Mirror(model, tasks_of())
    for number in range(50):
        model.apply([put(Table.TASKS, make_task(f"t{number}", "s1", number), 1)])
    for number in range(50):
        model.apply([put(Table.TASKS, make_task(f"t{number}", "s1", number, state="failed"), 2)])
    async with asyncio.timeout(5):
        while len(mirror.rows) < 50:
            await asyncio.sleep(0)
    assert mirror.deliveries == 1
    assert all(row.state == "failed" for row in mirror.rows.values())  # type: ignore[union-attr]


async def test_a_change_that_changes_nothing_is_not_delivered() -> None:
    model = ClusterModel()
    mirror = Mirror(model, tasks_of())
    model.apply([put(Table.TASKS, make_task("t1", "s1", 1), 1)])
    model.flush()
    model.apply([put(Table.TASKS, make_task("t1", "s1", 1), 2)])
    model.apply([put(Table.TASKS, make_task("t2", "s1", 2), 3), Delete(Table.TASKS, "t2")])
    model.flush()
    assert mirror.deliveries == 1


async def test_a_large_picture_comes_in_slices() -> None:
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += SLICE_SECONDS / 100
        return now

    model = ClusterModel(coalesce=0, monotonic=monotonic)
    model.apply(put(Table.TASKS, make_task(f"t{number}", "s1", number), 1) for number in range(2000))
    mirror = Mirror(model, tasks_of())
    async with asyncio.timeout(10):
        while len(mirror.rows) < 2000:
            await asyncio.sleep(0)
    assert mirror.deliveries >= 2000 / 100


async def test_every_subscriber_gets_its_turn_while_much_happens() -> None:
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += SLICE_SECONDS / 50
        return now

    model = ClusterModel(coalesce=0, monotonic=monotonic)
    mirrors = [Mirror(model, tasks_of()) for _ in range(4)]
    model.apply(put(Table.TASKS, make_task(f"t{number}", "s1", number), 1) for number in range(1000))
    async with asyncio.timeout(10):
        while not all(mirror.rows for mirror in mirrors):
            await asyncio.sleep(0)
    assert min(len(mirror.rows) for mirror in mirrors) > 0
    assert max(len(mirror.rows) for mirror in mirrors) < 1000


async def test_nothing_is_delivered_after_close_not_even_within_a_delivery() -> None:
    model = ClusterModel()
    second: list[Difference[Any]] = []

    def close_the_other(_: Difference[Any]) -> None:
        other.close()

    model.subscribe(all_nodes(), close_the_other)
    other = model.subscribe(all_nodes(), second.append)
    model.apply([put(Table.NODES, make_node("n1", "a"), 1)])
    model.flush()
    model.apply([put(Table.NODES, make_node("n1", "b"), 2)])
    model.flush()
    assert second == []


async def test_a_callback_may_subscribe() -> None:
    model = ClusterModel()
    mirrors: list[Mirror] = []
    model.subscribe(all_nodes(), lambda _: mirrors.append(Mirror(model, all_nodes())))
    model.apply([put(Table.NODES, make_node("n1", "a"), 1)])
    model.flush()
    model.flush()
    assert set(mirrors[0].rows) == {"n1"}


async def test_a_callback_that_raises_does_not_stop_the_others() -> None:
    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    model = ClusterModel(coalesce=0)

    def broken(_: Difference[Any]) -> None:
        raise RuntimeError("a view's bug")

    model.subscribe(all_nodes(), broken)
    mirror = Mirror(model, all_nodes())
    model.apply([put(Table.NODES, make_node("n1", "a"), 1)])
    async with asyncio.timeout(5):
        while not mirror.rows:
            await asyncio.sleep(0)
    assert "a view's bug" in str(errors[0]["exception"])


async def test_replace_takes_away_what_is_gone() -> None:
    model = ClusterModel()
    mirror = Mirror(model, all_nodes())
    first: list[ClusterObject] = [msgspec.convert(make_node(f"n{i}", f"h{i}"), Node) for i in range(3)]
    assert await model.replace(Table.NODES, first) == 3
    assert await model.replace(Table.NODES, first) == 0
    assert await model.replace(Table.NODES, first[1:]) == 1
    model.flush()
    assert set(mirror.rows) == {"n1", "n2"}


async def test_the_summary_counts_and_is_told() -> None:
    model = ClusterModel(context="prod")
    heard = []
    subscription = model.subscribe_summary(heard.append)
    script: list[TableChange] = [
        put(Table.NODES, make_node("n1", "node1", role="manager", leader=True), 1),
        put(Table.NODES, make_node("n2", "node2", state="down"), 2),
        put(Table.SERVICES, make_service("s1", "web", 2), 3),
        put(Table.TASKS, make_task("t1", "s1", 1), 4),
    ]
    model.apply(script)
    model.flush()
    summary = heard[-1]
    assert (summary.context, summary.leader, summary.managers_reachable, summary.managers) == ("prod", "node1", 1, 1)
    assert (summary.nodes_ready, summary.nodes) == (1, 2)
    assert (summary.services_healthy, summary.services, summary.tasks_running, summary.tasks_wanted) == (0, 1, 1, 2)
    told = len(heard)
    model.flush()
    assert len(heard) == told
    subscription.close()
    model.apply([Delete(Table.NODES, "n2")])
    model.flush()
    assert len(heard) == told


def test_a_model_without_a_source_cannot_run() -> None:
    with pytest.raises(RuntimeError, match="no source"):
        asyncio.run(ClusterModel().run())
