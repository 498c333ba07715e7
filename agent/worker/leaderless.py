"""Whether the cluster is without a leader, as far as managers that this node reaches say so.

Only then a node may restart tasks by itself. A node that reaches no manager knows nothing: it may be the one that is cut off
from a healthy cluster, whose leader replaces its tasks elsewhere.
"""

from __future__ import annotations

WORD_LIFE = 3.0
"""Seconds for which a manager's word counts, unless it says another one. The search asks each of them more often."""


class Words:
    """The newest answer of each manager, by address. Times are the loop's, in seconds."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[bool, float]] = {}

    def heard(self, address: str, *, leaderless: bool, now: float) -> None:
        """A manager answered: there is no leader and cannot be one, or it knows of one or waits for an election."""
        self._said[address] = (leaderless, now + WORD_LIFE)

    def lost(self, address: str) -> None:
        """The manager cannot be reached any more."""
        self._said.pop(address, None)

    def clear(self) -> None:
        """A manager leads: whatever was said before is past."""
        self._said.clear()

    def leaderless_until(self, now: float) -> float | None:
        """Until when it counts that there is no leader, if nobody says anything more; None when it does not count now.

        One manager has to say so and none may say otherwise: one that is cut off from the others may be wrong.
        """
        fresh = [(leaderless, until) for leaderless, until in self._said.values() if now < until]
        if not fresh or not all(leaderless for leaderless, _ in fresh):
            return None
        return max(until for _, until in fresh)
