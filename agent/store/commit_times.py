"""How long this manager's own transactions take from the proposal to the applied entry, and how many come to nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds, upper bounds."""


class CommitTimes:
    """A histogram of seconds. `monotonic` is in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.proposed = 0
        """Transactions that were proposed."""
        self.failed = 0
        """Those of them that were refused, or of which nobody knows what became."""
        self.count = 0
        self.sum = 0.0
        self.up_to: Counter[float] = Counter()
        """Committed transactions by bucket, each counted in every bucket that it fits in."""

    def begin(self) -> float:
        """A transaction is proposed: what `end` wants to know of it."""
        self.proposed += 1
        return self._monotonic()

    def end(self, begun: float, *, failed: bool) -> None:
        """What became of it is known."""
        if failed:
            self.failed += 1
            return
        seconds = self._monotonic() - begun
        self.count += 1
        self.sum += seconds
        for bound in BUCKETS:
            if seconds <= bound:
                self.up_to[bound] += 1
