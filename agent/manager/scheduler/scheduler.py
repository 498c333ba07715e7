"""The scheduling loop: give waiting tasks a node, or say why there is none.

Debounced by 50 ms after a commit, 1 s at most, so that a thousand new tasks are placed in one pass. Tasks of one service
version are alike: the filters look at the nodes once for all of them. A pass lets the event loop breathe after every
thousand objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from agent.api_types.node import Node
from agent.api_types.task import Task, TaskState, TaskStatus
from agent.api_types.times import Clock, format_time, parse_time
from agent.manager.control_loop import BATCH, ControlLoop, sliced
from agent.manager.scheduler.filters import Pipeline, ReadyFilter
from agent.manager.scheduler.node_info import FAILURE_WINDOW, NodeInfo, service_version
from agent.manager.scheduler.spread import Spread
from agent.manager.slots import ended, wanted
from agent.store.store import Store
from agent.store.transactions import WriteTx
from agent.store.watching import Commit, Event, EventKind

ASSIGNED = "scheduler assigned task to node"
CONFIRMED = "scheduler confirmed task can run on preassigned node"

PLACED_AT_ONCE = 250
"""Tasks that are given a node before the event loop breathes; each costs some 30 microseconds."""

_FAILED = frozenset({TaskState.FAILED, TaskState.REJECTED})


@dataclass(frozen=True, slots=True)
class Placing:
    """A decision about a waiting task: its node, or (`info` None) why it has none."""

    task: Task
    info: NodeInfo | None
    reason: str = ""


class Scheduler(ControlLoop):
    """Places tasks on nodes."""

    kinds: ClassVar[tuple[type, ...]] = (Node, Task)
    quiet: ClassVar[float] = 0.05
    longest: ClassVar[float] = 1.0

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._infos: dict[str, NodeInfo] = {}
        self._waiting: dict[str, Task] = {}
        """Tasks in the state PENDING without a node."""
        self._preassigned: dict[str, Task] = {}
        """Tasks in the state PENDING that were made for a node."""
        self._retry = False
        """Something changed that may let a task be placed that could not be before."""

    async def load(self) -> None:
        self._infos, self._waiting, self._preassigned = {}, {}, {}
        nodes, tasks = self.store.view(lambda tx: (tx.all(Node), tx.all(Task)))
        for node in nodes:
            self._infos[node.id] = NodeInfo(node)
        async for task in sliced(tasks):
            self._note(task)
            self._note_past_failure(task)
        self._retry = True

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.object, Node):
                self._observe_node(event.object, event.kind)
            elif isinstance(event.object, Task):
                self._observe_task(event, event.object)

    def _observe_node(self, node: Node, kind: EventKind) -> None:
        self._retry = True
        info = self._infos.get(node.id)
        if kind is EventKind.REMOVE:
            self._infos.pop(node.id, None)
        elif info is None:
            info = self._infos[node.id] = NodeInfo(node)
            for task in self.store.view(lambda tx: tx.find(Task, "node", node.id)):
                self._note(task)
        else:
            info.set_node(node)

    def _observe_task(self, event: Event, task: Task) -> None:
        if event.kind is EventKind.REMOVE:
            self._waiting.pop(task.id, None)
            self._preassigned.pop(task.id, None)
            self._leave(task)
            return
        self._note(task)
        was = event.old.status.state if isinstance(event.old, Task) else TaskState.NEW
        if task.status.state in _FAILED and was not in _FAILED and task.node_id in self._infos:
            self._infos[task.node_id].failed(service_version(task), self.clock())

    def _note(self, task: Task) -> None:
        is_pending = task.status.state is TaskState.PENDING and wanted(task)
        known = self._waiting.pop(task.id, None) or self._preassigned.pop(task.id, None)
        if is_pending:
            (self._preassigned if task.node_id else self._waiting)[task.id] = task
            self._retry = self._retry or known is None
        elif not task.node_id or task.status.state.rank < TaskState.ASSIGNED.rank or ended(task):
            self._leave(task)
        else:
            info = self._infos.get(task.node_id)
            if info is not None:
                info.add(task)

    def _leave(self, task: Task) -> None:
        info = self._infos.get(task.node_id)
        if info is not None and info.remove(task.id):
            self._retry = True

    def _note_past_failure(self, task: Task) -> None:
        if task.status.state in _FAILED and task.status.timestamp and task.node_id in self._infos:
            when = parse_time(task.status.timestamp)
            if when >= self.clock() - FAILURE_WINDOW:
                self._infos[task.node_id].failed(service_version(task), when)

    async def act(self) -> int | None:
        if not self._retry:
            return None
        self._retry = False
        placings = self._verify_preassigned()
        for group in _groups(self._waiting.values()):
            placings += await self._place(group)
        await self._write(placings)
        return None

    def _verify_preassigned(self) -> list[Placing]:
        placings = []
        pipeline = Pipeline()
        for task in tuple(self._preassigned.values()):
            info = self._infos.get(task.node_id)
            pipeline.set_task(task)
            if info is not None and pipeline.passes(info):
                info.add(task)
                placings.append(Placing(task, info))
            else:
                placings.append(Placing(task, None, pipeline.explain()))
        return placings

    async def _place(self, group: Sequence[Task]) -> list[Placing]:
        """Nodes for tasks that are alike."""
        pipeline = Pipeline()
        pipeline.set_task(group[0])
        spread = Spread(group[0], self._infos.values(), pipeline.passes, self.clock())
        placings = []
        for number, task in enumerate(group, 1):
            info = spread.next()
            if info is None:
                reason = pipeline.explain()
                placings += [Placing(each, None, reason) for each in group[number - 1 :]]
                break
            # Counted at once, so that the next task sees it; the commit that follows only replaces the object.
            info.add(task)
            spread.took(info)
            placings.append(Placing(task, info))
            if number % PLACED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return placings

    async def _write(self, placings: Iterable[Placing]) -> None:
        changed = [each for each in placings if each.info is not None or each.task.status.err != each.reason]
        for begin in range(0, len(changed), BATCH):
            writing = _Writing(changed[begin : begin + BATCH])
            await self.store.update(writing)
            for placing in writing.overtaken:
                # Somebody else's pending change came first; its event puts the task where it belongs.
                if placing.info is not None:
                    placing.info.remove(placing.task.id)
                self._retry = True


def _groups(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks of one service version belong together; one without a service stands alone."""
    groups: dict[tuple[str, int], list[Task]] = {}
    for task in tasks:
        key = service_version(task) if task.service_id else (task.id, 0)
        groups.setdefault(key, []).append(task)
    return list(groups.values())


class _Writing:
    """One transaction of decisions; afterwards `overtaken` are those that no longer hold."""

    def __init__(self, placings: Sequence[Placing]) -> None:
        self._placings = placings
        self.overtaken: list[Placing] = []

    def __call__(self, tx: WriteTx) -> None:
        now = format_time(tx.clock())
        ready = ReadyFilter()
        usable: dict[str, bool] = {}
        for placing in self._placings:
            task = tx.get(Task, placing.task.id)
            if task is None or task.version != placing.task.version:
                self.overtaken.append(placing)
                continue
            if placing.info is None:
                status = msgspec.structs.replace(task.status, timestamp=now, err=placing.reason)
                tx.update(msgspec.structs.replace(task, status=status))
                continue
            node_id = placing.info.node.id
            if node_id not in usable:
                node = tx.get(Node, node_id)
                usable[node_id] = node is not None and ready.check(NodeInfo(node))
            if not usable[node_id]:
                self.overtaken.append(placing)
                continue
            message = CONFIRMED if task.node_id else ASSIGNED
            status = TaskStatus(timestamp=now, state=TaskState.ASSIGNED, message=message)
            tx.update(msgspec.structs.replace(task, node_id=node_id, status=status))
