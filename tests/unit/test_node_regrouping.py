"""A group that begins again with one manager, and addresses that changed since the last start."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent.api_types.node import ManagerStatus, Node, NodeRole, NodeSpec
from agent.node.joining import addressed, readdressed
from agent.node.regrouping import only_manager
from agent.node.settings import Settings
from agent.store.store import Store


def manager(node_id: str) -> Node:
    return Node(
        id=node_id,
        spec=NodeSpec(role=NodeRole.MANAGER),
        manager_status=ManagerStatus(leader=node_id == "a", reachability="reachable", addr=f"{node_id}:2377"),
    )


async def test_every_other_manager_is_a_worker_then_and_twice_is_as_good_as_once() -> None:
    store = Store.in_memory()
    for node in (manager("a"), manager("b"), Node(id="w", spec=NodeSpec(role=NodeRole.WORKER))):
        await store.update(lambda tx, node=node: tx.create(node))
    await store.update(only_manager("b", "10.0.0.9:2377"))
    nodes = {node.id: node for node in store.view(lambda tx: tx.all(Node))}
    assert {name: node.spec.role.value for name, node in nodes.items()} == {
        "a": "worker",
        "b": "manager",
        "w": "worker",
    }
    assert nodes["a"].manager_status is None
    assert nodes["b"].manager_status == ManagerStatus(leader=True, reachability="reachable", addr="10.0.0.9:2377")
    index = store.index
    await store.update(only_manager("b", "10.0.0.9:2377"))
    assert store.index == index, "nothing is left to change"


async def test_a_newcomer_is_recorded_once() -> None:
    store = Store.in_memory()
    await store.update(lambda tx: tx.create(manager("a")))
    for _ in range(2):
        await store.update(only_manager("new", "10.0.0.9:2377", manager("new")))
    assert {node.id: node.spec.role.value for node in store.view(lambda tx: tx.all(Node))} == {
        "a": "worker",
        "new": "manager",
    }


def settings(host: str) -> Settings:
    return Settings(Path("data"), Path("socket"), host, 2377, None, "node", None, "info", False)


def test_what_was_asked_for_is_resolved_again_at_every_start() -> None:
    record = addressed("0.0.0.0:2377", "", settings("10.0.0.1"), {})
    assert (record.listen, record.advertise) == ("10.0.0.1:2377", "10.0.0.1:2377")
    moved = readdressed(record, settings("10.0.0.2"), {})
    assert (moved.listen, moved.advertise) == ("10.0.0.2:2377", "10.0.0.2:2377")
    by_interface = addressed("0.0.0.0:2377", "eth1", settings("0.0.0.0"), {"eth1": ["10.0.0.1"]})
    moved = readdressed(by_interface, settings("0.0.0.0"), {"eth1": ["10.0.0.7"], "eth2": ["10.0.0.8"]})
    assert moved.advertise == "10.0.0.7:2377"


def test_addresses_stay_when_nobody_can_say_better() -> None:
    record = addressed("0.0.0.0:2377", "", settings("0.0.0.0"), {"eth0": ["10.0.0.1"]})
    assert readdressed(record, settings("0.0.0.0"), {"eth0": ["10.0.0.1"], "eth1": ["10.0.0.2"]}) == record
    old = replace(record, asked_listen=None, asked_advertise=None)
    assert readdressed(old, settings("10.0.0.9"), {}) == old, "a record of a version that kept no requests"
