"""The session's clock: how long it lasts, when it warns, when it is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

DEFAULT_LENGTH = timedelta(hours=4)
WARNINGS = (timedelta(minutes=15), timedelta(minutes=5), timedelta(minutes=1))
"""How long before the end a person is told, longest first."""

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """Wall-clock time: a session that slept in a closed laptop is as old as the wall says."""
    return datetime.now(UTC)


@dataclass(slots=True)
class SessionClock:
    """Counts down to `expires_at`; `now` is injected."""

    expires_at: datetime
    now: Now = utc_now
    _told: set[timedelta] = field(default_factory=set)

    @classmethod
    def starting(cls, length: timedelta = DEFAULT_LENGTH, now: Now = utc_now) -> SessionClock:
        """A clock that starts now. Warnings that would come at once, in a short session, are left out."""
        clock = cls(now() + length, now)
        clock._told = {warning for warning in WARNINGS if warning >= length}
        return clock

    @property
    def remaining(self) -> timedelta:
        """Time left, never below zero."""
        return max(self.expires_at - self.now(), timedelta(0))

    @property
    def over(self) -> bool:
        """Whether the end has come."""
        return self.now() >= self.expires_at

    def extend(self, by: timedelta) -> None:
        """Move the end; warnings that lie ahead again will be given again."""
        self.expires_at += by
        self._told = {warning for warning in self._told if warning >= self.remaining}

    def until_next(self) -> timedelta:
        """How long nothing happens: time to the next warning or to the end."""
        left = self.remaining
        ahead = [left - warning for warning in WARNINGS if warning not in self._told and warning < left]
        return min([left, *ahead])

    def due(self) -> timedelta | None:
        """The warning to give now, once each; the nearest one when several were slept through."""
        left = self.remaining
        late = [warning for warning in WARNINGS if warning >= left and warning not in self._told]
        self._told.update(late)
        return min(late) if late and left > timedelta(0) else None


def countdown(left: timedelta) -> str:
    """`03:59:59`, rounded up, so that 00:00:00 means over."""
    seconds = -int(-left.total_seconds() // 1)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
