"""The contract between core and driver: what waits for the disk, and what does not."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft_core_group import Group

import agent.raft.core
from agent.raft.core.membership import Membership
from agent.raft.core.messages import (
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    SnapshotMeta,
    VoteRequest,
    VoteResponse,
    decode_message,
    encode_message,
)
from agent.raft.core.node import RaftCore
from agent.raft.core.quorum import agreed, has_majority, majority
from agent.raft.core.ready import Ready
from agent.raft.core.settings import Settings


def _ready(core: RaftCore) -> Ready:
    ready = core.ready()
    assert ready is not None
    return ready


def _entries(term: int, *indexes: int) -> list[Entry]:
    return [Entry(term, index, EntryKind.COMMAND, b"") for index in indexes]


def test_nothing_to_do_is_nothing() -> None:
    core = Group("a", "b").cores["a"]
    core.advance(_ready(core))
    assert core.ready() is None


def test_votes_and_acknowledgements_wait_for_the_disk() -> None:
    core = Group("a", "b").cores["b"]
    core.step(VoteRequest("a", "b", 1, 0, 0))
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1)))
    core.step(Heartbeat("a", "b", 1, 0))
    ready = _ready(core)
    assert ready.must_sync
    assert ready.messages == (), "not even a heartbeat's answer leaves before its term is durable"
    kinds = [type(message) for message in ready.messages_when_durable]
    assert kinds == [VoteResponse, AppendResponse, HeartbeatResponse]


def test_with_a_durable_term_heartbeats_are_answered_past_a_slow_disk() -> None:
    core = Group("a", "b").cores["b"]
    core.step(Heartbeat("a", "b", 1, 0))
    core.advance(_ready(core))
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1)))
    slow = _ready(core)
    core.step(Heartbeat("a", "b", 1, 0))
    assert [type(message) for message in _ready(core).messages] == [HeartbeatResponse]
    assert [type(message) for message in slow.messages_when_durable] == [AppendResponse]


def test_a_candidate_asks_for_votes_only_when_its_own_is_durable() -> None:
    core = Group("a", "b", "c").cores["a"]
    core.stand_for_election()
    ready = _ready(core)
    assert ready.hard_state == HardState(1, "a", 0)
    assert [type(message) for message in ready.messages_when_durable] == [VoteRequest, VoteRequest]
    assert ready.messages == ()


def test_only_what_is_durable_here_is_applied() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 2, _entries(1, 1, 2)))
    ready = _ready(core)
    assert core.log.committed == 2
    assert ready.committed == ()
    core.advance(ready)
    assert [entry.index for entry in _ready(core).committed] == [1, 2]


def test_rounds_end_in_the_order_in_which_they_began() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1)))
    first = _ready(core)
    core.step(AppendRequest("a", "b", 1, 1, 1, 0, _entries(1, 2)))
    second = _ready(core)
    assert [[entry.index for entry in ready.entries] for ready in (first, second)] == [[1], [2]]
    with pytest.raises(ValueError, match="before round 1"):
        core.advance(second)
    core.advance(first)
    assert core.log.stable == 1
    core.advance(second)
    assert core.log.stable == 2


def test_a_write_of_entries_that_were_removed_meanwhile_makes_nothing_durable() -> None:
    core = Group("a", "b", "c").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1, 2, 3)))
    old = _ready(core)
    core.step(AppendRequest("c", "b", 2, 1, 1, 3, _entries(2, 2, 3)))
    new = _ready(core)
    assert [(entry.term, entry.index) for entry in new.entries] == [(2, 2), (2, 3)]
    core.advance(old)
    assert core.log.stable == 1
    assert [entry.index for entry in _ready(core).committed] == [1]


def test_a_commit_index_alone_needs_no_sync() -> None:
    core = Group("a", "b").cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 0, _entries(1, 1)))
    core.advance(_ready(core))
    core.step(Heartbeat("a", "b", 1, 1))
    ready = _ready(core)
    assert ready.hard_state == HardState(1, "", 1)
    assert not ready.must_sync


def test_what_is_applied_comes_in_bounded_portions() -> None:
    group = Group("a", "b", settings=Settings(max_apply_bytes=100))
    core = group.cores["b"]
    core.step(AppendRequest("a", "b", 1, 0, 0, 6, _entries(1, *range(1, 7))))
    core.advance(_ready(core))
    portions = []
    while (ready := core.ready()) is not None:
        core.advance(ready)
        if ready.committed:
            portions.append(len(ready.committed))
    assert portions == [3, 3]


def test_heartbeats_must_come_more_often_than_elections() -> None:
    with pytest.raises(ValueError, match="more often"):
        Settings(election_ticks=2, heartbeat_ticks=2)


def test_the_core_touches_neither_clock_nor_disk_nor_network() -> None:
    allowed = {"__future__", "collections", "dataclasses", "enum", "msgspec", "random", "typing", "agent"}
    folder = Path(agent.raft.core.__file__).parent
    modules = sorted(folder.glob("*.py"))
    assert len(modules) > 10
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed, f"{module.name} imports {name}"
                assert name != "agent.raft.log"
            # The generator is given; the module's own would be another one on every run.
            if isinstance(node, ast.ImportFrom) and node.module == "random":
                assert [alias.name for alias in node.names] == ["Random"]
    assert sys.version_info >= (3, 11)


@pytest.mark.parametrize(("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(voters: int, needed: int) -> None:
    assert majority(voters) == needed


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7))
def test_what_is_agreed_has_been_reached_by_a_majority_and_nothing_higher_has(reached: list[int]) -> None:
    voters = [f"m{number}" for number in range(len(reached))]
    index = agreed(voters, dict(zip(voters, reached, strict=True)))
    assert sum(number >= index for number in reached) * 2 > len(reached)
    assert sum(number >= index + 1 for number in reached) * 2 <= len(reached)
    assert has_majority(voters, [voter for voter, number in zip(voters, reached, strict=True) if number >= index])


def test_without_voters_nothing_is_agreed() -> None:
    assert agreed([], {"a": 3}) == 0
    assert not has_majority([], ["a"])
    core = RaftCore("a", random=Random(1))
    for _ in range(100):
        core.tick()
    assert core.term == 0


@pytest.mark.parametrize(
    "message",
    [
        VoteRequest("a", "b", 1, 2, 3, True, False),
        VoteResponse("a", "b", 1, True),
        AppendRequest("a", "b", 1, 2, 3, 4, [Entry(1, 3, EntryKind.COMMAND, b"\x00x")]),
        AppendResponse("a", "b", 1, 2, True, 1, 1),
        InstallSnapshot("a", "b", 1, SnapshotMeta(3, 2, Membership(("a",), ("b",), {"a": "host:1"}))),
    ],
)
def test_a_message_on_the_wire_is_the_same_afterwards(message: AnyMessage) -> None:
    assert decode_message(encode_message(message)) == message
