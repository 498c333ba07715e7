"""The connections that nodes hold to this manager, by node and purpose: how the manager reaches a node for logs."""

from __future__ import annotations

import asyncio

from agent.rpc.connection import Connection
from agent.rpc.peer import Purpose


class Connections:
    """The newest connection of each node for each purpose."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, Purpose], Connection] = {}
        self._waiting: dict[tuple[str, Purpose], list[asyncio.Future[Connection]]] = {}

    def add(self, connection: Connection) -> None:
        """A node connected."""
        key = connection.peer.node_id, connection.purpose
        if not connection.peer.node_id:
            return
        self._of[key] = connection
        for waiting in self._waiting.pop(key, ()):
            if not waiting.done():
                waiting.set_result(connection)

    def get(self, node_id: str, purpose: Purpose) -> Connection | None:
        """The node's connection, if it stands."""
        connection = self._of.get((node_id, purpose))
        if connection is not None and connection.closed:
            del self._of[node_id, purpose]
            return None
        return connection

    async def wait(self, node_id: str, purpose: Purpose) -> Connection:
        """The node's connection, as soon as there is one."""
        connection = self.get(node_id, purpose)
        if connection is not None:
            return connection
        future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault((node_id, purpose), [])
        waiting.append(future)
        try:
            return await future
        finally:
            if future in waiting:
                waiting.remove(future)
            if not waiting and self._waiting.get((node_id, purpose)) is waiting:
                del self._waiting[node_id, purpose]

    def drop(self, node_id: str, reason: str) -> None:
        """Close every connection of a node."""
        for key in [key for key in self._of if key[0] == node_id]:
            self._of.pop(key).close(reason)
