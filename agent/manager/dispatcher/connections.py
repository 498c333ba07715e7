"""The connections that nodes hold to this manager, by node and purpose: how the manager reaches a node for logs."""

from __future__ import annotations

from agent.rpc.connection import Connection
from agent.rpc.peer import Purpose


class Connections:
    """The newest connection of each node for each purpose."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, Purpose], Connection] = {}

    def add(self, connection: Connection) -> None:
        """A node connected."""
        if connection.peer.node_id:
            self._of[connection.peer.node_id, connection.purpose] = connection

    def get(self, node_id: str, purpose: Purpose) -> Connection | None:
        """The node's connection, if it stands."""
        connection = self._of.get((node_id, purpose))
        if connection is not None and connection.closed:
            del self._of[node_id, purpose]
            return None
        return connection

    def drop(self, node_id: str, reason: str) -> None:
        """Close every connection of a node."""
        for key in [key for key in self._of if key[0] == node_id]:
            self._of.pop(key).close(reason)
