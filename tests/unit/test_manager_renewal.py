"""Certificates anew, departures, and where the leader is: what nodes ask of managers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from manager_objects import NOW

from agent.api_types.errors import ApiError, InvalidArgument, PermissionDenied, Unavailable
from agent.api_types.identity import new_id
from agent.api_types.node import Node, NodeRole, NodeSpec
from agent.api_types.swarm import Cluster, SwarmSpec
from agent.api_types.times import SECOND
from agent.manager.group import effective_role, elsewhere, survives_without
from agent.manager.membership import Membership, Referral
from agent.manager.renewal import LAST_MANAGER, LEADS, QUORUM_LOSS, Renewal, refuse_departure
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.pki.tokens import InvalidJoinToken, make_secret
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus
from agent.rpc.messages import (
    DepartAnswer,
    DepartOpen,
    Heartbeat,
    JoinAnswer,
    JoinOpen,
    JoinRefused,
    ManagerAddress,
    Message,
    RenewAnswer,
    RenewOpen,
)
from agent.rpc.peer import Peer
from agent.store.store import Store
from agent.store.transactions import WriteTx

ROOT = RootCA.create(lambda: NOW)
MANAGER, WORKER = NodeRole.MANAGER, NodeRole.WORKER


def status(
    *members: str, leader: str = "m1", me: str = "m1", dead: str = "", learners: str = "", **more: Any
) -> GroupStatus:
    """A group; `dead` and `learners` name members, separated by blanks."""
    return GroupStatus(
        member_id=me,
        role=MemberRole.LEADER if leader == me else MemberRole.FOLLOWER,
        term=1,
        leader=leader,
        leading=leader == me,
        committed=9,
        applied=9,
        last_index=9,
        members=tuple(
            MemberStatus(each, f"{each}:2377", each not in learners.split(), 9, each not in dead.split())
            for each in members
        ),
        **more,
    )


@dataclass
class FakeGroup:
    """A group whose status the test sets."""

    status: GroupStatus
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def set(self, status: GroupStatus) -> None:
        self.status = status
        self.changed.set()

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        while self.status == seen:
            self.changed.clear()
            await self.changed.wait()
        return self.status


@dataclass
class FakeStream:
    """Keeps what is sent."""

    method: str = ""
    sent: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @contextlib.asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        yield


@dataclass
class FakeConnection:
    peer: Peer


def a_peer(node_id: str, role: NodeRole = WORKER) -> Any:
    return FakeConnection(Peer(node_id, role, "10.0.0.7:5000", 0))


async def a_store(**roles: NodeRole) -> Store:
    store = Store.in_memory(clock=lambda: NOW)
    assert ROOT.key_pem is not None
    cluster = Cluster(
        id="cluster",
        spec=SwarmSpec(name="default"),
        ca_cert=ROOT.cert_pem.decode(),
        ca_key=ROOT.key_pem.decode(),
        worker_secret=make_secret(),
        manager_secret=make_secret(),
    )

    def create(tx: WriteTx) -> None:
        tx.create(cluster)
        for node_id, role in roles.items():
            tx.create(Node(id=node_id, spec=NodeSpec(role=role)))

    await store.update(create)
    return store


def role_of(store: Store, node_id: str) -> NodeRole:
    node = store.view(lambda tx: tx.get(Node, node_id))
    assert node is not None
    return node.spec.role


async def ask(handlers: Any, method: str, opening: Message, connection: Any) -> Message:
    stream = FakeStream(method)
    await handlers[method](stream, opening, connection)
    (answer,) = stream.sent
    return answer


@pytest.mark.parametrize(
    ("wanted", "members", "role"),
    [
        (WORKER, "m1", WORKER),
        (MANAGER, "m1", MANAGER),
        (WORKER, "m1 n1", MANAGER),
        (MANAGER, "m1 n1", MANAGER),
    ],
)
async def test_a_renewed_certificate_has_the_role_that_the_node_is_to_have_now(
    wanted: NodeRole, members: str, role: NodeRole
) -> None:
    """A demoted manager stays one until it has left the group: only then may it forget the log."""
    issued: list[tuple[str, NodeRole]] = []
    store = await a_store(m1=MANAGER, n1=wanted)
    renewal = Renewal(
        store,
        lambda: NOW,
        FakeGroup(status(*members.split())),
        on_issued=lambda *each: issued.append(each),  # type: ignore[arg-type]
    )
    key = NodeKey.create()
    answer = await ask(renewal.handlers(), "renew", RenewOpen(key.request()), a_peer("n1"))
    assert isinstance(answer, RenewAnswer)
    identity = NodeIdentity.from_pem(answer.certificate, key.pem, answer.roots)
    assert (identity.node_id, identity.role, identity.cluster_id) == ("n1", role, "cluster")
    assert issued == [("n1", role)]


async def test_who_gets_no_certificate() -> None:
    group = FakeGroup(status("m1"))
    renewal = Renewal(await a_store(m1=MANAGER, n1=WORKER), lambda: NOW, group)  # type: ignore[arg-type]
    request = RenewOpen(NodeKey.create().request())
    with pytest.raises(PermissionDenied, match="was removed"):
        await ask(renewal.handlers(), "renew", request, a_peer("gone", MANAGER))
    with pytest.raises(InvalidArgument, match="RenewOpen was expected"):
        await ask(renewal.handlers(), "renew", Heartbeat(), a_peer("n1"))
    with pytest.raises(ApiError):
        await ask(renewal.handlers(), "renew", RenewOpen(b"nonsense"), a_peer("n1"))
    group.set(status("m1", "m2", leader="m2"))
    with pytest.raises(Unavailable, match="electing another leader"):
        await ask(renewal.handlers(), "renew", request, a_peer("n1"))


@pytest.mark.parametrize(
    ("group", "node_id", "answer"),
    [
        (status("m1", "m2", "m3"), "m2", ""),
        (status("m1", "m2", "m3", dead="m3"), "m2", QUORUM_LOSS),
        (status("m1", "m2", "m3", dead="m3"), "m3", ""),
        (status("m1", "m2"), "m2", ""),
        (status("m1", "m2", dead="m2"), "m2", ""),
        (status("m1"), "m1", LAST_MANAGER),
        (status("m1", "m2"), "m1", LEADS),
        (status("m1", "m2", learners="m2"), "m2", ""),
        (status("m1"), "n1", ""),
        (None, "m1", LAST_MANAGER),
    ],
)
def test_who_may_depart(group: GroupStatus | None, node_id: str, answer: str) -> None:
    assert refuse_departure(group, node_id) == answer


async def test_a_departure_is_answered_once_the_member_is_out() -> None:
    group = FakeGroup(status("m1", "m2", "m3"))
    store = await a_store(m1=MANAGER, m2=MANAGER, m3=MANAGER)
    renewal = Renewal(store, lambda: NOW, group)  # type: ignore[arg-type]
    departing = asyncio.ensure_future(ask(renewal.handlers(), "depart", DepartOpen(), a_peer("m2", MANAGER)))
    with store.watch(Node) as watch:
        await anext(watch)
    assert role_of(store, "m2") is WORKER, "the role manager takes out who is to be a worker"
    group.set(status("m1", "m2", "m3", dead="m3"))
    await asyncio.sleep(0)
    assert not departing.done()
    group.set(status("m1", "m3"))
    assert await departing == DepartAnswer()


async def test_a_new_leader_hears_its_members_before_it_refuses_a_departure() -> None:
    """The leader that leaves hands over first: its heir is asked before anybody has answered it."""
    group = FakeGroup(status("m1", "m2", "m3", dead="m2 m3"))
    store = await a_store(m1=MANAGER, m2=MANAGER, m3=MANAGER)
    renewal = Renewal(store, lambda: NOW, group)  # type: ignore[arg-type]
    departing = asyncio.ensure_future(ask(renewal.handlers(), "depart", DepartOpen(), a_peer("m2", MANAGER)))
    with store.watch(Node) as watch:
        await asyncio.sleep(0)
        group.set(status("m1", "m2", "m3", dead="m2"))
        await anext(watch)
    group.set(status("m1", "m3"))
    assert await departing == DepartAnswer()


async def test_a_departure_whose_leader_is_lost_says_so() -> None:
    group = FakeGroup(status("m1", "m2", "m3"))
    store = await a_store(m1=MANAGER, m2=MANAGER, m3=MANAGER)
    renewal = Renewal(store, lambda: NOW, group)  # type: ignore[arg-type]
    departing = asyncio.ensure_future(ask(renewal.handlers(), "depart", DepartOpen(), a_peer("m2", MANAGER)))
    with store.watch(Node) as watch:
        await anext(watch)
    group.set(status("m1", "m2", "m3", leader="m3"))
    with pytest.raises(Unavailable, match="electing"):
        await departing


async def test_only_managers_depart_and_hand_newcomers_on() -> None:
    store = await a_store(m1=MANAGER, n1=WORKER)
    group = FakeGroup(status("m1"))
    with pytest.raises(PermissionDenied):
        await ask(Renewal(store, lambda: NOW, group).handlers(), "depart", DepartOpen(), a_peer("n1"))  # type: ignore[arg-type]
    membership = Membership(store, lambda: NOW, new_id=new_id, managers=list)
    with pytest.raises(PermissionDenied):
        await ask(membership.handlers(), "join", JoinOpen("secret", b""), a_peer("n1"))


async def test_a_newcomer_may_ask_any_manager() -> None:
    store = await a_store(m1=MANAGER, m2=MANAGER)
    leader = Membership(store, lambda: NOW, new_id=new_id, managers=lambda: [ManagerAddress("m1", "m1:2377")])
    handed: list[JoinOpen] = []

    async def carry(request: JoinOpen) -> Message:
        handed.append(request)
        return await ask(leader.handlers(), "join", request, a_peer("m2", MANAGER))

    referral = Referral(carry)
    stranger = Peer("", None, "192.0.2.7:40000", 0)
    secret = store.view(lambda tx: tx.all(Cluster))[0].manager_secret
    chosen = new_id()
    newcomer = JoinOpen(secret, NodeKey.create().request(), address="0.0.0.0:2377", node_id="x" * 25)
    answer = await referral.issue(newcomer, stranger, chosen)
    assert isinstance(answer, JoinAnswer)
    assert answer.node_id == chosen, "not what the newcomer would like to be"
    assert answer.role is MANAGER
    assert handed[0].address == "192.0.2.7:2377", "the leader sees the other manager, not the newcomer"
    node = store.view(lambda tx: tx.get(Node, answer.node_id))
    assert node is not None
    assert node.status.addr == "192.0.2.7"
    with pytest.raises(InvalidJoinToken):
        await referral.issue(JoinOpen("wrong", NodeKey.create().request()), stranger, new_id())
    with pytest.raises(Unavailable, match="Availability"):
        await referral.issue(JoinOpen(secret, NodeKey.create().request(), availability="never"), stranger, new_id())


async def test_an_answer_that_is_none_is_not_passed_on() -> None:
    async def carry(request: JoinOpen) -> Message:
        return Heartbeat()

    with pytest.raises(Unavailable, match="answered a Heartbeat"):
        await Referral(carry).issue(JoinOpen("s", b""), Peer("", None, "192.0.2.7:1", 0), new_id())
    assert JoinRefused("x").wrong_token is False


def test_a_follower_says_where_the_leader_is() -> None:
    answer = elsewhere(status("m1", "m2", leader="m2"), 100 * SECOND)
    assert (answer.leader, answer.leaderless, answer.removed) == (ManagerAddress("m2", "m2:2377"), False, False)


def test_without_a_leader_for_longer_than_an_election_nodes_are_on_their_own() -> None:
    begun = 100 * SECOND
    lost = status("m1", "m2", "m3", leader="", leaderless_since=begun)
    assert not elsewhere(lost, begun + 2 * SECOND).leaderless
    assert elsewhere(lost, begun + 3 * SECOND).leaderless
    assert not elsewhere(status("m1", "m2", leader="m2"), begun + 9 * SECOND).leaderless
    assert elsewhere(status("m1", leader="m1"), begun).leader is None, "it never names itself"


@pytest.mark.parametrize(
    ("group", "without", "survives"),
    [
        (status("m1", "m2", "m3"), "m2", True),
        (status("m1", "m2", "m3", dead="m3"), "m2", False),
        (status("m1", "m2", "m3", dead="m3"), "m3", True),
        (status("m1", "m2", "m3", dead="m2 m3"), "m3", False),
        (status("m1", "m2", "m3", "m4", "m5", dead="m5"), "m4", True),
        (status("m1", "m2", "m3", "m4", "m5", dead="m4 m5"), "m3", False),
        (status("m1"), "m1", False),
        (status("m1"), "n1", True),
        (status("m1", "m2", learners="m2"), "m1", False),
        (status("m1", "m2", "m3", dead="m1"), "m2", True),
    ],
)
def test_who_can_be_spared(group: GroupStatus, without: str, survives: bool) -> None:
    """The leader is never dead in its own eyes, whatever it heard of itself."""
    assert survives_without(group, without) is survives


def test_a_node_without_a_group_is_what_it_is_to_be() -> None:
    node = Node(id="n1", spec=NodeSpec(role=MANAGER))
    assert effective_role(node, None) is MANAGER
    assert effective_role(msgspec.structs.replace(node, spec=NodeSpec(role=WORKER)), None) is WORKER
