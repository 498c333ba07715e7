"""Files that somebody cut or changed: a member never starts from wrong data, and never from less than it acknowledged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.raft.core.errors import BrokenInvariant
from agent.raft.core.membership import Membership
from agent.raft.core.messages import Entry, EntryKind, HardState, SnapshotMeta
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.core.recovery import Recovered
from agent.raft.frames import DamagedFile, NewerFormat
from agent.raft.storage import MemberStorage

FIRST = Membership(("a", "b"))
REFUSED = (DamagedFile, NewerFormat, BrokenInvariant)


class Plain:
    """A sealer that leaves everything readable, so that nothing but the checksums protects it."""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes) -> bytes:
        return sealed


def _ready(*entries: Entry, hard_state: HardState | None = None) -> Ready:
    return Ready(1, Status(RoleName.FOLLOWER, 1, ""), (), None, hard_state, entries, True, (), (), ())


def _state(folder: Path) -> tuple[Recovered, list[bytes]]:
    storage = MemberStorage(folder, Plain())
    taken: list[bytes] = []

    def take(chunks: Iterator[bytes]) -> None:
        taken.extend(chunks)

    try:
        return storage.recover(FIRST, take), taken
    finally:
        storage.close()


def _filled(folder: Path, *, snapshot: bool) -> list[Path]:
    """A log in several segments, the first of which may have made room for a snapshot; its files in order."""
    folder.mkdir()
    storage = MemberStorage(folder, Plain(), segment_size=80)
    storage.recover(FIRST, lambda chunks: None)
    storage.write(_ready(hard_state=HardState(1, "a", 0)))
    for index in range(1, 13):
        storage.write(_ready(Entry(1, index, EntryKind.COMMAND, b"entry %d" % index)))
        if snapshot and index == 4:
            storage.save(SnapshotMeta(4, 1, FIRST), [b"one", b"two"])
            storage.compact(4)
    storage.close()
    return sorted(folder.iterdir())


def _damages(data: bytes) -> Iterator[bytes]:
    """Every cut, and a flipped bit in every byte."""
    for place in range(len(data)):
        yield data[:place]
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        yield bytes(flipped)


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_segment_that_others_follow_is_refused_when_it_was_cut_or_flipped_anywhere(
    tmp_path: Path, snapshot: bool
) -> None:
    segments = [path for path in _filled(tmp_path / "whole", snapshot=snapshot) if path.suffix == ".wal"]
    assert len(segments) >= 2
    for segment in segments[:-1]:
        for damaged in _damages(segment.read_bytes()):
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(tmp_path / "whole", copy)
            (copy / segment.name).write_bytes(damaged)
            with pytest.raises(REFUSED):
                _state(copy)
            assert (copy / segment.name).read_bytes() == damaged, "a refusal changes nothing"


def test_a_snapshot_cut_or_flipped_anywhere_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    files = _filled(tmp_path / "whole", snapshot=True)
    (path,) = (path for path in files if path.suffix == ".snap")
    recovered, taken = _state(tmp_path / "whole")
    assert (taken, recovered.snapshot.index, len(recovered.entries)) == ([b"one", b"two"], 4, 8)
    whole = path.read_bytes()
    for damaged in _damages(whole):
        path.write_bytes(damaged)
        with pytest.raises((DamagedFile, NewerFormat)) as caught:
            _state(tmp_path / "whole")
        assert path.name in str(caught.value)
        assert path.read_bytes() == damaged


def test_every_byte_may_be_in_an_entry_and_every_number_may_be_its_term(tmp_path: Path) -> None:
    """A log in lines loses whatever holds a line's end; the number ten is one in msgpack."""
    storage = MemberStorage(tmp_path, Plain())
    storage.recover(FIRST, lambda chunks: None)
    entries = [Entry(index, index, EntryKind.COMMAND, bytes(range(256)) * index) for index in range(1, 21)]
    for entry in entries:
        storage.write(_ready(entry, hard_state=HardState(entry.term, "\n", 0)))
    storage.close()
    recovered, _ = _state(tmp_path)
    assert recovered.entries == entries
    assert recovered.hard_state == HardState(20, "\n", 0)
