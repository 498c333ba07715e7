"""The allocator's loop on a store of its own: what it is told, what it gives, what it says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec
from manager_objects import NOW, a_node, a_service, a_spec

from agent.api_types.common import Driver
from agent.api_types.network import (
    Attachment,
    IPAMConfig,
    IPAMOptions,
    Network,
    NetworkAttachmentConfig,
    NetworkSpec,
)
from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.task import Endpoint, EndpointSpec, Task, TaskState, TaskStatus
from agent.api_types.times import SECOND
from agent.manager.allocator import Allocator
from agent.manager.allocator.balancers import LINGER
from agent.manager.allocator.subnets import is_allocated
from agent.manager.explain import Explainer
from agent.manager.explain_network import explain_network
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx


class Cluster:
    """A store, an allocator on it, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW
        self._numbers = iter(range(1, 1 << 30))
        self.store = Store.in_memory(clock=lambda: self.now, ids=lambda: f"{next(self._numbers):025d}")
        self._life: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """A leader's allocator begins, with nothing but the store."""
        self._life = asyncio.ensure_future(Allocator(self.store, lambda: self.now).run())

    async def end(self) -> None:
        assert self._life is not None
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)

    async def until(self, holds: Callable[[ReadTx], bool]) -> None:
        """Wait for the commit after which something holds."""
        with self.store.watch() as watch:
            while not self.store.view(holds):
                await asyncio.wait_for(anext(watch), 5)

    async def make(self, *objects: Network | Node | Service | Task | Attachment) -> None:
        for begin in range(0, len(objects), 100):
            some = objects[begin : begin + 100]
            await self.store.update(lambda tx, some=some: [tx.create(each) for each in some])  # type: ignore[misc]

    async def change(self, change: Callable[[WriteTx], object]) -> None:
        await self.store.update(change)

    def network(self, network_id: str) -> Network:
        found = self.store.view(lambda tx: tx.get(Network, network_id))
        assert found is not None
        return found

    def service(self, service_id: str) -> Service:
        found = self.store.view(lambda tx: tx.get(Service, service_id))
        assert found is not None
        return found

    def task(self, task_id: str) -> Task:
        found = self.store.view(lambda tx: tx.get(Task, task_id))
        assert found is not None
        return found

    def tasks(self) -> list[Task]:
        return self.store.view(lambda tx: tx.all(Task))

    def attachments(self) -> list[Attachment]:
        return self.store.view(lambda tx: tx.all(Attachment))


@asynccontextmanager
async def cluster(*objects: Network | Node | Service | Task | Attachment) -> AsyncIterator[Cluster]:
    made = Cluster()
    await made.make(*objects)
    made.begin()
    try:
        yield made
    finally:
        await made.end()


def overlay(name: str, *subnets: str, options: dict[str, str] | None = None, **config: str) -> Network:
    configs = [IPAMConfig(subnet=subnet, **config) for subnet in subnets]
    spec = NetworkSpec(
        name=name,
        driver_configuration=Driver(name="overlay", options=options or {}),
        ipam_options=IPAMOptions(configs=configs),
    )
    return Network(id=f"id-{name}", spec=spec)


def service_on(*networks: str, name: str = "web", mode: str = "vip", vip: str = "") -> Service:
    spec = msgspec.structs.replace(a_spec(), networks=configs_of(networks, vip))
    base = a_service(spec)
    whole = msgspec.structs.replace(base.spec, name=name, endpoint_spec=EndpointSpec(mode=mode))
    return msgspec.structs.replace(base, id=f"id-{name}", spec=whole)


def configs_of(networks: Iterable[str], vip: str = "") -> list[NetworkAttachmentConfig]:
    options = {"swarmtui.vip": vip} if vip else {}
    return [NetworkAttachmentConfig(target=network, driver_opts=options) for network in networks]


def tasks_of(service: Service, number: int, first: int = 1) -> list[Task]:
    return [
        Task(
            id=f"{service.id}-{slot}",
            spec=service.spec.task_template,
            service_id=service.id,
            slot=slot,
            status=TaskStatus(state=TaskState.NEW),
            desired_state=TaskState.RUNNING,
            endpoint=Endpoint(spec=service.spec.endpoint_spec or EndpointSpec()),
        )
        for slot in range(first, first + number)
    ]


def address(task: Task, place: int = 0) -> str:
    return task.networks_attachments[place].addresses[0]


def is_in(task_id: str, state: TaskState) -> Callable[[ReadTx], bool]:
    return lambda tx: (task := tx.get(Task, task_id)) is not None and task.status.state is state


def says(task_id: str, text: str) -> Callable[[ReadTx], bool]:
    return lambda tx: (task := tx.get(Task, task_id)) is not None and text in task.status.err


def become(task_id: str, state: TaskState, node: str = "") -> Callable[[WriteTx], object]:
    def change(tx: WriteTx) -> None:
        task = tx.get(Task, task_id)
        assert task is not None
        status = msgspec.structs.replace(task.status, state=state)
        tx.update(msgspec.structs.replace(task, status=status, node_id=node or task.node_id))

    return change


async def test_a_service_on_a_network_gets_a_virtual_address_and_its_tasks_one_each() -> None:
    service = service_on("id-ov")
    async with cluster(overlay("ov"), service, *tasks_of(service, 2)) as made:
        await made.until(is_in("id-web-2", TaskState.PENDING))
        network = made.network("id-ov")
        assert network.ipam_options is not None
        assert [(each.subnet, each.gateway) for each in network.ipam_options.configs] == [("10.0.0.0/24", "10.0.0.1")]
        assert network.driver_state.options == {"com.docker.network.driver.overlay.vxlanid_list": "4096"}
        (vip,) = made.service("id-web").endpoint.virtual_ips
        assert (vip.network_id, vip.addr) == ("id-ov", "10.0.0.2/24")
        assert [address(task) for task in made.tasks()] == ["10.0.0.3/24", "10.0.0.4/24"]
        assert made.tasks()[0].networks_attachments[0].network == network
        assert made.tasks()[0].endpoint == made.service("id-web").endpoint


async def test_without_a_virtual_address_only_tasks_have_one() -> None:
    service = service_on("id-ov", mode="dnsrr")
    async with cluster(overlay("ov"), service, *tasks_of(service, 1)) as made:
        await made.until(is_in("id-web-1", TaskState.PENDING))
        assert made.service("id-web").endpoint.virtual_ips == []
        assert address(made.task("id-web-1")) == "10.0.0.2/24"


async def test_networks_come_and_go_with_updates() -> None:
    service = service_on("id-one")
    async with cluster(overlay("one"), overlay("two"), service) as made:
        await made.until(lambda tx: len(tx.all(Service)[0].endpoint.virtual_ips) == 1)

        def move(networks: list[str], mode: str) -> Callable[[WriteTx], object]:
            def change(tx: WriteTx) -> None:
                before = tx.all(Service)[0]
                template = msgspec.structs.replace(before.spec.task_template, networks=configs_of(networks))
                spec = msgspec.structs.replace(
                    before.spec, task_template=template, endpoint_spec=EndpointSpec(mode=mode)
                )
                tx.update(msgspec.structs.replace(before, spec=spec))

            return change

        def on(*networks: str) -> Callable[[ReadTx], bool]:
            return lambda tx: tuple(vip.network_id for vip in tx.all(Service)[0].endpoint.virtual_ips) == networks

        first = made.service("id-web").endpoint.virtual_ips[0]
        await made.change(move(["id-one", "id-two"], "vip"))
        await made.until(on("id-one", "id-two"))
        assert made.service("id-web").endpoint.virtual_ips[0] == first
        await made.change(move(["id-two"], "vip"))
        await made.until(on("id-two"))
        await made.change(move(["id-two"], "dnsrr"))
        await made.until(on())


async def test_a_full_network_says_so_and_goes_on_when_there_is_room() -> None:
    service = service_on("id-ov")
    # Eight addresses: the subnet's own, the broadcast address, the gateway and the virtual address leave four.
    async with cluster(overlay("ov", "10.9.0.0/29"), service, *tasks_of(service, 6)) as made:
        await made.until(says("id-web-6", "no address is left on network ov (10.9.0.0/29)"))
        held = {address(task) for task in made.tasks() if task.networks_attachments}
        assert len(held) == 4
        assert made.task("id-web-6").status.state is TaskState.NEW
        freed = address(made.task("id-web-1"))
        await made.change(become("id-web-1", TaskState.FAILED))
        await made.until(is_in("id-web-5", TaskState.PENDING))
        assert address(made.task("id-web-5")) == freed
        assert made.task("id-web-5").status.err == ""
        assert made.task("id-web-6").status.state is TaskState.NEW


async def test_an_address_rests_before_it_is_given_again() -> None:
    service = service_on("id-ov", mode="dnsrr")
    async with cluster(overlay("ov", "10.9.0.0/28"), service, *tasks_of(service, 2)) as made:
        await made.until(is_in("id-web-2", TaskState.PENDING))
        assert [address(task) for task in made.tasks()] == ["10.9.0.2/28", "10.9.0.3/28"]
        await made.change(become("id-web-1", TaskState.SHUTDOWN))
        await made.make(*tasks_of(service, 11, first=3))
        await made.until(is_in("id-web-13", TaskState.PENDING))
        assert "10.9.0.2/28" not in {address(task) for task in made.tasks()[1:]}
        await made.make(*tasks_of(service, 1, first=14))
        await made.until(is_in("id-web-14", TaskState.PENDING))
        assert address(made.task("id-web-14")) == "10.9.0.2/28", "the only one that is left"


async def test_a_network_that_is_gone_is_named_and_a_new_one_of_that_name_goes_on() -> None:
    service = service_on("ov")
    async with cluster(service, *tasks_of(service, 1)) as made:
        await made.until(says("id-web-1", "network ov not found"))
        await made.make(overlay("ov"))
        await made.until(is_in("id-web-1", TaskState.PENDING))
        assert address(made.task("id-web-1")) == "10.0.0.3/24"


async def test_a_removed_network_takes_everything_with_it() -> None:
    service = service_on("id-ov")
    (task,) = tasks_of(service, 1)
    container = Attachment(id="c", network_id="id-ov", node_id="n", container="abc")
    async with cluster(a_node("n", address="10.99.0.1"), overlay("ov"), service, task, container) as made:
        await made.until(is_in("id-web-1", TaskState.PENDING))
        await made.change(become(task.id, TaskState.ASSIGNED, "n"))
        await made.until(lambda tx: tx.count(Attachment) == 2 and all(each.addresses for each in tx.all(Attachment)))
        await made.change(lambda tx: tx.delete(Network, "id-ov"))
        await made.until(lambda tx: not tx.all(Service)[0].endpoint.virtual_ips and not tx.all(Attachment))
        await made.make(*tasks_of(service, 1, first=2))
        await made.until(says("id-web-2", "network id-ov not found"))


async def test_a_wanted_virtual_address_is_given_or_refused_in_words() -> None:
    one, two = service_on("id-ov", name="one", vip="10.0.0.77"), service_on("id-ov", name="two", vip="10.0.0.77")
    async with cluster(overlay("ov"), one, two, *tasks_of(two, 1)) as made:
        await made.until(says("id-two-1", "address 10.0.0.77 of network ov is in use"))
        assert made.service("id-one").endpoint.virtual_ips[0].addr == "10.0.0.77/24"
        await made.change(lambda tx: tx.delete(Service, "id-one"))
        await made.until(is_in("id-two-1", TaskState.PENDING))
        assert made.service("id-two").endpoint.virtual_ips[0].addr == "10.0.0.77/24"


async def test_a_node_has_a_balancer_address_while_it_uses_a_network_and_a_minute_longer() -> None:
    service = service_on("id-ov")
    async with cluster(a_node("n", address="10.99.0.1"), overlay("ov"), service, *tasks_of(service, 2)) as made:
        await made.until(is_in("id-web-2", TaskState.PENDING))
        assert made.attachments() == []
        for task_id in ("id-web-1", "id-web-2"):
            await made.change(become(task_id, TaskState.ASSIGNED, "n"))
        await made.until(lambda tx: tx.count(Attachment) == 1)
        (balancer,) = made.attachments()
        assert (balancer.node_id, balancer.network_id, balancer.container) == ("n", "id-ov", "")
        assert balancer.addresses == ["10.0.0.5/24"]
        for task_id in ("id-web-1", "id-web-2"):
            await made.change(become(task_id, TaskState.FAILED))
        await made.make(a_node("m", address="10.99.0.2"))
        await made.make(*tasks_of(service, 1, first=3))
        await made.until(is_in("id-web-3", TaskState.PENDING))
        assert made.attachments() == [balancer]
        made.now += LINGER
        await made.make(*tasks_of(service, 1, first=4))
        await made.until(lambda tx: not tx.all(Attachment))


async def test_a_node_that_is_removed_leaves_no_address_behind() -> None:
    service = service_on("id-ov")
    container = Attachment(id="c", network_id="id-ov", node_id="n", container="abc")
    async with cluster(
        a_node("n", address="10.99.0.1"), overlay("ov"), service, *tasks_of(service, 1), container
    ) as made:
        await made.until(lambda tx: tx.count(Attachment) == 2)
        await made.change(lambda tx: tx.delete(Node, "n"))
        await made.until(lambda tx: not tx.all(Attachment))


async def test_a_container_gets_the_address_that_it_asks_for_or_hears_why_not() -> None:
    def container(name: str, *asked: str) -> Attachment:
        return Attachment(id=name, network_id="id-ov", node_id="n", container=f"c-{name}", addresses=list(asked))

    def attachment(name: str) -> Attachment:
        return next(each for each in made.attachments() if each.id == name)

    async with cluster(
        a_node("n", address="10.99.0.1"), overlay("ov"), container("a", "10.0.0.9"), container("b")
    ) as made:
        await made.until(lambda tx: all("/" in "".join(each.addresses) for each in tx.all(Attachment)))
        assert attachment("a").addresses == ["10.0.0.9/24"]
        await made.make(container("c", "10.0.0.9"))
        await made.until(lambda tx: any(each.err for each in tx.all(Attachment)))
        assert "10.0.0.9 of network ov is in use" in attachment("c").err
        await made.change(lambda tx: tx.delete(Attachment, "a"))
        await made.until(
            lambda tx: any(each.id == "c" and each.addresses == ["10.0.0.9/24"] for each in tx.all(Attachment))
        )
        assert attachment("c").err == ""


async def test_two_networks_that_overlap_wait_for_each_other() -> None:
    service = service_on("id-b")
    first, second = overlay("a", "10.5.0.0/16"), overlay("b", "10.5.3.0/24")
    async with cluster(first, second, service, *tasks_of(service, 1)) as made:
        await made.until(says("id-web-1", "network b has no subnet: invalid pool request: Pool overlaps"))
        assert made.network("id-b").driver_state.options == {}
        await made.change(lambda tx: tx.delete(Network, "id-a"))
        await made.until(is_in("id-web-1", TaskState.PENDING))
        assert address(made.task("id-web-1")) == "10.5.3.3/24"


async def test_a_task_on_two_networks_takes_nothing_while_one_is_full() -> None:
    full, other = service_on("id-small", name="full", mode="dnsrr"), service_on("id-small", "id-large", mode="dnsrr")
    small, large = overlay("small", "10.9.0.0/30"), overlay("large", "10.8.0.0/29")
    async with cluster(small, large, full, other, *tasks_of(full, 1), *tasks_of(other, 3)) as made:
        await made.until(says("id-web-3", "no address is left on network small"))
        only = service_on("id-large", name="only", mode="dnsrr")
        await made.make(only, *tasks_of(only, 5))
        await made.until(is_in("id-only-5", TaskState.PENDING))


async def test_a_task_that_is_no_longer_wanted_does_not_wait_for_an_address() -> None:
    service = service_on("nowhere")
    async with cluster(service, *tasks_of(service, 1)) as made:
        await made.until(says("id-web-1", "not found"))

        def give_up(tx: WriteTx) -> None:
            tx.update(msgspec.structs.replace(tx.all(Task)[0], desired_state=TaskState.REMOVE))

        await made.change(give_up)
        await made.until(is_in("id-web-1", TaskState.PENDING))
        assert made.task("id-web-1").networks_attachments == []


async def test_leaders_one_after_the_other_give_nothing_twice() -> None:
    service = service_on("id-ov")
    made = Cluster()
    await made.make(overlay("ov", "10.7.0.0/22"), service)
    number = 1
    for _ in range(20):
        made.begin()
        batch = tasks_of(service, 37, first=number)
        await made.make(*batch)
        number += 37
        with made.store.watch(Task) as watch:
            # Somewhere in the middle, with proposals on their way.
            await anext(watch)
        await made.end()
        made.now += SECOND
    made.begin()
    await made.until(lambda tx: all(task.status.state is TaskState.PENDING for task in tx.all(Task)))
    held = Counter(address(task) for task in made.tasks())
    held.update(vip.addr for vip in made.service("id-web").endpoint.virtual_ips)
    assert len(held) == 20 * 37 + 1
    assert set(held.values()) == {1}
    await made.end()


async def test_a_new_leader_lets_addresses_of_ended_tasks_rest_too() -> None:
    service = service_on("id-ov", mode="dnsrr")
    made = Cluster()
    await made.make(overlay("ov", "10.7.0.0/28"), service, *tasks_of(service, 5))
    made.begin()
    await made.until(is_in("id-web-5", TaskState.PENDING))
    await made.change(become("id-web-2", TaskState.FAILED))
    resting = address(made.task("id-web-2"))
    await made.end()
    made.begin()
    await made.make(*tasks_of(service, 8, first=6))
    await made.until(is_in("id-web-13", TaskState.PENDING))
    assert resting not in {address(task) for task in made.tasks() if task.id != "id-web-2"}
    await made.make(*tasks_of(service, 1, first=14))
    await made.until(is_in("id-web-14", TaskState.PENDING))
    assert address(made.task("id-web-14")) == resting
    await made.end()


async def test_what_waits_is_explained_with_what_to_do() -> None:
    full, lost = service_on("id-ov", name="full"), service_on("lost", name="lost")
    none = service_on("id-ov", name="none")
    async with cluster(overlay("ov", "10.9.0.0/30"), full, none, lost, *tasks_of(full, 1), *tasks_of(lost, 1)) as made:
        await made.until(says("id-full-1", "no address is left"))
        await made.until(says("id-lost-1", "network lost not found"))
        explainer = Explainer(made.store, lambda: made.now, lambda node_id: False)
        told = explainer.explain_task("id-full-1")
        assert told.summary == "The task waits for its networks."
        assert told.reasons == ["No address is left on network ov (10.9.0.0/30)."]
        assert told.advice[0].startswith("Take services or containers off network ov, or move the service")
        told = explainer.explain_service("id-none")
        assert told.reasons == ["No address is left on network ov (10.9.0.0/30)."]
        assert told.advice[0].endswith("docker service update --network-rm ov --network-add LARGER none")
        assert len(explainer.explain_service("id-lost").reasons) == 1
        await made.change(become("id-full-1", TaskState.FAILED))
        await made.change(lambda tx: tx.delete(Service, "id-full"))
        await made.until(lambda tx: bool(tx.get(Service, "id-none").endpoint.virtual_ips))  # type: ignore[union-attr]
        assert explainer.explain_service("id-none").reasons == []


async def test_a_node_without_room_for_its_balancer_is_explained_and_mended() -> None:
    service = service_on("id-ov")
    async with cluster(
        a_node("n", address="10.99.0.1"), overlay("ov", "10.9.0.0/29"), service, *tasks_of(service, 4)
    ) as made:
        await made.until(is_in("id-web-4", TaskState.PENDING))
        await made.change(become("id-web-1", TaskState.RUNNING, "n"))
        explainer = Explainer(made.store, lambda: made.now, lambda node_id: False)
        assert explainer.explain_task("id-web-1").reasons == [
            "No address is left on network ov for the balancer of node host-n: virtual addresses do not answer there."
        ]
        await made.make(*tasks_of(service, 1, first=5))
        await made.until(says("id-web-5", "no address is left"))
        await made.change(become("id-web-4", TaskState.FAILED))
        await made.until(lambda tx: tx.count(Attachment) == 1)
        assert explainer.explain_task("id-web-1").reasons == []
        assert made.task("id-web-5").status.state is TaskState.NEW, "the balancer comes before another task"


async def test_a_balancer_that_nothing_uses_makes_room_for_a_task() -> None:
    service = service_on("id-ov", mode="dnsrr")
    nodes = [a_node("n", address="10.99.0.1"), a_node("m", address="10.99.0.2")]
    async with cluster(*nodes, overlay("ov", "10.9.0.0/29"), service, *tasks_of(service, 2)) as made:
        await made.until(is_in("id-web-2", TaskState.PENDING))
        await made.change(become("id-web-1", TaskState.RUNNING, "n"))
        await made.change(become("id-web-2", TaskState.RUNNING, "m"))
        await made.until(lambda tx: tx.count(Attachment) == 2)
        await made.change(become("id-web-1", TaskState.FAILED))
        await made.make(*tasks_of(service, 2, first=3))
        await made.until(is_in("id-web-4", TaskState.PENDING))
        assert len(made.attachments()) == 2, "there was room"
        await made.make(*tasks_of(service, 1, first=5))
        await made.until(is_in("id-web-5", TaskState.PENDING))
        assert [each.node_id for each in made.attachments()] == ["m"]
        await made.make(*tasks_of(service, 1, first=6))
        await made.until(says("id-web-6", "no address is left"))
        assert [each.node_id for each in made.attachments()] == ["m"], "in use"


async def test_a_host_that_comes_into_a_subnet_is_told_of() -> None:
    async with cluster(overlay("ov", "10.9.0.0/24")) as made:
        await made.until(lambda tx: is_allocated(tx.all(Network)[0]))
        explained = made.store.view(lambda tx: explain_network(tx, "id-ov", lambda node_id: False))
        assert explained.reasons == []
        await made.make(a_node("n", address="10.9.0.200"), a_node("m", address="10.99.0.1"))
        explained = made.store.view(lambda tx: explain_network(tx, "id-ov", lambda node_id: False))
        assert explained.reasons[0].startswith("Its subnets hold 10.9.0.200 of node host-n:")


async def test_a_network_of_both_families_gives_both() -> None:
    service = service_on("id-ov")
    async with cluster(overlay("ov", "fd00:7::/64"), service, *tasks_of(service, 1)) as made:
        await made.until(is_in("id-web-1", TaskState.PENDING))
        assert made.task("id-web-1").networks_attachments[0].addresses == ["10.0.0.3/24", "fd00:7::2/64"]
        assert [vip.addr for vip in made.service("id-web").endpoint.virtual_ips] == ["10.0.0.2/24"]


async def test_another_virtual_address_can_be_asked_for_later() -> None:
    service = service_on("id-ov")
    async with cluster(overlay("ov"), service) as made:
        await made.until(lambda tx: bool(tx.all(Service)[0].endpoint.virtual_ips))
        other = service_on("id-ov", vip="10.0.0.99")

        def ask(tx: WriteTx) -> None:
            tx.update(msgspec.structs.replace(tx.all(Service)[0], spec=other.spec))

        await made.change(ask)
        await made.until(lambda tx: tx.all(Service)[0].endpoint.virtual_ips[0].addr == "10.0.0.99/24")
        await made.change(
            lambda tx: tx.update(msgspec.structs.replace(tx.all(Service)[0], spec=service_on("id-ov", vip="x").spec))
        )
        await made.make(*tasks_of(service_on("id-ov", vip="x"), 1))
        await made.until(says("id-web-1", "address x of network ov is in use or none that can be given"))
        assert made.service("id-web").endpoint.virtual_ips[0].addr == "10.0.0.99/24", "until it has the other one"
        explainer = Explainer(made.store, lambda: made.now, lambda node_id: False)
        assert explainer.explain_service("id-web").advice == ["Ask for another address, or for none."]
