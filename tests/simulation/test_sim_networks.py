"""What nodes know of overlay networks while tasks, nodes and leaders come and go."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from stories import simulate
from world import World, make_spec, with_image

from agent.api_types.common import Driver
from agent.api_types.network import Network, NetworkAttachmentConfig, NetworkSpec
from agent.api_types.service import ServiceSpec, UpdateConfig
from agent.api_types.task import Task, TaskState
from agent.api_types.times import SECOND
from agent.manager.dispatcher import network_keys


async def create_network(world: World, name: str, **options: str) -> str:
    spec = NetworkSpec(name=name, driver_configuration=Driver(name="overlay", options=options), scope="swarm")
    made: list[Network] = []
    await world.store.update(lambda tx: made.append(tx.create(Network(spec=spec))))
    return made[0].id


def on(spec: ServiceSpec, *network_ids: str) -> ServiceSpec:
    configs = [NetworkAttachmentConfig(target=network_id) for network_id in network_ids]
    return msgspec.structs.replace(spec, task_template=msgspec.structs.replace(spec.task_template, networks=configs))


def check_knowledge(world: World, network_ids: list[str]) -> None:
    """Every node knows of the networks that its tasks are on what the store knows, and of no others."""
    tasks = [task for task in world.store.view(lambda tx: tx.all(Task)) if not task.status.state.terminal]
    for network_id in network_ids:
        members = [task for task in tasks if network_id in {a.network.id for a in task.networks_attachments}]
        running = {
            task.id
            for task in members
            if task.status.state is TaskState.RUNNING and task.desired_state is TaskState.RUNNING
        }
        for node in world.nodes.values():
            picture = node.networks.get(network_id)
            if not any(task.node_id == node.id for task in members):
                assert picture is None, f"{node.id} knows of {network_id} for nothing"
                continue
            assert picture is not None, f"{node.id} does not know of {network_id}"
            assert {e.id for e in picture.endpoints.values() if e.ready and e.service_id} == running
            addresses = [e.address for e in picture.endpoints.values()]
            assert len(addresses) == len(set(addresses))
    for node in world.nodes.values():
        assert node.strangers == []


def test_networks_reach_their_nodes_before_the_tasks_and_leave_with_the_last() -> None:
    async def story(world: World) -> None:
        one, two = await create_network(world, "one"), await create_network(world, "two")
        web = await world.create_service("web", on(make_spec(replicas=6), one))
        api = await world.create_service("api", on(make_spec(replicas=2), one, two))
        await world.create_service("alone", make_spec(replicas=2))
        await world.settled()
        await asyncio.sleep(1)
        check_knowledge(world, [one, two])
        await world.update_service(web, with_image("good:2"))
        await world.settled()
        await asyncio.sleep(1)
        check_knowledge(world, [one, two])
        await world.remove_service(api)
        await world.scale(web, 1)
        await world.settled()
        await asyncio.sleep(15)
        check_knowledge(world, [one, two])

    simulate(story)


def test_keys_reach_the_nodes_of_encrypted_networks_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_keys, "LIFE", 100 * SECOND)

    async def story(world: World) -> None:
        plain = await create_network(world, "plain")
        await world.create_service("web", on(make_spec(replicas=4), plain))
        await world.settled()
        await asyncio.sleep(1)
        assert all(node.keys is None for node in world.nodes.values())
        closed = await create_network(world, "closed", encrypted="")
        await world.create_service("db", on(make_spec(replicas=2), closed))
        await world.settled()
        await asyncio.sleep(1)
        holders = {node.id for node in world.nodes.values() if node.networks.get(closed) is not None}
        assert holders
        assert {node.id for node in world.nodes.values() if node.keys is not None} == holders
        before = {node.keys.sending for node in world.nodes.values() if node.keys is not None}
        assert before == {1}
        await asyncio.sleep(110)
        after = {node.keys.sending for node in world.nodes.values() if node.keys is not None}
        assert after == {2}
        await world.change_leader(1)
        await world.settled()
        assert {node.keys.sending for node in world.nodes.values() if node.keys is not None} == {2}

    simulate(story)


def test_the_last_backend_of_a_suspected_node_stays_in_the_names() -> None:
    async def story(world: World) -> None:
        network = await create_network(world, "one")
        web = await world.create_service("web", on(make_spec(replicas=4), network))
        await world.settled()
        await asyncio.sleep(1)
        lost = world.nodes["02"]
        theirs = {task.id for task in world.running(web) if task.node_id == lost.id}
        assert theirs
        lost.power_off()
        await asyncio.sleep(0.5)
        others = [node for node in world.nodes.values() if node is not lost and node.networks.get(network)]
        assert others
        for node in others:
            picture = node.networks.get(network)
            assert picture is not None
            ready = {e.id for e in picture.endpoints.values() if e.ready and e.service_id}
            assert ready
            assert not ready & theirs
        await world.settled()
        lost.power_on()
        await asyncio.sleep(15)
        check_knowledge(world, [network])

    simulate(story)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_nodes_know_in_the_end(seed: int) -> None:
    async def story(world: World) -> None:
        rng = random.Random(seed)
        networks = [await create_network(world, name) for name in ("one", "two", "three")]
        services = [
            await world.create_service(
                f"web{number}",
                on(
                    make_spec(replicas=rng.choice([2, 5, None]), update=UpdateConfig(parallelism=2)),
                    *rng.sample(networks, rng.randint(1, 3)),
                ),
            )
            for number in range(3)
        ]
        for step in range(10):
            node = world.nodes[rng.choice(sorted(world.nodes))]
            match rng.randrange(7):
                case 0:
                    node.power_off()
                    await asyncio.sleep(rng.uniform(0, 8))
                    node.power_on()
                case 1:
                    node.cut_off()
                    await asyncio.sleep(rng.uniform(0, 6))
                    node.reconnect()
                case 2:
                    await node.restart_agent(rng.uniform(0, 3))
                case 3:
                    await world.change_leader(rng.uniform(0, 2))
                case 4:
                    await world.update_service(rng.choice(services), with_image(f"good:{step}"))
                case 5:
                    wanted = on(make_spec(), *rng.sample(networks, rng.randint(1, 3))).task_template.networks
                    await world.update_service(
                        rng.choice(services),
                        lambda spec, wanted=wanted: msgspec.structs.replace(  # type: ignore[misc]
                            spec, task_template=msgspec.structs.replace(spec.task_template, networks=wanted)
                        ),
                    )
                case _:
                    await asyncio.sleep(rng.uniform(0, 4))
        await world.settled()
        await asyncio.sleep(20)
        check_knowledge(world, networks)

    simulate(story, seed)
