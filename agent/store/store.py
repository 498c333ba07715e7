"""The store: committed state for readers, transactions for writers, commits for watchers.

A transaction's function runs at once, on the committed state with all pending transactions laid over it; its changes are
proposed as one log entry and become visible to readers when the entry is applied. Transactions therefore run one after
the other, but many are under way to the disk (later: to the other managers) at the same time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from agent.api_types.identity import IdSource, new_id
from agent.api_types.times import Clock, now_ns
from agent.raft.interface import Consensus, NotLeader
from agent.store.commit_times import CommitTimes
from agent.store.entries import decode_entry, decode_objects, encode_entry, encode_objects, entry_nonce
from agent.store.tables import Tables, stamp
from agent.store.transactions import Change, Overlay, ReadTx, WriteTx
from agent.store.watching import Commit, Event, EventKind, Watch, WatchQueue

R = TypeVar("R")

SNAPSHOT_CHUNK = 1000
"""Objects in a chunk of a snapshot; the loop breathes between two."""


class BrokenOrder(Exception):
    """The log applies this store's transactions in another order than they were made in."""


class Store:
    """The replicated object store of a manager; also the `StateMachine` of its log."""

    def __init__(self, consensus: Consensus | None = None, *, clock: Clock = now_ns, ids: IdSource = new_id) -> None:
        self._consensus = consensus
        self._clock = clock
        self._ids = ids
        self._tables = Tables()
        self._pending = Overlay()
        self._proposed: dict[int, list[Change]] = {}
        self._nonces = itertools.count(_first_nonce(ids))
        self._queue = WatchQueue()
        self.commit_times = CommitTimes(time.monotonic)
        self._index = 0

    @classmethod
    def in_memory(cls, *, clock: Clock = now_ns, ids: IdSource = new_id) -> Store:
        """A store without a disk: entries are numbered from 1 and applied at the loop's next turn."""
        store = cls(clock=clock, ids=ids)
        store.connect(_MemoryConsensus(store))
        return store

    def connect(self, consensus: Consensus) -> None:
        """Say where entries go; the log is made after the store that it is applied to."""
        self._consensus = consensus

    @property
    def index(self) -> int:
        """The index of the last entry that was applied."""
        return self._index

    def view(self, fn: Callable[[ReadTx], R]) -> R:
        """What `fn` makes of the committed state. It must not wait and must not keep the view."""
        return fn(ReadTx(self._tables))

    async def update(self, fn: Callable[[WriteTx], object]) -> int:
        """Run `fn`, write its changes as one entry, return its index once it is applied; what `fn` returns is dropped.

        What `fn` raises is raised and nothing is written. A transaction without a change writes nothing and returns the
        index of now. Being cancelled while it waits does not take the entry back. Raises `NotLeader` before `fn` runs
        where this member does not lead.
        """
        if self._consensus is None:
            raise RuntimeError("the store has no log yet")
        if not self._consensus.leading:
            raise NotLeader("this manager does not lead; nothing was changed")
        tx = WriteTx(self._tables, self._pending, self._clock, self._ids)
        fn(tx)
        changes = tx.changes
        if not changes:
            return self._index
        nonce = next(self._nonces)
        begun = self.commit_times.begin()
        future = self._consensus.propose(encode_entry(nonce, changes))
        self._pending.lay(nonce, changes)
        self._proposed[nonce] = changes
        future.add_done_callback(lambda done: self._settle(nonce, done, begun))
        return await asyncio.shield(future)

    async def barrier(self) -> int:
        """Wait until every write that was acknowledged before this call is visible here."""
        if self._consensus is None:
            raise RuntimeError("the store has no log yet")
        return await self._consensus.read_index()

    def watch(self, *kinds: type, since: int | None = None) -> Watch:
        """Commits from now on (or after the index `since`) that touch one of the kinds; none means all.

        Raises `IndexGone` when the history does not reach back to `since`.
        """
        return self._queue.watch(frozenset(kinds), since)

    def close(self) -> None:
        """Nothing is applied any more: every reader is cut off, to start over with whoever knows more."""
        self._queue.restart(self._index)

    # -- StateMachine, called by the log in order of index

    def apply(self, index: int, data: bytes) -> None:
        nonce = entry_nonce(data)
        if nonce in self._proposed and nonce != next(iter(self._proposed)):
            # It ran on the state that one before it would have left, and that one is not in the log.
            raise BrokenOrder(f"entry {index} was made after a transaction that is neither applied nor refused")
        changes = self._proposed.pop(nonce, None)
        if changes is None:
            changes = decode_entry(data)
        else:
            self._pending.lift(nonce, changes)
        events = []
        for change in changes:
            event = self._apply_change(index, change)
            if event is not None:
                events.append(event)
        self._index = index
        self._queue.publish(Commit(index, tuple(events)))

    def _apply_change(self, index: int, change: Change) -> Event | None:
        if change.object is None:
            removed = self._tables.remove(change.kind, change.id)
            return None if removed is None else Event(EventKind.REMOVE, removed, removed)
        obj = stamp(change.object, index)
        old = self._tables.put(obj)
        return Event(EventKind.CREATE if old is None else EventKind.UPDATE, obj, old)

    async def snapshot(self) -> AsyncIterator[bytes]:
        objects = list(self._tables)
        for start in range(0, len(objects), SNAPSHOT_CHUNK):
            yield encode_objects(objects[start : start + SNAPSHOT_CHUNK])
            await asyncio.sleep(0)

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        self._tables.clear()
        async for chunk in chunks:
            for obj in decode_objects(chunk):
                self._tables.put(obj)
        self._index = index
        self._queue.restart(index)

    def _settle(self, nonce: int, done: asyncio.Future[int], begun: float) -> None:
        """A proposal that failed leaves the overlay; one that succeeded left it when it was applied."""
        failed = done.cancelled() or done.exception() is not None
        self.commit_times.end(begun, failed=failed)
        changes = self._proposed.pop(nonce, None) if failed else None
        if changes is not None:
            self._pending.lift(nonce, changes)


class _MemoryConsensus:
    """Entries in order, at the loop's next turn, kept by nobody."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index = 0

    @property
    def leading(self) -> bool:
        return True

    def propose(self, data: bytes) -> asyncio.Future[int]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._index += 1
        loop.call_soon(self._commit, self._index, data, future)
        return future

    def _commit(self, index: int, data: bytes, future: asyncio.Future[int]) -> None:
        self._store.apply(index, data)
        if not future.done():
            future.set_result(index)

    async def read_index(self) -> int:
        # Callbacks run in the order they were asked for: this one comes after every entry proposed so far.
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()
        loop.call_soon(reached.set_result, None)
        await reached
        return self._store.index


def _first_nonce(ids: IdSource) -> int:
    """Nonces of two runs, or of two managers, must not meet: 62 bits from an id, then counted up."""
    return int(ids(), 36) % (1 << 62)
