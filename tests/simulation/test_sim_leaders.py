"""Everything the leader does goes on under the next one, with its history intact."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import msgspec
import pytest
from replicated_world import ReplicatedWorld, simulate_managers
from world import make_spec, with_image

from agent.api_types.node import Node, NodeState
from agent.api_types.service import UpdateConfig
from agent.api_types.task import PortConfig, RestartPolicy, TaskState
from agent.api_types.times import SECOND, parse_time

INGRESS = PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="ingress")

FOUND_WITHIN = 7.0
"""Seconds until a node that died with the leader is called down: an election, three periods, and the grace."""


def state_of(world: ReplicatedWorld, node_id: str) -> NodeState:
    node = world.store.view(lambda tx: tx.get(Node, node_id))
    assert node is not None
    return node.status.state


def test_an_orderly_change_of_leader_moves_nothing() -> None:
    async def story(world: ReplicatedWorld) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.create_service("agent", make_spec(replicas=None))
        await world.settled()
        before = {task.id for task in world.running(service)}
        for _ in range(5):
            await world.change_leader(0.5)
            assert await world.settled(within=10) < 3
        assert {task.id for task in world.running(service)} == before
        assert world.blames == []
        assert len(world.terms) == 6

    simulate_managers(story)


@pytest.mark.parametrize("seed", range(10))
def test_a_host_that_dies_with_the_leader_on_it_is_found_and_replaced(seed: int) -> None:
    async def story(world: ReplicatedWorld) -> None:
        service = await world.create_service("web", make_spec(replicas=10))
        await world.settled()
        died = world.loop.time()
        name = await world.kill_leader()
        await world.settled(within=12)
        assert [node for _, node in world.blames] == [name]
        assert world.blames[0][0] - died < FOUND_WITHIN
        assert len(world.running(service)) == 10
        world.revive(name)
        await world.settled()
        assert len(world.blames) == 1

    simulate_managers(story, seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_worker_that_dies_with_the_leader_is_found_too(seed: int) -> None:
    async def story(world: ReplicatedWorld) -> None:
        await world.create_service("web", make_spec(replicas=10))
        await world.settled()
        died = world.loop.time()
        leader = await world.kill_leader(with_its_host=False)
        world.nodes["04"].power_off()
        await asyncio.sleep(FOUND_WITHIN)
        world.check()
        assert [node for _, node in world.blames] == ["04"]
        assert world.blames[0][0] - died < FOUND_WITHIN
        world.revive(leader)
        await world.settled()

    simulate_managers(story, seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_leader_that_is_cut_off_or_frozen_is_left_and_nobody_else_is_blamed(seed: int) -> None:
    """The nodes notice only by its silence; the next leader waits for that long."""

    async def story(world: ReplicatedWorld) -> None:
        service = await world.create_service("web", make_spec(replicas=10))
        await world.settled()
        before = {task.id: task.node_id for task in world.running(service)}
        name = world.log.leader
        world.cut(name)
        await world.settled(within=15)
        assert [node for _, node in world.blames] == [name]
        assert {task_id for task_id, node_id in before.items() if node_id != name} <= {
            task.id for task in world.running(service)
        }
        world.mend(name)
        await world.settled(within=5)
        assert len(world.blames) == 1

    simulate_managers(story, seed)


@pytest.mark.parametrize("seconds", [0.3, 1.5, 2.5, 2.9, 3.3, 4.5])
def test_a_leader_that_is_cut_off_for_a_moment(seconds: float) -> None:
    async def story(world: ReplicatedWorld) -> None:
        service = await world.create_service("web", make_spec(replicas=10, ports=[INGRESS]))
        await world.settled()
        before = {task.id for task in world.running(service)}
        name = world.log.leader
        world.cut(name)
        await asyncio.sleep(seconds)
        world.mend(name)
        await asyncio.sleep(15)
        await world.settled()
        assert world.blames == []
        assert {task.id for task in world.running(service)} == before

    simulate_managers(story)


def test_a_restarting_node_is_given_its_lease_by_the_next_leader_too() -> None:
    async def story(world: ReplicatedWorld) -> None:
        service = await world.create_service("web", make_spec(replicas=10))
        await world.settled()
        before = {task.id for task in world.running(service)}
        restart = asyncio.ensure_future(world.nodes["05"].restart_agent(pause=25))
        await asyncio.sleep(1)
        await world.kill_leader(with_its_host=False)
        await restart
        await world.settled()
        assert world.blames == []
        assert {task.id for task in world.running(service)} == before

    simulate_managers(story)


def test_restarts_are_counted_over_changes_of_leader() -> None:
    """The leader changes every two seconds, orderly or not: the delay, the attempts and their number stay."""

    async def story(world: ReplicatedWorld) -> None:
        restart = RestartPolicy(condition="any", delay=5 * SECOND, max_attempts=3)
        service = await world.create_service("web", make_spec(replicas=1, image="bad", restart=restart))
        for number in range(25):
            await asyncio.sleep(2)
            if number % 3:
                await world.change_leader(0.1)
            else:
                name = await world.kill_leader(with_its_host=False)
                world.revive(name)
        tasks = sorted(world.tasks(service), key=lambda task: task.created_at)
        assert len(tasks) == 4
        assert all(task.status.state is TaskState.FAILED for task in tasks)
        assert tasks[-1].desired_state is TaskState.SHUTDOWN
        for before, after in pairwise(tasks):
            pause = parse_time(after.start_after) - parse_time(before.status.timestamp)
            # The end of a task may have to wait for a leader that takes note of it.
            assert 5 * SECOND <= pause < 9 * SECOND
            assert parse_time(after.status.timestamp) > parse_time(after.start_after)

    simulate_managers(story)


@pytest.mark.parametrize("seed", range(6))
def test_a_running_update_goes_on(seed: int) -> None:
    """One at a time and in peace, however often the leader changes; none is replaced twice."""

    async def story(world: ReplicatedWorld) -> None:
        rng = random.Random(f"update {seed}")
        config = UpdateConfig(parallelism=1, delay=SECOND, monitor=SECOND)
        service = await world.create_service("web", make_spec(replicas=6, update=config))
        await world.settled()
        await world.update_service(service, with_image("good:2"))
        started = None
        most = 0
        while world.wrong() is not None or world.service(service).update_status is None:
            await asyncio.sleep(rng.uniform(0.1, 2.0))
            world.check()
            status = world.service(service).update_status
            if status is not None:
                started = started or status.started_at
                assert status.started_at == started, "it is the same update all the time"
            most = max(most, 6 - len(world.running(service)))
            if rng.random() < 0.5:
                await world.change_leader(0.0)
            elif rng.random() < 0.3:
                name = await world.kill_leader(with_its_host=False)
                world.revive(name)
            assert world.loop.time() < 300
        status = world.service(service).update_status
        assert status is not None
        assert (status.state, status.message) == ("completed", "update completed")
        images = [task.spec.container_spec.image for task in world.tasks(service) if task.spec.container_spec]
        assert images.count("good:2") == 6
        assert most <= 1
        assert world.blames == []

    simulate_managers(story, seed)


def test_a_failing_update_is_rolled_back_by_the_next_leader() -> None:
    async def story(world: ReplicatedWorld) -> None:
        careful = UpdateConfig(parallelism=1, delay=SECOND, failure_action="rollback", monitor=SECOND)
        service = await world.create_service("web", make_spec(replicas=4, update=careful))
        await world.settled()
        await world.update_service(service, with_image("bad:2"))
        for _ in range(12):
            await asyncio.sleep(0.4)
            await world.change_leader(0.0)
        await world.settled()
        status = world.service(service).update_status
        assert status is not None
        assert status.state == "rollback_completed"

    simulate_managers(story)


@pytest.mark.parametrize("seed", range(10))
def test_published_ports_stay_through_changes_of_leader(seed: int) -> None:
    """Every table that any node is given is held against what runs (`ReplicatedWorld`)."""

    async def story(world: ReplicatedWorld) -> None:
        rng = random.Random(f"ports {seed}")
        await world.create_service("web", make_spec(replicas=3, ports=[INGRESS]))
        other = msgspec.structs.replace(INGRESS, published_port=8081)
        await world.create_service("one", make_spec(replicas=1, ports=[other]))
        await world.settled()
        await asyncio.sleep(6)
        for _ in range(12):
            await asyncio.sleep(rng.choice([0.0, 0.2, 1.0, 3.0, 5.0]))
            if rng.random() < 0.5:
                await world.change_leader(0.0)
            else:
                name = await world.kill_leader(with_its_host=rng.random() < 0.3)
                await asyncio.sleep(rng.choice([0.0, 1.0, 8.0]))
                world.revive(name)
            assert all(
                len(table.services) == 2 and all(each.backends for each in table.services)
                for node in world.nodes.values()
                if (table := node.table) is not None
            )
        await world.settled()

    simulate_managers(story, seed)


def test_all_managers_at_once() -> None:
    async def story(world: ReplicatedWorld) -> None:
        service = await world.create_service("web", make_spec(replicas=8, ports=[INGRESS]))
        await world.settled()
        before = {task.id for task in world.running(service)}
        for name in ("01", "02", "03"):
            await world.kill(name, with_its_host=False)
        await asyncio.sleep(120)
        for name in ("03", "01", "02"):
            world.revive(name)
            await asyncio.sleep(0.5)
        await world.settled(within=10)
        assert {task.id for task in world.running(service)} == before
        assert world.blames == []

    simulate_managers(story)


def test_what_people_see_of_the_managers() -> None:
    async def story(world: ReplicatedWorld) -> None:
        async def shown(leader: str, dead: str = "") -> None:
            for _ in range(200):
                nodes = world.store.view(lambda tx: tx.all(Node))
                now = {node.id: node.manager_status for node in nodes if node.manager_status is not None}
                if all(
                    (status.leader, status.reachability)
                    == (each == leader, "unreachable" if each == dead else "reachable")
                    for each, status in now.items()
                ):
                    assert sorted(now) == ["01", "02", "03"]
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(now)

        await shown(world.log.leader)
        name = await world.kill_leader()
        while not world.log.leader:
            await asyncio.sleep(0.1)
        await shown(world.log.leader, dead=name)
        world.revive(name)
        await shown(world.log.leader)
        told = world.nodes["05"].update
        assert told is not None
        assert sorted(manager.node_id for manager in told.managers) == ["01", "02", "03"]

    simulate_managers(story)
