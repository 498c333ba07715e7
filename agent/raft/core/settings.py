"""The bounds and periods of a member."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Settings:
    """Periods in ticks, sizes in bytes. A tick is whatever the driver makes it, 50 ms for the defaults' sake."""

    election_ticks: int = 10
    """Without a leader's word for this long, up to twice as long at random, a member asks for votes."""
    heartbeat_ticks: int = 2
    """Between two heartbeats of a leader."""
    max_message_bytes: int = 1 * MIB
    """Entries in one append; a larger entry travels alone."""
    max_inflight_messages: int = 256
    """Appends on the way to one follower."""
    max_inflight_bytes: int = 16 * MIB
    """Bytes of entries on the way to one follower."""
    max_uncommitted_bytes: int = 64 * MIB
    """Entries that a leader takes before the first of them is committed."""
    max_apply_bytes: int = 4 * MIB
    """Committed entries in one `Ready`."""
    promotion_lag: int = 1000
    """Entries that a learner may lack when it becomes a voter."""

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError("heartbeats must come more often than elections, and at least a tick apart")
