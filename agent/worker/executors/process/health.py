"""Health checks: how often, and what their results mean (moby daemon/health.go). The decisions are pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from agent.api_types.container import HealthConfig
from agent.api_types.times import SECOND

DEFAULT_INTERVAL = 30 * SECOND
DEFAULT_TIMEOUT = 30 * SECOND
DEFAULT_START_INTERVAL = 5 * SECOND
DEFAULT_RETRIES = 3
KEPT_RESULTS = 5
MAX_OUTPUT = 4096
"""Bytes of a check's output that are kept."""


class Health(StrEnum):
    """What is known of a container's health."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Check:
    """A health check with all defaults filled in; times in nanoseconds."""

    argv: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int

    @classmethod
    def of(cls, config: HealthConfig | None) -> Check | None:
        """The check that a configuration asks for; None for none. ValueError for one that is wrong."""
        if config is None or not config.test or config.test[0] == "NONE":
            return None
        kind, *words = config.test
        if kind == "CMD" and words:
            argv = tuple(words)
        elif kind == "CMD-SHELL" and words:
            argv = ("/bin/sh", "-c", " ".join(words))
        else:
            raise ValueError(f"Unknown healthcheck type {kind!r}: CMD or CMD-SHELL and a command are needed")
        return cls(
            argv=argv,
            interval=config.interval or DEFAULT_INTERVAL,
            timeout=config.timeout or DEFAULT_TIMEOUT,
            start_period=config.start_period,
            start_interval=config.start_interval or DEFAULT_START_INTERVAL,
            retries=config.retries or DEFAULT_RETRIES,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a check. Times in nanoseconds since the epoch; exit code -1 when it took too long or could not run."""

    start: int
    end: int
    exit_code: int
    output: str


@dataclass(slots=True)
class HealthState:
    """Results so far, and what they come to."""

    check: Check
    started_at: int
    status: Health = Health.STARTING
    failing_streak: int = 0
    results: deque[Result] = field(default_factory=lambda: deque(maxlen=KEPT_RESULTS))

    def add(self, result: Result) -> Health:
        """Take a result into account; the status after it.

        Failures within the start period do not count until the first success ends it.
        """
        self.results.append(result)
        if result.exit_code == 0:
            self.failing_streak = 0
            self.status = Health.HEALTHY
        elif not (self.status is Health.STARTING and result.start < self.started_at + self.check.start_period):
            self.failing_streak += 1
            if self.failing_streak >= self.check.retries:
                self.status = Health.UNHEALTHY
        return self.status

    def pause(self, now: int) -> int:
        """Nanoseconds until the next run."""
        if self.status is Health.STARTING and now < self.started_at + self.check.start_period:
            return min(self.check.start_interval, self.check.interval)
        return self.check.interval
