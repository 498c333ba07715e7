"""A day in the life of a small cluster, one thing at a time."""

from __future__ import annotations

import asyncio

from stories import simulate
from world import World, make_spec, with_image

from agent.api_types.node import NodeAvailability


def test_a_service_comes_up_scales_and_goes() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=3))
        assert await world.settled() < 5
        await world.scale(service, 9)
        assert await world.settled() < 5
        assert sorted(task.slot for task in world.running(service)) == list(range(1, 10))
        await world.scale(service, 2)
        assert await world.settled() < 10
        await world.remove_service(service)
        await world.settled()
        assert world.tasks(service) == []

    simulate(story)


def test_a_killed_host_is_replaced_within_four_seconds() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        victim = world.nodes["02"]
        assert victim.running
        victim.power_off()
        assert await world.settled(within=6) < 4.0
        assert all(task.node_id != "02" for task in world.running(service))
        victim.power_on()
        await asyncio.sleep(5)
        assert victim.running == set(), "a node that returns gets no old tasks back"
        await world.settled()

    simulate(story)


def test_a_node_that_was_cut_off_stops_its_old_copies() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        victim = world.nodes["03"]
        old = victim.running
        victim.cut_off()
        await world.settled(within=6)
        assert victim.running == old, "nobody could tell it"
        victim.reconnect()
        await world.settled(within=2)
        assert not victim.running & old
        assert len(world.running(service)) == 8

    simulate(story)


def test_an_orderly_restart_of_an_agent_moves_nothing() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        before = {task.id for task in world.running(service)}
        await world.nodes["01"].restart_agent(pause=50)
        await world.settled()
        assert {task.id for task in world.running(service)} == before

    simulate(story)


def test_an_agent_that_does_not_come_back_loses_its_tasks_after_the_lease() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.settled()
        before = {task.id for task in world.running(service)}
        restart = asyncio.ensure_future(world.nodes["01"].restart_agent(pause=90))
        await asyncio.sleep(58)
        assert {task.id for task in world.running(service)} == before
        await asyncio.sleep(8)
        assert {task.id for task in world.running(service)} != before
        assert len(world.running(service)) == 8
        await restart
        await world.settled()

    simulate(story)


def test_a_change_of_leader_moves_nothing() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        await world.create_service("agent", make_spec(replicas=None))
        await world.settled()
        before = {task.id for task in world.running(service)}
        await world.change_leader(pause=120)
        await world.settled(within=10)
        assert {task.id for task in world.running(service)} == before

    simulate(story)


def test_drain_moves_and_pause_leaves() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=8))
        everywhere = await world.create_service("agent", make_spec(replicas=None))
        await world.settled()
        before = {task.id for task in world.running(service)}
        await world.set_availability("01", NodeAvailability.PAUSE)
        await asyncio.sleep(5)
        assert {task.id for task in world.running(service)} == before
        assert len(world.running(everywhere)) == 4
        await world.set_availability("01", NodeAvailability.DRAIN)
        assert await world.settled() < 5
        assert len(world.running(everywhere)) == 3
        await world.set_availability("01", NodeAvailability.ACTIVE)
        await world.settled()
        assert len(world.running(everywhere)) == 4

    simulate(story)


def test_a_rolling_update_replaces_all_and_a_rollback_brings_them_back() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=4))
        await world.settled()
        await world.update_service(service, with_image("good:2"))
        took = await world.settled()
        assert took >= 5, "the last task is watched for the monitor period"
        status = world.service(service).update_status
        assert status is not None
        assert (status.state, status.message) == ("completed", "update completed")
        await world.roll_back(service)
        await world.settled()
        status = world.service(service).update_status
        assert status is not None
        assert (status.state, status.message) == ("rollback_completed", "rollback completed")
        images = {task.spec.container_spec.image for task in world.running(service) if task.spec.container_spec}
        assert images == {"good:1"}

    simulate(story)
