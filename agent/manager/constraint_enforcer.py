"""The constraint enforcer: a node whose labels no longer fit loses the tasks that ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from agent.api_types.node import Node
from agent.api_types.task import Task, TaskState
from agent.api_types.times import Clock, format_time
from agent.manager.constraints import placement_fits
from agent.manager.control_loop import BATCH, ControlLoop
from agent.manager.orchestrator.global_services import placement_facts
from agent.manager.slots import CONSTRAINTS_NOT_MET, ended, unfit, wanted
from agent.store.store import Store
from agent.store.transactions import WriteTx
from agent.store.watching import Commit, EventKind

REJECTED = "task rejected by constraint enforcer"


class ConstraintEnforcer(ControlLoop):
    """Rejects tasks whose node no longer satisfies their constraints."""

    kinds: ClassVar[tuple[type, ...]] = (Node,)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._nodes: set[str] = set()

    async def load(self) -> None:
        self._nodes = {node.id for node in self.store.view(lambda tx: tx.all(Node))}

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            old, node = event.old, event.object
            if event.kind is not EventKind.UPDATE or not isinstance(old, Node) or not isinstance(node, Node):
                continue
            if placement_facts(old) != placement_facts(node):
                self._nodes.add(node.id)

    async def act(self) -> int | None:
        nodes, self._nodes = self._nodes, set()
        for node_id in nodes:
            for batch in _batches(self._misplaced(node_id)):
                await self.store.update(lambda tx, node_id=node_id, batch=batch: _reject(tx, node_id, batch))  # type: ignore[misc]
        return None

    def _misplaced(self, node_id: str) -> list[Task]:
        node, tasks = self.store.view(lambda tx: (tx.get(Node, node_id), tx.find(Task, "node", node_id)))
        return [] if node is None else [task for task in tasks if is_misplaced(task, node)]


def is_misplaced(task: Task, node: Node) -> bool:
    """Whether the task may not stay although its node lives. Tasks of down and drained nodes are the orchestrators'."""
    return (
        wanted(task)
        and not ended(task)
        and task.status.state.rank >= TaskState.ASSIGNED.rank
        and not unfit(node)
        and not placement_fits(task.spec.placement, node)
    )


def _reject(tx: WriteTx, node_id: str, tasks: Iterable[Task]) -> None:
    node = tx.get(Node, node_id)
    now = format_time(tx.clock())
    for seen in tasks:
        task = tx.get(Task, seen.id)
        if node is None or task is None or not is_misplaced(task, node):
            continue
        status = msgspec.structs.replace(
            task.status, timestamp=now, state=TaskState.REJECTED, message=REJECTED, err=CONSTRAINTS_NOT_MET
        )
        tx.update(msgspec.structs.replace(task, status=status))


def _batches(tasks: list[Task]) -> Iterable[list[Task]]:
    return (tasks[begin : begin + BATCH] for begin in range(0, len(tasks), BATCH))
