"""Nodes' lives and what they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from simulated_link import End, Link
from stories import simulate
from virtual_time import VirtualLoop
from world import World, make_spec

from agent.api_types.container import SecretReference
from agent.api_types.errors import InvalidArgument
from agent.api_types.node import Node, NodeState
from agent.api_types.secret import Secret, SecretSpec
from agent.api_types.service import Service
from agent.api_types.task import PortConfig, Task, TaskState, TaskStatus
from agent.rpc.messages import Heartbeat, LogWatermark, Message, SessionOpen, SessionReady, StatusReport, TaskReport
from agent.rpc.peer import Peer

INGRESS = PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="ingress")


def state_of(world: World, node_id: str) -> NodeState:
    node = world.store.view(lambda tx: tx.get(Node, node_id))
    assert node is not None
    return node.status.state


def down_events(world: World) -> list[str]:
    return [node.id for node in world.store.view(lambda tx: tx.all(Node)) if node.status.state is NodeState.DOWN]


def freeze(world: World, seconds: float) -> None:
    """The process does nothing for so long while the time goes on: stopped, starved, or swapped out."""
    assert isinstance(world.loop, VirtualLoop)
    world.loop.now += seconds


def test_a_leader_that_was_frozen_blames_nobody() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        before = {task.id for task in world.running(service)}
        for seconds in (2.9, 3.1, 5.0, 30.0, 300.0):
            freeze(world, seconds)
            await asyncio.sleep(6)
            assert down_events(world) == []
        assert {task.id for task in world.running(service)} == before

    simulate(story)


def test_a_starved_leader_blames_nobody_and_still_finds_a_dead_node() -> None:
    """For a minute the leader gets to run for a moment every 0.7 s only."""

    async def story(world: World) -> None:
        await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        for _ in range(80):
            freeze(world, 0.7)
            await asyncio.sleep(0.05)
            assert down_events(world) == []
        world.nodes["02"].power_off()
        for _ in range(80):
            freeze(world, 0.7)
            await asyncio.sleep(0.05)
        assert down_events(world) == ["02"]

    simulate(story)


def test_a_loaded_machine_slows_down_the_nodes_and_the_leader_alike() -> None:
    """Heartbeats come 4.5 s apart and the leader is a second late at its ticks: nobody is down."""

    async def story(world: World) -> None:
        await world.settled()
        for node in world.nodes.values():
            node.heartbeat_period = 4.5
        for _ in range(15):
            freeze(world, 1.0)
            await asyncio.sleep(0.7)
            assert down_events(world) == []

    simulate(story)


def test_a_silent_node_is_down_after_three_periods() -> None:
    async def story(world: World) -> None:
        await world.settled()
        world.nodes["01"].cut_off()
        await asyncio.sleep(2.0)
        assert down_events(world) == []
        await asyncio.sleep(1.5)
        assert down_events(world) == ["01"]
        assert world.manager is not None
        assert not world.manager.dispatcher.suspected("01"), "what is down is no longer suspected"

    simulate(story)


def test_the_period_of_the_cluster_is_obeyed() -> None:
    async def story(world: World) -> None:
        await world.set_heartbeat_period(5)
        await world.settled()
        await asyncio.sleep(20)
        assert down_events(world) == []
        assert all(node.sessions == 2 for node in world.nodes.values()), "a session begins anew with the new period"
        world.nodes["01"].cut_off()
        # The last word may have been five seconds old already.
        await asyncio.sleep(9.5)
        assert down_events(world) == []
        await asyncio.sleep(7)
        assert down_events(world) == ["01"]

    simulate(story)


def test_a_removed_node_is_told_and_not_let_in_again() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        victim = world.nodes.pop("03")
        await world.remove_node("03")
        await asyncio.sleep(0.5)
        assert victim.removed
        await world.settled()
        assert len(world.running(service)) == 8
        assert world.manager is not None
        refusal = world.manager.dispatcher.accept(Peer("03", None, "10.0.0.3:1", 0))
        assert refusal is not None
        assert "removed" in refusal
        assert world.manager.dispatcher.accept(Peer("02", None, "10.0.0.2:1", 0)) is None

    simulate(story)


def test_a_broken_connection_is_suspected_at_once_and_forgiven_at_once() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8, ports=[INGRESS]))
        await world.settled()
        before = {task.id for task in world.running(service)}
        node = world.nodes["02"]
        assert node.link is not None
        assert world.manager is not None
        node.link.break_off("reset")
        await asyncio.sleep(0.015)
        assert world.manager.dispatcher.suspected("02")
        table = world.nodes["01"].table
        assert table is not None
        await asyncio.sleep(0.005)
        assert "02" not in {backend.node_id for backend in world.nodes["01"].table.services[0].backends}  # type: ignore[union-attr]
        await asyncio.sleep(1)
        assert not world.manager.dispatcher.suspected("02")
        assert "02" in {backend.node_id for backend in world.nodes["01"].table.services[0].backends}  # type: ignore[union-attr]
        assert state_of(world, "02") is NodeState.READY
        assert {task.id for task in world.running(service)} == before

    simulate(story)


def test_the_last_backend_stays_in_the_table() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=1, ports=[INGRESS]))
        await world.settled()
        (task,) = world.running(service)
        world.nodes[task.node_id].power_off()
        await asyncio.sleep(1)
        assert world.manager is not None
        assert world.manager.dispatcher.suspected(task.node_id)
        other = next(node for node in world.nodes.values() if node.id != task.node_id)
        assert other.table is not None
        assert [backend.task_id for backend in other.table.services[0].backends] == [task.id]

    simulate(story)


def test_a_new_leader_sends_no_table_before_it_can_complete_it() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8, ports=[INGRESS]))
        await world.settled()
        seen: list[int] = []
        await world.stop_leading()
        for node in world.nodes.values():
            node.table = None
        world.nodes["04"].cut_off()
        world.lead()
        await asyncio.sleep(3)
        assert all(node.table is None for node in world.nodes.values()), "node 04 and its backends may yet come"
        world.nodes["04"].reconnect()
        await asyncio.sleep(1)
        for node in world.nodes.values():
            assert node.table is not None
            seen.append(len(node.table.services[0].backends))
        assert seen == [8, 8, 8, 8]
        assert len(world.running(service)) == 8

    simulate(story)


def test_secrets_reach_only_the_nodes_that_use_them_and_leave_with_the_last_task() -> None:
    async def story(world: World) -> None:
        made: list[Secret] = []
        await world.store.update(lambda tx: made.append(tx.create(Secret(spec=SecretSpec(name="key", data=b"hush")))))
        reference = SecretReference(secret_id=made[0].id, secret_name="key")
        service = await world.create_service("web", make_spec(replicas=2, secrets=[reference]))
        await world.settled()
        users = {task.node_id for task in world.running(service)}
        assert {node.id for node in world.nodes.values() if node.secrets} == users
        assert all(world.nodes[node_id].secrets == {made[0].id: b"hush"} for node_id in users)
        await world.scale(service, 0)
        await world.settled()
        assert all(not node.secrets for node in world.nodes.values())

    simulate(story)


def test_a_node_is_believed_about_its_own_tasks_alone() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=4))
        await world.settled()
        (task,) = [task for task in world.running(service) if task.node_id == "01"]
        lie = TaskStatus(timestamp="not a time", state=TaskState.FAILED, err="x" * 100_000)
        stranger, owner = world.nodes["02"], world.nodes["01"]
        for state in (TaskState.FAILED, TaskState.ORPHANED, TaskState.NEW):
            status = msgspec.structs.replace(lie, state=state)
            await stranger._stream.send(StatusReport([TaskReport(task.id, status), TaskReport("nobody", status)]))
        for state in (TaskState.ORPHANED, TaskState.REMOVE, TaskState.NEW, TaskState.PREPARING):
            await owner._stream.send(StatusReport([TaskReport(task.id, msgspec.structs.replace(lie, state=state))]))
        await asyncio.sleep(1)
        assert world.store.view(lambda tx: tx.get(Task, task.id)) == task
        await owner._stream.send(StatusReport([TaskReport(task.id, lie)]))
        await asyncio.sleep(1)
        after = world.store.view(lambda tx: tx.get(Task, task.id))
        assert after is not None
        assert after.status.state is TaskState.FAILED
        assert len(after.status.err) == 4096
        assert after.status.timestamp > task.status.timestamp

    simulate(story)


def test_a_thousand_starting_tasks_cost_few_transactions() -> None:
    async def story(world: World) -> None:
        before = world.store.index
        service = await world.create_service("web", make_spec(replicas=1000))
        await world.settled()
        assert len(world.running(service)) == 1000
        entries = world.store.index - before
        # Each task was changed about ten times: created, allocated, scheduled, and by seven reports.
        assert entries < 150, entries

    simulate(story, nodes=10)


def test_dynamic_ports_are_given_kept_and_used_again() -> None:
    async def story(world: World) -> None:
        dynamic = PortConfig(protocol="tcp", target_port=80, publish_mode="ingress")
        one = await world.create_service("one", make_spec(replicas=1, ports=[dynamic]))
        two = await world.create_service("two", make_spec(replicas=1, ports=[dynamic]))
        await world.settled()
        ports = [world.service(each).endpoint.ports[0].published_port for each in (one, two)]
        assert ports == [30000, 30001]
        await world.scale(one, 2)
        await world.settled()
        assert world.service(one).endpoint.ports[0].published_port == 30000
        assert {task.endpoint.ports[0].published_port for task in world.running(one) if task.endpoint} == {30000}
        await world.remove_service(one)
        three = await world.create_service("three", make_spec(replicas=1, ports=[dynamic]))
        await world.settled()
        assert world.service(three).endpoint.ports[0].published_port == 30000
        assert isinstance(world.service(three), Service)

    simulate(story)


def test_a_session_whose_handler_is_cancelled_is_over() -> None:
    async def story(world: World) -> None:
        await world.settled()
        assert world.manager is not None
        dispatcher = world.manager.dispatcher
        node = world.nodes["01"]
        node.power_off()
        await asyncio.sleep(0.5)
        link = Link("01", "10.0.0.1:1")
        mine, theirs = link.stream()
        opening = SessionOpen(node.description, "10.0.0.1:2377")
        serving = asyncio.ensure_future(dispatcher.handlers()["session"](theirs, opening, link))  # type: ignore[arg-type]
        assert isinstance(await mine.receive(), SessionReady)
        assert dispatcher.connected("01")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert not dispatcher.connected("01")
        assert dispatcher.suspected("01")
        node.power_on()
        await world.settled()

    simulate(story)


def test_a_session_ends_although_the_node_takes_nothing_in() -> None:
    async def story(world: World) -> None:
        await world.settled()
        assert world.manager is not None
        world.nodes["01"].cut_off()
        held = world.nodes["01"].link
        assert held is not None
        with mute(held):
            await asyncio.sleep(10)
            assert not world.manager.dispatcher.connected("01")
        world.nodes["01"].reconnect()
        await world.settled()

    simulate(story)


@contextmanager
def mute(link: Link) -> Iterator[None]:
    """Nothing can be sent over the link: there is no credit."""
    send, no_credit = End.send, asyncio.Event()

    async def wait(self: End, message: Message) -> None:
        if self._link is link:
            await no_credit.wait()
        await send(self, message)

    End.send = wait  # type: ignore[method-assign]
    try:
        yield
    finally:
        End.send = send  # type: ignore[method-assign]
        no_credit.set()


@pytest.mark.parametrize("message", [Heartbeat(), LogWatermark(1)])
def test_what_does_not_belong_into_a_session_is_refused(message: Message) -> None:
    async def story(world: World) -> None:
        await world.settled()
        assert world.manager is not None
        handler = world.manager.dispatcher.handlers()["session"]
        link = Link("01", "10.0.0.1:1")
        mine, theirs = link.stream()
        with pytest.raises(InvalidArgument):
            await handler(theirs, message, link)  # type: ignore[arg-type]
        boastful = msgspec.structs.replace(world.nodes["01"].description, hostname="x" * 300_000)
        with pytest.raises(InvalidArgument, match="description of the node is 300"):
            await handler(theirs, SessionOpen(boastful, "x:1"), link)  # type: ignore[arg-type]
        await mine.send(LogWatermark(1))
        with pytest.raises(InvalidArgument, match="LogWatermark has no place in a session"):
            await handler(theirs, SessionOpen(world.nodes["01"].description, "x:1"), link)  # type: ignore[arg-type]
        await world.settled()

    simulate(story)
