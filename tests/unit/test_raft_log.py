"""The durable log: nothing acknowledged is lost, a torn end is cut, any other damage refuses to start."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.raft.frames import DamagedFile, NewerFormat
from agent.raft.log import DurableLog, Record, RecordKind


class Plain:
    """A sealer that leaves everything readable, so that tests can aim at bytes."""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes) -> bytes:
        return sealed


def entry(index: int, data: bytes) -> Record:
    return Record(RecordKind.ENTRY, 1, index, data)


def recover(folder: Path) -> list[bytes]:
    log = DurableLog(folder, Plain())
    try:
        return [record.data for record in log.recover(0).entries]
    finally:
        log.close()


def write(folder: Path, *batches: list[bytes], segment_size: int = 1 << 20) -> Path:
    log = DurableLog(folder, Plain(), segment_size=segment_size)
    index = len(log.recover(0).entries)
    for batch in batches:
        log.append([entry(index + n, data) for n, data in enumerate(batch, 1)])
        index += len(batch)
    log.close()
    return sorted(folder.glob("log-*.wal"))[-1]


def test_cut_at_every_byte_keeps_whole_batches_only(tmp_path: Path) -> None:
    path = write(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    allowed = ([], [b"one"], [b"one", b"two", b"three"], [b"one", b"two", b"three", b"four"])
    seen = set()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        got = recover(tmp_path)
        assert got in allowed
        seen.add(len(got))
        # What was cut is gone for good: the next append continues behind it.
        write(tmp_path, [b"more"])
        assert recover(tmp_path) == [*got, b"more"]
    assert seen == {0, 1, 3, 4}


def test_bit_flipped_in_every_byte_is_never_wrong_data_and_never_silent(tmp_path: Path) -> None:
    path = write(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    for offset in range(len(whole)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << (offset % 8)
        path.write_bytes(damaged)
        with pytest.raises((DamagedFile, NewerFormat)) as caught:
            recover(tmp_path)
        assert path.name in str(caught.value)
        assert path.read_bytes() == bytes(damaged), "a refusal changes nothing"


def test_missing_segment_is_damage(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, [b"x" * 50 + bytes([number])], segment_size=60)
    segments = sorted(tmp_path.glob("log-*.wal"))
    assert len(segments) >= 3
    segments[1].unlink()
    with pytest.raises(DamagedFile, match="missing"):
        recover(tmp_path)
