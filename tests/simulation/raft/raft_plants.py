"""Bugs, one at a time, each with the kind of trouble that brings it to light.

Each changes the core through `monkeypatch` or the driver by a class of its own; the product has no switch for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from raft_disk import DropEntries, SaveSnapshot
from raft_member import SimulatedMember

from agent.raft.core import quorum
from agent.raft.core.leader import Leader
from agent.raft.core.log_view import LogView
from agent.raft.core.messages import Entry, HardState, Position, SnapshotMeta, VoteRequest
from agent.raft.core.node import RaftCore
from agent.raft.core.quorum import Tally
from agent.raft.core.ready import Ready
from agent.raft.core.recovery import Recovered

Change = Callable[[pytest.MonkeyPatch], None]


def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core as it is."""


@dataclass(frozen=True)
class Plant:
    """A bug: what it does to the core, to the driver, and the mishaps under which it is looked for (all, if none)."""

    name: str
    change: Change = unchanged
    member: type[SimulatedMember] = SimulatedMember
    focus: tuple[str, ...] = ()


def majority_without_oneself(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 of 4."""
    monkeypatch.setattr(quorum, "majority", lambda voters: max(1, (voters - 1) // 2 + 1))


def two_votes_in_a_term(monkeypatch: pytest.MonkeyPatch) -> None:
    def vote(self: RaftCore, message: VoteRequest) -> bool:
        return True

    monkeypatch.setattr(RaftCore, "_may_vote", vote)


def duplicate_vote_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(self: Tally, voter: str, granted: bool) -> None:
        count = len(self._votes)
        self._votes[voter if voter not in self._votes else f"{voter}#{count}"] = granted

    def granted(self: Tally, voters: Sequence[str]) -> int:
        return sum(self._votes.values())

    monkeypatch.setattr(Tally, "record", record)
    monkeypatch.setattr(Tally, "granted", granted)


def old_empty_append_truncates(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(self: LogView, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        if self.term_at(prev_index) != prev_term:
            return None
        if prev_index < self.last_index:
            self._truncate(prev_index + 1)
        self._extend(entries)
        return prev_index + len(entries)

    monkeypatch.setattr(LogView, "accept", accept)


def old_term_committed_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_counts_for_commit", lambda self, index: True)


def two_membership_changes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_why_no_change", lambda self: "")


def reads_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that believes that it still is one."""

    def read(self: Leader, member: str, context: int) -> None:
        self._reads.ask(member, context, self._core.log.committed)
        for other in self._core.log.membership.voters:
            self._reads.confirm(other, self._reads.newest)
        self._answer_reads()

    monkeypatch.setattr(Leader, "read", read)


class VoteForgotten(SimulatedMember):
    """A restart that brings back the term and not the vote."""

    def recovered(self) -> Recovered:
        hard_state, snapshot, entries = super().recovered()
        return Recovered(HardState(hard_state.term, "", hard_state.commit), snapshot, entries)


class SharedFuture(SimulatedMember):
    """Commands are told apart by their index alone."""

    def _key(self, position: Position) -> Position:
        return Position(0, position.index)

    def _abandon(self, *, surely: bool) -> None:
        if not self.running:
            super()._abandon(surely=surely)


class SendsBeforeSync(SimulatedMember):
    """Promises leave before what they promise is durable."""

    def promise_early(self, ready: Ready) -> None:
        for message in ready.messages_when_durable:
            self._send(message)


class CompactsBeforeSnapshot(SimulatedMember):
    """The log goes first, the snapshot is written after it."""

    def save_snapshot(self, snapshot: SnapshotMeta, data: bytes) -> None:
        self._write(DropEntries(snapshot.index), lambda: None)
        self._write(SaveSnapshot(snapshot, data), lambda: self._saved(snapshot))


OLD_TERM = Plant("entries of an old term committed by counting", old_term_committed_by_counting)
"""Too rare for random mishaps; `raft_story` tells what it takes."""

PLANTS = (
    Plant("a majority computed without oneself", majority_without_oneself),
    Plant("a vote forgotten on restart", member=VoteForgotten, focus=("crash_in_election", "transfer")),
    Plant("a vote given twice in a term", two_votes_in_a_term),
    Plant("a duplicate vote counted twice", duplicate_vote_counts_twice, focus=("isolate_leader",)),
    Plant("a log truncated by an old empty append", old_empty_append_truncates),
    Plant("one future shared by two commands", member=SharedFuture, focus=("isolate_leader", "partition")),
    Plant("a crash inside compaction", member=CompactsBeforeSnapshot, focus=("crash_while_saving",)),
    Plant("two membership changes at once", two_membership_changes_at_once, focus=("change_in_haste", "grow")),
    Plant("a message sent before the fsync", member=SendsBeforeSync, focus=("crash", "crash_all", "slow_disk")),
    Plant("reads answered without asking", reads_without_asking, focus=("transfer", "isolate_leader", "freeze")),
)
