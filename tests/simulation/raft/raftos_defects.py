"""What raftos 0.2.6 does, in the terms of this simulator: each of its defects planted into the core or the driver.

Read in its source; no code of it is here. Where a defect is, and what became of a group that had it, stands beside each.
The modules named are raftos' own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from raft_disk import AppendRecords, Change, SaveSnapshot
from raft_member import SimulatedMember
from raft_plants import (
    Plant,
    VoteForgotten,
    duplicate_vote_counts_twice,
    majority_without_oneself,
    old_empty_append_truncates,
    reads_without_asking,
)

from agent.raft.core.candidate import Candidate
from agent.raft.core.follower import Follower
from agent.raft.core.leader import Leader
from agent.raft.core.messages import NOBODY, Entry, HardState, Position
from agent.raft.core.node import RaftCore
from agent.raft.core.recovery import Recovered


@dataclass(frozen=True)
class Defect:
    """A defect of raftos: where it is, what a group loses by it, and the verdicts that say so (a regular expression)."""

    plant: Plant
    where: str
    lost: str
    verdict: str


def forgets_vote_when_it_steps_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(self: RaftCore, term: int, leader: str) -> None:
        self.term, self.vote, self.leader = term, NOBODY, leader
        self.role = Follower(self)

    def tick(self: Candidate) -> None:
        self._elapsed += 1
        if self._elapsed >= self._patience:
            self._core.follow(self._core.term, NOBODY)

    monkeypatch.setattr(RaftCore, "follow", follow)
    monkeypatch.setattr(Candidate, "tick", tick)


def never_counts_over_an_old_term(monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(self: Leader, index: int) -> bool:
        log = self._core.log
        return all(entry.term == self._core.term for entry in log.between(log.committed + 1, index))

    monkeypatch.setattr(Leader, "_counts_for_commit", counts)


class ForgetsWhatIsCommitted(SimulatedMember):
    """After a restart nothing is known to be committed."""

    def recovered(self) -> Recovered:
        hard_state, snapshot, entries = super().recovered()
        return Recovered(HardState(hard_state.term, hard_state.vote), snapshot, entries)


class OneFuture(SimulatedMember):
    """A place for one command that waits: the next one takes it, and whatever is applied next answers it."""

    def _key(self, position: Position) -> Position:
        return Position(0, 0)

    def _abandon(self, *, surely: bool) -> None:
        if not self.running:
            super()._abandon(surely=surely)


class NeverSyncs(SimulatedMember):
    """A write counts as soon as the kernel has it."""

    def _write(self, change: Change, when_durable: Callable[[], None]) -> None:
        if isinstance(change, SaveSnapshot):
            super()._write(change, when_durable)
            return
        super()._write(change, lambda: None)
        when_durable()


class RewritesInPlace(SimulatedMember):
    """Files are emptied, then written anew: that of term and vote each time, the log when entries are removed."""

    def crash(self) -> None:
        written = [change for change in self.disk.begun if isinstance(change, AppendRecords)]
        records = [record for change in written for record in change.records]
        votes = any(isinstance(record, HardState) and self.disk.is_another_vote(record) for record in records)
        removes = any(isinstance(record, Entry) and self.disk.has(record.index) for record in records)
        super().crash()
        if votes and self.random.random() < 0.5:
            self.disk.lose_vote()
        if removes and self.random.random() < 0.5:
            self.disk.lose_entries()


DEFECTS = (
    Defect(
        Plant("a majority counted without oneself", majority_without_oneself),
        "server.Node.cluster_count, state.State.is_majority",
        "in a group of four two members decide, in one of two a single one: two leaders, two histories",
        "commits|durable on|lead in term|leader completeness|not linearizable|state machine|log matching",
    ),
    Defect(
        Plant("the vote is forgotten on restart", member=VoteForgotten, focus=("crash_in_election", "transfer")),
        "state.Follower.init_storage",
        "two leaders in one term",
        "one vote a term",
    ),
    Defect(
        Plant(
            "the vote is forgotten when a candidate gives up or a leader steps down",
            forgets_vote_when_it_steps_down,
            focus=("isolate_leader",),
        ),
        "state.State.to_follower, state.Follower.init_storage",
        "two leaders in one term",
        "one vote a term",
    ),
    Defect(
        Plant("a vote that comes twice counts twice", duplicate_vote_counts_twice, focus=("isolate_leader",)),
        "state.Candidate.on_receive_request_vote_response",
        "a leader that a minority elected; what was acknowledged is overwritten",
        "lead in term|leader completeness|commits",
    ),
    Defect(
        Plant("an old, empty append removes entries", old_empty_append_truncates),
        "state.Follower.on_receive_append_entries",
        "entries that were acknowledged are removed from the logs that made them safe",
        "is committed but this log ends|durable on|commits|leader completeness|not within",
    ),
    Defect(
        Plant(
            "entries of an old term stop all that follow, and a restart forgets what is committed",
            never_counts_over_an_old_term,
            ForgetsWhatIsCommitted,
            ("crash_all", "crash"),
        ),
        "state.Leader.update_commit_index, storage.Log.commit_index",
        "after a restart of the leader no command is answered any more",
        "not within .* the group agrees and takes a write",
    ),
    Defect(
        Plant("one future for all commands", member=OneFuture, focus=("isolate_leader", "partition")),
        "state.Leader.apply_future",
        "a command is acknowledged when another one was applied; its own may never be",
        "not linearizable",
    ),
    Defect(
        Plant("nothing is ever synced", member=NeverSyncs, focus=("crash", "crash_all", "slow_disk")),
        "storage.Log.write, storage.FileDict.__setitem__",
        "what was acknowledged before a power cut",
        "durable on|is committed but this log ends|one vote a term|durable promises|AssertionError",
    ),
    Defect(
        Plant(
            "files are emptied before they are written anew",
            member=RewritesInPlace,
            focus=("crash", "crash_in_election", "slow_disk", "transfer"),
        ),
        "storage.FileDict.__setitem__, storage.Log.erase_from",
        "term, vote, and the whole log of a member, by a crash at the wrong moment",
        "durable promises|is committed but this log ends|durable on|log matching|lead in term|leader completeness",
    ),
    Defect(
        Plant(
            "reads are answered without asking", reads_without_asking, focus=("transfer", "isolate_leader", "freeze")
        ),
        "state.State.get_value, replicator.Replicated.get",
        "an old leader shows old values to those who have seen newer ones",
        "not linearizable",
    ),
)
