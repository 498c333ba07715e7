"""Expensive steps in small helpings, so that a thousand nodes that come back at once do not hold up the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

HELPING = 0.005
"""Seconds of work in one turn of the loop. A TLS handshake takes one or two thousandths."""
TASKS = 16
"""Tasks that go on in one turn. Reading a hello and a certificate and answering takes a quarter of a thousandth."""


class Pace:
    """Runs steps, and lets tasks go on, in the order they came, a helping in each turn of the loop. Everything else gets
    its turn in between.
    """

    def __init__(self) -> None:
        self._steps: deque[Callable[[], None]] = deque()
        self._tasks: deque[asyncio.Future[None]] = deque()
        self._due = False

    def __call__(self, step: Callable[[], None]) -> None:
        """Run `step` soon."""
        self._steps.append(step)
        self._schedule()

    async def turn(self) -> None:
        """Wait until it is this task's turn."""
        waiting = asyncio.get_running_loop().create_future()
        self._tasks.append(waiting)
        self._schedule()
        await waiting

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._due = False
        loop = asyncio.get_running_loop()
        end = loop.time() + HELPING
        try:
            for _ in range(min(TASKS, len(self._tasks))):
                waiting = self._tasks.popleft()
                if not waiting.done():
                    waiting.set_result(None)
            while self._steps:
                self._steps.popleft()()
                if loop.time() >= end:
                    break
        finally:
            # A step that fails all the same takes no other with it.
            if self._steps or self._tasks:
                self._schedule()
