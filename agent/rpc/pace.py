"""Expensive steps in small helpings, so that a thousand nodes that come back at once do not hold up the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

HELPING = 0.005
"""Seconds of work in one turn of the loop. A TLS handshake takes one or two thousandths."""


class Pace:
    """Runs steps in the order they came, a helping in each turn of the loop. Everything else gets its turn in between."""

    def __init__(self) -> None:
        self._steps: deque[Callable[[], None]] = deque()

    def __call__(self, step: Callable[[], None]) -> None:
        """Run `step` soon. It must not raise."""
        self._steps.append(step)
        if len(self._steps) == 1:
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + HELPING
        while self._steps:
            self._steps[0]()
            self._steps.popleft()
            if loop.time() >= end:
                break
        if self._steps:
            loop.call_soon(self._run)
