"""Rooms that run for as long as something else does: whoever owns them is told when one ends that should not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

OnEnd = Callable[[str, BaseException | None], None]
"""Told the room's name and its error, None when it ended without one."""


class Supervision:
    """`async with`: what `run` began is cancelled at the end, the newest first."""

    def __init__(self, on_end: OnEnd) -> None:
        self._on_end = on_end
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run a room in the background."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._tasks:
            task = self._tasks.pop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._on_end(task.get_name(), task.exception())


def reason_of(error: BaseException | None) -> str:
    """The innermost first error of a group, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return "nobody asked for it" if error is None else str(error) or type(error).__name__
