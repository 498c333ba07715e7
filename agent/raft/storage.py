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
from agent.raft.snapshots import SnapshotWriter, newest_snapshot, read_snapshot

_KINDS = {
    EntryKind.COMMAND: RecordKind.ENTRY,
    EntryKind.MEMBERSHIP: RecordKind.MEMBERSHIP,
    EntryKind.TERM_START: RecordKind.TERM_START,
}
_ENTRY_KINDS: dict[int, EntryKind] = {record: entry for entry, record in _KINDS.items()}


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
        for leftover in self._folder.glob("snapshot-*.tmp"):
            leftover.unlink()
        snapshot = SnapshotMeta(0, 0, first)
        info = newest_snapshot(self._folder)
        if info is not None:
            end = None

            def chunks() -> Iterator[bytes]:
                nonlocal end
                end = yield from read_snapshot(info, self._sealer)

            stream = chunks()
            take(stream)
            # To the end, or damage behind what was taken would go unseen.
            for _ in stream:
                pass
            assert end is not None
            membership = decode_membership(end.membership) if end.membership else first
            snapshot = SnapshotMeta(info.index, end.term, membership)
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
        if ready.hard_state is not None:
            self._hard_state = ready.hard_state
        if ready.snapshot is not None:
            self._log.reset(ready.snapshot.index, _hard_state_record(self._hard_state))
        if not ready.must_sync:
            return
        records = [_hard_state_record(ready.hard_state)] if ready.hard_state is not None else []
        records += [
            Record(_KINDS[EntryKind(entry.kind)], entry.term, entry.index, entry.data) for entry in ready.entries
        ]
        if records:
            self._log.append(records)

    def save(self, snapshot: SnapshotMeta, chunks: Iterable[bytes]) -> None:
        """Make a snapshot durable: of the own state, or one that a leader streamed."""
        writer = SnapshotWriter(
            self._folder, snapshot.index, snapshot.term, self._sealer, encode_membership(snapshot.membership)
        )
        try:
            for chunk in chunks:
                writer.add(chunk)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise

    def compact(self, index: int) -> None:
        """Drop segments that a durable snapshot covers up to `index`."""
        self._log.rotate(_hard_state_record(self._hard_state))
        self._log.compact(index)

    def read(self, snapshot: SnapshotMeta) -> Iterator[bytes]:
        """The chunks of the newest snapshot, to stream it; ValueError when it is another one by now."""
        info = newest_snapshot(self._folder)
        if info is None or info.index != snapshot.index:
            raise ValueError(f"the snapshot at {snapshot.index} is not there any more")
        return read_snapshot(info, self._sealer)

    def close(self) -> None:
        """Close the log."""
        self._log.close()


def _hard_state_record(state: HardState) -> Record:
    return Record(RecordKind.HARD_STATE, state.term, state.commit, state.vote.encode())


def _from_record(record: Record) -> Entry | HardState:
    if record.kind == RecordKind.HARD_STATE:
        return HardState(record.term, record.data.decode(), record.index)
    return Entry(record.term, record.index, _ENTRY_KINDS[record.kind], record.data)
