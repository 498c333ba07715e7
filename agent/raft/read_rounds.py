"""Reads that must see all that was acknowledged before: any number of them costs one round, one round at a time.

`ReadRounds` is the main loop's end: whoever asks while a round is under way belongs to the next one. `ReadRound` is the
driver's: it asks the core, and asks again when the question or the answer may be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.raft.core.node import RaftCore
from agent.raft.core.ready import ReadState
from agent.raft.interface import NotLeader

NO_ANSWER = -1
"""The index of a round that no leader answered in time."""

GIVE_UP_ELECTIONS = 4
"""Elections' times after which a round has no answer."""


class ReadRound:
    """The round under way, if there is one. `election` in seconds."""

    def __init__(self, core: RaftCore, election: float) -> None:
        self._core = core
        self._election = election
        self._number: int | None = None
        self._begun = self._asked = 0.0

    def ask(self, number: int, now: float) -> None:
        """Begin a round."""
        self._number, self._begun = number, now
        self._try(now)

    def answered(self, read: ReadState) -> tuple[int, int] | None:
        """The round's number and index, when that is what was asked for."""
        if read.context != self._number:
            return None
        self._number = None
        return read.context, read.index

    def lost(self) -> None:
        """The leader is another one: the question is gone with the last."""
        self._asked = 0.0

    def on_tick(self, now: float) -> tuple[int, int] | None:
        """Ask again where it is time to; the round's end when no leader answered for too long."""
        if self._number is None:
            return None
        if now - self._begun > self._election * GIVE_UP_ELECTIONS:
            return self.give_up()
        if now - self._asked > self._election / 2:
            self._try(now)
        return None

    def give_up(self) -> tuple[int, int] | None:
        """There will be no answer."""
        number, self._number = self._number, None
        return None if number is None else (number, NO_ANSWER)

    def _try(self, now: float) -> None:
        assert self._number is not None
        try:
            self._core.read_index(self._number)
        except NotLeader:
            return
        self._asked = now


class ReadRounds:
    """`begin` starts a round with this number in the driver."""

    def __init__(self, begin: Callable[[int], None]) -> None:
        self._begin = begin
        self._number = 0
        self._waiting: list[asyncio.Future[int]] = []
        self._under_way: list[asyncio.Future[int]] = []

    async def index(self) -> int:
        """An index that covers all that was acknowledged before the call. `NotLeader` when no leader answered."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if not self._under_way:
            self._next()
        return await future

    def answered(self, number: int, index: int, why_not: Callable[[], str]) -> None:
        """A round is over."""
        if number != self._number:
            return
        for future in self._under_way:
            if future.done():
                continue
            if index == NO_ANSWER:
                future.set_exception(NotLeader(why_not()))
            else:
                future.set_result(index)
        self._under_way = []
        if self._waiting:
            self._next()

    def fail(self, reason: str) -> None:
        """Nobody will answer any more."""
        for future in self._under_way + self._waiting:
            if not future.done():
                future.set_exception(NotLeader(reason))
        self._under_way, self._waiting = [], []

    def _next(self) -> None:
        self._under_way, self._waiting = self._waiting, []
        self._number += 1
        self._begin(self._number)
