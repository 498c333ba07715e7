"""A disk that forgets, at a crash, what was not synced; but for a part of it that got there all the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from agent.raft.core.messages import Entry, HardState, SnapshotMeta
from agent.raft.core.recovery import Recovered, recover


@dataclass(frozen=True)
class AppendRecords:
    records: tuple[Entry | HardState, ...]


@dataclass(frozen=True)
class SaveSnapshot:
    snapshot: SnapshotMeta
    data: bytes


@dataclass(frozen=True)
class EmptyLog:
    """After a snapshot of the leader's; the term and vote stay."""


@dataclass(frozen=True)
class DropEntries:
    """After a snapshot of its own: entries up to `index` go."""

    index: int


Change = AppendRecords | SaveSnapshot | EmptyLog | DropEntries


@dataclass
class SimulatedDisk:
    """Changes take effect in the order in which they were begun, each at its own sync."""

    snapshot: SnapshotMeta = field(default_factory=SnapshotMeta)
    snapshot_data: bytes = b""
    _hard_state: HardState = field(default_factory=HardState)
    _entries: dict[int, Entry] = field(default_factory=dict)
    _last: int = 0
    _begun: deque[tuple[Change, Callable[[], None]]] = field(default_factory=deque)

    @property
    def busy(self) -> bool:
        return bool(self._begun)

    @property
    def begun(self) -> list[Change]:
        """What would be lost by a crash now, or not."""
        return [change for change, _ in self._begun]

    def begin(self, change: Change, when_durable: Callable[[], None]) -> None:
        self._begun.append((change, when_durable))

    def sync_next(self) -> None:
        change, when_durable = self._begun.popleft()
        self._apply(change)
        when_durable()

    def crash(self, random: Random) -> None:
        """Any number of the oldest changes may have arrived; nobody was told."""
        for _ in range(random.randint(0, len(self._begun))):
            self._apply(self._begun.popleft()[0])
        self._begun.clear()

    def is_another_vote(self, state: HardState) -> bool:
        """Whether term or vote are not what the disk has."""
        return (state.term, state.vote) != (self._hard_state.term, self._hard_state.vote)

    def lose_vote(self) -> None:
        """The file with term and vote is empty."""
        self._hard_state = HardState()

    def lose_entries(self) -> None:
        """The file with the entries is empty."""
        self._apply(EmptyLog())

    def recover(self) -> Recovered:
        return recover(self.snapshot, [self._hard_state, *self._entries.values()])

    def has(self, index: int) -> bool:
        """Whether the log has an entry at this index."""
        return index in self._entries

    def holds(self, index: int, term: int) -> bool:
        """Whether this entry would be there after a crash now."""
        if index <= self.snapshot.index:
            return True
        entry = self._entries.get(index)
        return entry is not None and entry.term == term

    def _apply(self, change: Change) -> None:
        match change:
            case AppendRecords(records):
                for record in records:
                    if isinstance(record, HardState):
                        self._hard_state = record
                        continue
                    for index in range(record.index, self._last + 1):
                        self._entries.pop(index, None)
                    self._entries[record.index] = record
                    self._last = record.index
            case SaveSnapshot(snapshot, data):
                if snapshot.index > self.snapshot.index:
                    self.snapshot, self.snapshot_data = snapshot, data
            case EmptyLog():
                self._entries.clear()
                self._last = 0
            case DropEntries(index):
                for old in [old for old in self._entries if old <= index]:
                    del self._entries[old]
