"""The console's hold on one cluster: connection, live model, history of changes. Imported after the first paint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from swarmtui.docker_api.errors import EngineError
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.query import Table
from swarmtui.model.rows import NetworkRow, NodeRow, ServiceRow, TaskRow
from swarmtui.operations.base import Operation, OperationFailed, Progress
from swarmtui.operations.history import OperationHistory
from swarmtui.ui.ports import Connect

if TYPE_CHECKING:
    from swarmtui.docker_api.client import EngineClient


class RunningOperation:
    """A change under way, watched by a dialog or by nobody."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        """What is done."""
        self.progress: Progress | None = None
        """The last report."""
        self.error = ""
        """Why it failed, in full."""
        self.finished = False
        """Done, failed or no longer waited for."""
        self.stopped = False
        """A person stopped the waiting."""
        self.listeners: list[Callable[[RunningOperation], None]] = []
        """Called on every report and at the end."""
        self._task: asyncio.Task[None] | None = None

    def report(self, progress: Progress) -> None:
        """Takes a report of the operation."""
        self.progress = progress
        self._tell()

    def stop(self) -> None:
        """Stops waiting; a change that was sent goes on in the cluster."""
        self.stopped = True
        if self._task is not None:
            self._task.cancel()

    async def run(self, history: OperationHistory) -> None:
        """Runs it to its end; its failure is kept, not raised."""
        self._task = asyncio.current_task()
        try:
            await history.run(self.operation, self.report)
        except (OperationFailed, EngineError) as failure:
            self.error = str(failure)
        finally:
            self.finished = True
            self._tell()

    def _tell(self) -> None:
        for listener in list(self.listeners):
            listener(self)


class ClusterSession:
    """`async with ClusterSession(connect, context) as session:`; leaving it stops waiting for changes and disconnects."""

    def __init__(self, connect: Connect, context: str) -> None:
        self._connect = connect
        self._context = context
        self._stack = AsyncExitStack()
        self._changes: set[asyncio.Task[None]] = set()
        self.history = OperationHistory()
        """What was changed, and what can be undone."""
        self.running: list[RunningOperation] = []
        """Changes under way, the newest last."""
        self.client: EngineClient
        """The connection."""
        self.model: ClusterModel
        """The live picture; `run` feeds it."""

    async def __aenter__(self) -> ClusterSession:
        self.client = await self._stack.enter_async_context(self._connect())
        self.model = ClusterModel(self.client, context=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for change in self._changes:
            change.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)
        await self._stack.aclose()

    def start(self, operation: Operation, listener: Callable[[RunningOperation], None]) -> RunningOperation:
        """Begins a change; `listener` hears of it even when no dialog watches."""
        running = RunningOperation(operation)
        running.listeners.append(listener)
        self.running.append(running)
        task = asyncio.ensure_future(running.run(self.history))
        self._changes.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._changes.discard(task)
            if running in self.running:
                self.running.remove(running)
            if not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

        task.add_done_callback(ended)
        return running

    # Names

    def node(self, node_id: str) -> NodeRow | None:
        """A node's row."""
        row = self.model.row(Table.NODES, node_id)
        return row if isinstance(row, NodeRow) else None

    def service(self, service_id: str) -> ServiceRow | None:
        """A service's row."""
        row = self.model.row(Table.SERVICES, service_id)
        return row if isinstance(row, ServiceRow) else None

    def task(self, task_id: str) -> TaskRow | None:
        """A task's row."""
        row = self.model.row(Table.TASKS, task_id)
        return row if isinstance(row, TaskRow) else None

    def network(self, network_id: str) -> NetworkRow | None:
        """A network's row."""
        row = self.model.row(Table.NETWORKS, network_id)
        return row if isinstance(row, NetworkRow) else None

    def name_of(self, kind: str, object_id: str) -> str:
        """The name of a `service`, `node`, `task` or `network`; the beginning of the id when it is not known (any more)."""
        if kind == "node" and (node := self.node(object_id)) is not None:
            return node.hostname or object_id[:12]
        if kind == "service" and (service := self.service(object_id)) is not None:
            return service.name
        if kind == "task" and (task := self.task(object_id)) is not None:
            return task.name
        if kind == "network" and (network := self.network(object_id)) is not None:
            return network.name
        return object_id[:12]

    def replica_of(self, task_id: str) -> str:
        """A replica as logs call it: `web.3@node2`."""
        row = self.task(task_id)
        if row is None:
            return task_id[:12]
        name = row.name if row.slot else row.service
        return f"{name}@{row.node}" if row.node else name

    def find(self, kind: str, text: str) -> str | None:
        """The id of the one `service`, `node`, `network` or `task` of that name, id, or beginning of either; None without one."""
        if kind == "task":
            return self._find_task(text)
        if kind == "service":
            known = {key: service.spec.name for key, service in self.model.services.items()}
        elif kind == "network":
            known = {key: self.name_of("network", key) for key in self.model.networks}
        else:
            known = {key: node.description.hostname for key, node in self.model.nodes.items()}
        if text in known:
            return text
        for matches in (
            [key for key, name in known.items() if name == text],
            [key for key, name in known.items() if name.startswith(text) or key.startswith(text)],
        ):
            if len(matches) == 1:
                return matches[0]
        return None

    def _find_task(self, text: str) -> str | None:
        """By id, by name (`web.3`: the one that is wanted, else the newest of its slot), by the beginning of the id."""
        if text in self.model.tasks:
            return text
        service = self.find("service", text.rpartition(".")[0]) if "." in text else None
        if service is not None:
            rows = [row for task in self.model.tasks_of(service_id=service) if (row := self.task(task.id)) is not None]
            named = [row for row in rows if row.name == text]
            if named:
                return max(named, key=lambda row: (row.current, row.created)).id
        matches = [key for key in self.model.tasks if key.startswith(text)]
        return matches[0] if len(matches) == 1 else None

    def names(self, kind: str) -> list[str]:
        """The names of all services or nodes, for suggestions."""
        if kind == "service":
            return sorted(service.spec.name for service in self.model.services.values())
        return sorted(node.description.hostname for node in self.model.nodes.values())
