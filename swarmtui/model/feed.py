"""Feeds a model from an engine: by watch where it has one, else by polling with the events as a trigger.

One state machine, shown in `summary.connection`: connecting, syncing, live or polling; when the connection is lost,
reconnecting with back-off, the picture staying as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Protocol

from swarmtui.docker_api.address import EngineAddress
from swarmtui.docker_api.engine_types import Event
from swarmtui.docker_api.errors import (
    ApiError,
    ConnectionFailed,
    EngineError,
    Gone,
    MalformedAnswer,
    NotAManager,
    NotFound,
    NotImplementedHere,
)
from swarmtui.docker_api.managers import Managers
from swarmtui.docker_api.times import Clock, Monotonic
from swarmtui.docker_api.types import Config, Info, Network, Node, Secret, Service, Task
from swarmtui.docker_api.watch import WatchLine
from swarmtui.model.connection import backoff, lost_state
from swarmtui.model.managers import NO_LEADER, GroupHistory, ManagerGroup
from swarmtui.model.query import Table
from swarmtui.model.summary import ConnectionState, ConnectionStatus
from swarmtui.model.tables import ClusterObject, Delete, TableChange, Upsert, object_id

PING_SECONDS = 5.0
"""Between two pings: the header's latency, and how a silent engine is found out."""
HASTY_PING_SECONDS = 1.0
"""The same where another manager could be asked instead of a silent one."""
MANAGERS_SECONDS = 1.0
"""Between two questions for the managers' group, whose log moves with every change."""
BUSY_SECONDS, IDLE_SECONDS = 0.5, 5.0
"""Between two polls while something changes, and at most while nothing does."""
SLOW_TABLES_SECONDS = 15.0
"""Between two polls of what seldom changes: networks, secrets, configs."""
POLL_SHARE = 4.0
"""A poll that takes long is followed by a pause of this many times as long: the console is never the cluster's load."""
SETTLE_SECONDS = 0.1
"""An event seldom comes alone."""

_FAST = (Table.NODES, Table.SERVICES, Table.TASKS)
_SLOW = (Table.NETWORKS, Table.SECRETS, Table.CONFIGS)
_SLOW_EVENTS = frozenset({"network", "secret", "config"})


class ModelSource(Protocol):
    """What the feed needs of an engine; `EngineClient` has it."""

    @property
    def address(self) -> EngineAddress: ...
    @property
    def others(self) -> int: ...
    @property
    def stale(self) -> bool: ...
    def move_on(self) -> None: ...
    def served(self) -> None: ...
    def forget(self) -> None: ...
    async def ping(self) -> float: ...
    async def info(self) -> Info: ...
    async def extended(self) -> bool: ...
    async def managers(self) -> Managers: ...
    def watch(self, since: int | None = None) -> AsyncIterator[list[WatchLine]]: ...
    def events(self) -> AsyncIterator[Event]: ...
    async def nodes(self) -> list[Node]: ...
    async def services(self) -> list[Service]: ...
    async def tasks(self) -> list[Task]: ...
    async def swarm_networks(self) -> list[Network]: ...
    async def secrets(self) -> list[Secret]: ...
    async def configs(self) -> list[Config]: ...


class Fed(Protocol):
    """What the feed needs of the model."""

    def apply(self, changes: Iterable[TableChange]) -> None: ...
    async def replace(self, table: Table, objects: Iterable[ClusterObject]) -> int: ...
    def holding(self) -> AbstractContextManager[None]: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    def set_connection(self, status: ConnectionStatus) -> None: ...
    def set_name(self, name: str) -> None: ...
    def set_group(self, group: ManagerGroup | None, *, quorum: bool = True) -> None: ...


class Feed:
    """Runs until cancelled; a lost engine is never an exception here."""

    def __init__(
        self,
        model: Fed,
        source: ModelSource,
        *,
        clock: Clock,
        monotonic: Monotonic,
        random: Callable[[], float],
    ) -> None:
        self._model = model
        self._source = source
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._status = ConnectionStatus()
        self._retry = asyncio.Event()
        self._index: int | None = None
        self._cluster = ""
        self._history = GroupHistory()
        self._moves = 0

    def retry_now(self) -> None:
        """End the wait before the next attempt."""
        self._retry.set()

    async def run(self) -> None:
        """Connect, feed, reconnect."""
        try:
            while True:
                asked = self._source.address
                error = await self._connected()
                if isinstance(error, Gone) and self._index is not None:
                    self._index = None  # Start over with the whole picture.
                elif self._moves < self._source.others:
                    # Another manager goes on at once, and nothing of it is shown but which one it is.
                    self._moves += 1
                    if self._source.address == asked:
                        self._source.move_on()
                else:
                    self._moves = 0
                    await self._lost(error)
        finally:
            self._set(state=ConnectionState.CLOSED, latency_ms=None, retry_at=None)

    async def _connected(self) -> EngineError:
        """Feed until the engine is lost; why it was."""
        errors: list[EngineError] = []
        try:
            await self._greet()
            extended = await self._source.extended()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch() if extended else self._poll_and_listen())
                group.create_task(self._ping())
                if extended:
                    group.create_task(self._ask_managers())
        except* EngineError as group_error:
            errors += _leaves(group_error)
        return errors[0]

    async def _greet(self) -> None:
        latency = await self._source.ping()
        info = await self._source.info()
        swarm = info.swarm
        if swarm is None or not swarm.control_available:
            raise NotAManager(_no_manager_text(info))
        cluster = swarm.cluster
        if cluster is not None and cluster.id != self._cluster:
            # Another cluster answers at this address: its indexes mean something else.
            self._index, self._cluster = None, cluster.id
        self._model.set_name((cluster.spec.name if cluster else "") or "default")
        # Another manager that goes on where the last one was lost is no interruption, and not shown as one.
        state = self._status.state
        live = state in (ConnectionState.WATCHING, ConnectionState.POLLING)
        self._set(
            state=state if live else ConnectionState.SYNCING, latency_ms=latency * 1000, retry_at=None, node=info.name
        )

    async def _lost(self, error: EngineError) -> None:
        self._source.forget()
        if NO_LEADER in str(error):
            self._model.set_group(None, quorum=False)
        attempt = self._status.attempt
        delay = backoff(attempt, self._random())
        self._set(
            state=lost_state(error),
            error=str(error),
            attempt=attempt + 1,
            retry_at=self._monotonic() + delay,
            latency_ms=None,
            stale_since=self._status.stale_since or self._clock(),
        )
        self._retry.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._retry.wait()

    def _live(self, state: ConnectionState) -> None:
        self._source.served()
        self._moves = 0
        if self._status.state is not state:
            self._set(state=state, error="", attempt=0, retry_at=None, stale_since=None)

    def _set(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._model.set_connection(self._status)

    async def _ping(self) -> None:
        asked = self._source.address
        while True:
            await asyncio.sleep(HASTY_PING_SECONDS if self._source.others else PING_SECONDS)
            latency = await self._source.ping()
            if self._source.address != asked:
                # The answer came from another manager: the stream of the first one may hang for ever.
                raise ConnectionFailed(f"{asked} does not answer")
            self._set(latency_ms=latency * 1000)

    # Our agents

    async def _ask_managers(self) -> None:
        """Who belongs to the group, who leads, who lags. An older agent does not tell, and is not asked again."""
        while True:
            try:
                answer = await self._source.managers()
            except NotFound:
                self._model.set_group(None)
                return
            except NotImplementedHere:
                # It has no group at the moment: it runs alone.
                self._model.set_group(None)
            except (ApiError, MalformedAnswer):
                # Not now: the manager is on its way in or out of the group.
                pass
            else:
                stale = self._source.stale
                group = self._history.take(answer, self._model.nodes, self._clock(), self._monotonic(), stale=stale)
                self._model.set_group(group)
            await asyncio.sleep(MANAGERS_SECONDS)

    async def _watch(self) -> None:
        picture: dict[Table, list[ClusterObject]] | None = None
        if self._index is None:
            picture = {table: [] for table in Table}
        async for lines in self._source.watch(self._index):
            changes: list[TableChange] = []
            for line in lines:
                if line.kind == "snapshot" and picture is not None and line.object is not None:
                    picture[Table(line.table)].append(line.object)
                elif line.kind == "synced":
                    if picture is not None:
                        with self._model.holding():
                            for table, objects in picture.items():
                                await self._model.replace(table, objects)
                        picture = None
                    self._index = max(line.index, self._index or 0)
                    self._live(ConnectionState.WATCHING)
                elif line.object is not None and line.kind in ("create", "update", "remove"):
                    table = Table(line.table)
                    gone = line.kind == "remove"
                    changes.append(Delete(table, object_id(line.object)) if gone else Upsert(table, line.object))
                    self._index = max(line.index, self._index or 0)
            if changes:
                self._model.apply(changes)

    # A real Docker Swarm

    async def _poll_and_listen(self) -> None:
        heard = asyncio.Event()
        slow_due = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(heard, slow_due))
            group.create_task(self._poll(heard, slow_due))

    async def _listen(self, heard: asyncio.Event, slow_due: asyncio.Event) -> None:
        async for event in self._source.events():
            if event.type in _SLOW_EVENTS:
                slow_due.set()
            heard.set()

    async def _poll(self, heard: asyncio.Event, slow_due: asyncio.Event) -> None:
        pause = BUSY_SECONDS
        slow_at = self._monotonic()
        while True:
            heard.clear()
            start = self._monotonic()
            changed = await self._read(_FAST)
            if slow_due.is_set() or start >= slow_at:
                slow_due.clear()
                changed += await self._read(_SLOW)
                slow_at = start + SLOW_TABLES_SECONDS
            self._model.set_group(None)
            self._live(ConnectionState.POLLING)
            took = self._monotonic() - start
            pause = BUSY_SECONDS if changed else min(IDLE_SECONDS, pause * 1.5)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, POLL_SHARE * took)):
                    await heard.wait()
                    pause = BUSY_SECONDS
            await asyncio.sleep(SETTLE_SECONDS)

    async def _read(self, tables: Sequence[Table]) -> int:
        source = self._source
        reads: dict[Table, Callable[[], Awaitable[Iterable[ClusterObject]]]] = {
            Table.NODES: source.nodes,
            Table.SERVICES: source.services,
            Table.TASKS: source.tasks,
            Table.NETWORKS: source.swarm_networks,
            Table.SECRETS: source.secrets,
            Table.CONFIGS: source.configs,
        }
        answers = [(table, await reads[table]()) for table in tables]
        with self._model.holding():
            return sum([await self._model.replace(table, objects) for table, objects in answers])


def _no_manager_text(info: Info) -> str:
    swarm = info.swarm
    name = info.name or "this node"
    if swarm is None or swarm.local_node_state == "inactive":
        return f'{name} is in no swarm; start one with "swarmtui swarm init" or join one with "swarmtui swarm join"'
    if swarm.local_node_state == "locked":
        return f'{name} is locked; unlock it with "docker swarm unlock"'
    if swarm.local_node_state == "error":
        return f"{name} has trouble with its swarm: {swarm.error}"
    managers = ", ".join(manager.addr for manager in swarm.remote_managers or ())
    where = f"; its managers: {managers}" if managers else ""
    return f"{name} is a worker and cannot show the cluster{where}"


def _leaves(group: BaseExceptionGroup[EngineError]) -> list[EngineError]:
    found: list[EngineError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
