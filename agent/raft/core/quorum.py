"""Counting: what a majority has reached, and who has won."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum


def majority(voters: int) -> int:
    """The least number of members of which any two sets share one: 2 of 2, 2 of 3, 3 of 4."""
    return voters // 2 + 1


def agreed(voters: Collection[str], reached: Mapping[str, int]) -> int:
    """The highest number that a majority of the voters has reached; 0 without voters."""
    if not voters:
        return 0
    numbers = sorted((reached.get(voter, 0) for voter in voters), reverse=True)
    return numbers[majority(len(voters)) - 1]


def has_majority(voters: Collection[str], members: Collection[str]) -> bool:
    """True when the members include a majority of the voters."""
    return bool(voters) and sum(voter in members for voter in voters) >= majority(len(voters))


class Outcome(Enum):
    """Where an election stands."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


class Tally:
    """The votes of one election: one a voter, the first one counts."""

    def __init__(self) -> None:
        self._votes: dict[str, bool] = {}

    def record(self, voter: str, granted: bool) -> None:
        """A vote has come, perhaps once more."""
        self._votes.setdefault(voter, granted)

    def granted(self, voters: Collection[str]) -> int:
        """How many of the voters are in favour."""
        return sum(self._votes.get(voter, False) for voter in voters)

    def outcome(self, voters: Collection[str]) -> Outcome:
        """Lost once those who have not answered cannot make it a majority any more."""
        needed = majority(len(voters))
        granted = self.granted(voters)
        if voters and granted >= needed:
            return Outcome.WON
        missing = sum(voter not in self._votes for voter in voters)
        return Outcome.OPEN if granted + missing >= needed else Outcome.LOST
