"""A person and bad luck at work: random changes and failures for a while, then peace, then all must be well."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec
from virtual_time import VirtualLoop, run_virtual
from world import World, make_spec, with_image

from agent.api_types.node import NodeAvailability
from agent.api_types.service import FailureAction, UpdateConfig, UpdateOrder
from agent.api_types.task import PortConfig, RestartPolicy
from agent.api_types.times import SECOND

EVENTS = 25
"""Things that happen in one run."""


class Chaos:
    """One run. Every choice comes from the seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(f"chaos {seed}")
        self.services: dict[str, bool] = {}
        """Service ids, and whether each is replicated."""
        self.images = 1
        self.port = 9000
        self.log: list[str] = []
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        self.world.behaviour.crash_rate = self.rng.choice([0.0, 0.02, 0.1])
        self.world.behaviour.slow = self.rng.choice([0.3, 1.0, 4.0])
        await self.create_service()
        await self.create_service()
        for _ in range(EVENTS):
            await asyncio.sleep(self.rng.expovariate(1 / self.rng.choice([0.05, 0.5, 3.0])))
            action = self.rng.choice(self.actions())
            self.log.append(f"{self.world.loop.time():.3f} {action.__name__}")
            await action()
            self.world.check()
        await self.make_peace()
        await self.world.settled(within=300)

    def actions(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.scale,
            self.scale,
            self.update,
            self.update,
            self.change_configs,
            self.power_off,
            self.power_on,
            self.cut_off,
            self.reconnect,
            self.restart_agent,
            self.set_availability,
            self.set_labels,
            self.create_service,
            self.remove_service,
            self.roll_back,
            self.change_leader,
            self.remove_node,
        ]

    # -- what a person does

    async def create_service(self) -> None:
        if len(self.services) >= 4:
            return
        is_global = self.rng.random() < 0.25
        ports = []
        if self.rng.random() < 0.2:
            self.port += 1
            ports = [PortConfig(protocol="tcp", target_port=80, published_port=self.port, publish_mode="host")]
        spec = make_spec(
            replicas=None if is_global else self.rng.randint(0, 2 if ports else 8),
            image=f"{self.rng.choice(['good', 'good', 'bad', 'absent'])}:{self.images}",
            constraints=self.rng.choice([[], [], ["node.labels.zone == a"]]),
            update=self.update_config(bool(ports)),
            rollback=self.update_config(bool(ports)),
            restart=self.rng.choice(
                [
                    None,
                    RestartPolicy(condition="any", delay=SECOND // 10),
                    RestartPolicy(condition="on-failure", delay=0, max_attempts=2),
                    RestartPolicy(condition="any", delay=SECOND, max_attempts=1, window=30 * SECOND),
                ]
            ),
            ports=ports,
        )
        self.services[await self.world.create_service(f"service{self.world.new_id()}", spec)] = not is_global

    def update_config(self, host_ports: bool) -> UpdateConfig | None:
        """With host ports never start-first: where every node is needed the new task can only come after the old one."""
        if self.rng.random() < 0.3:
            return None
        return UpdateConfig(
            parallelism=self.rng.choice([0, 1, 2]),
            delay=self.rng.choice([0, SECOND]),
            failure_action=self.rng.choice(list(FailureAction)),
            monitor=self.rng.choice([0, SECOND // 2]),
            max_failure_ratio=self.rng.choice([0.0, 0.5]),
            order=UpdateOrder.STOP_FIRST if host_ports else self.rng.choice(list(UpdateOrder)),
        )

    def pick_service(self, replicated: bool = False) -> str | None:
        names = [service for service, is_replicated in self.services.items() if is_replicated or not replicated]
        return self.rng.choice(names) if names else None

    async def scale(self) -> None:
        service = self.pick_service(replicated=True)
        if service is not None:
            ports = self.world.service(service).spec.endpoint_spec
            await self.world.scale(service, self.rng.randint(0, 2 if ports else 8))

    async def update(self) -> None:
        service = self.pick_service()
        if service is not None:
            self.images += 1
            await self.world.update_service(
                service, with_image(f"{self.rng.choice(['good', 'good', 'bad', 'absent'])}:{self.images}")
            )

    async def change_configs(self) -> None:
        service = self.pick_service()
        if service is not None:
            new = self.update_config(self.world.service(service).spec.endpoint_spec is not None)
            await self.world.update_service(service, lambda spec: msgspec.structs.replace(spec, update_config=new))

    async def roll_back(self) -> None:
        service = self.pick_service()
        if service is not None:
            await self.world.roll_back(service)

    async def remove_service(self) -> None:
        service = self.pick_service()
        if service is not None and len(self.services) > 1:
            del self.services[service]
            await self.world.remove_service(service)

    async def set_availability(self) -> None:
        await self.world.set_availability(self.pick_node(), self.rng.choice(list(NodeAvailability)))

    async def set_labels(self) -> None:
        await self.world.set_labels(self.pick_node(), {"zone": self.rng.choice("ab")})

    # -- what happens to hosts

    def pick_node(self) -> str:
        return self.rng.choice(sorted(self.world.nodes))

    async def power_off(self) -> None:
        self.world.nodes[self.pick_node()].power_off()

    async def power_on(self) -> None:
        self.world.nodes[self.pick_node()].power_on()

    async def cut_off(self) -> None:
        self.world.nodes[self.pick_node()].cut_off()

    async def reconnect(self) -> None:
        self.world.nodes[self.pick_node()].reconnect()

    async def restart_agent(self) -> None:
        node = self.world.nodes[self.pick_node()]
        self._background.append(self.world.spawn(node.restart_agent(self.rng.uniform(0.1, 20))))

    async def remove_node(self) -> None:
        """Removed by force, while it may live; another host takes its place."""
        if self.rng.random() < 0.3:
            node_id = self.pick_node()
            self.world.nodes.pop(node_id)
            await self.world.remove_node(node_id)
            await self.world.add_node(f"n{self.world.new_id()[-4:]}", zone=self.rng.choice("ab"))

    async def change_leader(self) -> None:
        await self.world.change_leader(pause=self.rng.choice([0.0, 0.3, 2.0]))

    # -- the end of it

    async def make_peace(self) -> None:
        """Nothing fails any more, and no image is bad; perhaps one host in zone b stays dead."""
        self.world.behaviour.crash_rate = 0.0
        self.world.behaviour.slow = 1.0
        for background in self._background:
            await background
        for number, (node_id, node) in enumerate(sorted(self.world.nodes.items())):
            node.reconnect()
            node.power_on()
            await self.world.set_availability(node_id, NodeAvailability.ACTIVE)
            await self.world.set_labels(node_id, {"zone": "ab"[number % 2]})
            if number == 1 and self.rng.random() < 0.3:
                node.power_off()
        self.images += 1
        for service in self.services:
            await self.world.update_service(service, with_image(f"good:{self.images}"))


def run_chaos(seed: int) -> list[str]:
    """One run; what was done, in order. AssertionError when an invariant broke or the cluster did not recover."""
    loop = VirtualLoop()

    async def main() -> list[str]:
        async with World(seed) as world:
            chaos = Chaos(world, seed)
            try:
                await chaos.run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(chaos.log)) from error
            return chaos.log

    return run_virtual(main(), loop)
