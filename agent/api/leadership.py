"""Who leads, as the routes need to know it: where a request can be answered, and when that changes.

The status of the group changes with every entry; here only what decides where a request goes wakes those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.api.backend import Backend
from agent.api_types.times import SECOND
from agent.manager.group import LEADERLESS_AFTER, is_leaderless
from agent.raft.interface import GroupStatus

Monotonic = Callable[[], int]
"""The driver's own clock, nanoseconds."""


class LeaderGone(Exception):
    """The leader that was to answer does not lead any more."""


@dataclass(frozen=True, slots=True)
class Footing:
    """What decides where a request is answered. `member` is empty on a node that is no manager."""

    member: str = ""
    term: int = 0
    leader: str = ""
    leading: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether another manager is known to lead."""
        return bool(self.leader) and self.leader != self.member


def footing_of(group: GroupStatus | None) -> Footing:
    """The part of a status that matters here."""
    if group is None:
        return Footing()
    return Footing(group.member_id, group.term, group.leader, group.leading)


class Leadership:
    """Follows the group of one node; `run` is its task."""

    def __init__(self, backend: Backend, monotonic: Monotonic = time.monotonic_ns) -> None:
        self._backend = backend
        self._monotonic = monotonic
        self._news: asyncio.Future[None] | None = None
        self.changes = 0
        """How often another leader than the last one was seen."""

    @property
    def footing(self) -> Footing:
        """As of now."""
        return footing_of(self._backend.group)

    @property
    def leaderless(self) -> bool:
        """Whether there has been no leader for longer than an election takes: a quorum is missing."""
        group = self._backend.group
        return group is not None and is_leaderless(group, self._monotonic())

    async def run(self) -> None:
        """Follow the group until cancelled."""
        seen = self._backend.group
        footing, leader = footing_of(seen), footing_of(seen).leader
        while True:
            seen = await self._backend.group_changed(seen)
            if footing_of(seen) == footing:
                continue
            footing = footing_of(seen)
            if footing.leader and footing.leader != leader:
                self.changes += bool(leader)
                leader = footing.leader
            news, self._news = self._news, None
            if news is not None:
                news.set_result(None)

    async def changed(self, seen: Footing) -> Footing:
        """Wait for another footing; at once when it is another one already."""
        while self.footing == seen:
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)
        return self.footing

    async def wait(self, seen: Footing, patience: float) -> None:
        """Wait for another footing, until a quorum is known to be missing, or for `patience` seconds."""
        group = self._backend.group
        if group is not None and not group.leader and group.leaderless_since:
            until_lost = (group.leaderless_since + LEADERLESS_AFTER - self._monotonic()) / SECOND
            patience = min(patience, max(until_lost, 0.0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.changed(seen)

    @asynccontextmanager
    async def as_long_as(self, footing: Footing) -> AsyncIterator[None]:
        """A block that ends with `LeaderGone` as soon as another leader or term than that of `footing` is known.

        A leader that is not heard of any more is given the time of an election: it may come back.
        """
        try:
            async with asyncio.timeout(None) as bound:
                watch = asyncio.create_task(self._end_with(footing, bound))
                try:
                    yield
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
        except TimeoutError:
            if bound.expired():
                raise LeaderGone from None
            raise

    async def _end_with(self, footing: Footing, bound: asyncio.Timeout) -> None:
        seen = self.footing
        while not self._is_over(footing, seen):
            if seen.leader:
                seen = await self.changed(seen)
            else:
                await self.wait(seen, LEADERLESS_AFTER / SECOND)
                seen = self.footing
        bound.reschedule(asyncio.get_running_loop().time())

    def _is_over(self, before: Footing, now: Footing) -> bool:
        if now.term != before.term or now.member != before.member or (before.leading and not now.leading):
            return True
        return now.leader != before.leader if now.leader else self.leaderless
