"""Reads that see every acknowledged write, for the price of one question to the log for all who ask at the same time.

A read that came while a question is under way waits for the next one: the answer to the first may be older than a write
that was acknowledged in between.
"""

from __future__ import annotations

import asyncio

from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.store.store import Store

PATIENCE = 0.15
"""Seconds a read waits; then it is answered from the last known state, with a warning, within 200 ms all in all."""


class ReadGate:
    """Batches the questions of one server."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._asking: asyncio.Task[bool] | None = None
        self._queued: asyncio.Task[bool] | None = None

    async def fresh(self, store: Store) -> bool:
        """Wait until the store shows every write acknowledged before this call.

        False when that took too long, or when there is no leader to say what was acknowledged.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await asyncio.shield(self._question(store))
        except TimeoutError:
            return False

    def _question(self, store: Store) -> asyncio.Task[bool]:
        """The question that this reader can share: one that is not asked yet."""
        if self._queued is not None:
            return self._queued
        task = asyncio.create_task(self._ask(store, self._asking))
        if self._asking is None:
            self._asking = task
        else:
            self._queued = task
        return task

    async def _ask(self, store: Store, before: asyncio.Task[bool] | None) -> bool:
        if before is not None:
            await asyncio.wait((before,))
            self._asking, self._queued = self._queued, None
        try:
            await store.barrier()
        except (NotLeader, OutcomeUnknown):
            return False
        finally:
            if self._asking is asyncio.current_task():
                self._asking = None
        return True

    async def close(self) -> None:
        """Let go of questions that were never answered."""
        tasks = [task for task in (self._asking, self._queued) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
