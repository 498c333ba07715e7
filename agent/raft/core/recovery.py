"""From what the disk holds to what the core starts from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from agent.raft.core.errors import BrokenInvariant
from agent.raft.core.membership import Membership, encode_membership
from agent.raft.core.messages import Entry, EntryKind, HardState, SnapshotMeta


class Recovered(NamedTuple):
    """The arguments of `RaftCore`."""

    hard_state: HardState
    snapshot: SnapshotMeta
    entries: list[Entry]


def recover(snapshot: SnapshotMeta, records: Iterable[Entry | HardState]) -> Recovered:
    """Replay the log's records in the order of writing over the newest snapshot.

    An entry voids what was written earlier at its index and after. If the log's own entry at the snapshot's index is of
    another term, the log is from before the snapshot came and none of it counts. Raises `BrokenInvariant` when entries
    between snapshot and log are missing.
    """
    hard_state = HardState()
    entries: list[Entry] = []
    for record in records:
        if isinstance(record, HardState):
            hard_state = record
            continue
        if entries:
            place = record.index - entries[0].index
            if 0 <= place <= len(entries):
                del entries[place:]
            else:
                entries.clear()
        entries.append(record)
    if entries and entries[0].index > snapshot.index + 1:
        raise BrokenInvariant(f"entries {snapshot.index + 1} to {entries[0].index - 1} are in no snapshot and no log")
    for entry in entries:
        if entry.index == snapshot.index and entry.term != snapshot.term:
            return Recovered(hard_state, snapshot, [])
    return Recovered(hard_state, snapshot, [entry for entry in entries if entry.index > snapshot.index])


def alone(recovered: Recovered, member_id: str, address: str) -> Recovered:
    """The start of a new group with this member alone, when the others are lost for good; all of its log is kept.

    Entries that are not known to be committed stay too: one of them may have been acknowledged. The last of the
    `entries` is new, and has to be made durable before the core starts.
    """
    hard_state, snapshot, entries = recovered
    last = entries[-1].index if entries else snapshot.index
    data = encode_membership(Membership((member_id,), (), {member_id: address}))
    return Recovered(hard_state, snapshot, [*entries, Entry(hard_state.term, last + 1, EntryKind.MEMBERSHIP, data)])
