"""Leadership handed over (thesis, 3.10)."""

from __future__ import annotations

import pytest
from raft_core_group import Group

from agent.raft.core.errors import ChangeRefused, ProposalRefused
from agent.raft.core.membership import ChangeKind
from agent.raft.core.messages import AppendRequest, TimeoutNow, VoteRequest
from agent.raft.interface import NotLeader


def test_to_a_member_that_has_everything_it_takes_no_tick() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.cores["a"].transfer_leadership("b")
    group.run()
    assert group.leads("b")
    assert group.cores["a"].leader == group.cores["c"].leader == "b"


def test_to_a_slow_member_waits_until_it_has_everything() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.lose = lambda m: m.recipient == "b" and isinstance(m, AppendRequest)
    group.propose("a", b"x")
    group.cores["a"].transfer_leadership("b")
    group.run()
    assert group.leads("a")
    group.lose = lambda m: False
    group.tick("a", group.settings.heartbeat_ticks)
    assert group.leads("b")
    assert group.applied["b"] == [b"x"]


def test_to_itself_nothing_happens() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    leader.transfer_leadership("a")
    group.propose("a", b"x")
    assert group.leads("a")


@pytest.mark.parametrize("nobody", ["z", "l", ""])
def test_to_a_missing_member_or_a_learner_is_refused(nobody: str) -> None:
    group = Group("a", "b", learners=("l",))
    leader = group.elect("a")
    with pytest.raises(ProposalRefused, match="not a voter"):
        leader.transfer_leadership(nobody)
    group.propose("a", b"x")
    assert group.applied["b"] == [b"x"]


def test_a_follower_hands_over_nothing() -> None:
    group = Group("a", "b")
    group.elect("a")
    with pytest.raises(NotLeader):
        group.cores["b"].transfer_leadership("a")


def test_proposals_are_refused_meanwhile_and_it_is_given_up_after_an_elections_time() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.cut("b")
    leader.transfer_leadership("b")
    with pytest.raises(ProposalRefused, match="handed to b"):
        leader.propose(b"x")
    with pytest.raises(ChangeRefused, match="handed to b"):
        group.change("a", ChangeKind.REMOVE, "c")
    group.tick("a", group.settings.election_ticks)
    group.propose("a", b"x")
    assert group.applied["c"] == [b"x"]


def test_a_second_transfer_takes_the_place_of_the_first() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.cut("b")
    leader.transfer_leadership("b")
    leader.transfer_leadership("b")
    leader.transfer_leadership("c")
    group.run()
    assert group.leads("c")


def test_a_transfer_to_a_member_that_is_removed_is_over() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    leader.step(VoteRequest("b", "a", 1, 0, 0))
    group.change("a", ChangeKind.REMOVE, "b")
    with pytest.raises(ProposalRefused, match="not a voter"):
        leader.transfer_leadership("b")


def test_the_request_to_stand_overrides_the_patience_of_the_others() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.sent.clear()
    group.cores["a"].transfer_leadership("c")
    group.run()
    requests = [m for m in group.sent if isinstance(m, VoteRequest)]
    assert all(m.handover and not m.pre for m in requests)
    assert len(requests) == 2


def test_an_old_request_to_stand_is_ignored() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.elect("b")
    group.cores["c"].step(TimeoutNow("a", "c", 1))
    group.run()
    assert group.leads("b")


def test_a_learner_does_not_stand_when_asked() -> None:
    group = Group("a", learners=("l",))
    group.elect("a")
    group.cores["l"].step(TimeoutNow("a", "l", 1))
    group.run()
    assert group.leads("a")
