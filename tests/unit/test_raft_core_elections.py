"""Elections, with PreVote and CheckQuorum always on (thesis, 3.4, 4.2.3, 9.6)."""

from __future__ import annotations

import pytest
from raft_core_group import Group

from agent.raft.core.messages import (
    AppendRequest,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    VoteRequest,
    VoteResponse,
)
from agent.raft.core.ready import RoleName


def test_a_leader_is_elected_when_a_majority_votes() -> None:
    group = Group("a", "b", "c", "d")
    group.cut("c", "d")
    group.elect("a")
    assert not group.leads("a"), "2 of 4 are not a majority"
    group.cut("d")
    group.elect("a")
    assert group.leads("a")
    assert group.cores["b"].leader == "a"


def test_a_single_member_leads_itself_once_its_own_vote_is_durable() -> None:
    group = Group("a")
    core = group.cores["a"]
    core.ask_for_support()
    ready = core.ready()
    assert ready is not None
    assert core.role.name is RoleName.CANDIDATE
    core.advance(ready)
    assert core.role.name is RoleName.LEADER
    group.run()
    group.propose("a", b"x")
    assert group.applied["a"] == [b"x"]


def test_if_a_follower_hears_nothing_for_an_election_timeout_it_begins_an_election() -> None:
    group = Group("a", "b", "c")
    group.tick("b", 2 * group.settings.election_ticks)
    assert group.leads("b")


def test_election_timeouts_are_drawn_from_an_interval() -> None:
    core = Group("a").cores["a"]
    ticks = core.settings.election_ticks
    assert {core.election_patience() for _ in range(400)} == set(range(ticks, 2 * ticks))


def test_duelling_candidates_end_with_one_leader() -> None:
    group = Group("a", "b", "c")
    group.cores["a"].stand_for_election()
    group.cores["b"].stand_for_election()
    group.run()
    assert [group.leads(name) for name in "abc"].count(True) == 1


def test_a_split_vote_is_resolved_in_a_later_term() -> None:
    group = Group("a", "b")
    group.cores["a"].stand_for_election()
    group.cores["b"].stand_for_election()
    group.run()
    assert not group.leads("a")
    assert not group.leads("b")
    group.tick_all(2 * group.settings.election_ticks)
    assert [group.leads(name) for name in "ab"].count(True) == 1


def test_a_candidate_concedes_to_the_leader_of_its_term() -> None:
    group = Group("a", "b", "c")
    core = group.cores["c"]
    core.stand_for_election()
    core.step(Heartbeat("a", "c", core.term, 0))
    assert core.status == (RoleName.FOLLOWER, 1, "a")


def test_each_member_votes_for_one_candidate_a_term() -> None:
    core = Group("a", "b", "c").cores["a"]
    core.step(VoteRequest("b", "a", 1, 0, 0))
    core.step(VoteRequest("c", "a", 1, 0, 0))
    core.step(VoteRequest("b", "a", 1, 0, 0))
    ready = core.ready()
    assert ready is not None
    votes = [(m.recipient, m.granted) for m in ready.messages_when_durable if isinstance(m, VoteResponse)]
    assert votes == [("b", True), ("c", False), ("b", True)]
    assert ready.hard_state is not None
    assert ready.hard_state.vote == "b"
    assert ready.must_sync


def test_a_vote_outlives_a_restart() -> None:
    group = Group("a", "b", "c")
    group.cores["a"].step(VoteRequest("b", "a", 1, 0, 0))
    group.pump("a")
    core = group.restart("a")
    core.step(VoteRequest("c", "a", 1, 0, 0))
    group.sent.clear()
    group.pump("a")
    assert [m.granted for m in group.sent if isinstance(m, VoteResponse)] == [False]


def test_a_vote_that_comes_twice_counts_once() -> None:
    core = Group("a", "b", "c", "d", "e").cores["a"]
    core.stand_for_election()
    ready = core.ready()
    assert ready is not None
    core.advance(ready)
    for _ in range(3):
        core.step(VoteResponse("b", "a", 1, True))
    assert core.role.name is RoleName.CANDIDATE
    core.step(VoteResponse("c", "a", 1, True))
    assert core.role.name is RoleName.LEADER


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(1, 1, False), (2, 1, False), (1, 2, False), (2, 2, True), (3, 2, True), (1, 3, True)],
)
def test_a_voter_denies_its_vote_if_its_own_log_is_more_up_to_date(
    last_index: int, last_term: int, granted: bool
) -> None:
    group = Group("a", "b", "c")
    entries = [Entry(1, 1, EntryKind.COMMAND, b""), Entry(2, 2, EntryKind.COMMAND, b"")]
    core = group.cores["a"]
    core.step(AppendRequest("b", "a", 2, 0, 0, 0, entries))
    core.follow(2, "")
    core.step(VoteRequest("c", "a", 4, last_index, last_term))
    group.pump("a")
    answers = [message for message in group.sent if isinstance(message, VoteResponse)]
    assert [answer.granted for answer in answers] == [granted]


def test_a_member_that_comes_back_from_a_partition_does_not_disrupt() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.cut("c")
    group.tick("c", 10 * group.settings.election_ticks)
    assert group.cores["c"].term == 1, "it asked and was not answered: no term began"
    group.cut()
    group.tick("c", 2 * group.settings.election_ticks)
    group.tick_all(group.settings.heartbeat_ticks)
    assert group.leads("a")
    assert group.cores["a"].term == 1
    assert group.cores["c"].leader == "a"


def test_who_hears_a_leader_ignores_requests_for_votes() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    for name in "ab":
        group.cores[name].step(VoteRequest("c", name, 9, 9, 9))
    group.run()
    assert group.cores["a"].term == group.cores["b"].term == 1
    assert group.leads("a")


def test_a_candidate_stuck_in_a_later_term_is_freed() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.cut("c")
    group.cores["c"].stand_for_election()
    group.cores["c"].stand_for_election()
    group.run()
    assert group.cores["c"].term == 3
    group.cut()
    group.tick("a", group.settings.heartbeat_ticks)
    assert not group.leads("a"), "the answer to the heartbeat carried the later term"
    group.tick_all(3 * group.settings.election_ticks)
    assert {core.term for core in group.cores.values()} == {group.cores["a"].term}
    assert [group.leads(name) for name in "abc"].count(True) == 1


def test_a_leader_steps_down_without_a_quorum() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.tick_all(3 * group.settings.election_ticks)
    assert group.leads("a"), "with a quorum it stays"
    group.cut("a")
    group.tick("a", 2 * group.settings.election_ticks)
    assert not group.leads("a")
    assert group.cores["a"].term == 1


def test_a_leader_sends_heartbeats_to_keep_its_place() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.sent.clear()
    group.tick("a", group.settings.heartbeat_ticks)
    assert sorted(m.recipient for m in group.of_kind(Heartbeat)) == ["b", "c"]
    assert sorted(m.sender for m in group.of_kind(HeartbeatResponse)) == ["b", "c"]


def test_old_messages_change_nothing() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.elect("b")
    core = group.cores["c"]
    before = core.log.last_index
    core.step(AppendRequest("a", "c", 1, before, 1, 0, [Entry(1, before + 1, EntryKind.COMMAND, b"old")]))
    core.step(VoteResponse("a", "c", 1, True))
    assert (core.log.last_index, core.leader, core.term) == (before, "b", 2)


def test_a_message_for_somebody_else_is_ignored() -> None:
    core = Group("a", "b").cores["a"]
    core.step(Heartbeat("b", "z", 7, 0))
    assert core.term == 0


def test_consent_to_an_earlier_term_is_not_consent_to_this_one() -> None:
    core = Group("a", "b", "c").cores["a"]
    core.follow(3, "")
    core.ask_for_support()
    core.step(VoteResponse("b", "a", 3, True, True))
    assert core.term == 3


def test_a_vote_of_an_earlier_term_does_not_count() -> None:
    core = Group("a", "b", "c").cores["a"]
    for _ in range(2):
        core.stand_for_election()
        ready = core.ready()
        assert ready is not None
        core.advance(ready)
    core.step(VoteResponse("b", "a", 1, True))
    assert core.status == (RoleName.CANDIDATE, 2, "")
    core.step(VoteResponse("b", "a", 2, True))
    assert core.status == (RoleName.LEADER, 2, "a")


def test_a_learner_never_stands() -> None:
    group = Group("a", learners=("l",))
    group.tick("l", 10 * group.settings.election_ticks)
    assert group.cores["l"].status == (RoleName.FOLLOWER, 0, "")
