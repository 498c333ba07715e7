"""Linearizable reads without leases (thesis, 6.4)."""

from __future__ import annotations

import pytest
from raft_core_group import Group

from agent.raft.core.messages import AppendRequest, AppendResponse, Heartbeat, HeartbeatResponse, ReadIndexRequest
from agent.raft.core.ready import ReadState
from agent.raft.interface import NotLeader


def test_a_read_is_answered_once_a_majority_still_follows() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.propose("a", b"x")
    group.hold = lambda m: isinstance(m, HeartbeatResponse)
    leader.read_index(7)
    group.run()
    assert group.reads["a"] == []
    group.release()
    assert group.reads["a"] == [ReadState(7, leader.log.committed)]


def test_an_old_leader_answers_no_reads() -> None:
    group = Group("a", "b", "c")
    old = group.elect("a")
    group.cut("a")
    group.cores["b"].follow(1, "")
    group.cores["c"].follow(1, "")
    group.cores["b"].ask_for_support()
    group.run()
    group.propose("b", b"new")
    assert group.leads("a")
    old.read_index(1)
    group.run()
    group.cut()
    group.tick("a", group.settings.heartbeat_ticks)
    assert group.reads["a"] == []
    assert not group.leads("a")


def test_a_new_leader_answers_reads_only_after_it_has_committed_an_entry() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.lose = lambda m: (isinstance(m, AppendRequest) and not m.entries) or isinstance(m, Heartbeat)
    group.propose("a", b"acknowledged")
    assert group.applied["a"] == [b"acknowledged"]
    assert group.applied["b"] == [], "b does not know that it is committed"
    group.lose = lambda m: False
    group.hold = lambda m: isinstance(m, AppendResponse)
    leader = group.elect("b")
    leader.read_index(1)
    group.run()
    assert group.reads["b"] == []
    group.release()
    assert [read.index for read in group.reads["b"]] == [leader.log.last_index]


def test_a_followers_read_goes_to_the_leader_and_comes_back() -> None:
    group = Group("a", "b", "c", learners=("l",))
    leader = group.elect("a")
    for name in "bl":
        group.cores[name].read_index(3)
    group.run()
    assert group.reads["b"] == group.reads["l"] == [ReadState(3, leader.log.committed)]


def test_learners_do_not_confirm_reads() -> None:
    group = Group("a", "b", "c", learners=("l",))
    leader = group.elect("a")
    group.cut("b", "c")
    leader.read_index(1)
    group.run()
    assert group.reads["a"] == []


def test_alone_a_leader_needs_nobody() -> None:
    group = Group("a", learners=("l",))
    leader = group.elect("a")
    leader.read_index(1)
    group.run()
    assert group.reads["a"] == [ReadState(1, leader.log.committed)]


def test_reads_that_come_together_cost_one_round() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.sent.clear()
    for context in range(100):
        leader.read_index(context)
    group.run()
    assert len(group.reads["a"]) == 100
    assert len(group.of_kind(Heartbeat)) == 2


def test_a_request_that_comes_twice_is_answered_twice() -> None:
    group = Group("a", "b")
    leader = group.elect("a")
    for _ in range(2):
        leader.step(ReadIndexRequest("b", "a", 1, 9))
    group.run()
    assert group.reads["b"] == [ReadState(9, leader.log.committed)] * 2


def test_an_answer_that_is_older_than_the_read_does_not_confirm_it() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.cut("b", "c")
    leader.read_index(1)
    group.run()
    leader.step(HeartbeatResponse("b", "a", 1, 0))
    group.run()
    assert group.reads["a"] == []
    leader.step(HeartbeatResponse("b", "a", 1, 1))
    group.run()
    assert len(group.reads["a"]) == 1


def test_without_a_leader_a_read_is_refused_at_once() -> None:
    with pytest.raises(NotLeader, match="no leader"):
        Group("a", "b").cores["a"].read_index(1)
