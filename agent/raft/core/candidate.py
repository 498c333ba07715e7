"""A member that asks for votes: first whether it would get them (PreVote; thesis, 9.6), then for the votes themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.raft.core.messages import (
    NOBODY,
    AnyMessage,
    AppendRequest,
    Heartbeat,
    InstallSnapshot,
    VoteRequest,
    VoteResponse,
)
from agent.raft.core.quorum import Outcome, Tally
from agent.raft.core.ready import RoleName

if TYPE_CHECKING:
    from agent.raft.core.node import RaftCore


class Candidate:
    """With `pre` nothing is promised and no term begins. Otherwise its own vote counts once it is durable."""

    name = RoleName.CANDIDATE
    hears_leader = False

    def __init__(self, core: RaftCore, *, pre: bool, handover: bool = False) -> None:
        self._core = core
        self._pre = pre
        self._handover = handover
        self._tally = Tally()
        self._elapsed = 0
        self._patience = core.election_patience()

    def ask(self) -> None:
        """Send the requests."""
        core = self._core
        term = core.term + 1 if self._pre else core.term
        for voter in core.log.membership.voters:
            if voter != core.id:
                core.send(
                    VoteRequest(
                        core.id, voter, term, core.log.last_index, core.log.last_term, self._pre, self._handover
                    )
                )
        if self._pre:
            self._record(core.id, True)

    def step(self, message: AnyMessage) -> None:
        """A message of this term; or the consent to the next one."""
        match message:
            case VoteResponse():
                if message.pre == self._pre and not self._is_old_consent(message):
                    self._record(message.sender, message.granted)
            case AppendRequest() | Heartbeat() | InstallSnapshot():
                self._core.follow(message.term, message.sender)
                self._core.role.step(message)
            case _:
                pass

    def tick(self) -> None:
        """A tick has passed."""
        self._elapsed += 1
        if self._elapsed >= self._patience:
            if self._core.may_stand:
                self._core.ask_for_support()
            else:
                self._core.follow(self._core.term, NOBODY)

    def flush(self) -> None:
        """Nothing waits to be sent."""

    def persisted(self) -> None:
        """A write is durable: perhaps the one with the own vote."""
        core = self._core
        if not self._pre and (core.durable.term, core.durable.vote) == (core.term, core.id):
            self._record(core.id, True)

    def _is_old_consent(self, message: VoteResponse) -> bool:
        return message.pre and message.granted and message.term != self._core.term + 1

    def _record(self, voter: str, granted: bool) -> None:
        core = self._core
        self._tally.record(voter, granted)
        match self._tally.outcome(core.log.membership.voters):
            case Outcome.WON if self._pre:
                core.stand_for_election()
            case Outcome.WON:
                core.lead()
            case Outcome.LOST:
                core.follow(core.term, NOBODY)
            case Outcome.OPEN:
                pass
