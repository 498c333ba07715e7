"""From one thread to another one's loop, with one wake-up for all that comes before it is answered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Crossing(Generic[T]):
    """Things that one thread puts in and a loop of another thread takes, in order."""

    def __init__(self, take: Callable[[list[T]], None]) -> None:
        self._take = take
        self._items: deque[T] = deque()
        self._signalled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on this loop from now on."""
        self._loop = loop

    def put(self, item: T) -> None:
        """Hand over; to a loop that is closed nothing is handed any more."""
        self._items.append(item)
        # The flag is looked at after the item is in, and cleared before items are taken: none is left behind.
        if not self._signalled and self._loop is not None and not self._loop.is_closed():
            self._signalled = True
            self._loop.call_soon_threadsafe(self._arrived)

    def drain(self) -> list[T]:
        """What has come and was not taken."""
        items = []
        while self._items:
            items.append(self._items.popleft())
        return items

    def _arrived(self) -> None:
        self._signalled = False
        items = self.drain()
        if items:
            self._take(items)
