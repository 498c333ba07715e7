"""Proposals under way: what the log at their position says of them.

Futures belong to the main loop. Here they are only carried, and come back as `Outcome`s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from agent.raft.core.membership import MembershipChange
from agent.raft.core.messages import Entry, Position, SnapshotMeta
from agent.raft.interface import NotLeader, OutcomeUnknown


@dataclass(slots=True, eq=False)
class Proposal:
    """One wish of the main loop, made when it believed to lead in `term`.

    `epoch` counts the refusals that the main loop knew of: what was made before it learned of the newest is refused too,
    because the store laid it over what was refused. A `change` of the membership has no data and no epoch.
    """

    data: bytes
    term: int
    epoch: int
    future: asyncio.Future[int]
    change: MembershipChange | None = None


class Outcome(NamedTuple):
    """What became of a proposal: its index once that is applied, or why it failed."""

    future: asyncio.Future[int]
    at: int
    error: Exception | None = None


class _Waiting(NamedTuple):
    term: int
    at: int
    future: asyncio.Future[int]


class ProposalBook:
    """The proposals in the log that are not decided yet, in order of term and index.

    All of an earlier term are decided before one of a later term is added: the driver takes none until the first entry
    of the later term is applied.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, position: Position, future: asyncio.Future[int]) -> None:
        """A proposal was put at this position."""
        self._waiting.append(_Waiting(position.term, position.index, future))

    def decide(self, committed: Iterable[Entry]) -> list[Outcome]:
        """What these entries, handed over in order of index, decide."""
        waiting, outcomes = self._waiting, []
        for entry in committed:
            # Terms never fall along a log: with an entry of a later term here, no earlier one can follow.
            while waiting and waiting[0].term < entry.term:
                outcomes.append(_lost(waiting.popleft(), entry.term))
            if not waiting:
                break
            if waiting[0].at == entry.index:
                outcomes.append(Outcome(waiting.popleft().future, entry.index))
        return outcomes

    def overtaken(self, snapshot: SnapshotMeta) -> list[Outcome]:
        """A leader's snapshot took the place of the entries; what it covers is known only where it ends."""
        waiting, outcomes = self._waiting, []
        while waiting and (waiting[0].at <= snapshot.index or waiting[0].term < snapshot.term):
            first = waiting.popleft()
            if first.at > snapshot.index:
                outcomes.append(_lost(first, snapshot.term))
            elif first.at == snapshot.index:
                same = first.term == snapshot.term
                outcomes.append(Outcome(first.future, first.at) if same else _lost(first, snapshot.term))
            else:
                text = "the leader was lost, and its successor sent its state without the single changes"
                outcomes.append(Outcome(first.future, 0, OutcomeUnknown(text)))
        return outcomes

    def give_up(self, term: int, reason: str) -> list[Outcome]:
        """Nobody can say in time what became of the proposals up to `term`."""
        waiting, outcomes = self._waiting, []
        while waiting and waiting[0].term <= term:
            outcomes.append(Outcome(waiting.popleft().future, 0, OutcomeUnknown(reason)))
        return outcomes


def _lost(waiting: _Waiting, term: int) -> Outcome:
    text = f"leadership was lost before the change was replicated; the leader of term {term} does not have it"
    return Outcome(waiting.future, 0, NotLeader(text))
