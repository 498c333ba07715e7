"""A day in the life of a small cluster, one thing at a time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from stories import simulate
from world import World, make_spec, with_image

from agent.api_types.node import NodeAvailability
from agent.api_types.service import UpdateConfig
from agent.api_types.task import RestartPolicy, TaskState
from agent.api_types.times import SECOND, parse_time


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


def test_tasks_of_a_node_that_is_down_for_a_day_are_given_up() -> None:
    async def story(world: World) -> None:
        await world.set_heartbeat_period(600)
        service = await world.create_service("web", make_spec(replicas=4))
        await world.settled()
        world.nodes["01"].power_off()
        lost = next(task for task in world.running(service) if task.node_id == "01")
        await asyncio.sleep(23 * 3600)
        assert world.task(lost.id).status.state is TaskState.RUNNING
        await asyncio.sleep(2 * 3600)
        assert world.task(lost.id).status.state is TaskState.ORPHANED
        assert world.task(lost.id).status.err == "the node of the task has been down for 24 hours"

    simulate(story, nodes=2)


def test_tasks_of_a_removed_node_are_given_up_at_once() -> None:
    async def story(world: World) -> None:
        service = await world.create_service("web", make_spec(replicas=4))
        await world.settled()
        lost = [task for task in world.running(service) if task.node_id == "01"]
        world.nodes.pop("01")
        await world.remove_node("01")
        assert await world.settled() < 2
        assert [world.task(task.id).status.state for task in lost] == [TaskState.ORPHANED]

    simulate(story)


def test_a_failing_task_is_restarted_after_the_delay_as_often_as_it_may() -> None:
    """Over changes of leader too: delay and attempts are in the store."""

    async def story(world: World) -> None:
        restart = RestartPolicy(condition="any", delay=5 * SECOND, max_attempts=3)
        service = await world.create_service("web", make_spec(replicas=1, image="bad", restart=restart))
        for _ in range(20):
            await asyncio.sleep(1.7)
            await world.change_leader(pause=0.1)
        tasks = sorted(world.tasks(service), key=lambda task: task.created_at)
        assert len(tasks) == 4
        assert all(task.status.state is TaskState.FAILED for task in tasks)
        assert tasks[-1].desired_state is TaskState.SHUTDOWN
        for before, after in pairwise(tasks):
            pause = parse_time(after.start_after) - parse_time(before.status.timestamp)
            assert 5 * SECOND <= pause < 6 * SECOND
            assert parse_time(after.status.timestamp) > parse_time(after.start_after)

    simulate(story)


def test_labels_that_no_longer_fit_move_tasks() -> None:
    async def story(world: World) -> None:
        picky = make_spec(replicas=4, constraints=["node.labels.zone == a"])
        service = await world.create_service("web", picky)
        await world.settled()
        assert {task.node_id for task in world.running(service)} == {"02", "04"}
        await world.set_labels("02", {"zone": "b"})
        assert await world.settled() < 3
        assert {task.node_id for task in world.running(service)} == {"04"}
        rejected = [task for task in world.tasks(service) if task.status.state is TaskState.REJECTED]
        assert {task.status.err for task in rejected} == {"assigned node no longer meets constraints"}

    simulate(story)


def test_a_bad_update_is_rolled_back_by_itself() -> None:
    async def story(world: World) -> None:
        # The delay is longer than the half second for which a bad task runs.
        careful = UpdateConfig(parallelism=1, delay=SECOND, failure_action="rollback", monitor=SECOND)
        service = await world.create_service("web", make_spec(replicas=4, update=careful))
        await world.settled()
        before = {task.id for task in world.running(service)}
        await world.update_service(service, with_image("bad:2"))
        await world.settled()
        status = world.service(service).update_status
        assert status is not None
        assert status.state == "rollback_completed"
        assert len(before & {task.id for task in world.running(service)}) == 3, "only one was ever replaced"

    simulate(story)


def test_start_first_never_has_fewer_running() -> None:
    async def story(world: World) -> None:
        config = UpdateConfig(parallelism=2, order="start-first", monitor=SECOND)
        service = await world.create_service("web", make_spec(replicas=4, update=config))
        await world.settled()
        await world.update_service(service, with_image("good:2"))
        fewest = 4
        while world.wrong() is not None:
            await asyncio.sleep(0.02)
            running = [task for task in world.tasks(service) if task.status.state is TaskState.RUNNING]
            fewest = min(fewest, len(running))
        assert fewest == 4

    simulate(story)


def test_a_new_update_cancels_the_one_that_runs() -> None:
    async def story(world: World) -> None:
        slow = UpdateConfig(parallelism=1, delay=10 * SECOND)
        service = await world.create_service("web", make_spec(replicas=4, update=slow))
        await world.settled()
        await world.update_service(service, with_image("good:2"))
        await asyncio.sleep(12)
        await world.update_service(service, with_image("good:3"))
        await world.settled()
        images = [task.spec.container_spec.image for task in world.tasks(service) if task.spec.container_spec]
        assert images.count("good:3") == 4
        assert images.count("good:2") < 4

    simulate(story)


def test_an_image_that_cannot_be_had_is_tried_once_a_delay() -> None:
    """The replacement is prepared at once, so it is refused at once; its own replacement must wait all the same."""

    async def story(world: World) -> None:
        made: list[str] = []
        service = await world.create_service("web", make_spec(replicas=2, image="absent:1"))
        for _ in range(600):
            await asyncio.sleep(0.1)
            made += [task.id for task in world.tasks(service) if task.id not in made]
        assert 2 * 10 <= len(made) <= 2 * 13
        await world.update_service(service, with_image("good:1"))
        await world.settled()

    simulate(story)
