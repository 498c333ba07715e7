"""How many stories bring a planted bug to light: one could be luck."""

from __future__ import annotations

import os
import re

import pytest
from raft_chaos import run_chaos
from raft_invariants import Violation
from raft_plants import Plant

LEAST = 3
"""Stories that must find it."""
BOUND = int(os.environ.get("SEEDS", "100"))
"""Stories that are told at most. With SEEDS set all of them are told and the count is printed."""


def verdicts_on(plant: Plant, verdict: str = "") -> dict[int, str]:
    """What was found wrong, by seed; with the same seeds and without the plant, nothing is.

    Fails when fewer than `LEAST` stories found it, or when one of them found something that is not like `verdict`.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        plant.change(monkeypatch)
        found = _tell(plant)
    if len(found) < LEAST:
        pytest.fail(f"{len(found)} of {BOUND} stories found it: {plant.name}")
    for seed, wrong in found.items():
        assert re.search(verdict, wrong), f"seed {seed} found something else: {wrong}"
    for seed in list(found)[:LEAST]:
        run_chaos(seed, focus=plant.focus)
    return found


def _tell(plant: Plant) -> dict[int, str]:
    found: dict[int, str] = {}
    for seed in range(BOUND):
        try:
            run_chaos(seed, plant.member, plant.focus)
        except Violation as violation:
            found[seed] = str(violation).splitlines()[0]
            if len(found) == LEAST and "SEEDS" not in os.environ:
                return found
    print(f"{plant.name}: {len(found)} of {BOUND} stories")
    return found
