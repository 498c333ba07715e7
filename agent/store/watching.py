"""The watch queue: what was committed, transaction by transaction, to whoever listens."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType

from agent.store.tables import StoreObject

HISTORY = 4096
"""Commits kept for readers that resume with `since`."""

READER_LIMIT = 50_000
"""Events a reader may fall behind before it is cut off."""


class EventKind(StrEnum):
    """What happened to an object."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Event:
    """One object changed: `object` as it is now (for a removal, as it was), `old` as it was before."""

    kind: EventKind
    object: StoreObject
    old: StoreObject | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: the index of its entry and what it changed."""

    index: int
    events: tuple[Event, ...]


class WatchOverflow(Exception):
    """The reader fell too far behind and was cut off; it starts over from a new snapshot."""


class IndexGone(Exception):
    """The history does not reach back to the index that the reader wants to resume from."""


class Watch:
    """A reader of commits, in order. Commits without an event of the wanted kinds are left out.

    `async for commit in watch` ends when the watch is closed and raises `WatchOverflow` when the reader was too slow.
    """

    def __init__(self, queue: WatchQueue, kinds: frozenset[type]) -> None:
        self._queue = queue
        self._kinds = kinds
        self._commits: deque[Commit] = deque()
        self._behind = 0
        self._wakeup = asyncio.Event()
        self._closed = False
        self._overflow = False

    def offer(self, commit: Commit) -> None:
        """Take a commit from the queue; never blocks."""
        if self._closed or self._overflow:
            return
        if self._kinds:
            events = tuple(event for event in commit.events if type(event.object) in self._kinds)
            if not events:
                return
            if len(events) != len(commit.events):
                commit = Commit(commit.index, events)
        self._behind += len(commit.events)
        if self._behind > READER_LIMIT:
            self.cut_off()
            return
        self._commits.append(commit)
        self._wakeup.set()

    def cut_off(self) -> None:
        """Make the reader start over: its next read raises `WatchOverflow`."""
        self._overflow = True
        self._commits.clear()
        self._wakeup.set()

    def drain(self) -> list[Commit]:
        """Every commit that has come and was not read, without waiting."""
        if self._overflow:
            raise WatchOverflow("the reader fell behind and was cut off")
        commits = list(self._commits)
        self._commits.clear()
        self._behind = 0
        return commits

    def close(self) -> None:
        """Stop listening; an iteration that waits ends."""
        self._closed = True
        self._queue.forget(self)
        self._wakeup.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Commit:
        while not self._commits:
            if self._overflow:
                raise WatchOverflow("the reader fell behind and was cut off")
            if self._closed:
                raise StopAsyncIteration
            self._wakeup.clear()
            await self._wakeup.wait()
        commit = self._commits.popleft()
        self._behind -= len(commit.events)
        return commit

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WatchQueue:
    """Hands every commit to every reader and keeps the newest for those who resume."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._history: deque[Commit] = deque(maxlen=HISTORY)
        self._complete_since = 0

    def publish(self, commit: Commit) -> None:
        """A transaction was applied."""
        if len(self._history) == self._history.maxlen:
            self._complete_since = self._history[0].index
        self._history.append(commit)
        for watch in tuple(self._watches):
            watch.offer(commit)

    def restart(self, index: int) -> None:
        """The state was replaced by a snapshot at `index`: history before it is gone and every reader starts over."""
        self._history.clear()
        self._complete_since = index
        for watch in tuple(self._watches):
            watch.cut_off()

    def watch(self, kinds: frozenset[type], since: int | None) -> Watch:
        """A new reader; with `since` it first gets what was committed after that index."""
        watch = Watch(self, kinds)
        if since is not None:
            if since < self._complete_since:
                raise IndexGone(f"changes before index {self._complete_since} are gone, {since} was asked for")
            for commit in self._history:
                if commit.index > since:
                    watch.offer(commit)
        self._watches.add(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        """The reader is gone."""
        self._watches.discard(watch)
