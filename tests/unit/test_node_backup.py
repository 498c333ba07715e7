"""A backup is read whole or not at all, whatever happened to the file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent.api_types.errors import InvalidArgument, Unavailable
from agent.api_types.node import Node
from agent.api_types.secret import Secret, SecretSpec
from agent.api_types.swarm import Cluster
from agent.node.backup import Backup, DamagedBackup, read_backup, write_backup
from agent.store.entries import decode_objects
from agent.store.store import Store

NOW = 1_700_000_000_000_000_000


async def in_pieces(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def written(store: Store, passphrase: str = "") -> bytes:
    return b"".join([piece async for piece in write_backup(store, lambda: NOW, passphrase)])


async def read(data: bytes, passphrase: str = "") -> Backup:
    return await read_backup(in_pieces(data), passphrase)


@pytest.fixture
async def store() -> Store:
    store = Store.in_memory()
    await store.update(lambda tx: tx.create(Cluster(id="cluster", ca_cert="cert", ca_key="the key", unlock_key="u")))
    await store.update(lambda tx: tx.create(Node(id="node")))
    await store.update(lambda tx: tx.create(Secret(id="secret", spec=SecretSpec(name="password", data=b"hidden"))))
    return store


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
async def test_everything_comes_back(store: Store, passphrase: str) -> None:
    data = await written(store, passphrase)
    assert (b"the key" in data) is not bool(passphrase)
    backup = await read(data, passphrase)
    assert (backup.header.cluster_id, backup.index, backup.header.time) == ("cluster", 3, NOW)
    found = [obj for chunk in backup.chunks for obj in decode_objects(chunk)]
    for kind, object_id in ((Cluster, "cluster"), (Node, "node"), (Secret, "secret")):
        assert store.view(lambda tx, kind=kind, object_id=object_id: tx.get(kind, object_id)) in found


async def test_no_byte_can_be_changed_or_cut_off(store: Store) -> None:
    data = await written(store)
    for at in range(len(data)):
        with pytest.raises(DamagedBackup):
            await read(data[:at])
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(InvalidArgument):
            await read(bytes(changed))


async def test_the_passphrase_is_needed_and_frames_keep_their_places(store: Store) -> None:
    data = await written(store, "correct horse")
    with pytest.raises(InvalidArgument, match="give its passphrase"):
        await read(data)
    with pytest.raises(InvalidArgument, match="not that of the backup"):
        await read(data, "wrong")


async def test_a_manager_that_knows_nothing_yet_has_no_backup() -> None:
    with pytest.raises(Unavailable):
        await written(Store.in_memory())


async def test_a_newer_format_is_refused_with_what_to_do(store: Store) -> None:
    data = (await written(store)).replace(b'"format":1', b'"format":9', 1)
    with pytest.raises(InvalidArgument, match="upgrade"):
        await read(data)
