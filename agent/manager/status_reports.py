"""What nodes report of their tasks: what is believed, and how it reaches the store.

Observed states only rise and an end is final. A node is believed about its own tasks alone. Reports are written many at a
time: while one transaction is on its way the next ones gather, and only the newest status of a task counts, so that a
thousand tasks that start cost a few transactions each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import islice

import msgspec

from agent.api_types.task import Task, TaskState, TaskStatus
from agent.api_types.times import Clock, format_time, parse_time
from agent.manager.control_loop import BATCH
from agent.manager.slots import ended
from agent.rpc.messages import TaskReport
from agent.store.store import Store
from agent.store.transactions import WriteTx

log = logging.getLogger(__name__)

GATHER = 0.05
"""Seconds between two transactions while fewer reports than one transaction holds are waiting."""

LONGEST_TEXT = 4096
"""Characters of a message or an error that are kept; a node's text must not fill a transaction."""

_OBSERVED = frozenset(
    state
    for state in TaskState
    if state.rank > TaskState.ASSIGNED.rank and state not in (TaskState.REMOVE, TaskState.ORPHANED)
)


def accept(task: Task, node_id: str, status: TaskStatus, now: int) -> Task | None:
    """The task with the status that its node reports; None when the report is not believed or tells nothing new."""
    if task.node_id != node_id or ended(task) or status.state not in _OBSERVED:
        return None
    if status.state.rank < task.status.state.rank:
        return None
    clean = msgspec.structs.replace(
        status,
        timestamp=_timestamp(status.timestamp, now),
        message=status.message[:LONGEST_TEXT],
        err=status.err[:LONGEST_TEXT],
    )
    if msgspec.structs.replace(clean, timestamp=task.status.timestamp) == task.status:
        return None
    return msgspec.structs.replace(task, status=clean)


def _timestamp(text: str, now: int) -> str:
    """The node's time in our form; now where it is none."""
    try:
        return format_time(parse_time(text))
    except (ValueError, OverflowError):
        return format_time(now)


class StatusWriter:
    """Gathers reports and writes them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._newest: dict[tuple[str, str], TaskStatus] = {}
        """Node and task to the newest status reported."""
        self._wake = asyncio.Event()

    def report(self, node_id: str, reports: Iterable[TaskReport]) -> None:
        """A node reports; returns at once."""
        for each in reports:
            key = node_id, each.task_id
            before = self._newest.get(key)
            if before is None or before.state.rank <= each.status.state.rank:
                self._newest[key] = each.status
        if self._newest:
            self._wake.set()

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._wake.wait()
            batch = dict(islice(self._newest.items(), BATCH))
            for key in batch:
                del self._newest[key]
            await self._store.update(lambda tx, batch=batch: self._write(tx, batch))  # type: ignore[misc]
            if not self._newest:
                self._wake.clear()
            # A batch that tells nothing new, as most do that come to a new leader, is not waited for.
            await asyncio.sleep(GATHER if len(self._newest) < BATCH else 0)

    def _write(self, tx: WriteTx, batch: dict[tuple[str, str], TaskStatus]) -> None:
        now = self._clock()
        for (node_id, task_id), status in batch.items():
            task = tx.get(Task, task_id)
            if task is None:
                continue
            if task.node_id != node_id:
                log.warning("node %s reports task %s, which is not its own; ignored", node_id, task_id)
                continue
            changed = accept(task, node_id, status, now)
            if changed is not None:
                tx.update(changed)
