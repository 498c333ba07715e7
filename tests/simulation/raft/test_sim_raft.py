"""The consensus core under everything that can go wrong; each seed is one story and always the same one.

`./run simulate SEEDS=n` runs n seeds; `RAFT_SEED=n` replays one.
"""

from __future__ import annotations

import os

import pytest
from raft_chaos import run_chaos

SEEDS = int(os.environ.get("SEEDS", "200"))
ONLY = os.environ.get("RAFT_SEED")
BLOCK = 20
"""Seeds in one test."""


@pytest.mark.parametrize("first", [int(ONLY)] if ONLY else range(0, SEEDS, BLOCK))
@pytest.mark.timeout(120)
def test_nothing_acknowledged_is_lost_and_everyone_agrees(first: int) -> None:
    for seed in [first] if ONLY else range(first, min(first + BLOCK, SEEDS)):
        run_chaos(seed)


def test_a_seed_is_always_the_same_story() -> None:
    one, other = run_chaos(3), run_chaos(3)
    assert one.now == other.now
    assert list(map(repr, one.trace)) == list(map(repr, other.trace))


def test_the_stories_are_worth_telling() -> None:
    """Among a few seeds there are elections, snapshots, membership changes and a good number of writes."""
    worlds = [run_chaos(seed) for seed in range(12)]
    assert sum(world.invariants.last_committed for world in worlds) > 200
    members = [member for world in worlds for member in world.members.values()]
    assert max(member.core.term for member in members) > 3
    assert any(member.disk.snapshot.index > 0 for member in members)
    assert any(member.core.log.membership_index > 0 for member in members)
