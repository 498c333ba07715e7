"""Bugs too rare for a random schedule: the scenario that was written for each fails when it is planted."""

from __future__ import annotations

import pytest
import test_raft_core_membership as membership
import test_raft_core_reads as reads
import test_raft_core_replication as replication

from agent.raft.core.leader import Leader
from agent.raft.core.log_view import LogView
from agent.raft.core.node import RaftCore


def test_entries_of_an_old_term_committed_by_counting_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_counts_for_commit", lambda self, index: True)
    with pytest.raises(AssertionError):
        replication.test_a_leader_only_commits_entries_of_its_own_term_by_counting()


def test_a_new_leader_that_believes_to_know_what_is_committed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "commits_own_term", True)
    with pytest.raises(AssertionError):
        reads.test_a_new_leader_answers_reads_only_after_it_has_committed_an_entry()


def test_a_change_before_an_entry_of_the_own_term_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "commits_own_term", True)
    with pytest.raises(pytest.fail.Exception):
        membership.test_a_change_is_refused_until_an_entry_of_the_own_term_is_committed()


def test_a_leader_that_counts_what_is_not_durable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        LogView, "stable", property(lambda self: self.last_index, lambda self, value: None), raising=False
    )
    with pytest.raises(AssertionError):
        replication.test_a_leader_never_counts_its_own_entries_before_they_are_durable()


def test_a_removed_member_that_never_stands_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftCore, "may_stand", property(lambda self: self.id in self.membership.voters))
    with pytest.raises(AssertionError):
        membership.test_the_only_one_that_has_its_own_removal_can_be_elected()
