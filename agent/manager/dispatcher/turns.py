"""Turns: a thousand sessions that have something to send at the same moment send it in small groups.

A new leader gets all of them within a second or two, a new table of published ports goes to everybody, and so does the end
of its leadership. Each session costs half a millisecond then; together they would hold the event loop for half a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

AT_ONCE = 20
"""Sessions that go on in one turn of the event loop."""


class Turns:
    """`await turns()` before work of which there may be much: first come, first served, a few in each turn of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_calling = False

    async def __call__(self) -> None:
        """Wait for the next turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._is_calling:
            self._is_calling = True
            loop.call_soon(self._call, loop)
        await turn

    def one_by_one(self, calls: Iterable[Callable[[], None]]) -> None:
        """Make the calls, which wake a session each, a few in each turn of the loop; the first of them now."""
        remaining = iter(calls)
        called = 0
        for call in islice(remaining, AT_ONCE):
            call()
            called += 1
        if called == AT_ONCE:
            asyncio.get_running_loop().call_soon(self.one_by_one, remaining)

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        called = 0
        while self._waiting and called < AT_ONCE:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                called += 1
        self._is_calling = bool(self._waiting)
        if self._is_calling:
            loop.call_soon(self._call, loop)
