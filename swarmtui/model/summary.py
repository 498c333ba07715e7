"""The header's figures: the cluster as a whole and the connection to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from swarmtui.model.managers import ManagerGroup


class ConnectionState(StrEnum):
    """Where the connection to the cluster is."""

    CONNECTING = "connecting"
    """Nothing is known yet."""
    SYNCING = "syncing"
    """The engine answers; the first picture is on its way."""
    WATCHING = "live"
    """Changes arrive as they happen (our agents' watch)."""
    POLLING = "polling"
    """A real Docker Swarm: changes are asked for."""
    RECONNECTING = "reconnecting"
    """The connection was lost; the picture is the last known one."""
    NOT_A_MANAGER = "no swarm"
    """The engine answers, but it is in no swarm or only a worker."""
    CLOSED = "closed"
    """`run` has ended."""


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """The connection, for the header."""

    state: ConnectionState = ConnectionState.CONNECTING
    error: str = ""
    """Why it is not live, in full; "" while it is."""
    attempt: int = 0
    """Attempts to reconnect since it was lost."""
    retry_at: float | None = None
    """When the next attempt is due, on the monotonic clock."""
    latency_ms: float | None = None
    """The last ping's round trip; None before the first and while it is lost."""
    stale_since: int | None = None
    """Wall clock (nanoseconds) since when the picture has not been fed; None while it is."""
    node: str = ""
    """Hostname of the node that is asked."""


@dataclass(frozen=True, slots=True)
class ClusterSummary:
    """Counts for the header. `connection` says how far to trust them."""

    name: str = ""
    """The swarm's name, or "default"."""
    context: str = ""
    """The context's name."""
    leader: str = ""
    """Hostname of the leading manager, "" when there is none."""
    group: ManagerGroup | None = None
    """The managers; None until they are known."""
    managers_reachable: int = 0
    managers: int = 0
    nodes_ready: int = 0
    """Heard of, whatever a person allows on them; those too that a new leader has yet to hear."""
    nodes: int = 0
    services_healthy: int = 0
    services: int = 0
    tasks_running: int = 0
    tasks_wanted: int = 0
    connection: ConnectionStatus = ConnectionStatus()
