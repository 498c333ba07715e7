"""Newcomers at a manager that leads, at one that does not, and while the leader is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from manager_objects import NOW

from agent.api_types.errors import Unavailable
from agent.api_types.identity import new_id
from agent.api_types.node import Node, NodeRole
from agent.api_types.swarm import Cluster, SwarmSpec
from agent.manager.membership import LeaderLost, Membership
from agent.node.leader_link import Leadership
from agent.node.reception import Reception
from agent.pki.identity import NodeKey
from agent.pki.root import RootCA
from agent.pki.tokens import InvalidJoinToken, make_secret
from agent.raft.interface import OutcomeUnknown
from agent.rpc.errors import ConnectionLost, RpcError, Unreachable
from agent.rpc.messages import JoinAnswer, JoinOpen, JoinRefused, Message
from agent.rpc.peer import Peer
from agent.store.store import Store
from agent.store.transactions import WriteTx


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.node.reception.PAUSE", 0.0)
    monkeypatch.setattr("agent.node.reception.PATIENCE", 0.1)


@dataclass
class FakeStream:
    """Keeps what is sent."""

    method: str = "join"
    sent: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


@dataclass
class FakeConnection:
    peer: Peer


STRANGER = Peer("", None, "192.0.2.7:40000", 0)
SECRET = make_secret()
ROOT = RootCA.create(lambda: NOW)


class Leader:
    """The leader's room, and the way to it on which things go wrong: each fault meets one question, before or after it."""

    def __init__(self, store: Store, *faults: tuple[str, RpcError], leader: str = "m1") -> None:
        self.store = store
        self.faults = list(faults)
        self.leader = leader
        self.quorum = True
        self.membership = Membership(store, lambda: NOW, new_id=new_id, managers=list)

    async def until_leader(self) -> Leadership:
        if not self.quorum:
            raise Unavailable("nobody leads")
        return Leadership(3, self.leader, f"{self.leader}:2377")

    async def ask(self, method: str, question: Message) -> Message:
        assert method == "join"
        assert isinstance(question, JoinOpen)
        moment, fault = self.faults.pop(0) if self.faults else ("", None)
        if moment == "before" and fault is not None:
            raise fault
        try:
            answer: Message = await self.membership.issue(question, STRANGER, question.node_id)
        except InvalidJoinToken as error:
            answer = JoinRefused(str(error), wrong_token=True)
        if fault is not None:
            raise fault
        return answer


async def a_store() -> Store:
    store = Store.in_memory(clock=lambda: NOW)
    assert ROOT.key_pem is not None
    cluster = Cluster(
        id="cluster",
        spec=SwarmSpec(name="default"),
        ca_cert=ROOT.cert_pem.decode(),
        ca_key=ROOT.key_pem.decode(),
        worker_secret=SECRET,
        manager_secret=make_secret(),
    )
    await store.update(lambda tx: tx.create(cluster))
    return store


def nodes(store: Store) -> list[Node]:
    return store.view(lambda tx: tx.all(Node))


def asked(secret: str = SECRET) -> JoinOpen:
    return JoinOpen(secret, NodeKey.create().request(), hostname="h1")


@pytest.mark.parametrize(
    "faults",
    [
        (),
        (("before", Unreachable("refused")),),
        (("before", Unreachable("refused")), ("before", Unreachable("another manager leads now"))),
        (("after", ConnectionLost("the leader died")),),
        (("after", ConnectionLost("the leader died")), ("before", Unreachable("refused"))),
        (("after", ConnectionLost("one died")), ("after", ConnectionLost("and the next"))),
    ],
)
async def test_a_newcomer_becomes_one_node_whatever_happens_to_leaders(
    faults: tuple[tuple[str, RpcError], ...],
) -> None:
    leader = Leader(await a_store(), *faults)
    answer = await Reception("m2", leader, lambda: None).issue(asked(), STRANGER)
    assert isinstance(answer, JoinAnswer)
    assert answer.role is NodeRole.WORKER
    assert [node.id for node in nodes(leader.store)] == [answer.node_id]
    assert not leader.faults


async def test_a_leader_that_is_lost_over_its_own_newcomer_asks_the_next_one() -> None:
    """Its entry may be in the log or not: here it is."""
    leader = Leader(await a_store(), leader="m2")

    class Losing(Membership):
        async def issue(self, request: JoinOpen, peer: Peer, node_id: str = "") -> JoinAnswer:
            await super().issue(request, peer, node_id)
            leader.leader = "m1"
            raise LeaderLost

    losing = Losing(leader.store, lambda: NOW, new_id=new_id, managers=list)
    answer = await Reception("m2", leader, lambda: losing).issue(asked(), STRANGER)
    assert [node.id for node in nodes(leader.store)] == [answer.node_id]


async def test_the_leader_admits_by_itself() -> None:
    leader = Leader(await a_store(), ("before", Unreachable("nobody is asked")), leader="m2")
    answer = await Reception("m2", leader, lambda: leader.membership).issue(asked(), STRANGER)
    assert [node.id for node in nodes(leader.store)] == [answer.node_id]
    assert leader.faults


async def test_what_the_leader_refuses_is_not_asked_again() -> None:
    leader = Leader(await a_store())
    with pytest.raises(InvalidJoinToken):
        await Reception("m2", leader, lambda: None).issue(asked("wrong"), STRANGER)
    leader.quorum = False
    with pytest.raises(Unavailable, match="nobody leads"):
        await Reception("m2", leader, lambda: None).issue(asked(), STRANGER)


async def test_a_leader_that_is_never_reached_is_given_up_in_time() -> None:
    leader = Leader(await a_store(), *[("before", Unreachable("refused"))] * 100_000)
    with pytest.raises(Unavailable, match="could not be asked: refused"):
        await Reception("m2", leader, lambda: None).issue(asked(), STRANGER)
    assert nodes(leader.store) == []
    assert len(leader.faults) < 100_000 - 1


async def test_a_lost_leader_is_no_answer_to_another_manager() -> None:
    """It fails the question, so that it is asked again."""

    class Lost(Store):
        async def update(self, fn: Callable[[WriteTx], object]) -> int:
            raise OutcomeUnknown("the leader was lost while the change was under way")

    store = await a_store()
    lost = Lost(clock=lambda: NOW)
    await lost.restore(1, store.snapshot())
    membership = Membership(lost, lambda: NOW, new_id=new_id, managers=list)
    stream, connection = FakeStream(), FakeConnection(Peer("m2", NodeRole.MANAGER, "192.0.2.2:1", 0))
    with pytest.raises(LeaderLost, match="electing"):
        await membership.handlers()["join"](stream, asked(), connection)  # type: ignore[arg-type]
    assert stream.sent == []
