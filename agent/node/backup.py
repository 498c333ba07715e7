"""The whole state of a cluster in one file: what a backup holds, and how it is read again.

A line of magic; a header (JSON); frames, each with its length (4 bytes), the CRC-32 of what precedes and follows (4), and
a chunk of objects as in a snapshot; a last frame (JSON) that counts them. With a passphrase each frame is encrypted (AES-256-GCM,
a key by scrypt from the passphrase and the header's salt, the frame's number as nonce), so that nothing can be changed, left
out or put elsewhere. It holds everything: the authority's key, the join tokens, secrets. Whoever has it has the cluster.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from agent.api_types.errors import InvalidArgument, Unavailable
from agent.api_types.swarm import Cluster
from agent.api_types.times import Clock
from agent.store.entries import UnknownFormat, decode_objects
from agent.store.store import Store

MAGIC = b"swarmtui cluster backup\n"
FORMAT = 1
MAX_FRAME = 64 * 1024 * 1024
"""Bytes of a chunk; one of a snapshot holds 1000 objects."""
_FRAME = struct.Struct(">II")
_SCRYPT = {"length": 32, "n": 1 << 15, "r": 8, "p": 1}


class DamagedBackup(InvalidArgument):
    """The file is no backup, not all of it, or was changed; the text says where."""


class Header(msgspec.Struct, frozen=True):
    """What a backup says of itself in plain. `time` in nanoseconds since the epoch; `salt` (base64) with a passphrase."""

    cluster_id: str
    index: int
    time: int
    salt: str = ""
    format: int = FORMAT


class _Trailer(msgspec.Struct, frozen=True):
    chunks: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read whole: everything in it fits."""

    header: Header
    cluster: Cluster
    chunks: list[bytes]

    @property
    def index(self) -> int:
        """The index of the last change in it."""
        return self.header.index


async def write_backup(store: Store, clock: Clock, passphrase: str = "") -> AsyncIterator[bytes]:
    """The state of the store as of the first step, in pieces. Unavailable while the store knows no cluster."""
    clusters = store.view(lambda tx: tx.all(Cluster))
    if not clusters:
        raise Unavailable("this manager does not know the cluster's state yet; try again in a moment")
    salt = base64.b64encode(os.urandom(16)).decode() if passphrase else ""
    header = Header(clusters[0].id, store.index, clock(), salt)
    # The first step of the generator takes the state: nothing is applied between the index and it.
    state = store.snapshot()
    first = await anext(state)
    cipher = await _cipher(passphrase, salt)
    encoded = msgspec.json.encode(header) + b"\n"
    yield MAGIC + encoded
    number, check = 0, zlib.crc32(encoded)
    frame, check = _encode(first, number, check, cipher)
    yield frame
    async for chunk in state:
        number += 1
        frame, check = _encode(chunk, number, check, cipher)
        yield frame
    frame, _ = _encode(msgspec.json.encode(_Trailer(number + 1)), number + 1, check, cipher)
    yield frame


async def read_backup(data: AsyncIterator[bytes], passphrase: str = "") -> Backup:
    """A whole backup, checked to the last byte before anything is made of it. DamagedBackup, InvalidArgument."""
    reader = _Reader(data)
    if await reader.take(len(MAGIC)) != MAGIC:
        raise DamagedBackup("this is no backup of a cluster: it does not begin like one")
    line = await reader.line()
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.DecodeError:
        raise DamagedBackup("the backup's header cannot be read") from None
    if header.format > FORMAT:
        raise InvalidArgument(f"the backup has format {header.format}, this version reads {FORMAT}: upgrade this agent")
    if header.salt and not passphrase:
        raise InvalidArgument("the backup is encrypted: give its passphrase")
    cipher = await _cipher(passphrase if header.salt else "", header.salt)
    frames: list[bytes] = []
    check = zlib.crc32(line)
    while (raw := await reader.take(_FRAME.size, or_end=True)) is not None:
        at = reader.position
        length, expected = _FRAME.unpack(raw)
        if length > MAX_FRAME:
            raise DamagedBackup(f"the backup is damaged at byte {at}: a chunk of {length} bytes")
        body = await reader.take(length)
        assert body is not None
        check = zlib.crc32(body, check)
        if check != expected:
            raise DamagedBackup(f"the backup is damaged at byte {at}: its checksum does not fit")
        frames.append(_open(body, len(frames), cipher))
    if not frames:
        raise DamagedBackup("the backup is not whole: it ends after its header")
    try:
        whole = msgspec.json.decode(frames.pop(), type=_Trailer).chunks == len(frames)
    except msgspec.DecodeError:
        whole = False
    if not whole:
        raise DamagedBackup(f"the backup is not whole: it ends at byte {reader.position}")
    return Backup(header, await _cluster_in(frames, header), frames)


async def _cluster_in(chunks: list[bytes], header: Header) -> Cluster:
    """The cluster's own object; every chunk is read as the store will read it."""
    found: list[Cluster] = []
    for chunk in chunks:
        try:
            found += [obj for obj in decode_objects(chunk) if isinstance(obj, Cluster)]
        except (msgspec.MsgspecError, ValueError, UnknownFormat) as error:
            raise DamagedBackup(f"the backup holds what this version cannot read: {error}") from None
        await asyncio.sleep(0)
    if len(found) != 1 or found[0].id != header.cluster_id or not found[0].ca_key or header.index < 1:
        raise DamagedBackup("the backup does not hold the cluster that its header names")
    return found[0]


async def _cipher(passphrase: str, salt: str) -> AESGCM | None:
    if not passphrase:
        return None
    derive = Scrypt(salt=base64.b64decode(salt), **_SCRYPT).derive
    return AESGCM(await asyncio.to_thread(derive, passphrase.encode()))


def _encode(chunk: bytes, number: int, check: int, cipher: AESGCM | None) -> tuple[bytes, int]:
    body = chunk if cipher is None else cipher.encrypt(number.to_bytes(12, "big"), chunk, None)
    check = zlib.crc32(body, check)
    return _FRAME.pack(len(body), check) + body, check


def _open(body: bytes, number: int, cipher: AESGCM | None) -> bytes:
    if cipher is None:
        return body
    try:
        return cipher.decrypt(number.to_bytes(12, "big"), body, None)
    except InvalidTag:
        raise InvalidArgument("the passphrase is not that of the backup") from None


class _Reader:
    """Bytes of a stream by number or line."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self._held = bytearray()
        self.position = 0

    async def take(self, count: int, *, or_end: bool = False) -> bytes | None:
        """So many bytes; DamagedBackup when the stream ends before, None if it may end here and does."""
        while len(self._held) < count:
            if not await self._more():
                if or_end and not self._held:
                    return None
                raise DamagedBackup(f"the backup is not whole: it ends at byte {self.position + len(self._held)}")
        return self._cut(count)

    async def line(self) -> bytes:
        """Up to the end of a line, with it."""
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > MAX_FRAME or not await self._more():
                raise DamagedBackup("the backup's header has no end")
        return self._cut(end + 1)

    async def _more(self) -> bool:
        piece = await anext(self._data, None)
        if piece is None:
            return False
        self._held += piece
        return True

    def _cut(self, count: int) -> bytes:
        taken = bytes(self._held[:count])
        del self._held[:count]
        self.position += count
        return taken
