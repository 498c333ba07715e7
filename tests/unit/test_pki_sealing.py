"""Encryption at rest: what is sealed, by which key, and what happens when something was changed."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.pki.folder import IdentityDamaged, IdentityMissing
from agent.pki.sealing import DATA_KEY_FILE, OVERHEAD, Locked, Sealing
from agent.pki.unlock import InvalidUnlockKey, make_unlock_key
from agent.raft.interface import Sealer


@pytest.fixture
def sealing(tmp_path: Path) -> Sealing:
    return Sealing.create(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=5000))
def test_what_is_sealed_can_be_opened_also_after_a_restart(sealing: Sealing, tmp_path: Path, plain: bytes) -> None:
    sealer: Sealer = sealing
    sealed = sealer.seal(plain)
    assert len(sealed) == len(plain) + OVERHEAD
    assert sealer.open(sealed) == plain
    assert Sealing.load(tmp_path).open(sealed) == plain
    if len(plain) > 8:
        assert plain not in sealed
    assert sealer.seal(plain) != sealed


def test_any_changed_or_missing_byte_is_noticed(sealing: Sealing) -> None:
    sealed = sealing.seal(b"state of the cluster")
    for place in range(len(sealed)):
        for bit in (1, 128):
            changed = bytearray(sealed)
            changed[place] ^= bit
            with pytest.raises(ValueError, match="sealed record"):
                sealing.open(bytes(changed))
    for length in range(len(sealed)):
        with pytest.raises(ValueError, match="sealed record"):
            sealing.open(sealed[:length])
    with pytest.raises(ValueError, match="sealed record"):
        sealing.open(sealed + b"x")


def test_another_nodes_key_does_not_open(sealing: Sealing, tmp_path: Path) -> None:
    other = Sealing.create(tmp_path / "other")
    with pytest.raises(ValueError, match="sealed with another key"):
        other.open(sealing.seal(b"x"))


def test_no_nonce_twice(sealing: Sealing, tmp_path: Path) -> None:
    """Salt and counter of every record differ: over threads, and over a restart."""
    again = Sealing.load(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda n: (sealing if n % 2 else again).seal(b""), range(4000)))
    assert len({record[5:29] for record in records}) == 4000


def test_rotation_keeps_the_old_readable_until_told(sealing: Sealing, tmp_path: Path) -> None:
    old = sealing.seal(b"old")
    sealing.rotate()
    new = sealing.seal(b"new")
    loaded = Sealing.load(tmp_path)
    assert (loaded.open(old), loaded.open(new)) == (b"old", b"new")
    sealing.forget_older()
    for reader in (sealing, Sealing.load(tmp_path)):
        assert reader.open(new) == b"new"
        with pytest.raises(ValueError, match="needs data key 1, which this node does not have"):
            reader.open(old)


def test_a_data_key_is_never_overwritten(sealing: Sealing, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="would be lost"):
        Sealing.create(tmp_path)
    assert Sealing.load_or_create(tmp_path).open(sealing.seal(b"x")) == b"x"
    assert Sealing.load_or_create(tmp_path / "new").seal(b"x")
    assert (tmp_path / "new" / DATA_KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_auto_lock(sealing: Sealing, tmp_path: Path) -> None:
    sealed = sealing.seal(b"state")
    key, other = make_unlock_key(), make_unlock_key()
    plain_file = (tmp_path / DATA_KEY_FILE).read_text()
    sealing.lock(key)
    assert "plain" in plain_file
    assert "plain" not in (tmp_path / DATA_KEY_FILE).read_text()
    assert key[9:] not in (tmp_path / DATA_KEY_FILE).read_text()
    with pytest.raises(Locked, match="unlock key is needed"):
        Sealing.load(tmp_path)
    with pytest.raises(Locked):
        Sealing.load_or_create(tmp_path)
    with pytest.raises(InvalidUnlockKey, match=r"^invalid key$"):
        Sealing.load(tmp_path, other)
    with pytest.raises(InvalidUnlockKey, match="SWMKEY-1-"):
        Sealing.load(tmp_path, "nonsense")
    unlocked = Sealing.load(tmp_path, key)
    assert unlocked.open(sealed) == b"state"
    # A rotation while locked keeps the lock.
    unlocked.rotate()
    with pytest.raises(Locked):
        Sealing.load(tmp_path)
    unlocked.lock(None)
    assert Sealing.load(tmp_path).open(sealed) == b"state"


def meaning(document: bytes | bytearray) -> object:
    try:
        return json.loads(document)
    except ValueError:
        return None


def test_missing_and_damaged_are_told_apart(sealing: Sealing, tmp_path: Path) -> None:
    path = tmp_path / DATA_KEY_FILE
    with pytest.raises(IdentityMissing):
        Sealing.load(tmp_path / "nowhere")
    whole = path.read_bytes()
    for content in (b"", b"[]", b"{}", b"nonsense", whole[:-20], whole.replace(b'"1"', b'"2"')):
        path.write_bytes(content)
        with pytest.raises(IdentityDamaged, match=DATA_KEY_FILE):
            Sealing.load(tmp_path)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        # White space between JSON's words may change; anything else is damage.
        if meaning(changed) != meaning(whole):
            with pytest.raises(IdentityDamaged, match=re.escape(str(path))):
                Sealing.load(tmp_path)
        else:
            assert Sealing.load(tmp_path)._keys == sealing._keys


def test_nothing_is_shown(sealing: Sealing) -> None:
    shown = repr(sealing) + str(sealing)
    assert sealing._keys[1].hex() not in shown
    assert shown == "Sealing(key=1)Sealing(key=1)"
