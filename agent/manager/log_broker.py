"""The log broker: the lines of a service's tasks wherever they run, in one order of time.

Each node is asked over the bulk connection that it holds to this manager; its answers are merged by watermarks. What could
not be had is said at the end instead of being left out in silence. A followed service's new tasks are read as they come,
and a node that returns is read on from where it was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from agent.api_types.node import Node
from agent.api_types.task import Task, TaskState
from agent.api_types.times import MILLISECOND
from agent.manager.dispatcher.connections import Connections
from agent.manager.log_merge import Merge, Source
from agent.manager.log_streams import LogOptions, LogsMissing
from agent.manager.slots import wanted
from agent.rpc.connection import Connection
from agent.rpc.errors import ConnectionLost, RpcError, StreamEnded, StreamFailed
from agent.rpc.messages import LogRecord, LogsOpen, LogWatermark
from agent.rpc.peer import Purpose
from agent.store.store import Store
from agent.store.transactions import ReadTx
from agent.store.watching import EventKind, Watch

PATIENCE = 2.0
"""Seconds that the others wait for a node that says nothing (a healthy one sends a watermark ten times a second)."""
CONNECT_PATIENCE = 2.0
"""Seconds in which a node that has no connection may come back before its lines count as missing."""
GIVE_UP = 10.0
"""Seconds of silence after which a node is given up when nobody follows."""
SKEW = 500 * MILLISECOND
"""Clock differences from here on are corrected for the order; smaller ones may be a slow greeting."""


class LogBroker:
    """Reads logs for the API; implements its `LogReader`."""

    def __init__(self, store: Store, connections: Connections) -> None:
        self._store = store
        self._connections = connections
        self._readings: set[_Reading] = set()

    def close(self, reason: str) -> None:
        """End every answer that is under way, with `reason` for what is missing: this manager leads no more."""
        for reading in self._readings:
            reading.end(reason)

    async def read(
        self, *, service_id: str = "", task_ids: Sequence[str] = (), options: LogOptions
    ) -> AsyncGenerator[LogRecord | LogsMissing, None]:
        """Lines in order of time over all nodes, then what is missing.

        Either the tasks named, or all tasks of a service, with `follow` those that are made meanwhile included. With
        `follow` it goes on until it is closed.
        """
        wanted = set(task_ids)
        reading = _Reading(self._store, self._connections, options, lambda task: _is_read(task, service_id, wanted))
        reading.begin(self._store.view(lambda tx: _tasks(tx, service_id, task_ids)))
        self._readings.add(reading)
        try:
            while (items := await reading.next()) is not None:
                for item in items:
                    yield item
            for missing in reading.missing:
                yield missing
        finally:
            self._readings.discard(reading)
            await reading.close()


def _is_read(task: Task, service_id: str, task_ids: set[str]) -> bool:
    return task.service_id == service_id if service_id else task.id in task_ids


def _tasks(tx: ReadTx, service_id: str, task_ids: Iterable[str]) -> list[Task]:
    if service_id:
        return tx.find(Task, "service", service_id)
    return [task for task_id in task_ids if (task := tx.get(Task, task_id)) is not None]


class _Reading:
    """One answer: streams to nodes, each read by a task of its own, and the merge of what they send."""

    def __init__(
        self, store: Store, connections: Connections, options: LogOptions, is_read: Callable[[Task], bool]
    ) -> None:
        self.missing: list[LogsMissing] = []
        self._store = store
        self._connections = connections
        self._options = options
        self._is_read = is_read
        self._merge = Merge()
        self._known: set[str] = set()
        """Tasks that are read, or were."""
        self._newest: dict[str, int] = {}
        """The time of the newest line of each task, to read on from after a node was lost."""
        self._work: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._ended = False
        self._watch: Watch | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()

    def begin(self, tasks: Iterable[Task]) -> None:
        """Read these tasks, and with `follow` what comes."""
        if self._options.follow:
            # The watch begins at the very state that `tasks` are of.
            self._watch = self._store.watch(Task)
            self._spawn(self._watch_tasks(self._watch))
        by_node: dict[str, list[Task]] = {}
        for task in tasks:
            if _is_known_to_its_node(task):
                by_node.setdefault(task.node_id, []).append(task)
            elif not self._options.follow and wanted(task) and not task.node_id:
                self.missing.append(LogsMissing(task.id, "", f"task {task.id} has not been scheduled"))
        for node_id, group in by_node.items():
            self._read_node(node_id, [task.id for task in group], self._options.tail)

    def end(self, reason: str) -> None:
        """Say what is missing and come to an end."""
        self.missing.append(LogsMissing("", "", reason))
        self._ended = True
        self._wake.set()

    async def close(self) -> None:
        """Let go of everything."""
        if self._watch is not None:
            self._watch.close()
        for work in self._work:
            work.cancel()
        if self._work:
            await asyncio.wait(self._work)

    async def next(self) -> list[LogRecord | LogsMissing] | None:
        """The next lines; None when there will be none."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            taken = self._merge.take(loop.time(), PATIENCE)
            self._room.set()
            lines: list[LogRecord | LogsMissing] = [record for record in taken if self._in_time(record)]
            if lines:
                return lines
            if taken:
                continue
            for work in self._work:
                if work.done() and not work.cancelled() and (error := work.exception()) is not None:
                    raise error
            if self._is_over(loop.time()):
                return None
            try:
                # A silent node is noticed by time alone.
                async with asyncio.timeout(PATIENCE / 4):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _in_time(self, record: LogRecord) -> bool:
        return not self._options.until or record.timestamp <= self._options.until

    def _is_over(self, now: float) -> bool:
        if self._ended:
            return True
        if self._merge.waiting:
            return False
        if self._options.until and self._merge.sources and self._merge.bound(now, PATIENCE) > self._options.until:
            return True
        if self._options.follow:
            return False
        return self._streams == 0

    # -- which tasks

    async def _watch_tasks(self, watch: Watch) -> None:
        async for commit in watch:
            for event in commit.events:
                task = event.object
                if event.kind is EventKind.REMOVE or not isinstance(task, Task):
                    continue
                if self._is_read(task) and _is_known_to_its_node(task) and task.id not in self._known:
                    self._read_node(task.node_id, [task.id], -1)

    def _read_node(self, node_id: str, task_ids: list[str], tail: int) -> None:
        self._known.update(task_ids)
        self._streams += 1
        self._spawn(self._follow_node(node_id, task_ids, tail))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._work.discard(task)
        self._wake.set()

    # -- one node

    async def _follow_node(self, node_id: str, task_ids: list[str], tail: int) -> None:
        """Read a node's tasks to their end; with `follow` again whenever the node returns."""
        source = self._merge.open(node_id, asyncio.get_running_loop().time())
        try:
            while True:
                connection = await self._connection(node_id, source)
                if connection is None:
                    self._miss(task_ids, node_id, f"{self._name(node_id)} is not available")
                    return
                is_lost = await self._read_stream(connection, source, task_ids, tail)
                if not is_lost:
                    return
                self._miss(task_ids, node_id, f"{self._name(node_id)} disconnected unexpectedly")
                if not self._options.follow:
                    return
                tail = -1
        finally:
            self._streams -= 1
            self._merge.close(source)
            self._wake.set()

    async def _connection(self, node_id: str, source: Source) -> Connection | None:
        """The node's bulk connection; a follower waits for it as long as it takes, without holding the others up."""
        connection = self._connections.get(node_id, Purpose.BULK)
        if connection is not None:
            return connection
        try:
            async with asyncio.timeout(None if self._options.follow else CONNECT_PATIENCE):
                return await self._connections.wait(node_id, Purpose.BULK)
        except TimeoutError:
            return None
        finally:
            source.heard = asyncio.get_running_loop().time()

    async def _read_stream(self, connection: Connection, source: Source, task_ids: list[str], tail: int) -> bool:
        """Read until the stream is over; True when the node was lost."""
        skew = connection.peer.clock_difference if abs(connection.peer.clock_difference) >= SKEW else 0
        resumed = {task_id: self._newest[task_id] for task_id in task_ids if task_id in self._newest}
        since = (
            max(self._options.since, min(resumed.values())) if len(resumed) == len(task_ids) else self._options.since
        )
        opening = LogsOpen(
            task_ids, since, tail, self._options.follow, stdout=self._options.stdout, stderr=self._options.stderr
        )
        try:
            stream = await connection.open("logs", opening)
            try:
                while True:
                    await self._await_room(source)
                    async with asyncio.timeout(None if self._options.follow else GIVE_UP):
                        message = await stream.receive()
                    self._take_in(message, source, skew, resumed)
            except TimeoutError:
                self._miss(
                    task_ids, source.node_id, f"{self._name(source.node_id)} sent nothing for {GIVE_UP:.0f} seconds"
                )
                return False
            finally:
                await stream.fail("nobody reads any more")
        except StreamEnded:
            return False
        except ConnectionLost:
            return True
        except (StreamFailed, RpcError) as error:
            self._miss(task_ids, source.node_id, f"{self._name(source.node_id)}: {error}")
            return False

    def _take_in(self, message: object, source: Source, skew: int, resumed: dict[str, int]) -> None:
        now = asyncio.get_running_loop().time()
        match message:
            case LogRecord(task_id, timestamp):
                if timestamp <= resumed.get(task_id, -1):
                    return
                self._newest[task_id] = max(timestamp, self._newest.get(task_id, 0))
                self._merge.add(source, timestamp - skew, message, now)
            case LogWatermark(timestamp):
                self._merge.advance(source, timestamp - skew, now)
        self._wake.set()

    async def _await_room(self, source: Source) -> None:
        loop = asyncio.get_running_loop()
        while not self._merge.may_read(source, loop.time(), PATIENCE):
            source.held = True
            self._room.clear()
            await self._room.wait()
        source.held = False
        source.heard = loop.time()

    def _name(self, node_id: str) -> str:
        node = self._store.view(lambda tx: tx.get(Node, node_id))
        hostname = "" if node is None else node.description.hostname
        return f"node {node_id} ({hostname})" if hostname else f"node {node_id}"

    def _miss(self, task_ids: list[str], node_id: str, reason: str) -> None:
        notice = LogsMissing(task_ids[0] if len(task_ids) == 1 else "", node_id, reason)
        if notice not in self.missing:
            self.missing.append(notice)


def _is_known_to_its_node(task: Task) -> bool:
    """Whether the node has the task: one that was only just assigned could not be asked for its lines yet."""
    return bool(task.node_id) and task.status.state.rank >= TaskState.ACCEPTED.rank
