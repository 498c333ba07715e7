"""What the driver hands to the main loop: one `Delivery` for all that came of one turn of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.raft.core.messages import Entry
from agent.raft.interface import GroupStatus
from agent.raft.proposals import Outcome
from agent.raft.storage import SnapshotStream

Step = tuple[Entry, ...] | SnapshotStream
"""Entries to apply, or a snapshot to restore from."""


@dataclass(slots=True)
class Delivery:
    """To be taken in this order: the steps, then what they decide, then the rest."""

    steps: list[Step] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    epoch: int = 0
    """Number of the newest refusal that `outcomes` tells of; 0 for none."""
    read: tuple[int, int] | None = None
    """The round of reads that has its index, and the index (-1: no leader answered)."""
    status: GroupStatus | None = None
    """A newer one; `applied` and `leading` are the main loop's to fill in."""
    expelled: str = ""
    """Why this member is no longer part of the group."""
    broken: str = ""
    """Why this member does nothing any more."""

    @property
    def empty(self) -> bool:
        """Nothing to tell."""
        return not (
            self.steps
            or self.outcomes
            or self.epoch
            or self.read is not None
            or self.status is not None
            or self.expelled
            or self.broken
        )
