"""One member at a time, learners first (thesis, 4)."""

from __future__ import annotations

import pytest
from raft_core_group import Group

from agent.raft.core.errors import BrokenInvariant, ChangeRefused
from agent.raft.core.membership import (
    ChangeKind,
    Membership,
    MembershipChange,
    changed,
    decode_membership,
    encode_membership,
)
from agent.raft.core.messages import AppendRequest, Entry, EntryKind, Heartbeat, TimeoutNow, VoteRequest
from agent.raft.core.ready import RoleName
from agent.raft.core.recovery import alone
from agent.raft.core.settings import Settings


def test_a_member_joins_as_a_learner_catches_up_and_becomes_a_voter() -> None:
    group = Group("a")
    group.elect("a")
    for number in range(20):
        group.propose("a", b"%d" % number)
    group.add("b")
    group.change("a", ChangeKind.ADD_LEARNER, "b")
    assert len(group.applied["b"]) == 20
    assert group.cores["b"].membership.learners == ("b",)
    group.change("a", ChangeKind.PROMOTE, "b")
    assert group.cores["a"].membership == group.cores["b"].membership == Membership(("a", "b"), (), {"b": ""})
    group.cut("b")
    group.propose("a", b"alone")
    assert group.applied["a"][-1] != b"alone", "two voters need both"


def test_a_learner_counts_for_nothing() -> None:
    group = Group("a", "b", "c", learners=("l",))
    group.elect("a")
    group.cut("b", "c")
    group.propose("a", b"x")
    assert group.applied["a"] == group.applied["l"] == []
    group.tick_all(2 * group.settings.election_ticks)
    assert not group.leads("a")


def test_a_learner_that_was_promoted_without_knowing_it_votes_when_asked() -> None:
    core = Group("a", "b", learners=("l",)).cores["l"]
    core.step(VoteRequest("a", "l", 1, 0, 0))
    assert core.vote == "a"


def test_a_learner_that_lacks_much_is_not_promoted() -> None:
    group = Group("a", learners=("l",), settings=Settings(promotion_lag=5))
    group.elect("a")
    group.cut("l")
    for _ in range(10):
        group.propose("a", b"x")
    with pytest.raises(ChangeRefused, match="still lacks"):
        group.change("a", ChangeKind.PROMOTE, "l")
    group.cut()
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    group.change("a", ChangeKind.PROMOTE, "l")
    assert group.cores["l"].membership.voters == ("a", "l")


def test_a_change_is_refused_until_the_one_before_it_is_committed() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.cut("b", "c")
    group.change("a", ChangeKind.REMOVE, "c")
    with pytest.raises(ChangeRefused, match="not committed yet"):
        group.change("a", ChangeKind.REMOVE, "b")
    group.cut()
    group.tick("a", group.settings.heartbeat_ticks)
    group.change("a", ChangeKind.REMOVE, "b")
    assert group.cores["a"].membership.voters == ("a",)


def test_a_change_is_refused_until_an_entry_of_the_own_term_is_committed() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.lose = lambda m: isinstance(m, AppendRequest)
    leader = group.elect("b")
    assert leader.role.name is RoleName.LEADER
    with pytest.raises(ChangeRefused, match="own term"):
        group.change("b", ChangeKind.REMOVE, "a")
    group.lose = lambda m: False
    group.tick("b", group.settings.heartbeat_ticks)
    group.change("b", ChangeKind.REMOVE, "a")
    assert leader.membership.voters == ("b", "c")


def test_a_membership_counts_as_soon_as_it_is_in_the_log_and_no_longer_than_it_is() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.cut("a")
    group.change("a", ChangeKind.REMOVE, "c")
    assert group.cores["a"].membership.voters == ("a", "b")
    group.elect("b")
    group.cut()
    group.tick("b", group.settings.heartbeat_ticks)
    assert group.cores["a"].membership.voters == ("a", "b", "c")


def test_a_removed_leader_leads_until_its_removal_is_committed_and_is_not_counted() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.cut("b", "c")
    group.change("a", ChangeKind.REMOVE, "a")
    assert group.leads("a")
    assert leader.log.committed < leader.log.last_index
    group.cut("c")
    group.tick("a", group.settings.heartbeat_ticks)
    assert group.leads("a"), "b alone is no majority of b and c"
    group.sent.clear()
    group.cut()
    group.tick("a", group.settings.heartbeat_ticks)
    assert not group.leads("a")
    assert group.of_kind(TimeoutNow), "the others need not wait for an election's time"
    assert [group.leads(name) for name in "bc"].count(True) == 1


def test_the_only_one_that_has_its_own_removal_can_be_elected() -> None:
    """Thesis, 4.2.2: until it is committed, nobody else can win against its longer log."""
    group = Group("a", "b")
    group.elect("a")
    group.cut("b")
    group.change("a", ChangeKind.REMOVE, "a")
    core = group.restart("a")
    assert core.membership.voters == ("b",)
    group.cut()
    group.tick("b", 3 * group.settings.election_ticks)
    assert not group.leads("b")
    group.cores["b"].follow(group.cores["b"].term, "")
    group.tick("a", 2 * group.settings.election_ticks)
    assert group.leads("b"), "a led, committed its removal with b, and handed over"
    assert group.cores["b"].membership.voters == ("b",)


def test_a_removed_follower_is_not_counted_and_hears_nothing_more() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.change("a", ChangeKind.REMOVE, "c")
    assert leader.membership.voters == ("a", "b")
    group.sent.clear()
    group.cut("b")
    group.propose("a", b"x")
    group.tick("a", group.settings.heartbeat_ticks)
    assert {message.recipient for message in group.sent} == {"b"}
    assert group.applied["a"] == []
    group.cut()
    group.tick_all(group.settings.heartbeat_ticks)
    assert group.applied["a"] == group.applied["b"] == [b"x"]


def test_a_removed_member_that_comes_back_does_not_disrupt() -> None:
    group = Group("a", "b", "c", "d")
    group.elect("a")
    group.cut("d")
    group.change("a", ChangeKind.REMOVE, "d")
    group.cut()
    term = group.cores["a"].term
    for _ in range(5):
        group.tick("d", 2 * group.settings.election_ticks)
        group.tick("a", group.settings.heartbeat_ticks)
    assert group.leads("a")
    assert {group.cores[name].term for name in "abc"} == {term}


def test_entries_that_wait_are_committed_by_a_removal() -> None:
    group = Group("a", "b", "c", "d")
    leader = group.elect("a")
    group.cut("c", "d")
    leader.propose(b"x")
    leader.propose_membership(MembershipChange(ChangeKind.REMOVE, "d"))
    group.run()
    assert group.applied["a"] == [b"x"]
    assert leader.log.membership_index == leader.log.committed


def test_an_address_changes_and_nothing_else() -> None:
    group = Group("a", "b")
    leader = group.elect("a")
    leader.propose_membership(MembershipChange(ChangeKind.MOVE, "b", "10.0.0.2:2377"))
    group.run()
    assert group.cores["b"].membership == Membership(("a", "b"), (), {"b": "10.0.0.2:2377"})


@pytest.mark.parametrize(
    ("kind", "member", "reason"),
    [
        (ChangeKind.ADD_LEARNER, "a", "a is a member already"),
        (ChangeKind.ADD_LEARNER, "l", "l is a member already"),
        (ChangeKind.ADD_LEARNER, "", "needs an id"),
        (ChangeKind.PROMOTE, "a", "a is a voter already"),
        (ChangeKind.PROMOTE, "z", "z is not a learner"),
        (ChangeKind.REMOVE, "z", "z is not a member"),
        (ChangeKind.REMOVE, "a", "a is the last voter"),
        (ChangeKind.MOVE, "z", "z is not a member"),
    ],
)
def test_changes_that_do_not_apply_are_refused_in_words(kind: ChangeKind, member: str, reason: str) -> None:
    with pytest.raises(ChangeRefused, match=reason):
        changed(Membership(("a",), ("l",)), MembershipChange(kind, member))


def test_a_membership_on_disk_is_the_same_afterwards() -> None:
    membership = Membership(("a", "b"), ("l",), {"a": "10.0.0.1:2377"})
    assert decode_membership(encode_membership(membership)) == membership


def test_two_changes_in_one_message_are_undone_together() -> None:
    group = Group("a", "b", "c")
    core = group.cores["b"]
    first, second = Membership(("a", "b", "c"), ("l",)), Membership(("a", "b", "c", "l"))
    entries = [
        Entry(1, index, EntryKind.MEMBERSHIP, encode_membership(membership))
        for index, membership in enumerate((first, second), 1)
    ]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, entries))
    assert core.membership == second
    core.step(AppendRequest("c", "b", 2, 0, 0, 0, [Entry(2, 1, EntryKind.COMMAND, b"")]))
    assert core.membership == Membership(("a", "b", "c"))


def test_the_last_one_left_begins_a_new_group_and_keeps_all_it_has() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.propose("a", b"committed")
    group.lose = lambda m: m.sender == "c"
    group.propose("a", b"acknowledged, and c does not know it")
    recovered = alone(group.recovered("c"), "c", "host:1")
    group.lose = lambda m: False
    group.cut("a", "b")
    core = group.start("c", recovered)
    group.tick("c", 2 * group.settings.election_ticks)
    assert group.leads("c")
    assert core.membership == Membership(("c",), (), {"c": "host:1"})
    assert group.applied["c"] == [b"committed", b"acknowledged, and c does not know it"]
    group.propose("c", b"goes on")
    assert group.applied["c"][-1] == b"goes on"


def test_two_leaders_in_a_term_are_named() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    with pytest.raises(BrokenInvariant, match="b leads in term 1 too"):
        leader.step(Heartbeat("b", "a", 1, 0))
