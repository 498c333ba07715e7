"""Log replication: agreement, conflicts, flow control (thesis, 3.5, 3.6, 10.2)."""

from __future__ import annotations

import pytest
from raft_core_group import Group, log_of

from agent.raft.core.errors import BrokenInvariant, ProposalRefused
from agent.raft.core.leader import Leader
from agent.raft.core.messages import AppendRequest, AppendResponse, Entry, EntryKind, Heartbeat
from agent.raft.core.progress import Progress, ProgressState
from agent.raft.core.settings import Settings
from agent.raft.interface import NotLeader


def _entries(*terms: int, first: int = 1) -> list[Entry]:
    return [Entry(term, index, EntryKind.COMMAND, b"%d" % index) for index, term in enumerate(terms, first)]


def _filled(group: Group, name: str, *terms: int) -> None:
    """A log with entries of these terms, nothing committed."""
    core = group.cores[name]
    core.step(AppendRequest("x", name, terms[-1], 0, 0, 0, _entries(*terms)))
    group.cores[name].follow(terms[-1], "")
    group.pump(name)


def _progress(group: Group, leader: str, member: str) -> Progress:
    role = group.cores[leader].role
    assert isinstance(role, Leader)
    return role.progress[member]


def test_a_committed_entry_is_applied_everywhere_in_log_order() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    for number in range(5):
        group.propose("a", b"%d" % number)
    assert group.applied == {name: [b"0", b"1", b"2", b"3", b"4"] for name in "abc"}


def test_followers_take_no_proposals() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    with pytest.raises(NotLeader, match="the leader is a"):
        group.cores["b"].propose(b"x")


def test_an_entry_is_committed_once_the_leader_has_replicated_it_on_a_majority() -> None:
    group = Group("a", "b", "c", "d")
    group.elect("a")
    group.cut("c", "d")
    group.propose("a", b"x")
    assert group.applied["a"] == []
    group.cut("d")
    group.tick("a", group.settings.heartbeat_ticks)
    assert group.applied["a"] == [b"x"]


def test_a_leader_never_counts_its_own_entries_before_they_are_durable() -> None:
    group = Group("a", "b", "c")
    leader = group.elect("a")
    group.cut("c")
    leader.propose(b"x")
    ready = leader.ready()
    assert ready is not None
    assert [m.recipient for m in ready.messages if isinstance(m, AppendRequest)] == ["b", "c"]
    leader.step(AppendResponse("b", "a", 1, leader.log.last_index))
    assert leader.log.committed < leader.log.last_index
    leader.advance(ready)
    assert leader.log.committed == leader.log.last_index


def test_a_leader_only_commits_entries_of_its_own_term_by_counting() -> None:
    """Figure 3.7: an entry on a majority can still be overwritten while it is of an old term."""
    group = Group("a", "b", "c", "d", "e")
    _filled(group, "a", 1, 2)
    _filled(group, "b", 1, 2)
    for name in "cd":
        _filled(group, name, 1)
    _filled(group, "e", 1, 3)
    # The first leader again, in term 4: the entry of term 2 reaches a third member, its own entry reaches nobody.
    group.lose = lambda m: isinstance(m, AppendRequest) and any(entry.term == 4 for entry in m.entries)
    group.cut("d", "e")
    for name in "abc":
        group.cores[name].follow(3, "")
    leader = group.elect("a")
    assert leader.term == 4
    for name in "bc":
        group.cores[name].step(AppendRequest("a", name, 4, 1, 1, 0, _entries(2, first=2)))
    group.run()
    assert _progress(group, "a", "b").match == _progress(group, "a", "c").match == 2
    assert leader.log.committed == 0
    group.lose = lambda m: False
    group.tick("a", group.settings.heartbeat_ticks)
    assert leader.log.committed == 3, "with an entry of its own term all before it is committed"


@pytest.mark.parametrize(
    "follower",
    [
        (1, 1, 1, 4, 4, 5, 5, 6, 6),
        (1, 1, 1, 4),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        (1, 1, 1, 4, 4, 4, 4),
        (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    ],
)
def test_a_leader_brings_a_followers_log_into_agreement_with_its_own(follower: tuple[int, ...]) -> None:
    """Figure 3.6: logs that lack entries, have more, or both."""
    group = Group("a", "b", "c")
    _filled(group, "a", 1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    _filled(group, "b", *follower)
    for core in group.cores.values():
        core.follow(8, "")
    group.elect("a")
    assert group.leads("a")
    assert log_of(group.cores["b"]) == log_of(group.cores["a"]) == log_of(group.cores["c"])


def test_a_conflict_is_found_one_term_at_a_time() -> None:
    group = Group("a", "b", "c")
    _filled(group, "a", *([1] * 10 + [6] * 40))
    _filled(group, "b", *([1] * 10 + [2] * 40))
    _filled(group, "c", *([1] * 10 + [6] * 40))
    for core in group.cores.values():
        core.follow(7, "")
    group.elect("a")
    rejections = [m for m in group.sent if isinstance(m, AppendResponse) and m.rejected]
    assert len(rejections) == 1
    assert log_of(group.cores["b"]) == log_of(group.cores["a"])


def test_an_old_append_does_not_truncate_the_log() -> None:
    group = Group("a", "b")
    core = group.cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1, 1)))
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, ()))
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1)))
    assert core.log.last_index == 3


def test_an_append_twice_is_answered_twice_and_taken_once() -> None:
    group = Group("a", "b")
    core = group.cores["b"]
    for _ in range(2):
        core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1)))
    group.pump("b")
    assert [m.index for m in group.sent if isinstance(m, AppendResponse)] == [2, 2]
    assert core.log.last_index == 2


def test_a_follower_commits_no_further_than_the_leader_showed_it() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1, 1)))
    core.step(AppendRequest("a", "b", 2, 0, 0, 9, _entries(1)))
    assert core.log.committed == 1


def test_a_disk_that_forgot_what_it_acknowledged_is_named() -> None:
    core = Group("a", "b").cores["b"]
    with pytest.raises(BrokenInvariant, match="join under a new identity"):
        core.step(Heartbeat("a", "b", 1, 5))


def test_a_committed_entry_is_never_removed() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 2, _entries(1, 1)))
    with pytest.raises(BrokenInvariant, match="2 is committed"):
        core.step(AppendRequest("a", "b", 2, 2, 1, 2, ()))
        core.log.accept(1, 1, _entries(2, first=2))


def test_commands_that_come_together_travel_together() -> None:
    group = Group("a", "b")
    leader = group.elect("a")
    group.sent.clear()
    for number in range(50):
        leader.propose(b"%d" % number)
    group.run()
    appends = [m for m in group.sent if isinstance(m, AppendRequest) and m.entries]
    assert [len(m.entries) for m in appends] == [50]


def test_appends_are_bounded_in_bytes() -> None:
    group = Group("a", "b", settings=Settings(max_message_bytes=1000))
    leader = group.elect("a")
    group.sent.clear()
    leader.propose(b"x" * 5000)
    for _ in range(9):
        leader.propose(b"x" * 400)
    group.run()
    appends = [m for m in group.sent if isinstance(m, AppendRequest) and m.entries]
    assert [len(m.entries) for m in appends] == [1, 2, 2, 2, 2, 1]


def test_what_is_on_the_way_is_bounded_and_acknowledgements_make_room() -> None:
    group = Group("a", "b", settings=Settings(max_message_bytes=10, max_inflight_messages=3))
    leader = group.elect("a")
    group.sent.clear()
    group.hold = lambda m: isinstance(m, AppendResponse)
    for number in range(5):
        leader.propose(b"%d" % number)
    group.run()
    assert len([m for m in group.sent if isinstance(m, AppendRequest) and m.entries]) == 3
    group.release()
    assert group.applied["b"] == [b"0", b"1", b"2", b"3", b"4"]


def test_bytes_on_the_way_are_bounded() -> None:
    group = Group("a", "b", settings=Settings(max_message_bytes=10, max_inflight_bytes=250))
    leader = group.elect("a")
    group.sent.clear()
    group.lose = lambda m: isinstance(m, AppendResponse)
    for _ in range(5):
        leader.propose(b"x" * 100)
    group.run()
    assert len([m for m in group.sent if isinstance(m, AppendRequest) and m.entries]) == 2


def test_lost_appends_are_sent_again_after_a_sign_of_life() -> None:
    group = Group("a", "b", "c", settings=Settings(max_message_bytes=10, max_inflight_messages=2))
    group.elect("a")
    group.lose = lambda m: m.recipient == "b" and isinstance(m, AppendRequest)
    for number in range(6):
        group.propose("a", b"%d" % number)
    assert group.applied["b"] == []
    group.lose = lambda m: False
    group.tick("a", 3 * group.settings.heartbeat_ticks)
    assert group.applied["b"] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_acknowledgements_may_come_in_any_order() -> None:
    group = Group("a", "b", settings=Settings(max_message_bytes=10))
    leader = group.elect("a")
    group.hold = lambda m: isinstance(m, AppendResponse)
    for number in range(4):
        leader.propose(b"%d" % number)
    group.run()
    group.held.reverse()
    group.release()
    assert len(group.applied["a"]) == 4
    assert _progress(group, "a", "b").match == leader.log.last_index


def test_an_old_rejection_does_not_set_a_follower_back() -> None:
    group = Group("a", "b")
    leader = group.elect("a")
    group.propose("a", b"x")
    leader.step(AppendResponse("b", "a", 1, 1, True, 0, 0))
    progress = _progress(group, "a", "b")
    assert progress.state is ProgressState.REPLICATE
    assert progress.match == leader.log.last_index


def test_an_unreachable_follower_is_probed_with_one_append() -> None:
    group = Group("a", "b", settings=Settings(max_message_bytes=10))
    leader = group.elect("a")
    leader.unreachable("b")
    assert _progress(group, "a", "b").state is ProgressState.PROBE
    group.sent.clear()
    group.lose = lambda m: True
    for number in range(4):
        group.propose("a", b"%d" % number)
    assert len(group.of_kind(AppendRequest)) == 1


def test_what_waits_for_a_quorum_is_bounded() -> None:
    group = Group("a", "b", "c", settings=Settings(max_uncommitted_bytes=1000))
    group.elect("a")
    group.cut("b", "c")
    group.propose("a", b"x" * 900)
    with pytest.raises(ProposalRefused, match="wait for a quorum"):
        group.propose("a", b"x" * 200)
    group.cut()
    group.tick("a", group.settings.heartbeat_ticks)
    group.propose("a", b"x" * 200)
    assert len(group.applied["c"]) == 2


def test_one_command_larger_than_the_bound_is_taken_when_nothing_waits() -> None:
    group = Group("a", "b", settings=Settings(max_uncommitted_bytes=100))
    group.elect("a")
    group.propose("a", b"x" * 5000)
    assert group.applied["b"] == [b"x" * 5000]


def test_a_new_leader_counts_what_it_inherited_as_uncommitted() -> None:
    group = Group("a", "b", "c", settings=Settings(max_uncommitted_bytes=1000))
    _filled(group, "a", *([1] * 40))
    group.cut("b", "c")
    core = group.cores["a"]
    core.follow(2, "")
    core.lead()
    with pytest.raises(ProposalRefused):
        core.propose(b"x")


def test_a_restart_keeps_the_log_and_what_is_known_to_be_committed() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.propose("a", b"x")
    core = group.restart("b")
    group.pump("b")
    assert group.applied["b"] == [b"x"]
    assert core.term == 1
