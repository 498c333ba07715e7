"""Compaction, and followers that need what was compacted (thesis, 5)."""

from __future__ import annotations

import pytest
from raft_core_group import Group

from agent.raft.core.errors import BrokenInvariant
from agent.raft.core.membership import ChangeKind, Membership
from agent.raft.core.messages import (
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    SnapshotMeta,
)
from agent.raft.core.recovery import recover
from agent.raft.core.snapshot_stream import IncomingSnapshot, SnapshotChunk, StreamBroken, chunks_of


def _behind(group: Group, *names: str) -> None:
    """Those members miss what was compacted."""
    group.elect("a")
    group.cut(*names)
    for number in range(10):
        group.propose("a", b"%d" % number)
    group.compact("a")
    group.propose("a", b"after")
    group.cut()


@pytest.mark.parametrize("learners", [(), ("c",)])
def test_a_slow_follower_gets_a_snapshot_and_then_the_log(learners: tuple[str, ...]) -> None:
    voters = tuple(name for name in "abc" if name not in learners)
    group = Group(*voters, learners=learners)
    _behind(group, "c")
    group.tick("a", 3 * group.settings.heartbeat_ticks)
    core = group.cores["c"]
    assert core.log.snapshot.index == group.cores["a"].log.snapshot.index
    assert group.applied["c"] == [b"after"], "the snapshot brought what came before"
    assert core.membership == Membership(voters, learners)
    group.propose("a", b"more")
    assert group.applied["c"] == [b"after", b"more"]


def test_entries_that_were_kept_spare_a_slow_follower_the_snapshot() -> None:
    group = Group("a", "b", "c")
    group.elect("a")
    group.propose("a", b"0")
    group.cut("c")
    group.propose("a", b"1")
    group.compact("a", keep=5)
    group.cut()
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    assert group.applied["c"] == [b"0", b"1"]
    assert group.snapshots_sent() == []


def test_while_a_snapshot_is_on_its_way_nothing_else_is_sent() -> None:
    group = Group("a", "b", "c")
    _behind(group, "c")
    group.hold = lambda m: isinstance(m, InstallSnapshot)
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    assert len(group.held) == 1
    group.sent.clear()
    for _ in range(5):
        group.propose("a", b"x")
    group.tick("a", 4 * group.settings.heartbeat_ticks)
    assert [m for m in group.sent if isinstance(m, AppendRequest | InstallSnapshot) and m.recipient == "c"] == []
    group.release()
    assert group.applied["c"] == [b"after"] + [b"x"] * 5


def test_a_snapshot_that_failed_is_tried_again() -> None:
    group = Group("a", "b", "c")
    _behind(group, "c")
    group.lose = lambda m: isinstance(m, InstallSnapshot)
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    assert len(group.snapshots_sent()) == 1
    group.cores["a"].snapshot_ended("c", arrived=False)
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    assert len(group.snapshots_sent()) == 2
    group.lose = lambda m: False
    group.cores["a"].snapshot_ended("c", arrived=False)
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    assert group.applied["c"] == [b"after"]


def test_a_snapshot_that_arrived_is_followed_by_the_log_even_if_the_answer_is_lost() -> None:
    group = Group("a", "b", "c")
    _behind(group, "c")
    group.lose = lambda m: m.sender == "c" and isinstance(m, AppendResponse) and not m.rejected
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    group.lose = lambda m: False
    group.cores["a"].snapshot_ended("c", arrived=True)
    group.tick("a", 3 * group.settings.heartbeat_ticks)
    assert group.applied["c"] == [b"after"]
    assert len(group.snapshots_sent()) == 1


def test_a_stream_is_given_up_when_the_follower_has_caught_up_otherwise() -> None:
    group = Group("a", "b", "c")
    _behind(group, "c")
    group.lose = lambda m: isinstance(m, InstallSnapshot)
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    leader = group.cores["a"]
    snapshot = leader.log.snapshot
    group.cores["c"].step(InstallSnapshot("a", "c", 1, snapshot))
    group.run()
    assert group.applied["c"] == [b"after"], "no need to hear that the stream has ended"


def test_no_snapshot_goes_to_a_member_that_was_never_heard_of() -> None:
    group = Group("a", "b", "c")
    _behind(group, "c")
    group.cut("c")
    group.elect("a")
    group.tick("a", 4 * group.settings.heartbeat_ticks)
    assert group.snapshots_sent() == []


def test_an_old_snapshot_is_answered_with_what_is_committed() -> None:
    group = Group("a", "b")
    group.elect("a")
    group.propose("a", b"x")
    core = group.cores["b"]
    group.sent.clear()
    core.step(InstallSnapshot("a", "b", 1, SnapshotMeta(1, 1, Membership(("a", "b")))))
    group.run()
    assert [m.index for m in group.sent if isinstance(m, AppendResponse)] == [core.log.committed]
    assert core.log.snapshot.index == 0


def test_a_snapshot_of_what_is_in_the_log_only_commits_it() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, [Entry(1, index, EntryKind.COMMAND, b"") for index in (1, 2, 3)]))
    core.step(InstallSnapshot("a", "b", 1, SnapshotMeta(2, 1, Membership(("a", "b")))))
    ready = core.ready()
    assert ready is not None
    assert ready.snapshot is None
    assert (core.log.committed, core.log.last_index) == (2, 3)


def test_a_snapshot_replaces_a_log_that_differs() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("x", "b", 1, 0, 0, 0, [Entry(1, index, EntryKind.COMMAND, b"") for index in (1, 2, 3)]))
    before = core.ready()
    snapshot = SnapshotMeta(2, 2, Membership(("a", "b", "c")))
    core.step(InstallSnapshot("a", "b", 2, snapshot))
    core.step(AppendRequest("a", "b", 2, 2, 2, 3, [Entry(2, 3, EntryKind.COMMAND, b"new")]))
    assert before is not None
    core.advance(before)
    ready = core.ready()
    assert ready is not None
    assert ready.snapshot == snapshot
    assert ready.must_sync
    assert [entry.data for entry in ready.entries] == [b"new"]
    assert ready.committed == (), "the write of before has not made the new entry durable"
    core.advance(ready)
    after = core.ready()
    assert after is not None
    assert [entry.data for entry in after.committed] == [b"new"]
    assert core.membership.voters == ("a", "b", "c")


def test_a_learner_that_was_added_after_the_snapshot_is_served_all_the_same() -> None:
    group = Group("a")
    group.elect("a")
    for _ in range(5):
        group.propose("a", b"x")
    group.compact("a")
    group.add("b")
    group.change("a", ChangeKind.ADD_LEARNER, "b")
    group.tick("a", 2 * group.settings.heartbeat_ticks)
    assert group.cores["b"].membership.learners == ("b",)
    assert group.cores["b"].log.last_index == group.cores["a"].log.last_index


def test_a_snapshot_carries_the_membership_of_its_index() -> None:
    group = Group("a", learners=("l",))
    leader = group.elect("a")
    before = group.propose("a", b"x").index
    group.change("a", ChangeKind.REMOVE, "l")
    assert leader.snapshot_meta(before).membership.learners == ("l",)
    assert leader.snapshot_meta(leader.log.handed).membership.learners == ()
    with pytest.raises(ValueError, match="not in the log"):
        leader.snapshot_meta(leader.log.last_index + 1)


def test_what_was_not_applied_cannot_be_compacted() -> None:
    core = Group("a", "b").cores["a"]
    with pytest.raises(BrokenInvariant):
        core.compact(SnapshotMeta(5, 1))


# -- restart


def _entry(term: int, index: int) -> Entry:
    return Entry(term, index, EntryKind.COMMAND, b"%d.%d" % (term, index))


def test_a_later_record_voids_what_follows_its_index() -> None:
    records = [_entry(1, 1), _entry(1, 2), HardState(2, "a"), _entry(1, 3), _entry(2, 2)]
    assert recover(SnapshotMeta(), records) == (HardState(2, "a"), SnapshotMeta(), [_entry(1, 1), _entry(2, 2)])


def test_a_log_from_before_the_leaders_snapshot_counts_for_nothing() -> None:
    snapshot = SnapshotMeta(2, 5)
    assert recover(snapshot, [_entry(1, 1), _entry(1, 2), _entry(1, 3)]).entries == []
    assert recover(snapshot, [_entry(1, 1), _entry(5, 2), _entry(5, 3)]).entries == [_entry(5, 3)]
    assert recover(snapshot, [_entry(1, 1), _entry(6, 3), _entry(6, 4)]).entries == [_entry(6, 3), _entry(6, 4)]


def test_entries_that_are_missing_are_named() -> None:
    with pytest.raises(BrokenInvariant, match="entries 3 to 4"):
        recover(SnapshotMeta(2, 1), [_entry(1, 5)])


# -- chunks


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"a", b"b", b"c"]])
def test_a_stream_brings_what_was_cut(pieces: list[bytes]) -> None:
    message = InstallSnapshot("a", "b", 1, SnapshotMeta(3, 1))
    chunks = list(chunks_of(message, pieces))
    incoming = IncomingSnapshot(chunks[0])
    assert b"".join(incoming.add(chunk) for chunk in chunks) == b"".join(pieces)
    assert incoming.install("b") == message


def test_a_missing_repeated_or_foreign_chunk_breaks_the_stream() -> None:
    message = InstallSnapshot("a", "b", 1, SnapshotMeta(3, 1))
    chunks = list(chunks_of(message, [b"1", b"2", b"3"]))
    foreign = SnapshotChunk("a", "b", 1, SnapshotMeta(9, 1), 1, b"2")
    for second in (chunks[0], chunks[2], foreign):
        incoming = IncomingSnapshot(chunks[0])
        incoming.add(chunks[0])
        with pytest.raises(StreamBroken):
            incoming.add(second)
        with pytest.raises(StreamBroken, match="only 1"):
            incoming.install("b")
