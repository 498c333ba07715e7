"""Relays into this node's tasks are for nodes of the cluster: a certificate outlives the removal of its node by months.

Only managers know who is part of the cluster. The leader knows it for certain; any other manager may be behind, and then a
node that has just joined looks like one that was removed: that one is asked to try again, and never told that it was removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from agent.api_types.node import Node
from agent.rpc.connection import Connection, Handler
from agent.rpc.messages import Message, RelayReady
from agent.rpc.peer import Peer, Purpose
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.watching import EventKind, WatchOverflow

logger = logging.getLogger(__name__)

Objection = Callable[[Peer], str | None]
"""Why a peer with a good certificate gets no relay, None when it does."""


def guarded(relay: Handler, objection: Objection) -> Handler:
    """`relay` for those against whom there is no objection; the others are told what there is."""

    async def answer(stream: Stream, opening: Message, connection: Connection) -> None:
        text = objection(connection.peer)
        if text is None:
            await relay(stream, opening, connection)
        else:
            logger.warning("no relay for %s: %s", connection.peer, text)
            await stream.send(RelayReady(error=text))

    return answer


def objection_of_follower(store: Store, peer: Peer) -> str | None:
    """What a manager that does not lead, and may be behind, has against a peer. The store knows the cluster."""
    if store.view(lambda tx: tx.get(Node, peer.node_id)) is not None:
        return None
    return f"node {peer.node_id} is not known here, not yet or no longer: try again in a moment"


class RemovedNodes:
    """`run` ends the connections of nodes that are removed while they are connected.

    `leads` says whether this manager leads: then sessions are left to whoever tells their nodes that they were removed.
    """

    def __init__(
        self, store: Store, connections: Callable[[], Iterable[Connection]], leads: Callable[[], bool]
    ) -> None:
        self._store = store
        self._connections = connections
        self._leads = leads

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with self._store.watch(Node) as watch:
                try:
                    async for commit in watch:
                        gone = {event.object.id for event in commit.events if event.kind is EventKind.REMOVE}
                        if gone:
                            self._end(lambda peer, gone=gone: peer.node_id in gone)  # type: ignore[misc]
                except WatchOverflow:
                    # The state was replaced by the leader's: who is not in it is not part of the cluster.
                    self._end(lambda peer: objection_of_follower(self._store, peer) is not None)

    def _end(self, is_gone: Callable[[Peer], bool]) -> None:
        for connection in self._connections():
            if (connection.purpose is Purpose.RELAY or not self._leads()) and is_gone(connection.peer):
                connection.close(f"node {connection.peer.node_id} is not known here any more")
