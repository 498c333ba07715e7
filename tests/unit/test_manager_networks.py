"""What nodes are told of overlay networks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manager_objects import NOW
from msgspec.structs import replace

from agent.api_types.common import Driver
from agent.api_types.identity import new_id
from agent.api_types.network import (
    Attachment,
    IPAMConfig,
    IPAMOptions,
    Network,
    NetworkAttachment,
    NetworkAttachmentConfig,
    NetworkSpec,
)
from agent.api_types.node import Node, NodeState, NodeStatus
from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import (
    Endpoint,
    EndpointVirtualIP,
    ServiceAnnotations,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from agent.manager.dispatcher.network_boards import TOMBSTONES, describe
from agent.manager.dispatcher.networks import NetworkBoards, NodeNetworks
from agent.manager.explain_network import explain_network
from agent.manager.explain_task import Explanation
from agent.network.tables import NetworkTables
from agent.rpc.messages import NetworkUpdate, OverlaySubnet
from agent.store.store import Store
from agent.store.tables import StoreObject
from agent.store.transactions import WriteTx

RUNNING = TaskState.RUNNING


def a_network(network_id: str = "net", *, number: int = 1, **spec: Any) -> Network:
    return Network(
        id=network_id,
        spec=NetworkSpec(name=f"name-of-{network_id}", **spec),
        driver_state=Driver(
            name="overlay", options={"com.docker.network.driver.overlay.vxlanid_list": str(4096 + number)}
        ),
        ipam_options=IPAMOptions(configs=[IPAMConfig(subnet=f"10.{number}.0.0/20", gateway=f"10.{number}.0.1")]),
    )


def a_node(node_id: str, *, state: NodeState = NodeState.READY) -> Node:
    return Node(id=node_id, status=NodeStatus(state=state, addr=f"192.0.2.{node_id[1:]}"))


def a_service(network_id: str = "net", *, vip: str = "10.1.0.2/20", aliases: tuple[str, ...] = ()) -> Service:
    config = NetworkAttachmentConfig(target=network_id, aliases=list(aliases))
    vips = [EndpointVirtualIP(network_id=network_id, addr=vip)] if vip else []
    return Service(
        id="s",
        spec=ServiceSpec(name="web", task_template=TaskSpec(networks=[config])),
        endpoint=Endpoint(virtual_ips=vips),
    )


def a_task(number: int, node: str, *networks: Network, state: TaskState = RUNNING, **fields: Any) -> Task:
    attached = [
        NetworkAttachment(network=network, addresses=[f"10.{n}.{1 + number // 200}.{2 + number % 200}/20"])
        for n, network in enumerate(networks or (a_network(),), 1)
    ]
    return Task(
        **{
            "id": f"t{number}",
            "service_id": "s",
            "service_annotations": ServiceAnnotations(name="web"),
            "slot": number,
            "node_id": node,
            "status": TaskStatus(state=state),
            "desired_state": RUNNING,
            "networks_attachments": attached,
        }
        | fields
    )


def _put(objects: Sequence[StoreObject], tx: WriteTx) -> None:
    for obj in objects:
        stored = tx.get(type(obj), obj.id)
        if stored is None:
            tx.create(obj)
        else:
            tx.update(replace(obj, version=stored.version))


class Manager:
    """A store and the boards that follow it, with a session for every node that is asked for."""

    def __init__(self) -> None:
        self.store = Store.in_memory(clock=lambda: NOW, ids=new_id)
        self.boards = NetworkBoards(self.store)
        self._watch = self.store.watch()
        self.sessions: dict[str, NodeNetworks] = {}
        self.tables: dict[str, NetworkTables] = {}

    async def put(self, *objects: StoreObject) -> None:
        """Create or replace objects, and let the boards see it."""
        for begin in range(0, len(objects), 150):
            await self.store.update(partial(_put, objects[begin : begin + 150]))
        self.follow()

    async def remove(self, obj: StoreObject) -> None:
        await self.store.update(lambda tx: tx.delete(type(obj), obj.id))
        self.follow()

    def follow(self) -> None:
        for commit in self._watch.drain():
            for event in commit.events:
                self.boards.observe(event)

    def told(self, node: str) -> tuple[list[NetworkUpdate], list[NetworkUpdate]]:
        """What the node is told now, before and after its assignments; its tables take it in."""
        session = self.sessions.setdefault(node, NodeNetworks(self.boards, node))
        tables = self.tables.setdefault(node, NetworkTables())
        news = self.store.view(session.news)
        for update in [*news.first, *news.last]:
            tables.apply(update)
        return news.first, news.last

    def ready(self, node: str = "n1", network: str = "net") -> list[str]:
        """Who is ready, as the node knows it once it has been told."""
        self.told(node)
        picture = self.tables[node].get(network)
        assert picture is not None
        return sorted(endpoint.id for endpoint in picture.endpoints.values() if endpoint.ready)


async def a_manager(*objects: StoreObject) -> Manager:
    manager = Manager()
    await manager.put(a_node("n1"), a_node("n2"), a_node("n3"), a_network(), a_service(), *objects)
    return manager


async def test_a_network_comes_whole_to_nodes_that_need_it_and_to_no_others() -> None:
    manager = await a_manager(
        a_task(1, "n1"),
        a_task(2, "n2", state=TaskState.ASSIGNED),
        Attachment(id="lb1", network_id="net", node_id="n1", addresses=["10.1.0.9/20"]),
    )
    (update,), gone = manager.told("n1")
    assert gone == []
    assert update.complete
    assert update.network_id == "net"
    description = update.description
    assert description is not None
    assert (description.name, description.vni, description.balancer) == ("name-of-net", 4097, "10.1.0.9")
    assert description.subnets == [OverlaySubnet("10.1.0.0/20", "10.1.0.1")]
    assert [(service.id, service.name, service.vip) for service in update.services] == [("s", "web", "10.1.0.2")]
    shown = {e.id: (e.address, e.node_id, e.host, e.service_id, e.name, e.ready) for e in update.endpoints}
    assert shown == {
        "t1": ("10.1.1.3", "n1", "192.0.2.1", "s", "web.1.t1", True),
        "t2": ("10.1.1.4", "n2", "192.0.2.2", "s", "web.2.t2", False),
        "lb1": ("10.1.0.9", "n1", "192.0.2.1", "", "", True),
    }
    assert manager.told("n1") == ([], [])
    (other,), _ = manager.told("n2")
    assert other.description is not None
    assert other.description.balancer == ""
    assert manager.told("n3") == ([], [])


async def test_differences_hold_what_changed_and_nothing_else() -> None:
    manager = await a_manager(*(a_task(n, "n1" if n % 2 else "n2") for n in range(1, 9)))
    manager.told("n1")
    manager.boards.take_woken()
    await manager.put(a_task(2, "n2", state=TaskState.FAILED), a_task(9, "n3", state=TaskState.STARTING))
    assert manager.boards.take_woken() == ["n1"]
    (update,), _ = manager.told("n1")
    assert (update.complete, update.description, update.services) == (False, None, [])
    assert ([e.id for e in update.endpoints], update.removed_endpoints) == (["t9"], ["t2"])
    await manager.put(a_task(9, "n3"))
    (update,), _ = manager.told("n1")
    assert [(e.id, e.ready) for e in update.endpoints] == [("t9", True)]
    await manager.put(a_service(aliases=("shop",)))
    (update,), _ = manager.told("n1")
    assert [service.aliases for service in update.services] == [["shop"]]
    await manager.remove(a_service())
    (update,), _ = manager.told("n1")
    assert update.removed_services == ["s"]


async def test_a_network_goes_with_the_last_task_that_uses_it() -> None:
    manager = await a_manager(a_task(1, "n1"), a_task(2, "n1"))
    manager.told("n1")
    await manager.put(a_task(1, "n1", state=TaskState.SHUTDOWN))
    first, last = manager.told("n1")
    assert (len(first), last) == (1, [])
    await manager.put(a_task(2, "n1", state=TaskState.FAILED))
    assert manager.told("n1") == ([], [NetworkUpdate(network_id="net", gone=True)])
    assert manager.told("n1") == ([], [])
    await manager.put(a_task(3, "n1", state=TaskState.ASSIGNED))
    (update,), _ = manager.told("n1")
    assert update.complete
    assert [e.id for e in update.endpoints] == ["t3"]


async def test_a_container_of_a_person_needs_its_network_as_a_task_does() -> None:
    manager = await a_manager()
    container = Attachment(
        id="a", network_id="net", node_id="n1", container="c", name="db", aliases=["x"], addresses=["10.1.0.7/20"]
    )
    await manager.put(container)
    assert manager.boards.take_woken() == ["n1"]
    (update,), _ = manager.told("n1")
    assert [(e.name, e.aliases, e.ready) for e in update.endpoints] == [("db", ["x"], True)]
    await manager.remove(container)
    assert manager.told("n1")[1] == [NetworkUpdate(network_id="net", gone=True)]


async def test_only_on_the_ingress_network_an_address_of_the_node_is_need_enough() -> None:
    ingress = a_network("ing", number=2, ingress=True)
    manager = await a_manager(
        ingress,
        Attachment(id="b", network_id="ing", node_id="n1", addresses=["10.2.0.3/20"]),
        Attachment(id="c", network_id="net", node_id="n1", addresses=["10.1.0.3/20"]),
    )
    assert [update.network_id for update in manager.told("n1")[0]] == ["ing"]


async def test_a_network_that_is_removed_is_gone() -> None:
    manager = await a_manager(a_task(1, "n1"))
    manager.told("n1")
    await manager.remove(a_network())
    assert manager.boards.take_woken() == ["n1"]
    assert manager.told("n1") == ([], [NetworkUpdate(network_id="net", gone=True)])


async def test_a_network_that_is_allocated_late_reaches_nodes_that_wait_for_it() -> None:
    late = a_network("late", number=2)
    bare = replace(late, driver_state=Driver(), ipam_options=None)
    manager = await a_manager(bare, a_task(1, "n1", late))
    assert manager.told("n1") == ([], [])
    manager.boards.take_woken()
    await manager.put(late)
    assert manager.boards.take_woken() == ["n1"]
    assert [update.network_id for update in manager.told("n1")[0]] == ["late"]


async def test_suspected_nodes_are_no_backends_but_for_the_last_ones() -> None:
    manager = await a_manager(a_task(1, "n1"), a_task(2, "n2"), a_task(3, "n3"))
    assert manager.ready() == ["t1", "t2", "t3"]
    manager.boards.suspect("n2")
    assert manager.ready() == ["t1", "t3"]
    manager.boards.suspect("n1")
    assert manager.ready() == ["t3"]
    manager.boards.suspect("n3")
    assert manager.ready() == ["t1", "t2", "t3"]
    manager.boards.trust("n2")
    assert manager.ready() == ["t2"]
    await manager.remove(a_task(2, "n2"))
    assert manager.ready() == ["t1", "t3"]
    await manager.put(a_task(1, "n1", desired_state=TaskState.SHUTDOWN))
    assert manager.ready() == ["t3"]


async def test_a_node_that_moves_is_reached_where_it_is_now() -> None:
    manager = await a_manager(a_task(1, "n1"), a_task(2, "n2"))
    manager.told("n1")
    await manager.put(replace(a_node("n2"), status=NodeStatus(state=NodeState.READY, addr="198.51.100.7")))
    (update,), _ = manager.told("n1")
    assert [(e.id, e.host) for e in update.endpoints] == [("t2", "198.51.100.7")]


async def test_a_balancer_that_comes_later_comes_with_the_description() -> None:
    manager = await a_manager(a_task(1, "n1"), a_task(2, "n2"))
    manager.told("n1")
    manager.told("n2")
    await manager.put(Attachment(id="lb", network_id="net", node_id="n2", addresses=["10.1.0.8/20"]))
    (update,), _ = manager.told("n2")
    assert not update.complete
    assert update.description is not None
    assert update.description.balancer == "10.1.0.8"
    (update,), _ = manager.told("n1")
    assert update.description is None
    assert [e.id for e in update.endpoints] == ["lb"]


async def test_a_task_with_addresses_of_two_kinds_has_two_endpoints() -> None:
    both = NetworkAttachment(network=a_network(), addresses=["10.1.0.5/20", "fd00::5/64"])
    manager = await a_manager(a_task(1, "n1", networks_attachments=[both]))
    (update,), _ = manager.told("n1")
    assert [(e.id, e.address, e.ready) for e in update.endpoints] == [
        ("t1", "10.1.0.5", True),
        ("t1.1", "fd00::5", True),
    ]


async def test_who_lacks_more_than_is_remembered_is_told_everything() -> None:
    manager = await a_manager(a_task(1, "n1"), a_task(2, "n2"))
    manager.told("n1")
    for round_number in range(TOMBSTONES // 100 + 2):
        crowd = [a_task(3 + n, "n2", id=f"{round_number}-{n}") for n in range(100)]
        await manager.put(*crowd)
        await manager.put(*(replace(task, status=TaskStatus(state=TaskState.FAILED)) for task in crowd))
    (update,), _ = manager.told("n1")
    assert update.complete
    assert {e.id for e in update.endpoints} == {"t1", "t2"}


@pytest.mark.parametrize(
    ("options", "mtu", "encrypted"),
    [
        ({}, 1450, False),
        ({"encrypted": ""}, 1412, True),
        ({"encrypted": "false"}, 1450, False),
        ({"com.docker.network.driver.mtu": "9000"}, 8950, False),
        ({"com.docker.network.driver.mtu": "rubbish"}, 1450, False),
        ({"com.docker.network.driver.mtu": "1"}, 576, False),
    ],
)
def test_options_of_a_network(options: dict[str, str], mtu: int, encrypted: bool) -> None:
    description = describe(a_network(driver_configuration=Driver(name="overlay", options=options)))
    assert description is not None
    assert (description.mtu, description.encrypted) == (mtu, encrypted)


STATES = st.sampled_from(
    [TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN]
)
STEPS = st.one_of(
    st.tuples(st.just("task"), st.integers(0, 5), st.sampled_from(["n1", "n2", "n3"]), STATES, st.integers(0, 2)),
    st.tuples(st.just("remove"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["suspect", "trust"]), st.sampled_from(["n1", "n2", "n3"])),
    st.tuples(st.just("look"), st.sampled_from(["n1", "n2", "n3"])),
    st.tuples(st.just("network"), st.booleans()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(steps=st.lists(STEPS, max_size=40))
async def test_whatever_happens_differences_lead_to_what_all_of_it_would(steps: list[tuple[Any, ...]]) -> None:
    nets = [a_network("net"), a_network("two", number=2)]
    manager = await a_manager(nets[1])
    suspects: set[str] = set()
    for step in steps:
        if step[0] == "task":
            _, number, node, state, count = step
            stored = manager.store.view(lambda tx, number=number: tx.get(Task, f"t{number}"))
            node = node if stored is None or not stored.node_id else stored.node_id
            await manager.put(
                a_task(number, node, *nets[:count], state=state, networks_attachments=[])
                if not count
                else a_task(number, node, *nets[:count], state=state)
            )
        elif step[0] == "remove":
            stored = manager.store.view(lambda tx, number=step[1]: tx.get(Task, f"t{number}"))
            if stored is not None:
                await manager.remove(stored)
        elif step[0] == "suspect":
            manager.boards.suspect(step[1])
            suspects.add(step[1])
        elif step[0] == "trust":
            manager.boards.trust(step[1])
            suspects.discard(step[1])
        elif step[0] == "look":
            manager.told(step[1])
        else:
            known = manager.store.view(lambda tx: tx.get(Network, "two"))
            if step[1] and known is None:
                await manager.put(nets[1])
            elif not step[1] and known is not None:
                await manager.remove(known)
    fresh = Manager()
    fresh.store = manager.store
    fresh.boards = NetworkBoards(manager.store)
    for node in sorted(suspects):
        fresh.boards.suspect(node)
    for node in ("n1", "n2", "n3"):
        manager.told(node)
        fresh.told(node)
        assert pictures(manager.tables[node]) == pictures(fresh.tables[node])


def pictures(tables: NetworkTables) -> dict[str, Any]:
    return {
        network_id: (picture.description, dict(picture.services), dict(picture.endpoints))
        for network_id, picture in tables.networks.items()
    }


async def test_one_change_among_a_thousand_tasks_is_little_work_for_every_node() -> None:
    manager = await a_manager(*(a_task(n, f"n{1 + n % 3}") for n in range(1000)))
    for node in ("n1", "n2", "n3"):
        assert len(manager.told(node)[0][0].endpoints) == 1000
    took = []
    for number in range(20):
        await manager.put(a_task(number, f"n{1 + number % 3}", desired_state=TaskState.SHUTDOWN))
        begin = time.process_time()
        (update,), _ = manager.told("n1")
        took.append(time.process_time() - begin)
        assert [e.id for e in update.endpoints] == [f"t{number}"]
    assert sorted(took)[10] < 0.01


# -- why a network is as it is


async def test_a_network_explains_who_is_on_it() -> None:
    manager = await a_manager(
        a_task(1, "n1"),
        a_task(2, "n2"),
        Attachment(id="a", network_id="net", node_id="n3", container="c", name="db", addresses=["10.1.0.7/20"]),
    )

    def explain(network_id: str = "net", suspect: str = "") -> Explanation:
        return manager.store.view(lambda tx: explain_network(tx, network_id, lambda node_id: node_id == suspect))

    said = explain()
    assert said.summary == "On the network (10.1.0.0/20) are 2 tasks of web and 1 container, on 3 nodes."
    assert (said.reasons, said.advice) == ([], [])
    assert explain(suspect="n2").reasons == ["The agent of node n2 cannot be reached: its tasks get no connections."]
    await manager.put(a_node("n1", state=NodeState.DOWN), a_task(2, "n2", state=TaskState.STARTING))
    await manager.put(a_task(1, "n1", state=TaskState.STARTING))
    said = explain()
    assert said.reasons == [
        "Node n1 is down: its tasks do not answer.",
        "Nobody answers for web: none of its tasks runs on the network.",
    ]
    assert said.advice == ["See why: docker service ps web"]
    await manager.put(a_network("free", number=2))
    said = explain("free")
    assert said.summary == "The network (10.2.0.0/20) is on no node: nobody uses it now."
    assert said.advice == ["If it is of no use, remove it: docker network rm name-of-free"]
    overlapping = replace(a_network("bad"), driver_state=Driver(), ipam_options=None)
    spec = replace(overlapping.spec, ipam_options=IPAMOptions(configs=[IPAMConfig(subnet="10.1.4.0/24")]))
    await manager.put(replace(overlapping, spec=spec))
    said = explain("bad")
    assert said.summary == "The network has no addresses to give."
    assert "overlap" in said.reasons[0]
    assert said.advice
