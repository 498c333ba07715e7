"""Where a log goes on after a reconnect, so that no line is missing and none comes twice: pure state, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from swarmtui.docker_api.times import SECOND
from swarmtui.logs.records import LogEvent, LogLine, LogOptions, LogStream

ACTIVE_SECONDS = 30.0
"""A replica that was silent for longer does not hold the resume point back: that would read hours again for one line."""
SKEW = 2 * SECOND
"""Clocks of nodes differ; what is read twice is recognised and left out, what is not read is lost."""

_Key = tuple[str, LogStream]


@dataclass(slots=True)
class _Seen:
    timestamp: int
    count: int
    """Lines that had exactly this timestamp."""
    arrived: float


class ResumePoint:
    """Remembers, for each replica and stream, the last line that was shown."""

    def __init__(self, options: LogOptions, started: int) -> None:
        """`started`: wall clock at the first connection, for a log that begins with nothing."""
        self._options = options
        self._started = started
        self._seen: dict[_Key, _Seen] = {}
        self._skip: dict[_Key, tuple[int, int]] = {}

    def note(self, events: list[LogEvent], now: float) -> list[LogEvent]:
        """The events without those lines that were shown before the reconnect; remembers the rest."""
        if self._skip:
            events = [event for event in events if not self._again(event)]
        for event in events:
            if isinstance(event, LogLine) and event.timestamp:
                key = (event.task_id, event.stream)
                seen = self._seen.get(key)
                if seen is None:
                    self._seen[key] = _Seen(event.timestamp, 1, now)
                elif event.timestamp > seen.timestamp:
                    seen.timestamp, seen.count, seen.arrived = event.timestamp, 1, now
                else:
                    seen.count += event.timestamp == seen.timestamp
                    seen.arrived = now
        return events

    def reconnect(self, now: float) -> LogOptions:
        """What to ask for after the connection was lost; from here on known lines are left out."""
        options = self._options
        self._skip = {key: (seen.timestamp, seen.count) for key, seen in self._seen.items()}
        if not self._seen:
            # Nothing was there when it began. `tail=0` would leave out what came while the connection was lost.
            since = options.since or (self._started - SKEW if options.tail == 0 else 0)
            return _replace(options, since, options.tail or None)
        active = [seen.timestamp for seen in self._seen.values() if now - seen.arrived <= ACTIVE_SECONDS]
        since = min(active) if active else max(seen.timestamp for seen in self._seen.values())
        return _replace(options, max(options.since, since - SKEW), None)

    def _again(self, event: LogEvent) -> bool:
        if not isinstance(event, LogLine):
            return False
        key = (event.task_id, event.stream)
        known = self._skip.get(key)
        if known is None:
            return False
        timestamp, count = known
        if event.timestamp < timestamp:
            return True
        if event.timestamp == timestamp and count > 0:
            self._skip[key] = (timestamp, count - 1)
            return True
        del self._skip[key]
        return False


def _replace(options: LogOptions, since: int, tail: int | None) -> LogOptions:
    return LogOptions(
        follow=options.follow,
        since=since,
        until=options.until,
        tail=tail,
        stdout=options.stdout,
        stderr=options.stderr,
    )
