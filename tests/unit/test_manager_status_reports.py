from __future__ import annotations

import asyncio

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from manager_objects import NOW, a_node, a_task

from agent.api_types.node import Node, NodeDescription, NodeState
from agent.api_types.task import ContainerStatus, Task, TaskState, TaskStatus
from agent.api_types.times import parse_time
from agent.manager.dispatcher.node_reports import NodeReport, NodeWriter, apply_report, merge
from agent.manager.status_reports import StatusWriter, accept
from agent.rpc.messages import TaskReport
from agent.store.store import Store

statuses = st.builds(
    TaskStatus,
    timestamp=st.one_of(st.text(max_size=40), st.just("2026-11-21T09:24:38.7Z"), st.just("9999-99-99T99:99:99Z")),
    state=st.sampled_from(TaskState),
    message=st.text(max_size=20),
    err=st.text(max_size=20),
)


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2"]), statuses), max_size=20))
def test_whatever_is_reported_a_state_rises_and_an_end_is_final(reports: list[tuple[str, TaskStatus]]) -> None:
    task = a_task("t", state=TaskState.ASSIGNED)
    for node_id, status in reports:
        changed = accept(task, node_id, status, NOW)
        if changed is None:
            continue
        assert node_id == "n1"
        assert changed.status.state.rank >= task.status.state.rank
        assert not task.status.state.terminal
        assert changed.status.state not in (TaskState.ORPHANED, TaskState.REMOVE)
        parse_time(changed.status.timestamp)
        task = changed


def test_the_same_again_is_no_news_but_more_of_it_is() -> None:
    task = a_task("t")
    assert accept(task, "n1", msgspec.structs.replace(task.status, timestamp=""), NOW) is None
    more = msgspec.structs.replace(task.status, container_status=ContainerStatus(container_id="c", pid=7))
    assert accept(task, "n1", more, NOW) is not None


async def test_reports_are_written_together_and_the_newest_counts() -> None:
    store = Store.in_memory(clock=lambda: NOW)
    await store.update(
        lambda tx: [tx.create(a_task(f"t{n}", n + 1, state=TaskState.ASSIGNED)) for n in range(50)] and None
    )
    writer = StatusWriter(store, lambda: NOW)
    running = asyncio.ensure_future(writer.run())
    before = store.index
    with store.watch(Task) as watch:
        for state in (TaskState.ACCEPTED, TaskState.PREPARING, TaskState.STARTING, TaskState.RUNNING):
            writer.report("n1", [TaskReport(f"t{n}", TaskStatus(state=state)) for n in range(50)])
        await anext(watch)
    running.cancel()
    assert store.index == before + 1
    assert {task.status.state for task in store.view(lambda tx: tx.all(Task))} == {TaskState.RUNNING}
    await asyncio.gather(running, return_exceptions=True)


def test_reports_of_a_node_become_one() -> None:
    described = NodeReport(description=NodeDescription(hostname="new"))
    ready = NodeReport(NodeState.READY, "", "10.0.0.9")
    down = NodeReport(NodeState.DOWN, "heartbeat failure")
    merged = merge(merge(ready, described), down)
    assert merged == NodeReport(NodeState.DOWN, "heartbeat failure", "10.0.0.9", NodeDescription(hostname="new"))
    node = apply_report(a_node("n1"), merged)
    assert (node.status.state, node.status.message, node.status.addr) == (
        NodeState.DOWN,
        "heartbeat failure",
        "10.0.0.9",
    )
    assert node.description.hostname == "new"
    assert apply_report(node, NodeReport()) == node


async def test_what_changes_nothing_about_a_node_is_not_written() -> None:
    store = Store.in_memory(clock=lambda: NOW)
    await store.update(lambda tx: tx.create(a_node("n1")) and None)
    writer = NodeWriter(store)
    running = asyncio.ensure_future(writer.run())
    with store.watch(Node) as watch:
        writer.report("nobody", NodeReport(NodeState.DOWN))
        writer.report("n1", NodeReport(NodeState.READY, "", "10.0.0.1"))
        await asyncio.sleep(0)
        writer.report("n1", NodeReport(NodeState.DOWN, "gone"))
        commit = await anext(watch)
    assert [event.object.status.state for event in commit.events if isinstance(event.object, Node)] == [NodeState.DOWN]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
