"""An event loop whose clock jumps: when nothing is ready it is at once the time of the next timer.

A day of a cluster passes in the time that its events take. Only for code without sockets, threads and processes.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")

EPOCH = 1_800_000_000 * 1_000_000_000
"""The wall clock at the start of a run, nanoseconds."""


class NothingWillHappen(AssertionError):
    """Everything waits and no timer is set: a real program would hang here for ever."""


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingWillHappen("everything waits and no timer is set")
        if timeout > 0:
            self._loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now

    def clock(self) -> int:
        """The wall clock, nanoseconds since the epoch."""
        return EPOCH + round(self.now * 1e9)

    def monotonic(self) -> int:
        """Nanoseconds since the start of the run."""
        return round(self.now * 1e9)


def run_virtual(main: Coroutine[Any, Any, R], loop: VirtualLoop) -> R:
    """Run `main` to its end on the loop and close the loop."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
