"""Why raftos itself is not used: with each of its defects planted, a group of ours loses what raftos' own would lose."""

from __future__ import annotations

import pytest
from raft_search import verdicts_on
from raftos_defects import DEFECTS, Defect


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.plant.name.replace(" ", "-"))
def test_a_group_with_this_defect_loses(defect: Defect) -> None:
    """What is lost is said beside the defect; the suite must see that, and see it more than once."""
    verdicts_on(defect.plant, defect.verdict)
