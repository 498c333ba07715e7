"""The disk of a member of a group: the core's entries, hard state and snapshots in the durable log's own files.

Everything blocks; a driver calls it in a thread of its own, in the order of the core's `Ready`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from agent.raft.core.membership import Membership, decode_membership, encode_membership
from agent.raft.core.messages import Entry, EntryKind, HardState, SnapshotMeta
from agent.raft.core.ready import Ready
from agent.raft.core.recovery import Recovered, recover
from agent.raft.interface import Sealer
from agent.raft.log import DurableLog, Record, RecordKind
from agent.raft.snapshots import SnapshotEnd, SnapshotInfo, SnapshotWriter, newest_snapshot, read_snapshot

_KINDS: dict[int, RecordKind] = {
    EntryKind.COMMAND: RecordKind.ENTRY,
    EntryKind.MEMBERSHIP: RecordKind.MEMBERSHIP,
    EntryKind.TERM_START: RecordKind.TERM_START,
}
_ENTRY_KINDS: dict[int, EntryKind] = {record: EntryKind(entry) for entry, record in _KINDS.items()}


class SnapshotStream(Iterator[bytes]):
    """The chunks of a snapshot whose file is open: it may be removed meanwhile. Reading raises `DamagedFile`."""

    def __init__(self, info: SnapshotInfo, sealer: Sealer) -> None:
        self.index = info.index
        self.end: SnapshotEnd | None = None
        """What the snapshot says of itself, once the last chunk was taken."""
        self._chunks = read_snapshot(info, sealer)

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration as stop:
            if self.end is None:
                self.end = stop.value
            raise StopIteration from None

    def close(self) -> None:
        """Read no more."""
        self._chunks.close()


class MemberStorage:
    """A folder with one log and its snapshots. `recover` comes first."""

    def __init__(self, folder: Path, sealer: Sealer, *, segment_size: int | None = None) -> None:
        self._folder = folder
        self._sealer = sealer
        self._log = DurableLog(folder, sealer, **({} if segment_size is None else {"segment_size": segment_size}))
        self._hard_state = HardState()

    def recover(self, first: Membership, take: Callable[[Iterator[bytes]], None]) -> Recovered:
        """What `RaftCore` starts from. `take` is given the newest snapshot's chunks, if there is a snapshot.

        `first` is the membership of a folder that says nothing of one: a new member's, or that of a group of one.
        Raises `DamagedFile`, and `BrokenInvariant` when entries between snapshot and log are missing.
        """
        snapshot = self.newest()
        if snapshot is None:
            return self.replay(None, first)
        take(snapshot)
        return self.replay(snapshot, first)

    def newest(self) -> SnapshotStream | None:
        """The newest snapshot; what a crash left of others is removed."""
        for leftover in self._folder.glob("snapshot-*.tmp"):
            leftover.unlink()
        info = newest_snapshot(self._folder)
        return None if info is None else SnapshotStream(info, self._sealer)

    def replay(self, taken: SnapshotStream | None, first: Membership) -> Recovered:
        """The second half of `recover`: the log over the snapshot that was taken, whose rest is read to its end."""
        snapshot = SnapshotMeta(0, 0, first)
        if taken is not None:
            # To the end, or damage behind what was taken would go unseen.
            for _ in taken:
                pass
            assert taken.end is not None
            membership = decode_membership(taken.end.membership) if taken.end.membership else first
            snapshot = SnapshotMeta(taken.index, taken.end.term, membership)
        records: list[Entry | HardState] = []
        for record in self._log.replay():
            if record.kind == RecordKind.RESET:
                records = [kept for kept in records if isinstance(kept, HardState)]
            else:
                records.append(_from_record(record))
        recovered = recover(snapshot, records)
        self._hard_state = recovered.hard_state
        return recovered

    def write(self, ready: Ready) -> None:
        """Steps 3 and 4 of the contract, but for the snapshot itself, which `save` made durable before.

        Raises `LogFull` when the disk took nothing; after any other OSError the member must stop.
        """
        self.write_all((ready,))

    def write_all(self, rounds: Iterable[Ready]) -> None:
        """`write` for several, in order, with one fdatasync. After `LogFull` the same may be written again."""
        records: list[Record] = []
        for ready in rounds:
            if ready.hard_state is not None:
                self._hard_state = ready.hard_state
            if ready.snapshot is not None:
                if records:
                    self._log.append(records)
                    records = []
                self._log.reset(ready.snapshot.index, _hard_state_record(self._hard_state))
            if not ready.must_sync:
                continue
            if ready.hard_state is not None:
                records.append(_hard_state_record(ready.hard_state))
            for entry in ready.entries:
                records.append(Record(_KINDS[entry.kind], entry.term, entry.index, entry.data))
        if records:
            self._log.append(records)

    def save(self, snapshot: SnapshotMeta, chunks: Iterable[bytes]) -> None:
        """Make a snapshot durable: of the own state, or one that a leader streamed."""
        writer = self.begin(snapshot)
        try:
            for chunk in chunks:
                writer.add(chunk)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise

    def begin(self, snapshot: SnapshotMeta) -> SnapshotWriter:
        """Write a snapshot chunk by chunk; it counts once it is finished. May be used beside `write`."""
        return SnapshotWriter(
            self._folder, snapshot.index, snapshot.term, self._sealer, encode_membership(snapshot.membership)
        )

    def compact(self, index: int) -> None:
        """Drop segments that a durable snapshot covers up to `index`."""
        self._log.rotate(_hard_state_record(self._hard_state))
        self._log.compact(index)

    def read(self, snapshot: SnapshotMeta) -> SnapshotStream:
        """The chunks of the newest snapshot, to stream it; ValueError when it is another one by now."""
        info = newest_snapshot(self._folder)
        if info is None or info.index != snapshot.index:
            raise ValueError(f"the snapshot at {snapshot.index} is not there any more")
        try:
            return SnapshotStream(info, self._sealer)
        except FileNotFoundError:
            raise ValueError(f"the snapshot at {snapshot.index} is not there any more") from None

    def close(self) -> None:
        """Close the log."""
        self._log.close()


def _hard_state_record(state: HardState) -> Record:
    return Record(RecordKind.HARD_STATE, state.term, state.commit, state.vote.encode())


def _from_record(record: Record) -> Entry | HardState:
    if record.kind == RecordKind.HARD_STATE:
        return HardState(record.term, record.data.decode(), record.index)
    return Entry(record.term, record.index, _ENTRY_KINDS[record.kind], record.data)
