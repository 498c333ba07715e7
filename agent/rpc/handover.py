"""A connection on its way from the loop that accepted it to another loop, which may run in another thread."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from agent.rpc.channel import Channel
from agent.rpc.connection import MAX_STREAMS, Connection, Handler
from agent.rpc.errors import ConnectionLost
from agent.rpc.peer import Peer, Purpose


@dataclass(frozen=True, slots=True)
class Handover:
    """An open connection that nobody reads: TLS and hello are done, and what has arrived since is kept.

    Whoever holds it calls either `land` or `close`, once.
    """

    channel: Channel
    connected: socket.socket
    peer: Peer
    local_id: str
    purpose: Purpose = Purpose.RAFT

    async def land(self, handlers: Mapping[str, Handler], *, max_streams: int = MAX_STREAMS) -> Connection:
        """Serve the connection on the running loop from now on. OSError when the socket is no good any more."""
        try:
            await self.channel.attach(self.connected)
        except BaseException:
            self.channel.abort(ConnectionLost("the connection could not be moved to another loop"))
            raise
        connection = Connection(
            self.channel,
            self.peer,
            self.purpose,
            local_id=self.local_id,
            dialled=False,
            handlers=handlers,
            max_streams=max_streams,
        )
        connection.begin()
        return connection

    def close(self) -> None:
        """Nobody takes it."""
        self.connected.close()
