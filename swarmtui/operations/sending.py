"""Sending a change so that a cancellation in the middle still leaves a known state."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

ANSWER_SECONDS = 5.0
"""How long a cancelled operation still waits for the answer to a change that is on its way."""


async def send(change: Coroutine[Any, Any, T]) -> T:
    """The answer to a change. When the caller is cancelled meanwhile the answer is waited for all the same: whether
    the engine took the change must be known, or neither undo nor the history would tell the truth.

    The cancellation is raised after it; what `change` itself notes on success is noted by then.
    """
    task = asyncio.ensure_future(change)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        if not task.done():
            task.cancel()
        elif not task.cancelled():
            task.exception()  # Looked at, so that the loop does not report it: the cancellation is the caller's news.
        raise
