"""Lines of many replicas in the order of time: a k-way merge, without I/O.

A line goes out once every live stream has shown something as late (the watermark is the least latest timestamp of the
live streams), or once it has waited for `max_wait` seconds: a quiet replica may delay the others, not stop them. A real
Docker Swarm sends no watermarks, so there the bound is what mostly decides. Within one replica the order of arrival is
never changed, whatever its timestamps say.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Any

from swarmtui.logs.records import LogLine

MAX_WAIT = 0.2
"""Seconds; a person does not see it, and two nodes' answers are seldom further apart."""


_Held = list[Any]
"""A held line: [effective timestamp, sequence, line, released]. A list, because a heap compares often."""


@dataclass(slots=True)
class Lateness:
    """Lines of one stream that came after later lines of others were out."""

    lines: int = 0
    nanoseconds: int = 0
    """By how much the worst was late."""


class LogMerger:
    """Streams have keys (a task's id, say). Times are monotonic seconds, given by the caller."""

    def __init__(self, max_wait: float = MAX_WAIT) -> None:
        self._max_wait = max_wait
        self._latest: dict[str, int] = {}
        self._open: set[str] = set()
        self._heap: list[_Held] = []
        self._arrivals: deque[tuple[float, _Held]] = deque()
        self._sequence = 0
        self._out = 0
        self._late: dict[str, Lateness] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def open(self, key: str) -> None:
        """From now on lines wait for this stream too."""
        self._open.add(key)
        self._latest.setdefault(key, 0)

    def close(self, key: str) -> None:
        """Nothing waits for this stream any more; its lines that are held still come out."""
        self._open.discard(key)

    def push(self, key: str, line: LogLine, now: float) -> None:
        """Take a line in. A stream that was not open is opened by it."""
        latest = max(self._latest.get(key, 0), line.timestamp)
        self._latest[key] = latest
        self._open.add(key)
        self._sequence += 1
        held: _Held = [latest, self._sequence, line, False]
        heapq.heappush(self._heap, held)
        self._arrivals.append((now, held))

    def passes(self, key: str) -> bool:
        """True when this stream's lines need not be pushed at all: it is the only one, and nothing is held."""
        return not self._heap and self._open == {key}

    def heartbeat(self, key: str, timestamp: int) -> None:
        """The stream says that nothing before `timestamp` will come."""
        self._open.add(key)
        self._latest[key] = max(self._latest.get(key, 0), timestamp)

    @property
    def watermark(self) -> int:
        """Lines up to this time (nanoseconds since the epoch) need not wait."""
        return min((self._latest[key] for key in self._open), default=1 << 63)

    def due(self) -> float | None:
        """When the line that has waited longest must go out; None while nothing is held."""
        self._forget_released()
        return self._arrivals[0][0] + self._max_wait if self._arrivals else None

    def take(self, now: float) -> list[LogLine]:
        """The lines that may go out, in order."""
        out: list[LogLine] = []
        watermark = self.watermark
        while self._heap and self._heap[0][0] <= watermark:
            self._release(out)
        self._forget_released()
        while self._arrivals and self._arrivals[0][0] + self._max_wait <= now:
            overdue = self._arrivals[0][1]
            # All that sorts before the overdue line goes with it.
            while not overdue[3]:
                self._release(out)
            self._forget_released()
        return out

    def drain(self) -> list[LogLine]:
        """Everything that is held, in order: the streams have ended."""
        out: list[LogLine] = []
        while self._heap:
            self._release(out)
        self._arrivals.clear()
        return out

    def take_late(self) -> dict[str, Lateness]:
        """How late lines were since the last call, by task id."""
        late, self._late = self._late, {}
        return late

    def _release(self, out: list[LogLine]) -> None:
        held = heapq.heappop(self._heap)
        held[3] = True
        effective, _, line, _ = held
        if effective < self._out:
            lateness = self._late.setdefault(line.task_id, Lateness())
            lateness.lines += 1
            lateness.nanoseconds = max(lateness.nanoseconds, self._out - effective)
        else:
            self._out = effective
        out.append(line)

    def _forget_released(self) -> None:
        while self._arrivals and self._arrivals[0][1][3]:
            self._arrivals.popleft()
