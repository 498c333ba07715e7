"""A backup's file: whole or refused, whatever is done to it."""

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmtui.operations import backup_file
from swarmtui.operations.backup_file import (
    BackupWriter,
    BadBackup,
    Progress,
    WrongPassphrase,
    check,
    pieces,
    read_backup,
)


def made(data: bytes, passphrase: str = "secret", *, step: int = 1000) -> bytes:
    file = io.BytesIO()
    writer = BackupWriter(file, passphrase, cost=1)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
    writer.finish()
    return file.getvalue()


def read(file: bytes, passphrase: str = "secret") -> bytes:
    return b"".join(read_backup(io.BytesIO(file), passphrase))


@settings(max_examples=60)
@given(st.binary(max_size=400), st.integers(1, 200), st.integers(1, 100))
def test_what_goes_in_comes_out(data: bytes, step: int, record: int) -> None:
    before, backup_file.RECORD = backup_file.RECORD, record
    try:
        file = made(data, step=step)
        assert read(file) == data
        assert len(data) < 8 or data not in file[52:]
    finally:
        backup_file.RECORD = before


def test_damage_at_every_byte_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_file, "RECORD", 16)
    monkeypatch.setattr(backup_file, "_HIGHEST_COST", 6)
    file = made(b"state of the cluster, with its secrets")
    for at in range(len(file)):
        for flip in (1, 128):
            damaged = bytearray(file)
            damaged[at] ^= flip
            with pytest.raises(BadBackup):
                read(bytes(damaged))
        with pytest.raises(BadBackup):
            read(file[:at])
    with pytest.raises(BadBackup, match="something follows its end"):
        read(file + b"x")


def test_records_cannot_change_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_file, "RECORD", 4)
    file = made(b"aaaabbbbcccc")
    size = 4 + 4 + 16
    head, first, second, last = file[:52], file[52 : 52 + size], file[52 + size : 52 + 2 * size], file[52 + 2 * size :]
    assert head + first + second + last == file
    for wrong in (second + first + last, first + first + last, first + last, last, first + second + last + last):
        with pytest.raises(BadBackup):
            read(head + wrong)


def test_the_errors_say_which_of_them_it_is(tmp_path: Path) -> None:
    file = made(b"x" * 100)
    with pytest.raises(WrongPassphrase, match="wrong passphrase"):
        read(file, "another")
    with pytest.raises(BadBackup, match="no backup made by"):
        read(b"PK\x03\x04" + file)
    with pytest.raises(BadBackup, match="no backup"):
        read(b"")
    with pytest.raises(BadBackup, match="a newer one made it"):
        read(file[:16] + b"\x09" + file[17:])
    with pytest.raises(BadBackup, match="damaged at byte 52"):
        read(file[:-1] + bytes([file[-1] ^ 1]))
    path = tmp_path / "b"
    path.write_bytes(file)
    assert check(path, "secret") == len(file)


async def test_it_is_sent_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_file, "RECORD", 10)
    path = tmp_path / "b"
    path.write_bytes(made(b"0123456789" * 5))
    progress = Progress()
    sent = [piece async for piece in pieces(path, "secret", progress)]
    assert sent == [b"0123456789"] * 5
    assert progress.done == path.stat().st_size
