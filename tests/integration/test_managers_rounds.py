"""The short form of the soak: a few rounds of faults among three managers, with writers at all of them."""

from __future__ import annotations

import os
import random

import pytest
from cluster import running_cluster
from manager_rounds import Rounds

ROUNDS = 6
SEED = int(os.environ.get("SEED", "1"))


@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost_and_no_slot_is_wanted_twice() -> None:
    async with running_cluster(5, managers=3) as cluster:
        rounds = Rounds(cluster, cluster.nodes[:3], random.Random(SEED))
        writer = await rounds.run(ROUNDS, print)
        counts = f"{len(writer.refused)} refused, {len(writer.unknown)} unknown"
        print(f"{len(writer.acknowledged)} acknowledged, {counts}, longest {writer.longest:.2f} s")
        assert len(writer.acknowledged) > 5 * ROUNDS
