"""The core's state on a real disk: what comes back is what was written, wherever it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.raft.core.membership import Membership
from agent.raft.core.messages import Entry, EntryKind, HardState, SnapshotMeta
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.core.recovery import Recovered
from agent.raft.frames import DamagedFile, NewerFormat
from agent.raft.storage import MemberStorage

FIRST = Membership(("a", "b"))


class Plain:
    """A sealer that leaves everything readable."""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes) -> bytes:
        return sealed


def _entry(term: int, index: int, data: bytes = b"data") -> Entry:
    return Entry(term, index, EntryKind.COMMAND, data)


def _ready(*entries: Entry, hard_state: HardState | None = None, snapshot: SnapshotMeta | None = None) -> Ready:
    must_sync = bool(entries) or hard_state is not None or snapshot is not None
    status = Status(RoleName.FOLLOWER, 1, "")
    return Ready(1, status, (), snapshot, hard_state, entries, must_sync, (), (), ())


def _open(folder: Path, **bounds: int) -> tuple[MemberStorage, Recovered, list[bytes]]:
    storage = MemberStorage(folder, Plain(), segment_size=bounds.get("segment_size"))
    taken: list[bytes] = []

    def take(chunks: Iterator[bytes]) -> None:
        taken.extend(chunks)

    try:
        return storage, storage.recover(FIRST, take), taken
    except BaseException:
        storage.close()
        raise


def _state(folder: Path) -> tuple[Recovered, list[bytes]]:
    storage, recovered, taken = _open(folder)
    storage.close()
    return recovered, taken


def test_an_empty_folder_is_a_new_member(tmp_path: Path) -> None:
    assert _state(tmp_path) == ((HardState(), SnapshotMeta(0, 0, FIRST), []), [])


def test_entries_votes_and_kinds_come_back(tmp_path: Path) -> None:
    storage, _, _ = _open(tmp_path)
    entries = [Entry(1, 1, EntryKind.TERM_START), Entry(1, 2, EntryKind.MEMBERSHIP, b"m"), _entry(1, 3)]
    storage.write(_ready(*entries, hard_state=HardState(1, "b", 2)))
    storage.close()
    assert _state(tmp_path)[0] == (HardState(1, "b", 2), SnapshotMeta(0, 0, FIRST), entries)


def test_replaced_entries_stay_replaced_over_segments(tmp_path: Path) -> None:
    storage, _, _ = _open(tmp_path, segment_size=200)
    for index in range(1, 20):
        storage.write(_ready(_entry(1, index, b"x" * 100)))
    storage.write(_ready(_entry(2, 5, b"new")))
    for index in range(6, 9):
        storage.write(_ready(_entry(2, index, b"y" * 100)))
    storage.close()
    assert len(list(tmp_path.glob("log-*.wal"))) > 10
    storage, recovered, _ = _open(tmp_path, segment_size=200)
    assert [(entry.term, entry.index) for entry in recovered.entries] == [
        *((1, index) for index in range(1, 5)),
        *((2, index) for index in range(5, 9)),
    ]
    storage.save(SnapshotMeta(7, 2, FIRST), [b"s"])
    storage.compact(7)
    storage.close()
    recovered, taken = _state(tmp_path)
    assert ([entry.index for entry in recovered.entries], taken) == ([8], [b"s"])
    assert len(list(tmp_path.glob("log-*.wal"))) < 5


def test_a_snapshot_keeps_its_term_membership_and_chunks(tmp_path: Path) -> None:
    storage, _, _ = _open(tmp_path)
    storage.write(_ready(*(_entry(1, index) for index in range(1, 6)), hard_state=HardState(3, "a", 4)))
    snapshot = SnapshotMeta(4, 1, Membership(("a", "b", "c"), ("l",), {"c": "host:1"}))
    storage.save(snapshot, [b"one", b"two"])
    storage.compact(4)
    assert list(storage.read(snapshot)) == [b"one", b"two"]
    with pytest.raises(ValueError, match="not there any more"):
        storage.read(SnapshotMeta(3, 1))
    storage.close()
    assert _state(tmp_path) == ((HardState(3, "a", 4), snapshot, [_entry(1, 5)]), [b"one", b"two"])


def _installed(folder: Path) -> tuple[MemberStorage, SnapshotMeta]:
    """A log that differs from the leader's, and the leader's snapshot, durable."""
    storage, _, _ = _open(folder, segment_size=100)
    for index in range(1, 9):
        storage.write(_ready(_entry(1, index, b"x" * 60), hard_state=HardState(1, "b", 0)))
    snapshot = SnapshotMeta(5, 2, Membership(("a", "c")))
    storage.save(snapshot, [b"leader's"])
    return storage, snapshot


def test_a_leaders_snapshot_voids_the_log(tmp_path: Path) -> None:
    storage, snapshot = _installed(tmp_path)
    storage.write(_ready(_entry(2, 6, b"next"), hard_state=HardState(2, "", 5), snapshot=snapshot))
    storage.close()
    assert len(list(tmp_path.glob("log-*.wal"))) == 1
    assert _state(tmp_path) == ((HardState(2, "", 5), snapshot, [_entry(2, 6, b"next")]), [b"leader's"])


def test_a_crash_between_the_leaders_snapshot_and_the_log_counts_for_the_snapshot(tmp_path: Path) -> None:
    storage, snapshot = _installed(tmp_path)
    storage.close()
    assert _state(tmp_path) == ((HardState(1, "b", 0), snapshot, []), [b"leader's"])


@pytest.mark.parametrize("removed", range(8))
def test_a_crash_while_old_segments_go_leaves_no_entry_behind(
    tmp_path: Path, removed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, snapshot = _installed(tmp_path)
    unlink, count = Path.unlink, 0

    def crash(path: Path, missing_ok: bool = False) -> None:
        nonlocal count
        if count == removed:
            raise KeyboardInterrupt
        count += 1
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            storage.write(_ready(hard_state=HardState(2, "", 5), snapshot=snapshot))
    storage.close()
    assert _state(tmp_path) == ((HardState(2, "", 5), snapshot, []), [b"leader's"])


def test_cut_anywhere_it_is_an_earlier_state_and_flipped_anywhere_it_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    states = []
    storage, _, _ = _open(source)
    for ready in (
        _ready(_entry(1, 1), hard_state=HardState(1, "a", 0)),
        _ready(_entry(1, 2), _entry(1, 3)),
        _ready(_entry(2, 2), hard_state=HardState(2, "b", 1)),
    ):
        storage.write(ready)
        states.append(_copied_state(source, tmp_path))
    storage.close()
    (path,) = source.glob("log-*.wal")
    data = path.read_bytes()
    copy = tmp_path / "copy"
    empty = (HardState(), SnapshotMeta(0, 0, FIRST), [])
    for end in range(len(data)):
        _written(copy, path.name, data[:end])
        assert _state(copy)[0] in [empty, *states]
        flipped = bytearray(data)
        flipped[end] ^= 1 << end % 8
        _written(copy, path.name, bytes(flipped))
        with pytest.raises((DamagedFile, NewerFormat)):
            _state(copy)


def _copied_state(source: Path, tmp_path: Path) -> Recovered:
    copy = tmp_path / "state"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    return _state(copy)[0]


def _written(folder: Path, name: str, data: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / name).write_bytes(data)
