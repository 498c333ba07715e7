"""Bugs that were planted, one at a time, to see whether the simulation finds them: each by several stories, not by luck.

Rarer ones have a scenario among the unit tests.
"""

from __future__ import annotations

import pytest
import raft_plants
from raft_chaos import run_chaos
from raft_invariants import Violation
from raft_plants import OLD_TERM, PLANTS, Plant
from raft_search import BOUND, LEAST, verdicts_on
from raft_story import tell_of_an_old_entry

MUST_BE_PLANTED = (
    "a majority computed without oneself",
    "a vote forgotten on restart",
    "a vote given twice in a term",
    "a duplicate vote counted twice",
    "a log truncated by an old empty append",
    "entries of an old term committed by counting",
    "one future shared by two commands",
    "a crash inside compaction",
    "two membership changes at once",
    "a message sent before the fsync",
)
"""The list of the design; none of it may go missing."""


def test_every_bug_of_the_list_is_planted() -> None:
    assert set(MUST_BE_PLANTED) <= {plant.name for plant in (*PLANTS, OLD_TERM)}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name.replace(" ", "-"))
def test_a_planted_bug_is_found(plant: Plant) -> None:
    verdicts_on(plant)


def test_an_old_entry_that_counts_as_committed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bug the entry is lost in some of the stories that are told to their end; without it in none."""
    told = sum(tell_of_an_old_entry(seed) for seed in range(BOUND))
    assert told >= BOUND // 5
    OLD_TERM.change(monkeypatch)
    lost = 0
    for seed in range(2 * BOUND):
        try:
            tell_of_an_old_entry(seed, OLD_TERM.member)
        except Violation as violation:
            lost += "leader completeness" in str(violation)
    print(f"{OLD_TERM.name}: {lost} of {2 * BOUND} stories")
    assert lost >= LEAST


def test_a_failure_says_how_to_replay_it() -> None:
    with pytest.raises(Violation, match=r"RAFT_SEED=\d+"):
        for seed in range(BOUND):
            run_chaos(seed, raft_plants.SendsBeforeSync)
