"""The one shape of every loop of the leader: watch, take a snapshot, decide, write.

A loop never writes while it reads commits and never decides on half of one. What it knows comes from the snapshot and the
commits after it, so a reader that was cut off simply starts over.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import ClassVar, TypeVar

from agent.api_types.times import SECOND, Clock
from agent.store.store import Store
from agent.store.watching import Commit, Watch, WatchOverflow

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_SLEEP = 60.0
"""Seconds after which a deadline is looked at again, in case the wall clock was set meanwhile."""

BATCH = 100
"""Changes a control loop puts into one transaction: half of what the store takes, so that the event loop is held half as
long (measured with 10,000 new tasks: a turn of all loops together works 20 ms at p99 instead of 38 ms)."""

SLICE = 1000
"""Objects a control loop handles before it lets the event loop breathe."""


class ControlLoop(ABC):
    """Base of the control loops. Deadlines are nanoseconds of `clock`."""

    kinds: ClassVar[tuple[type, ...]]
    """The tables that it watches."""
    quiet: ClassVar[float] = 0.0
    """Seconds without a commit before it acts (debounce)."""
    longest: ClassVar[float] = 0.0
    """Seconds after which it acts although commits keep coming."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock

    async def run(self) -> None:
        """Run until cancelled. Errors of the log (leadership lost) end it."""
        while True:
            with self.store.watch(*self.kinds) as watch:
                try:
                    await self.load()
                    await self._follow(watch)
                except WatchOverflow:
                    log.warning("%s fell behind and starts over from a snapshot", type(self).__name__)

    @abstractmethod
    async def load(self) -> None:
        """Forget everything and take a snapshot. The view must be taken before the first await."""

    @abstractmethod
    def observe(self, commit: Commit) -> None:
        """Take note of a commit. Must be cheap and must not write."""

    @abstractmethod
    async def act(self) -> int | None:
        """Do what is due; the time at which something will be due without a further commit, or None."""

    async def _follow(self, watch: Watch) -> None:
        while True:
            deadline = await self.act()
            commits = watch.drain() or await self._wait(watch, deadline)
            seen = 0
            for commit in commits:
                self.observe(commit)
                seen += len(commit.events)
                if seen >= SLICE:
                    # After a crowd of changes; what is committed meanwhile waits in the watch.
                    seen = 0
                    await asyncio.sleep(0)

    async def _wait(self, watch: Watch, deadline: int | None) -> list[Commit]:
        """The next commits, after the debounce; none when the deadline came first."""
        left = LONGEST_SLEEP if deadline is None else min(LONGEST_SLEEP, self._seconds_until(deadline))
        first = await _next_commit(watch, left)
        if first is None:
            return []
        commits = [first]
        loop = asyncio.get_running_loop()
        end = loop.time() + self.longest
        while self.quiet and (left := min(self.quiet, end - loop.time())) > 0:
            following = await _next_commit(watch, left)
            if following is None:
                break
            commits.append(following)
        return commits + watch.drain()

    def _seconds_until(self, deadline: int) -> float:
        # A microsecond more, so that rounding to a float never wakes the loop just before the deadline.
        return max(0.0, (deadline - self.clock()) / SECOND + 1e-6)


async def _next_commit(watch: Watch, seconds: float) -> Commit | None:
    try:
        async with asyncio.timeout(seconds):
            return await anext(watch)
    except TimeoutError:
        return None


async def sliced(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with a breath for the event loop after every `SLICE` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % SLICE == 0:
            await asyncio.sleep(0)


def earliest(*deadlines: int | None) -> int | None:
    """The first of some deadlines; None when there is none."""
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
