"""Relays are for nodes of the cluster, as far as a manager knows who that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.api_types.node import Node, NodeRole
from agent.node.relay_guard import RemovedNodes, guarded, objection_of_follower
from agent.rpc.connection import Connection
from agent.rpc.messages import Message, RelayOpen, RelayReady
from agent.rpc.peer import Peer, Purpose
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.transactions import WriteTx

OPENING = RelayOpen("task", 80, "tcp")


@dataclass
class FakeStream:
    """Keeps what is sent."""

    sent: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


@dataclass
class FakeConnection:
    peer: Peer
    purpose: Purpose = Purpose.RELAY
    closed: str = ""

    def close(self, reason: str) -> None:
        self.closed = reason


def peer(node_id: str) -> Peer:
    return Peer(node_id, NodeRole.WORKER, "10.0.0.7:5000", 0)


async def a_store(*nodes: str) -> Store:
    store = Store.in_memory()

    def create(tx: WriteTx) -> None:
        for node_id in nodes:
            tx.create(Node(id=node_id))

    await store.update(create)
    return store


@asynccontextmanager
async def watching(
    store: Store, connections: list[FakeConnection], leads: Callable[[], bool] = lambda: False
) -> AsyncIterator[None]:
    removed = RemovedNodes(store, lambda: connections, leads)  # type: ignore[arg-type, return-value]
    task = asyncio.ensure_future(removed.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_node_that_the_store_does_not_hold_gets_no_relay() -> None:
    store, served = await a_store("n1"), []

    async def relay(stream: Stream, opening: Message, connection: Connection) -> None:
        served.append(connection.peer.node_id)

    handler = guarded(relay, lambda peer: objection_of_follower(store, peer))
    told = {}
    for node_id in ("n1", "n2"):
        stream = FakeStream()
        await handler(stream, OPENING, FakeConnection(peer(node_id)))  # type: ignore[arg-type]
        told[node_id] = stream.sent
    assert served == ["n1"]
    assert told["n1"] == []
    [answer] = told["n2"]
    assert isinstance(answer, RelayReady)
    assert "not known here" in answer.error
    assert "try again" in answer.error
    assert "removed" not in answer.error, "it may have joined a moment ago, and this manager be behind"


async def test_one_that_has_just_joined_gets_its_relay_once_it_is_known() -> None:
    store = await a_store("n1")
    assert objection_of_follower(store, peer("n2"))
    await store.update(lambda tx: tx.create(Node(id="n2")))
    assert objection_of_follower(store, peer("n2")) is None


async def test_connections_of_a_node_end_when_it_is_removed() -> None:
    store = await a_store("n1", "n2")
    mine, other, session = (
        FakeConnection(peer("n1")),
        FakeConnection(peer("n2")),
        FakeConnection(peer("n1"), Purpose.CONTROL),
    )
    async with watching(store, [mine, other, session]):
        await store.update(lambda tx: tx.delete(Node, "n1"))
        await settled()
        assert "n1 is not known here any more" in mine.closed
        assert session.closed, "any method may be called on any connection"
        assert not other.closed


async def test_the_leader_leaves_sessions_to_its_dispatcher() -> None:
    store = await a_store("n1")
    relays, session = FakeConnection(peer("n1")), FakeConnection(peer("n1"), Purpose.CONTROL)
    async with watching(store, [relays, session], lambda: True):
        await store.update(lambda tx: tx.delete(Node, "n1"))
        await settled()
        assert relays.closed
        assert not session.closed


async def test_a_state_that_is_replaced_ends_connections_of_those_who_are_not_in_it() -> None:
    store, newer = await a_store("n1", "n2"), await a_store("n2", "n3")
    gone, stays = FakeConnection(peer("n1")), FakeConnection(peer("n2"))
    async with watching(store, [gone, stays]):
        await store.restore(9, newer.snapshot())
        await settled()
        assert gone.closed
        assert not stays.closed
        await store.update(lambda tx: tx.delete(Node, "n2"))
        await settled()
        assert stays.closed, "it goes on after that"
