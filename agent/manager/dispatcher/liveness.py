"""Which nodes live: a failure detector that does not mistake its own sleep for a node's silence.

A node is down after three heartbeat periods without a word. Time counts only while this process was able to listen:
a tick adds to the *listened* time no more than it was meant to last, so a process that was stopped, starved or busy for
ten seconds has listened for an eighth of a period, and everything that arrived meanwhile is read before the next tick. A
node has to be overdue at two ticks in a row for the same reason.

A new leader has heard nobody. It gives every node three periods and a while to come back (`RETURN`), and as long as nodes
keep coming it waits for the rest; so a node that died together with the old leader is found about five seconds after the
new one began, and nobody is blamed in a crowd of a thousand.

When ticks come late the machine is loaded, and on one machine (a playground) the nodes are as late as we are: a node whose
connection stands is then given twice our worst recent lateness on top. A broken connection gets nothing extra.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from agent.api_types.times import SECOND

PERIODS = 3
"""Heartbeat periods without a word after which a node is down."""
TICKS_A_PERIOD = 8
RETURN = 2 * SECOND
"""What a new leader gives a node beyond three periods to come back. A node may wait three periods for a leader that went
silent before it leaves it; then it asks every manager at once, again after a second at most, and has a session within
another one, also on a busy machine."""
LONGEST_RETURN = 10 * SECOND
"""The same where nodes come back in a crowd: as long as some still come, the others are only waiting for their turn."""
FIRST_GRACE = 10 * SECOND
"""How long a new node may take to come for the first time: it has just joined and still has to start."""
LONGEST_LEASE = 600 * SECOND
REMEMBERED_TICKS = 80
"""Ticks over which the worst lateness is remembered (ten periods)."""


class Silence(StrEnum):
    """Why a node counts as down, as its status message says it."""

    HEARTBEAT = "heartbeat failure"
    NEVER_HEARD = 'heartbeat failure for node in "unknown" state'
    LEASE_OVER = "the agent said that it would be back and was not"


@dataclass(slots=True)
class _Node:
    heard: int
    """Listened time of the last word."""
    connected: bool
    known: bool
    """Heard at least once by this leader."""
    leaving: bool = False
    patience: int = 0
    """Listened time that a silent node is given instead of three periods; 0 for those."""
    returns: bool = False
    """Whether it is to come back from another leader."""
    overdue: bool = False


class Liveness:
    """Who was heard when, in listened nanoseconds. Asks nobody for the time: `tick` is told how long it took."""

    def __init__(self, period: int) -> None:
        self._period = period
        self._listened = 0
        self._last_return = 0
        """Listened time at which a node came back from another leader."""
        self._nodes: dict[str, _Node] = {}
        self._lateness: deque[int] = deque(maxlen=REMEMBERED_TICKS)

    @property
    def period(self) -> int:
        """The heartbeat period in nanoseconds."""
        return self._period

    @period.setter
    def period(self, period: int) -> None:
        self._period = period

    @property
    def interval(self) -> int:
        """Nanoseconds between two ticks."""
        return self._period // TICKS_A_PERIOD

    @property
    def lateness(self) -> int:
        """The worst recent lateness of a tick, in nanoseconds."""
        return max(self._lateness, default=0)

    def expect_back(self, node_id: str, lease: int = 0) -> None:
        """A node that had a session with another leader; one that left it with a `lease` (nanoseconds) has that long."""
        patience = max(PERIODS * self._period + RETURN, min(lease, LONGEST_LEASE))
        self._nodes[node_id] = _Node(
            self._listened, connected=False, known=False, leaving=bool(lease), patience=patience, returns=not lease
        )

    def expect_first(self, node_id: str) -> None:
        """A node that has just joined."""
        patience = max(PERIODS * self._period, FIRST_GRACE)
        self._nodes[node_id] = _Node(self._listened, connected=False, known=False, patience=patience)

    def connected(self, node_id: str) -> None:
        """The node opened a session."""
        before = self._nodes.get(node_id)
        if before is not None and before.returns:
            self._last_return = self._listened
        self._nodes[node_id] = _Node(self._listened, connected=True, known=True)

    def heard(self, node_id: str) -> None:
        """Any word of the node."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.heard = self._listened
            node.overdue = False

    def disconnected(self, node_id: str) -> None:
        """The node's session broke."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.connected = False

    def leaving(self, node_id: str, lease: int) -> None:
        """The node said that it stops and will be back within `lease` nanoseconds."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.heard = self._listened
            node.leaving = True
            node.patience = max(PERIODS * self._period, min(lease, LONGEST_LEASE))

    def forget(self, node_id: str) -> None:
        """The node is down or no part of the cluster any more."""
        self._nodes.pop(node_id, None)

    def away(self, node_id: str) -> bool:
        """Whether the node was heard by this leader and its session is broken or about to be: its agent does not answer."""
        node = self._nodes.get(node_id)
        return node is not None and node.known and (not node.connected or node.leaving)

    def suspected(self, node_id: str) -> bool:
        """Whether the node's connection broke without a word of leave."""
        node = self._nodes.get(node_id)
        return node is not None and node.known and not node.connected and not node.leaving

    def awaited(self) -> Iterable[str]:
        """Nodes that this leader has not heard yet and still waits for."""
        return [node_id for node_id, node in self._nodes.items() if not node.known]

    def tick(self, elapsed: int) -> list[tuple[str, Silence]]:
        """One tick that took `elapsed` nanoseconds; the nodes that are down, and why. They are forgotten."""
        self._listened += min(elapsed, self.interval)
        self._lateness.append(max(0, elapsed - self.interval))
        down = []
        for node_id, node in self._nodes.items():
            if self._listened - node.heard < self._grace(node):
                node.overdue = False
            elif not node.overdue:
                node.overdue = True
            else:
                down.append((node_id, _reason(node)))
        for node_id, _ in down:
            del self._nodes[node_id]
        return down

    def _grace(self, node: _Node) -> int:
        grace = node.patience or PERIODS * self._period
        if node.returns:
            waits = max(grace, self._last_return + RETURN - node.heard) + 2 * self.lateness
            return min(waits, PERIODS * self._period + LONGEST_RETURN)
        return grace + 2 * self.lateness if node.connected else grace


def _reason(node: _Node) -> Silence:
    if node.leaving:
        return Silence.LEASE_OVER
    return Silence.HEARTBEAT if node.known else Silence.NEVER_HEARD
