"""A log as a person follows it: one or many services, in the order of time, through reconnects, nothing silent.

One reader a service (or task) fills a bounded queue; `batches` merges and yields. A consumer that is slow makes the
readers wait and, through TCP, the engine: memory stays bounded.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from swarmtui.docker_api.errors import ConnectionFailed, EngineError, InvalidRequest, NotFound, Unavailable
from swarmtui.docker_api.log_query import LogQuery
from swarmtui.docker_api.times import SECOND, Clock, Monotonic
from swarmtui.docker_api.types import Service, Task
from swarmtui.logs.framing import LineAssembler
from swarmtui.logs.merger import MAX_WAIT, LogMerger
from swarmtui.logs.records import LogEvent, LogNotice, LogOptions, NoticeKind
from swarmtui.logs.resume import ResumePoint
from swarmtui.model.connection import backoff

BATCH = 5000
"""Events in one batch at most: a widget can take that in within a frame."""
QUEUED = 16
"""Chunks of a reader that may wait; with 256 KiB each, 4 MiB."""
HISTORY_WAIT = 2.0
"""Seconds that lines wait for other replicas when the log is not followed: order matters more than the moment."""
LATE_NS = SECOND
"""A line later than this is told; less is not worth a row."""
LATE_PAUSE = 5.0
"""Seconds between two notices of lateness."""
STEADY_SECONDS = 10.0
"""After so long a connection counts as good: the next loss is tried again at once."""
HISTORY_ATTEMPTS = 3
"""Attempts to read a log that is not followed."""


class ByteSource(Protocol):
    """The body of a log's answer."""

    @property
    def content_type(self) -> str: ...
    async def read(self) -> bytes: ...


class LogSource(Protocol):
    """What a session needs of an engine; `EngineClient` has it."""

    async def service(self, service: str) -> Service: ...
    async def task(self, task: str) -> Task: ...
    async def extended(self) -> bool: ...
    def service_logs(self, service: str, query: LogQuery) -> AbstractAsyncContextManager[ByteSource]: ...
    def task_logs(self, task: str, query: LogQuery) -> AbstractAsyncContextManager[ByteSource]: ...


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Events of one reader; `ordered`: the engine has merged them already."""

    reader: str
    ordered: bool
    events: list[LogEvent]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A reader has nothing more to read."""

    reader: str
    error: EngineError | None = None


class LogSession:
    """Use as `async with LogSession(...) as session: async for batch in session.batches(): ...`."""

    def __init__(
        self,
        client: LogSource,
        *,
        services: Sequence[str] = (),
        tasks: Sequence[str] = (),
        options: LogOptions | None = None,
        max_wait: float = MAX_WAIT,
        clock: Clock = time.time_ns,
        monotonic: Monotonic = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`services` and `tasks` are names or ids; all are shown as one log."""
        self._client = client
        self._targets = [("service", name) for name in services] + [("task", name) for name in tasks]
        self._options = options or LogOptions()
        self._merger = LogMerger(max_wait if self._options.follow else max(max_wait, HISTORY_WAIT))
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._queue: asyncio.Queue[_Arrived | _Ended] = asyncio.Queue(QUEUED)
        self._group = asyncio.TaskGroup()
        self._readers: list[asyncio.Task[None]] = []
        self._late_told = float("-inf")
        self._labels: dict[str, str] = {}
        """Names for the notices, by what the caller gave."""

    async def __aenter__(self) -> LogSession:
        await self._group.__aenter__()
        for kind, name in self._targets:
            self._merger.open(_reader(kind, name))
        self._readers = [self._group.create_task(self._read(kind, name)) for kind, name in self._targets]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.cancel()
        # A TaskGroup would wrap the body's own error; only a cancellation is its business (it may be its own doing).
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, trace)
        else:
            await self._group.__aexit__(None, None, None)

    async def batches(self) -> AsyncIterator[list[LogEvent]]:
        """Events in order, as many at once as are there, `BATCH` at most. Ends when no reader is left.

        Raises EngineError when a service or task does not exist, or when a log that is not followed cannot be read.
        """
        running = len(self._targets)
        while running:
            events: list[LogEvent] = []
            arrived = await self._next()
            while arrived is not None:
                if isinstance(arrived, _Ended):
                    running -= 1
                    self._merger.close(arrived.reader)
                    if arrived.error is not None:
                        raise arrived.error
                else:
                    if not arrived.ordered:
                        self._merger.close(arrived.reader)  # Its replicas are streams of their own.
                    self._take_in(arrived, events)
                full = len(events) + len(self._merger) >= BATCH
                arrived = None if full or self._queue.empty() else self._queue.get_nowait()
            events += self._merger.take(self._monotonic())
            events += self._late_notices()
            for batch in _batches(events):
                yield batch
        for batch in _batches(list(self._merger.drain())):
            yield batch

    async def _next(self) -> _Arrived | _Ended | None:
        """What a reader has, or None when a held line is due."""
        due = self._merger.due()
        if due is None:
            return await self._queue.get()
        try:
            async with asyncio.timeout(max(0.0, due - self._monotonic())):
                return await self._queue.get()
        except TimeoutError:
            return None

    def _take_in(self, arrived: _Arrived, events: list[LogEvent]) -> None:
        if arrived.ordered and self._merger.passes(arrived.reader):
            events += arrived.events
            return
        now = self._monotonic()
        for event in arrived.events:
            if isinstance(event, LogNotice):
                # What a notice speaks of has been read before it: nothing that is held may come after it.
                events += self._merger.drain()
                events.append(event)
            else:
                self._merger.push(arrived.reader if arrived.ordered else event.task_id, event, now)

    def _late_notices(self) -> list[LogNotice]:
        now = self._monotonic()
        if now - self._late_told < LATE_PAUSE:
            return []
        notices = []
        for task_id, late in self._merger.take_late().items():
            if late.nanoseconds >= LATE_NS:
                seconds = late.nanoseconds / SECOND
                text = f"{late.lines} line(s) of this replica came late, by up to {seconds:.1f} s"
                notices.append(LogNotice(self._clock(), NoticeKind.LATE, text, task_id=task_id))
        if notices:
            self._late_told = now
        return notices

    # Readers

    async def _read(self, kind: str, name: str) -> None:
        reader = _reader(kind, name)
        error: EngineError | None = None
        try:
            await self._follow(kind, name, reader)
        except EngineError as failure:
            error = failure
        await self._queue.put(_Ended(reader, error))

    async def _follow(self, kind: str, name: str, reader: str) -> None:
        resume = ResumePoint(self._options, self._clock())
        options, attempt, connected, connected_once = self._options, 0, False, False
        opened = self._monotonic()
        while True:
            lost: EngineError
            try:
                async for ordered, events, fresh in self._connection(kind, name, options):
                    if fresh and connected_once:
                        events = [self._notice(NoticeKind.RECONNECTED, f"{self._label(name)}: connected again")]
                    if fresh:
                        connected = connected_once = True
                        opened = self._monotonic()
                    events = resume.note(events, self._monotonic())
                    if events:
                        await self._queue.put(_Arrived(reader, ordered, events))
                    if self._options.follow and not fresh and (events or self._monotonic() - opened > STEADY_SECONDS):
                        attempt = 0
                if not self._options.follow:
                    return
                lost = ConnectionFailed("the engine ended the stream")
            except NotFound:
                if not connected_once:
                    raise
                notice = self._notice(NoticeKind.ENDED, f"{self._label(name)} is gone")
                await self._queue.put(_Arrived(reader, True, [notice]))
                return
            except EngineError as failure:
                if not self._worth_another(failure, attempt, connected_once):
                    raise
                lost = failure
            if connected or attempt == 0:
                notice = self._notice(NoticeKind.RECONNECTING, f"{self._label(name)}: {lost}; trying again")
                await self._queue.put(_Arrived(reader, True, [notice]))
            connected = False
            await asyncio.sleep(backoff(attempt, self._random()))
            attempt += 1
            options = resume.reconnect(self._monotonic())

    def _worth_another(self, failure: EngineError, attempt: int, connected_once: bool) -> bool:
        """A person who follows wants to be back whatever happens; who asks once wants an answer."""
        if self._options.follow:
            return connected_once or not isinstance(failure, InvalidRequest)
        return isinstance(failure, ConnectionFailed | Unavailable) and attempt + 1 < HISTORY_ATTEMPTS

    async def _connection(
        self, kind: str, name: str, options: LogOptions
    ) -> AsyncIterator[tuple[bool, list[LogEvent], bool]]:
        """One connection: whether the engine merges, events, and whether these are the first of the connection."""
        client = self._client
        ordered = await client.extended()
        if kind == "service":
            service = await client.service(name)
            self._labels[name] = service.spec.name or name
            template = service.spec.task_template
            opened = client.service_logs(name, _query(options))
        else:
            template = (await client.task(name)).spec
            opened = client.task_logs(name, _query(options))
        has_terminal = bool(template.container_spec and template.container_spec.tty)
        async with opened as stream:
            # The specification tells whether there are frames; before API 1.42 a framed stream may be labelled raw.
            raw = has_terminal and "multiplexed-stream" not in stream.content_type
            assembler = LineAssembler(terminal=raw)
            yield ordered, [], True
            while chunk := await stream.read():
                yield ordered, assembler.feed(chunk), False
            yield ordered, assembler.finish(), False

    def _label(self, name: str) -> str:
        return self._labels.get(name, name)

    def _notice(self, kind: NoticeKind, text: str) -> LogNotice:
        return LogNotice(self._clock(), kind, text)


def _reader(kind: str, name: str) -> str:
    return f"{kind} {name}"


def _batches(events: list[LogEvent]) -> Iterator[list[LogEvent]]:
    for start in range(0, len(events), BATCH):
        yield events[start : start + BATCH]


def _query(options: LogOptions) -> LogQuery:
    return LogQuery(
        follow=options.follow,
        stdout=options.stdout,
        stderr=options.stderr,
        since=options.since,
        until=options.until,
        tail=options.tail,
    )
