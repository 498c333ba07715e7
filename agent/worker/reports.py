"""Statuses on their way to a manager: the newest of each task, in the order in which they changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from agent.api_types.task import TaskStatus
from agent.rpc.messages import TaskReport

LARGEST_BATCH = 200
"""Reports in one message: what one transaction of the store takes."""


class Outbox:
    """Coalesces: however slow the manager is, only the newest status of a task waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, TaskStatus] = {}
        self._filled = asyncio.Event()

    def put(self, task_id: str, status: TaskStatus) -> None:
        """A newer status of a task."""
        self._waiting[task_id] = status
        self._filled.set()

    def resend(self, statuses: Mapping[str, TaskStatus]) -> None:
        """A new session knows nothing: every task's newest status goes out again."""
        self._waiting.update(statuses)
        if self._waiting:
            self._filled.set()

    def drop(self, task_id: str) -> None:
        """The task is forgotten; nobody waits for its status."""
        self._waiting.pop(task_id, None)
        if not self._waiting:
            self._filled.clear()

    async def take(self) -> list[TaskReport]:
        """Wait until there are reports, and take them out."""
        await self._filled.wait()
        batch = [TaskReport(task_id, status) for task_id, status in list(self._waiting.items())[:LARGEST_BATCH]]
        for report in batch:
            del self._waiting[report.task_id]
        if not self._waiting:
            self._filled.clear()
        return batch

    def give_back(self, batch: Iterable[TaskReport]) -> None:
        """They could not be sent; those of which there is no newer one wait again."""
        for report in batch:
            self._waiting.setdefault(report.task_id, report.status)
        if self._waiting:
            self._filled.set()
