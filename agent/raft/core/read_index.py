"""Reads that wait until the leader knows that it still leads (thesis, 6.4).

Reads are numbered. A heartbeat carries the newest number, an answer brings it back: it confirms that read and all
before it, so that any number of reads costs one round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from agent.raft.core import quorum


@dataclass(frozen=True, slots=True)
class Read:
    """A read: who asked, with what mark, and the commit index when it came."""

    member: str
    context: int
    index: int


class ReadQueue:
    """The reads of one leadership."""

    def __init__(self) -> None:
        self.newest = 0
        """Number of the newest read."""
        self._first = 1
        self._reads: deque[Read] = deque()
        self._early: list[tuple[str, int]] = []
        self._confirmed: dict[str, int] = {}

    def ask_early(self, member: str, context: int) -> None:
        """A read that came before the leader knew what is committed."""
        self._early.append((member, context))

    def take_early(self) -> list[tuple[str, int]]:
        """Those reads; the leader knows now."""
        early, self._early = self._early, []
        return early

    def ask(self, member: str, context: int, commit: int) -> None:
        """A read."""
        self.newest += 1
        self._reads.append(Read(member, context, commit))

    def confirm(self, member: str, number: int) -> None:
        """The member followed this leader when read `number` was there already."""
        self._confirmed[member] = max(self._confirmed.get(member, 0), number)

    def take_confirmed(self, voters: Collection[str], leader: str) -> list[Read]:
        """The reads that a majority, the leader itself included where it votes, has confirmed."""
        number = quorum.agreed(voters, {**self._confirmed, leader: self.newest})
        found = []
        while self._reads and self._first <= number:
            found.append(self._reads.popleft())
            self._first += 1
        return found
