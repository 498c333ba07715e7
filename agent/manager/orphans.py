"""Tasks that nobody will ever hear of again: their node was removed, or has been down for a day."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from agent.api_types.node import Node, NodeState
from agent.api_types.swarm import DAY
from agent.api_types.task import Task, TaskState
from agent.api_types.times import Clock, format_time, parse_time
from agent.manager.control_loop import BATCH, ControlLoop, earliest
from agent.manager.slots import ended
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, EventKind

ORPHANED = "orphaned"
REMOVED = "the node of the task was removed from the cluster"
DOWN_FOR_A_DAY = "the node of the task has been down for 24 hours"


class Orphans(ControlLoop):
    """Ends tasks that no node answers for. A node's `updated_at` is the latest time at which it can have gone down."""

    kinds: ClassVar[tuple[type, ...]] = (Node,)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._removed: set[str] = set()
        self._down: dict[str, int] = {}
        """Down nodes and when their day is over."""

    async def load(self) -> None:
        nodes, tasks = self.store.view(lambda tx: (tx.all(Node), tx.all(Task)))
        known = {node.id for node in nodes}
        self._removed = {task.node_id for task in tasks if task.node_id and task.node_id not in known}
        self._down = {}
        for node in nodes:
            self._note(node)

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            if not isinstance(event.object, Node):
                continue
            if event.kind is EventKind.REMOVE:
                self._down.pop(event.object.id, None)
                self._removed.add(event.object.id)
            else:
                self._note(event.object)

    def _note(self, node: Node) -> None:
        if node.status.state is NodeState.DOWN:
            self._down[node.id] = parse_time(node.updated_at) + DAY
        else:
            self._down.pop(node.id, None)

    async def act(self) -> int | None:
        removed, self._removed = self._removed, set()
        for node_id in removed:
            await self._orphan(node_id, REMOVED)
        now = self.clock()
        for node_id in [node_id for node_id, when in self._down.items() if when <= now]:
            del self._down[node_id]
            await self._orphan(node_id, DOWN_FOR_A_DAY)
        return earliest(*self._down.values())

    async def _orphan(self, node_id: str, reason: str) -> None:
        orphaning = _Orphaning(node_id, reason)
        while orphaning.more:
            await self.store.update(orphaning)


class _Orphaning:
    """Transactions that end the tasks of a node; `more` until all have ended."""

    def __init__(self, node_id: str, reason: str) -> None:
        self._node_id = node_id
        self._reason = reason
        self.more = True

    def __call__(self, tx: WriteTx) -> None:
        self.more = False
        if not _is_lost(tx, self._node_id):
            return
        tasks = [task for task in tx.find(Task, "node", self._node_id) if not ended(task)]
        now = format_time(tx.clock())
        for task in tasks[:BATCH]:
            status = msgspec.structs.replace(
                task.status, timestamp=now, state=TaskState.ORPHANED, message=ORPHANED, err=self._reason
            )
            tx.update(msgspec.structs.replace(task, status=status))
        self.more = len(tasks) > BATCH


def _is_lost(tx: ReadTx, node_id: str) -> bool:
    node = tx.get(Node, node_id)
    return node is None or node.status.state is NodeState.DOWN
