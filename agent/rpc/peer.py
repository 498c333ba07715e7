"""Who is at the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.api_types.node import NodeRole
from agent.rpc.protocols import SPOKEN


class Purpose(StrEnum):
    """What a connection is for. A node holds one of each of the first three to a manager, so that bulk never delays a
    heartbeat."""

    CONTROL = "control"
    BULK = "bulk"
    RAFT = "raft"
    RELAY = "relay"
    """Between any two nodes: connections to published ports that a task on the other node answers."""
    API = "api"
    """From a manager to the leader: requests that only the leader can answer."""
    JOIN = "join"
    """Without a certificate: only `ca` and `join` may be called."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other node, by its certificate and its hello.

    `node_id` is empty and `role` None for a client without a certificate. `address` is the other end of the TCP
    connection (`host:port`; not the peer's listener when the peer dialled). `clock_difference` is the peer's clock minus
    ours in nanoseconds, exact to the time a message takes. `protocol` is what both speak on this connection.
    """

    node_id: str
    role: NodeRole | None
    address: str
    clock_difference: int
    protocol: int = SPOKEN.newest

    def __str__(self) -> str:
        return f"{self.role} {self.node_id} at {self.address}" if self.role else f"the client at {self.address}"
