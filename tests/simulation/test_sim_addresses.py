"""Addresses of networks under a person's changes, bad luck and changing leaders: nothing is given twice, nothing is lost.

`SEEDS=n` runs n seeds instead of the usual number.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec
import pytest
from invariants import Broken
from replicated_world import ReplicatedWorld, simulate_managers
from test_sim_leaders_chaos import ManagersChaos
from virtual_time import VirtualLoop, run_virtual
from world import make_spec

from agent.api_types.network import (
    Attachment,
    IPAMConfig,
    IPAMOptions,
    Network,
    NetworkAttachmentConfig,
    NetworkSpec,
)
from agent.api_types.node import Node
from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import EndpointSpec, Task, TaskState
from agent.manager.allocator.allocator import Allocator
from agent.manager.allocator.balancers import LINGER
from agent.manager.allocator.ledger import Holder
from agent.manager.allocator.subnets import is_allocated, vni_of
from agent.manager.allocator.targets import (
    addresses_of_attachment,
    addresses_of_service,
    addresses_of_task,
    carries,
)
from agent.manager.slots import ended, wanted
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, EventKind

SEEDS = int(os.environ.get("SEEDS", "10"))
BLOCK = 10
"""Seeds in one test."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Addresses:
    """Who has which address after each commit, from the commits alone."""

    def __init__(self, world: ReplicatedWorld) -> None:
        self._watch = world.store.watch(Task, Service, Attachment, Network)
        self._networks: dict[str, Network] = {}
        self.held: dict[Holder, list[tuple[str, str]]] = {}
        self._holders: dict[tuple[str, str], set[Holder]] = {}
        self.given = 0

    def check(self) -> None:
        for commit in self._watch.drain():
            self._check(commit)

    def _check(self, commit: Commit) -> None:
        touched = set()
        for event in commit.events:
            obj: Any = event.object
            gone = event.kind is EventKind.REMOVE
            if isinstance(obj, Network):
                self._note_network(obj, gone)
                continue
            holder = (type(obj), obj.id)
            for pair in self.held.pop(holder, ()):
                self._holders[pair].discard(holder)
            if not gone:
                self.held[holder] = _ADDRESSES[type(obj)](obj)
                for pair in self.held[holder]:
                    self._holders.setdefault(pair, set()).add(holder)
                    touched.add(pair)
        for pair in touched:
            self._check_pair(pair)

    def _check_pair(self, pair: tuple[str, str]) -> None:
        network_id, address = pair
        holders = self._holders[pair]
        if len(holders) > 1:
            raise Broken(f"{address} of network {network_id} is given to {sorted(h[1] for h in holders)}")
        network = self._networks.get(network_id)
        if network is None or network.ipam_options is None:
            return
        config = network.ipam_options.configs[0]
        interface = ip_interface(address)
        if interface.network != ip_network(config.subnet) or interface.ip == ip_address(config.gateway):
            raise Broken(f"{address} is not one of network {config.subnet} with gateway {config.gateway}")
        if interface.ip in (interface.network.network_address, interface.network.broadcast_address):
            raise Broken(f"{address} is nobody's")
        self.given += 1

    def _note_network(self, network: Network, gone: bool) -> None:
        self._networks.pop(network.id, None)
        if gone or not is_allocated(network):
            return
        assert network.ipam_options is not None
        for other in self._networks.values():
            assert other.ipam_options is not None
            one, two = (ip_network(each.ipam_options.configs[0].subnet) for each in (network, other))  # type: ignore[union-attr]
            if one.overlaps(two) or vni_of(network) == vni_of(other):
                raise Broken(f"networks {network.spec.name} ({one}) and {other.spec.name} ({two})")
        self._networks[network.id] = network


_ADDRESSES: dict[type, Callable[[Any], list[tuple[str, str]]]] = {
    Task: addresses_of_task,
    Service: addresses_of_service,
    Attachment: addresses_of_attachment,
}


def overlay(name: str, subnet: str = "") -> Network:
    configs = [IPAMConfig(subnet=subnet)] if subnet else []
    return Network(spec=NetworkSpec(name=name, ipam_options=IPAMOptions(configs=configs)))


def on(*networks: str, mode: str = "vip") -> Callable[[ServiceSpec], ServiceSpec]:
    """A change of the networks of a spec, which names them: a network that is made again is another one."""

    def change(spec: ServiceSpec) -> ServiceSpec:
        template = spec.task_template
        configs = [NetworkAttachmentConfig(target=network) for network in networks]
        ports = spec.endpoint_spec.ports if spec.endpoint_spec is not None else []
        return msgspec.structs.replace(
            spec,
            task_template=msgspec.structs.replace(template, networks=configs),
            endpoint_spec=EndpointSpec(mode=mode, ports=ports),
        )

    return change


def allocator_of(world: ReplicatedWorld) -> Allocator:
    assert world.manager is not None
    return next(loop for loop in world.manager._loops if isinstance(loop, Allocator))


async def make(world: ReplicatedWorld, *networks: Network) -> None:
    def create(tx: WriteTx) -> None:
        for network in networks:
            if tx.by_name(Network, network.spec.name) is None:
                tx.create(network)

    await world.store.update(create)


async def remove(world: ReplicatedWorld, name: str) -> None:
    def delete(tx: WriteTx) -> None:
        for network in tx.find(Network, "name", name):
            tx.delete(Network, network.id)

    await world.store.update(delete)


def lacking(tx: ReadTx) -> str | None:
    """What of the addresses is not as the specs want it; None when all is well."""
    ids = {network.spec.name: network.id for network in tx.all(Network)}
    for service in tx.all(Service):
        targets = {ids[config.target] for config in service.spec.task_template.networks}
        mode = (service.spec.endpoint_spec or EndpointSpec()).mode
        if {vip.network_id for vip in service.endpoint.virtual_ips} != (targets if mode != "dnsrr" else set()):
            return f"service {service.id} on {targets} has {service.endpoint.virtual_ips}"
    places = set()
    for task in tx.all(Task):
        asked = {config.target for config in task.spec.networks}
        if wanted(task) and not ended(task) and {each.network.spec.name for each in task.networks_attachments} != asked:
            return f"task {task.id} on {asked} has {task.networks_attachments}"
        places.update(carries(task))
    nodes = {node.id for node in tx.all(Node)}
    placed = [(each.node_id, each.network_id) for each in tx.all(Attachment)]
    missing = {place for place in places if place[0] in nodes and place[1] in ids.values()} - set(placed)
    if missing or len(placed) != len(set(placed)):
        return f"balancers {sorted(placed)}, needed at {sorted(missing)} too"
    return None


async def well(world: ReplicatedWorld, addresses: Addresses, within: float = 60) -> None:
    began = world.loop.time()
    while (wrong := world.store.view(lacking)) is not None:
        addresses.check()
        assert world.loop.time() - began < within, wrong
        await asyncio.sleep(0.25)
    addresses.check()


def test_a_thousand_tasks_on_a_network_while_leaders_take_turns() -> None:
    async def story(world: ReplicatedWorld) -> None:
        addresses = Addresses(world)
        await make(world, overlay("net", "10.20.0.0/20"))
        service = await world.create_service("web", on("net")(make_spec(replicas=1000)))
        for _ in range(6):
            await world.change_leader(0.4)
        await world.settled(within=120)
        await well(world, addresses)
        assert len(world.running(service)) == 1000
        assert len(world.terms) == 7
        assert addresses.given >= 1006

    simulate_managers(story)


@pytest.mark.parametrize("seed", range(5))
def test_a_network_that_is_too_small_fills_and_empties_again(seed: int) -> None:
    async def story(world: ReplicatedWorld) -> None:
        addresses = Addresses(world)
        await make(world, overlay("net", "10.20.0.0/28"))
        service = await world.create_service("web", on("net", mode="dnsrr")(make_spec(replicas=30)))
        await asyncio.sleep(2)
        await world.kill_leader(with_its_host=False)
        await asyncio.sleep(8)
        addresses.check()
        stuck = [task for task in world.tasks(service) if task.status.state is TaskState.NEW]
        assert stuck
        assert {task.status.err for task in stuck} == {"no address is left on network net (10.20.0.0/28)"}
        held = [pair for pairs in addresses.held.values() for pair in pairs]
        assert len(held) == 13, "the gateway has the fourteenth"
        await world.update_service(service, on("net", mode="vip"))
        await world.scale(service, 4)
        await world.settled()
        await well(world, addresses, within=120)

    simulate_managers(story, seed)


def test_all_is_given_back_in_the_end() -> None:
    async def story(world: ReplicatedWorld) -> None:
        addresses = Addresses(world)
        await make(world, overlay("one"), overlay("two"))
        service = await world.create_service("web", on("one", "two")(make_spec(replicas=10)))
        await world.settled()
        await well(world, addresses)
        await remove(world, "two")
        await world.change_leader(1)
        await world.remove_service(service)
        await world.settled()
        await asyncio.sleep(LINGER / 1e9 + 61)
        addresses.check()
        assert not any(addresses.held.values())
        ledger = allocator_of(world)._ledger
        assert ledger.in_use() == set()
        assert ledger.room(world.store.view(lambda tx: tx.all(Network)[0].id)) == 253

    simulate_managers(story)


class NetworksChaos(ManagersChaos):
    """As `ManagersChaos`, with networks that come and go while services use them."""

    def __init__(self, world: ReplicatedWorld, seed: int) -> None:
        super().__init__(world, seed)
        self.addresses = Addresses(world)

    def actions(self) -> list[Callable[[], Awaitable[None]]]:
        return [*super().actions(), *([self.move] * 6), *([self.make_network] * 2), self.remove_network]

    async def run(self) -> None:
        await self.make_network()
        await super().run()
        await well(self.world, self.addresses, within=150)

    async def create_service(self) -> None:
        await super().create_service()
        await self.move()

    async def move(self) -> None:
        service = self.pick_service()
        if service is not None:
            networks = self.rng.sample(["wide", "small", "tiny"], self.rng.randint(0, 2))
            await self.world.update_service(service, on(*networks, mode=self.rng.choice(["vip", "vip", "dnsrr"])))
        self.addresses.check()

    async def make_network(self) -> None:
        await make(self.world, overlay("wide"), overlay("small", "10.30.0.0/28"), overlay("tiny", "10.40.0.0/29"))

    async def remove_network(self) -> None:
        """As another manager's API may, which did not see yet that a service uses it."""
        await remove(self.world, self.rng.choice(["wide", "small", "tiny"]))

    async def make_peace(self) -> None:
        await make(self.world, overlay("wide"))
        for service in self.services:
            # Twice, so that a rollback does not lead to a network without room either.
            for mode in ("dnsrr", "vip"):
                await self.world.update_service(service, on("wide", mode=mode))
        await super().make_peace()


def run_networks_chaos(seed: int) -> list[str]:
    """One run; what was done, in order. AssertionError when an invariant broke or the cluster did not recover."""

    async def main() -> list[str]:
        async with ReplicatedWorld(f"networks {seed}") as world:
            chaos = NetworksChaos(world, seed)
            try:
                await chaos.run()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(chaos.log)) from error
            return chaos.log

    return run_virtual(main(), VirtualLoop())


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
@pytest.mark.timeout(120)
def test_addresses_are_right_whatever_happens(first: int) -> None:
    for seed in range(first, min(first + BLOCK, SEEDS)):
        run_networks_chaos(seed)


# -- bugs that were planted, to see whether the simulation finds them


def _know_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader does not look at what was given before it."""
    monkeypatch.setattr(Allocator, "_survey", _survey_of_nothing)


def _survey_of_nothing(self: Allocator, tx: WriteTx) -> list[Any]:
    _SURVEY(self, tx)
    return [tx.all(Service), [task for task in tx.all(Task) if task.status.state is TaskState.NEW], []]


_SURVEY = Allocator._survey


def _free_what_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is to stop is thought to have stopped."""
    monkeypatch.setattr(
        "agent.manager.allocator.allocator.addresses_of_task",
        lambda task: addresses_of_task(task) if wanted(task) else [],
    )


def _wake_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that there is room again."""
    monkeypatch.setattr(Allocator, "_wake_where_there_is_room", lambda self: None)


@pytest.mark.parametrize("plant", [_know_nothing, _free_what_is_not_wanted, _wake_nobody])
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in range(5):
            test_a_network_that_is_too_small_fills_and_empties_again(seed)
    monkeypatch.undo()
    test_a_network_that_is_too_small_fills_and_empties_again(0)
