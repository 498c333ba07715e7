"""The spread: which of the nodes that can run a task should.

Nodes are ordered by how faulty they are for the service, by the service's tasks on them, by all tasks on them. With
preferences they form a tree, one level a label; each task goes down the branch that has fewest tasks of the service,
tasks from before counted, so that two zones of different size get as many tasks each.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from agent.api_types.task import Task
from agent.manager.constraints import label_of
from agent.manager.scheduler.node_info import NodeInfo, service_version

Passes = Callable[[NodeInfo], bool]
_Rank = tuple[int, int, int, str]


class Branch:
    """A part of the tree: nodes that share the labels so far. `count` is the service's tasks on all of them."""

    __slots__ = ("_children", "_heap", "count", "value")

    def __init__(self, value: str) -> None:
        self.value = value
        self.count = 0
        self._children: dict[str, Branch] = {}
        self._heap: list[tuple[_Rank, NodeInfo]] = []

    def child(self, value: str) -> Branch:
        """The branch of nodes with that value."""
        branch = self._children.get(value)
        if branch is None:
            branch = self._children[value] = Branch(value)
        return branch

    def offer(self, rank: _Rank, info: NodeInfo) -> None:
        """A node that can take a task."""
        heapq.heappush(self._heap, (rank, info))

    def pick(self) -> tuple[NodeInfo, Branch] | None:
        """The best node and the branch it sits in; it leaves the tree until it is offered again."""
        if self._heap:
            return heapq.heappop(self._heap)[1], self
        while self._children:
            best = min(self._children.values(), key=lambda branch: (branch.count, branch.value))
            picked = best.pick()
            if picked is not None:
                return picked
            del self._children[best.value]
        return None


class Spread:
    """Nodes for the tasks of one service version, one after the other."""

    def __init__(self, task: Task, infos: Iterable[NodeInfo], passes: Passes, now: int) -> None:
        self._service_id = task.service_id
        self._service = service_version(task)
        self._passes = passes
        self._now = now
        self._root = Branch("")
        keys = spread_keys(task)
        self._path_of: dict[str, list[Branch]] = {}
        for info in infos:
            path = self._path(info, keys)
            for branch in path:
                branch.count += info.by_service[self._service_id]
            if passes(info):
                self._path_of[info.node.id] = path
                path[-1].offer(self._rank(info), info)

    def next(self) -> NodeInfo | None:
        """The node for the next task, or None when no node has room left. Say `took` once it was given the task."""
        picked = self._root.pick()
        return None if picked is None else picked[0]

    def took(self, info: NodeInfo) -> None:
        """The node has one task more now."""
        path = self._path_of[info.node.id]
        for branch in path:
            branch.count += 1
        if self._passes(info):
            path[-1].offer(self._rank(info), info)

    def _path(self, info: NodeInfo, keys: Sequence[str]) -> list[Branch]:
        path = [self._root]
        for key in keys:
            path.append(path[-1].child(label_of(info.node, key) or ""))
        return path

    def _rank(self, info: NodeInfo) -> _Rank:
        faults = info.failures(self._service, self._now)
        return faults, info.by_service[self._service_id], info.active, info.node.id


def spread_keys(task: Task) -> list[str]:
    """The labels to spread over, outermost first; other preferences are ignored, as Docker does."""
    if task.spec.placement is None:
        return []
    keys = [each.spread.spread_descriptor for each in task.spec.placement.preferences if each.spread is not None]
    return [key for key in keys if key.lower().startswith(("node.labels.", "engine.labels."))]
