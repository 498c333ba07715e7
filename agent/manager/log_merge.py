"""Log lines of many nodes in one order of time, without waiting for a node that does not speak.

A line is let out once no node can still send an older one: every node says from time to time (its *watermark*) that
nothing older than a moment will follow. A node that says nothing for a while is left out of that until it speaks again;
its lines then come late rather than never.
"""

from __future__ import annotations

import heapq
import itertools
import math

from agent.rpc.messages import LogRecord

ROOM = 4000
"""Records of one source that wait before it is read no further, unless it is the one that the others wait for."""


class Source:
    """One stream of one node. Times are nanoseconds of the leader's clock."""

    __slots__ = ("ended", "heard", "held", "node_id", "waiting", "watermark")

    def __init__(self, node_id: str, now: float) -> None:
        self.node_id = node_id
        self.watermark = 0
        self.waiting = 0
        """Records that were not let out yet."""
        self.ended = False
        self.held = False
        """Whether it is we who do not read."""
        self.heard = now
        """When it last spoke, in seconds of the loop's clock."""


class Merge:
    """The lines that wait, and what is known of those to come."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Source, LogRecord]] = []
        self._order = itertools.count()
        self.sources: list[Source] = []

    def open(self, node_id: str, now: float) -> Source:
        """A further stream."""
        source = Source(node_id, now)
        self.sources.append(source)
        return source

    def close(self, source: Source) -> None:
        """The stream is over; what it sent is still let out in its place."""
        source.ended = True
        self.sources.remove(source)

    def add(self, source: Source, moment: int, record: LogRecord, now: float) -> None:
        """A line of the stream that was written at `moment`."""
        source.heard = now
        source.waiting += 1
        heapq.heappush(self._heap, (moment, next(self._order), source, record))

    def advance(self, source: Source, watermark: int, now: float) -> None:
        """Nothing older than `watermark` will come from the stream."""
        source.heard = now
        source.watermark = max(source.watermark, watermark)

    def take(self, now: float, patience: float, most: int = 1000) -> list[LogRecord]:
        """Lines that can be let out, oldest first. Streams silent for `patience` seconds are not waited for."""
        bound = self.bound(now, patience)
        taken: list[LogRecord] = []
        while self._heap and self._heap[0][0] <= bound and len(taken) < most:
            _, _, source, record = heapq.heappop(self._heap)
            source.waiting -= 1
            taken.append(record)
        return taken

    def bound(self, now: float, patience: float) -> float:
        """The moment up to which all lines are here."""
        awaited = [source.watermark for source in self.sources if source.held or now - source.heard < patience]
        return min(awaited, default=math.inf)

    def may_read(self, source: Source, now: float, patience: float) -> bool:
        """Whether the stream is to be read further: it has room, or it is the one that holds the others up."""
        return source.waiting < ROOM or source.watermark <= self.bound(now, patience)

    @property
    def waiting(self) -> int:
        """Lines that were not let out yet."""
        return len(self._heap)
