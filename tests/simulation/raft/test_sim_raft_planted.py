"""Bugs that were planted, to see whether the simulation finds them. Rarer ones have a scenario among the unit tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import raft_plants
from raft_chaos import run_chaos
from raft_invariants import Violation
from raft_member import SimulatedMember

BOUND = 60
"""Seeds within which a bug must be found."""


def _first_seed_that_finds(member_type: type[SimulatedMember], focus: tuple[str, ...]) -> int:
    for seed in range(BOUND):
        try:
            run_chaos(seed, member_type, focus)
        except Violation:
            return seed
    pytest.fail(f"none of {BOUND} seeds found it")


@pytest.mark.parametrize(
    ("plant", "focus"),
    [
        (raft_plants.majority_without_oneself, ()),
        (raft_plants.two_votes_in_a_term, ()),
        (raft_plants.duplicate_vote_counts_twice, ()),
        (raft_plants.old_empty_append_truncates, ()),
        (raft_plants.two_membership_changes_at_once, ("change_in_haste", "grow")),
        (raft_plants.reads_without_asking, ("transfer", "cut_one_way")),
    ],
)
def test_a_bug_of_the_core_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], focus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    seed = _first_seed_that_finds(SimulatedMember, focus)
    monkeypatch.undo()
    run_chaos(seed, focus=focus)


@pytest.mark.parametrize(
    ("member_type", "focus"),
    [
        (raft_plants.VoteForgotten, ("crash_in_election", "crash_all", "slow_disk")),
        (raft_plants.SharedFuture, ("isolate_leader", "partition")),
        (raft_plants.SendsBeforeSync, ("crash", "crash_all", "slow_disk")),
        (raft_plants.CompactsBeforeSnapshot, ("crash_while_saving",)),
    ],
)
def test_a_bug_of_the_driver_is_found(member_type: type[SimulatedMember], focus: tuple[str, ...]) -> None:
    seed = _first_seed_that_finds(member_type, focus)
    run_chaos(seed, focus=focus)


def test_a_failure_says_how_to_replay_it() -> None:
    with pytest.raises(Violation, match=r"RAFT_SEED=\d+"):
        for seed in range(BOUND):
            run_chaos(seed, raft_plants.SendsBeforeSync)
