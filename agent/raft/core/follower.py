"""A member that follows, or waits for somebody to follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.raft.core.messages import (
    NOBODY,
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexResponse,
    TimeoutNow,
)
from agent.raft.core.ready import ReadState, RoleName

if TYPE_CHECKING:
    from agent.raft.core.node import RaftCore


class Follower:
    """Takes what the leader says; without a word for long enough it asks for votes."""

    name = RoleName.FOLLOWER

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        self._elapsed = 0
        self._patience = core.election_patience()

    @property
    def hears_leader(self) -> bool:
        """True while the leader spoke recently enough that no other one is wanted (thesis, 4.2.3)."""
        return self._core.leader != NOBODY and self._elapsed < self._core.settings.election_ticks

    def step(self, message: AnyMessage) -> None:
        """A message of this term."""
        core = self._core
        match message:
            case AppendRequest():
                self._heard(message.sender)
                self._append(message)
            case Heartbeat():
                self._heard(message.sender)
                core.log.commit_to(message.commit)
                core.send(HeartbeatResponse(core.id, message.sender, core.term, message.read))
            case InstallSnapshot():
                self._heard(message.sender)
                self._install(message)
            case TimeoutNow():
                if core.may_stand:
                    core.stand_for_election(handover=True)
            case ReadIndexResponse():
                core.answer_read(ReadState(message.context, message.index))
            case _:
                pass

    def tick(self) -> None:
        """A tick has passed."""
        self._elapsed += 1
        if self._elapsed < self._patience:
            return
        if self._core.may_stand:
            self._core.ask_for_support()
        else:
            self._core.leader = NOBODY

    def flush(self) -> None:
        """Nothing waits to be sent."""

    def persisted(self) -> None:
        """A write is durable; the acknowledgements went with it."""

    def _heard(self, leader: str) -> None:
        self._elapsed = 0
        self._core.leader = leader

    def _append(self, message: AppendRequest) -> None:
        core, log = self._core, self._core.log
        if message.prev_index < log.committed:
            core.send(AppendResponse(core.id, message.sender, core.term, log.committed))
            return
        agreed = log.accept(message.prev_index, message.prev_term, message.entries)
        if agreed is None:
            hint_index, hint_term = log.conflict_hint(message.prev_index, message.prev_term)
            core.send(
                AppendResponse(core.id, message.sender, core.term, message.prev_index, True, hint_index, hint_term)
            )
            return
        log.commit_to(min(message.commit, agreed))
        core.send(AppendResponse(core.id, message.sender, core.term, agreed))

    def _install(self, message: InstallSnapshot) -> None:
        core, log, snapshot = self._core, self._core.log, message.snapshot
        if snapshot.index > log.committed:
            if log.term_at(snapshot.index) == snapshot.term:
                log.commit_to(snapshot.index)
            else:
                core.restore(snapshot)
        core.send(AppendResponse(core.id, message.sender, core.term, log.committed))
