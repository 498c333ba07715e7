"""The log in memory: what follows the last compacted entry, and how far each part of its life has come.

compacted .. first_index ........................................ last_index
                   handed <= committed     stable <= offered <=
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.raft.core.errors import BrokenInvariant
from agent.raft.core.membership import Membership, decode_membership
from agent.raft.core.messages import Entry, EntryKind, SnapshotMeta


class LogView:
    """Entries after a snapshot; knows nothing of terms to come, leaders or peers."""

    def __init__(self, snapshot: SnapshotMeta, entries: Sequence[Entry] = (), commit: int = 0) -> None:
        self.snapshot = snapshot
        """The newest snapshot that is durable here."""
        self._compacted = snapshot.index
        self._compacted_term = snapshot.term
        self._entries: list[Entry] = []
        self._memberships: list[tuple[int, Membership]] = [(snapshot.index, snapshot.membership)]
        self._writes: dict[int, int] = {}
        self._extend(entries)
        self.stable = self.offered = self.last_index
        self.committed = max(snapshot.index, min(commit, self.last_index))
        """Up to here the log is agreed."""
        self.handed = snapshot.index
        """Up to here the driver has been given entries to apply."""

    # -- what it holds

    @property
    def first_index(self) -> int:
        """The first entry that is still here; one more than `last_index` when there is none."""
        return self._compacted + 1

    @property
    def last_index(self) -> int:
        """The last entry, or the last compacted one."""
        return self._compacted + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self._compacted_term

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None when it was compacted or has not come."""
        if index == self._compacted:
            return self._compacted_term
        if self._compacted < index <= self.last_index:
            return self._entries[index - self._compacted - 1].term
        return None

    def between(self, first: int, last: int, max_bytes: int | None = None) -> list[Entry]:
        """The entries `first` to `last`, as many as fit in `max_bytes` and at least one."""
        start, end = first - self._compacted - 1, min(last, self.last_index) - self._compacted
        if start < 0:
            raise BrokenInvariant(f"entry {first} was compacted; the log begins at {self.first_index}")
        found = self._entries[start:end]
        if max_bytes is not None:
            size = 0
            for count, entry in enumerate(found):
                size += entry.size
                if size > max_bytes and count:
                    return found[:count]
        return found

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """True when a log that ends so lacks nothing that this one may have committed (thesis, 3.6.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    # -- membership: the newest in the log counts, committed or not (thesis, 4.1)

    @property
    def membership(self) -> Membership:
        """The one to act by."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        """Where it was written."""
        return self._memberships[-1][0]

    @property
    def previous_membership(self) -> Membership:
        """The one before it, or the same when that was compacted."""
        return self._memberships[-2 if len(self._memberships) > 1 else -1][1]

    def membership_at(self, index: int) -> Membership:
        """The one that a snapshot at `index` needs; `index` must not have been compacted."""
        for since, membership in reversed(self._memberships):
            if since <= index:
                return membership
        raise BrokenInvariant(f"the membership at {index} was compacted")

    # -- growing

    def append(self, entries: Sequence[Entry]) -> None:
        """A leader's own entries; a leader never removes any."""
        self._extend(entries)

    def accept(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """Take a leader's entries; the index up to which this log is now the leader's, None when `prev` differs.

        Only a conflict removes entries: an append that was late, or empty, says nothing about what follows.
        """
        if self.term_at(prev_index) != prev_term:
            return None
        for number, entry in enumerate(entries):
            if self.term_at(entry.index) != entry.term:
                self._truncate(entry.index)
                self._extend(entries[number:])
                break
        return prev_index + len(entries)

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The last entry up to `index` whose term is at most `term`, as index and term: none after it can match."""
        index = min(index, self.last_index)
        while True:
            here = self.term_at(index)
            if here is None:
                return index, 0
            if here <= term:
                return index, here
            index -= 1

    def commit_to(self, index: int) -> bool:
        """Raise the commit index; True when it rose."""
        if index <= self.committed:
            return False
        if index > self.last_index:
            raise BrokenInvariant(
                f"entry {index} is committed but this log ends at {self.last_index}: entries that were acknowledged are "
                f"gone from this member's disk. Remove this member from the group and let it join under a new identity."
            )
        self.committed = index
        return True

    # -- going to disk

    def take_unwritten(self, write: int) -> list[Entry]:
        """The entries that no write has been offered yet; `written(write)` makes them stable."""
        entries = self.between(self.offered + 1, self.last_index)
        self.offered = self._writes[write] = self.last_index
        return entries

    def written(self, write: int) -> None:
        """That write is durable. What was removed from the log meanwhile does not become stable."""
        self.stable = max(self.stable, self._writes.pop(write))

    # -- being applied

    @property
    def appliable(self) -> int:
        """Committed, and durable here: what is applied must not be missing after a restart."""
        return min(self.committed, self.stable)

    def take_committed(self, max_bytes: int) -> list[Entry]:
        """The next entries to apply."""
        if self.appliable <= self.handed:
            return []
        entries = self.between(self.handed + 1, self.appliable, max_bytes)
        self.handed = entries[-1].index
        return entries

    # -- shrinking

    def compact(self, snapshot: SnapshotMeta, keep: int) -> None:
        """A snapshot is durable: forget the entries it covers, but for the last `keep` of them."""
        if snapshot.index > self.handed:
            raise BrokenInvariant(f"a snapshot at {snapshot.index} of a log applied up to {self.handed}")
        if snapshot.index > self.snapshot.index:
            self.snapshot = snapshot
        index = min(self.snapshot.index, snapshot.index) - keep
        if index <= self._compacted:
            return
        term = self.term_at(index)
        assert term is not None
        del self._entries[: index - self._compacted]
        self._compacted, self._compacted_term = index, term
        while len(self._memberships) > 1 and self._memberships[1][0] <= index:
            del self._memberships[0]

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Become an empty log after a leader's snapshot."""
        self.snapshot = snapshot
        self._compacted, self._compacted_term = snapshot.index, snapshot.term
        self._entries.clear()
        self._memberships = [(snapshot.index, snapshot.membership)]
        self._writes = dict.fromkeys(self._writes, 0)
        self.committed = self.handed = self.stable = self.offered = snapshot.index

    def _truncate(self, index: int) -> None:
        if index <= self.committed:
            raise BrokenInvariant(f"a leader disagrees about entry {index}, and {self.committed} is committed here")
        del self._entries[index - self._compacted - 1 :]
        while self._memberships[-1][0] >= index:
            self._memberships.pop()
        self.stable = min(self.stable, index - 1)
        self.offered = min(self.offered, index - 1)
        for write, last in self._writes.items():
            self._writes[write] = min(last, index - 1)

    def _extend(self, entries: Sequence[Entry]) -> None:
        for expected, entry in enumerate(entries, self.last_index + 1):
            if entry.index != expected:
                raise BrokenInvariant(f"entry {expected} is missing, {entry.index} follows")
        self._entries.extend(entries)
        self._memberships.extend(
            (entry.index, decode_membership(entry.data)) for entry in entries if entry.kind == EntryKind.MEMBERSHIP
        )
