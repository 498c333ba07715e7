"""The cluster's pulse: one sample a second, kept for as long as a sparkline is wide. Pure but for its ring."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmtui.docker_api.types import Task
from swarmtui.model.row_making import counts
from swarmtui.model.summary import ClusterSummary

KEPT = 240
"""Samples: four minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One second."""

    commits: float
    """Entries that the managers agreed on in it."""
    running: int
    failures: int
    """Tasks that were found failed or rejected since the sample before."""
    latency_ms: float


class Pulse:
    """Takes samples; `take` is called about once a second."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        """The oldest first."""
        self._index = -1
        self._at = 0.0
        self._failed: set[str] | None = None

    def take(self, summary: ClusterSummary, tasks: Iterable[Task], now: float) -> Sample:
        """A sample at `now` (seconds, any clock that runs evenly)."""
        failed = {task.id for task in tasks if task.status.state in ("failed", "rejected")}
        new = len(failed - self._failed) if self._failed is not None else 0
        index = summary.group.index if summary.group is not None else -1
        passed = now - self._at
        known = self._index >= 0 and index >= self._index and passed > 0
        sample = Sample(
            commits=(index - self._index) / passed if known else 0.0,
            running=summary.tasks_running,
            failures=new,
            latency_ms=summary.connection.latency_ms or 0.0,
        )
        self._failed, self._index, self._at = failed, index, now
        self.samples.append(sample)
        return sample


def by_state(tasks: Iterable[Task]) -> Sequence[tuple[str, int]]:
    """How many tasks that are wanted are in each state, and how many ended ones are kept; the largest number first."""
    found = Counter(task.status.state for task in tasks if counts(task))
    return found.most_common()
