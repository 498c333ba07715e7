"""Auto-lock of identity and data keys together, with a crash at every write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from agent.api_types.node import NodeRole
from agent.api_types.times import now_ns
from agent.pki.custody import lock
from agent.pki.folder import IdentityDamaged
from agent.pki.identity import IDENTITY_FILE, NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.pki.sealing import DATA_KEY_FILE, Locked, Sealing
from agent.pki.unlock import InvalidUnlockKey, make_unlock_key

FIRST, SECOND = make_unlock_key(), make_unlock_key()


@pytest.fixture(scope="module")
def identity() -> NodeIdentity:
    return made(NodeRole.MANAGER)


def made(role: NodeRole) -> NodeIdentity:
    root = RootCA.create(now_ns)
    key = NodeKey.create()
    certificate = root.sign(key.request(), "node1", role, cluster_id="cluster1", clock=now_ns)
    return NodeIdentity.from_pem(certificate, key.pem, root.cert_pem)


def opens(folder: Path, key: str | None) -> bool:
    """Whether both files open with `key`; never one of them alone to another key."""
    try:
        identity = NodeIdentity.load(folder, key)
        sealing = Sealing.load(folder, key)
    except (Locked, InvalidUnlockKey):
        return False
    return bool(identity.key_pem) and bool(sealing)


def secret_of(identity: NodeIdentity) -> list[bytes]:
    """The lines of the private key, which are not to stand in any file."""
    return [line for line in identity.key_pem.splitlines() if not line.startswith(b"-")]


def test_locked_files_need_the_key_and_show_nothing(identity: NodeIdentity, tmp_path: Path) -> None:
    identity.save(tmp_path)
    sealing = Sealing.create(tmp_path)
    sealed = sealing.seal(b"state")
    lock(identity, sealing, FIRST)
    for load in (NodeIdentity.load, Sealing.load):
        with pytest.raises(Locked):
            load(tmp_path)
        with pytest.raises(InvalidUnlockKey):
            load(tmp_path, SECOND)
    assert NodeIdentity.load(tmp_path, FIRST).key_pem == identity.key_pem
    assert Sealing.load(tmp_path, FIRST).open(sealed) == b"state"
    assert Sealing.load(tmp_path, FIRST).unlock_key == FIRST
    for file in tmp_path.iterdir():
        assert not any(line in file.read_bytes() for line in secret_of(identity)), file
    lock(identity, sealing, SECOND)
    assert [opens(tmp_path, key) for key in (None, FIRST, SECOND)] == [False, False, True]
    lock(identity, sealing, None)
    assert [opens(tmp_path, key) for key in (None, FIRST, SECOND)] == [True, True, True]
    assert sealing.unlock_key is None


@pytest.mark.parametrize("after", [None, FIRST, SECOND], ids=["open", "first", "second"])
@pytest.mark.parametrize("before", [None, FIRST, SECOND], ids=["open", "first", "second"])
@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("torn", [False, True])
def test_a_crash_between_any_two_writes(
    identity: NodeIdentity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    after: str | None,
    writes: int,
    torn: bool,
) -> None:
    """Whatever was done when the power went, both files open with the old key, or both with the new one."""
    identity.save(tmp_path)
    sealing = Sealing.create(tmp_path)
    lock(identity, sealing, before)
    real = os.replace
    done = 0

    def replace(source: Path, target: Path) -> None:
        nonlocal done
        if done == writes:
            if torn:
                real(source, target)
            raise KeyboardInterrupt
        done += 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    crashed = False
    try:
        lock(identity, sealing, after)
    except KeyboardInterrupt:
        crashed = True
    monkeypatch.setattr(os, "replace", real)
    assert crashed == (writes < 2)
    assert opens(tmp_path, before) or opens(tmp_path, after)
    if not crashed:
        assert opens(tmp_path, after)
    # After the restart the manager follows the cluster's key again.
    with_key = before if opens(tmp_path, before) else after
    again = Sealing.load(tmp_path, with_key)
    lock(NodeIdentity.load(tmp_path, with_key), again, after)
    assert opens(tmp_path, after)
    if after is not None:
        assert not opens(tmp_path, None)


def test_a_disk_that_refuses_leaves_the_old_key(
    identity: NodeIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing = Sealing.create(tmp_path)
    lock(identity, sealing, FIRST)

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == DATA_KEY_FILE:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        lock(identity, sealing, SECOND)
    monkeypatch.undo()
    assert sealing.unlock_key == FIRST
    assert opens(tmp_path, FIRST)


def test_data_keys_come_and_go_and_the_identity_stays(identity: NodeIdentity, tmp_path: Path) -> None:
    sealing = Sealing.create(tmp_path)
    lock(identity, sealing, FIRST)
    for _ in range(3):
        sealing.rotate()
        sealing.forget_older()
    assert opens(tmp_path, FIRST)


def test_a_renewed_identity_is_not_left_in_plain(identity: NodeIdentity, tmp_path: Path) -> None:
    sealing = Sealing.create(tmp_path)
    lock(identity, sealing, FIRST)
    renewed = made(NodeRole.MANAGER)
    with pytest.raises(Locked, match="private key in plain"):
        renewed.save(tmp_path)
    renewed.save(tmp_path, sealing)
    assert NodeIdentity.load(tmp_path, FIRST).key_pem == renewed.key_pem
    # A worker has nothing that is locked.
    worker = made(NodeRole.WORKER)
    worker.save(tmp_path)
    Sealing.remove(tmp_path)
    assert NodeIdentity.load(tmp_path).key_pem == worker.key_pem


def test_files_of_two_nodes_do_not_mix(identity: NodeIdentity, tmp_path: Path) -> None:
    one, other = Sealing.create(tmp_path / "one"), Sealing.create(tmp_path / "other")
    identity.save(tmp_path / "one", one)
    with pytest.raises(ValueError, match="the identity is to be saved in"):
        identity.save(tmp_path / "one", other)
    (tmp_path / "other" / IDENTITY_FILE).write_bytes((tmp_path / "one" / IDENTITY_FILE).read_bytes())
    with pytest.raises(IdentityDamaged, match="sealed with another key"):
        NodeIdentity.load(tmp_path / "other")
    Sealing.remove(tmp_path / "one")
    with pytest.raises(IdentityDamaged, match="data keys beside it are gone"):
        NodeIdentity.load(tmp_path / "one")


def test_a_bit_flipped_anywhere_is_damage_or_a_wrong_key(identity: NodeIdentity, tmp_path: Path) -> None:
    sealing = Sealing.create(tmp_path)
    lock(identity, sealing, FIRST)
    for name in (IDENTITY_FILE, DATA_KEY_FILE):
        good = (tmp_path / name).read_bytes()
        for place in range(0, len(good), 3):
            bad = bytearray(good)
            bad[place] ^= 1
            (tmp_path / name).write_bytes(bad)
            with contextlib.suppress(IdentityDamaged, InvalidUnlockKey, Locked):
                assert NodeIdentity.load(tmp_path, FIRST).key_pem == identity.key_pem
        (tmp_path / name).write_bytes(good)


def test_keys_of_before_the_identity_was_sealed(identity: NodeIdentity, tmp_path: Path) -> None:
    """A folder without a key for the identity gets one when it is needed."""
    Sealing(tmp_path, {1: b"k" * 32})._save()
    identity.save(tmp_path)
    sealing = Sealing.load(tmp_path)
    lock(identity, sealing, FIRST)
    assert opens(tmp_path, FIRST)
