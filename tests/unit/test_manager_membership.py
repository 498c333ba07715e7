"""Joining: with the real certificate authority, on a store in memory."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from manager_objects import NOW

from agent.api_types.errors import ApiError, InvalidArgument, Unavailable
from agent.api_types.identity import new_id
from agent.api_types.node import Node, NodeAvailability, NodeRole, NodeState
from agent.api_types.swarm import Cluster, SwarmSpec
from agent.manager.membership import Membership
from agent.pki.identity import NodeKey
from agent.pki.root import RootCA
from agent.pki.tokens import InvalidJoinToken, make_secret
from agent.rpc.messages import JoinOpen, ManagerAddress
from agent.rpc.peer import Peer
from agent.store.store import Store

STRANGER = Peer("", None, "192.0.2.7:40000", 0)
WORKER, MANAGER = make_secret(), make_secret()
ROOT = RootCA.create(lambda: NOW)


async def cluster(**fields: str) -> tuple[Store, Membership]:
    store = Store.in_memory(clock=lambda: NOW)
    assert ROOT.key_pem is not None
    given = {"ca_key": ROOT.key_pem.decode(), "worker_secret": WORKER, "manager_secret": MANAGER, **fields}
    made = Cluster(id="cluster", spec=SwarmSpec(name="default"), ca_cert=ROOT.cert_pem.decode(), **given)
    await store.update(lambda tx: tx.create(made) and None)
    return store, Membership(
        store, lambda: NOW, new_id=new_id, managers=lambda: [ManagerAddress("m1", "10.0.0.1:2377")]
    )


def request(secret: str = WORKER, **fields: str) -> JoinOpen:
    return JoinOpen(secret=secret, request=NodeKey.create().request(), **fields)


async def test_the_workers_secret_admits_a_worker() -> None:
    store, membership = await cluster()
    answer = await membership.issue(request(hostname="h1", address="10.0.0.9:2377"), STRANGER)
    assert (answer.role, answer.cluster_id, answer.root) == (NodeRole.WORKER, "cluster", ROOT.cert_pem)
    node = store.view(lambda tx: tx.get(Node, answer.node_id))
    assert node is not None
    assert node.spec.role is NodeRole.WORKER
    assert node.description.hostname == "h1"
    assert (node.status.state, node.status.addr) == (NodeState.UNKNOWN, "10.0.0.9")
    assert b"BEGIN CERTIFICATE" in answer.certificate


async def test_the_managers_secret_admits_a_manager() -> None:
    store, membership = await cluster()
    answer = await membership.issue(request(MANAGER, address="10.0.0.9:2377"), STRANGER)
    assert answer.role is NodeRole.MANAGER
    assert answer.managers == [ManagerAddress("m1", "10.0.0.1:2377")]
    node = store.view(lambda tx: tx.get(Node, answer.node_id))
    assert node is not None
    assert node.spec.role is NodeRole.MANAGER
    assert node.manager_status is None, "it is no part of the group yet"


async def test_a_wrong_secret_leaves_nothing_behind() -> None:
    store, membership = await cluster()
    for secret in (make_secret(), "", "nonsense"):
        with pytest.raises(InvalidJoinToken):
            await membership.issue(request(secret), STRANGER)
    assert store.view(lambda tx: tx.count(Node)) == 0


async def test_an_empty_stored_secret_admits_nobody() -> None:
    _, membership = await cluster(worker_secret="", manager_secret="")
    with pytest.raises(InvalidJoinToken):
        await membership.issue(request(""), STRANGER)


async def test_a_wildcard_address_means_the_one_that_was_seen() -> None:
    store, membership = await cluster()
    answer = await membership.issue(request(address="0.0.0.0:2377"), STRANGER)
    node = store.view(lambda tx: tx.get(Node, answer.node_id))
    assert node is not None
    assert node.status.addr == "192.0.2.7"


async def test_availability_is_what_the_node_asks_for() -> None:
    store, membership = await cluster()
    answer = await membership.issue(request(availability="drain"), STRANGER)
    node = store.view(lambda tx: tx.get(Node, answer.node_id))
    assert node is not None
    assert node.spec.availability is NodeAvailability.DRAIN
    with pytest.raises(InvalidArgument, match="invalid Availability"):
        await membership.issue(request(availability="sometimes"), STRANGER)


async def test_a_request_that_is_none_is_refused() -> None:
    store, membership = await cluster()
    with pytest.raises(ApiError):
        await membership.issue(msgspec.structs.replace(request(), request=b"nonsense"), STRANGER)
    assert store.view(lambda tx: tx.count(Node)) == 0


async def test_a_token_that_is_rotated_meanwhile_is_refused() -> None:
    store, membership = await cluster()
    stored = store.view(lambda tx: tx.all(Cluster))[0]
    rotated = msgspec.structs.replace(stored, worker_secret=make_secret())
    joining = membership.issue(request(), STRANGER)
    # Proposed before the join's own transaction, applied after the join looked at the committed state.
    rotation = asyncio.ensure_future(store.update(lambda tx: tx.update(rotated) and None))
    await asyncio.sleep(0)
    with pytest.raises(InvalidJoinToken):
        await joining
    await rotation
    assert store.view(lambda tx: tx.count(Node)) == 0


async def test_without_the_authoritys_key_another_manager_is_named() -> None:
    _, membership = await cluster(ca_key="")
    with pytest.raises(Unavailable):
        await membership.issue(request(), STRANGER)


async def test_a_question_that_is_asked_again_makes_no_second_node() -> None:
    store, membership = await cluster()
    asked, chosen = request(hostname="h1"), new_id()
    first = await membership.issue(asked, STRANGER, chosen)
    second = await membership.issue(asked, STRANGER, chosen)
    assert first.node_id == second.node_id == chosen
    assert len(store.view(lambda tx: tx.all(Node))) == 1


async def test_an_id_that_is_taken_is_not_given_to_another() -> None:
    store, membership = await cluster()
    chosen = new_id()
    await membership.issue(request(hostname="h1"), STRANGER, chosen)
    with pytest.raises(InvalidArgument, match="part of the cluster already"):
        await membership.issue(request(hostname="h2"), STRANGER, chosen)
    with pytest.raises(InvalidArgument, match="part of the cluster already"):
        await membership.issue(request(MANAGER, hostname="h1"), STRANGER, chosen)
    for unfit in ("short", "../" + "x" * 22, "X" * 24 + "é"):
        with pytest.raises(InvalidArgument, match="no id"):
            await membership.issue(request(), STRANGER, unfit)
    assert len(store.view(lambda tx: tx.all(Node))) == 1


async def test_a_newcomer_does_not_choose_its_id() -> None:
    _, membership = await cluster()
    wanted = new_id()
    answer = await membership.issue(request(node_id=wanted), STRANGER)
    assert answer.node_id != wanted
