"""The file that holds a backup: encrypted with a passphrase, and complete or refused.

A backup holds the authority's key, join tokens and every secret, so it is never written in the clear. Layout: a head of 32
bytes (magic, format number, scrypt's cost, salt), then records of a length (4 bytes, its highest bit set in the last one) and
that many bytes of AES-256-GCM. A record's nonce is its number with the mark of the last one in it, and the head is
authenticated with every record: records that are cut off, exchanged, repeated or changed are found. The first record is empty:
it tells a wrong passphrase from damage.
"""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAGIC = b"swarmtui-backup\n"
FORMAT = 1
RECORD = 64 * 1024
"""Bytes of a record before it is encrypted, at most."""
COST = 15
"""Logarithm of scrypt's cost: 32 MB and about 0.1 s for each passphrase that somebody tries."""
_HIGHEST_COST = 20
_HEAD = struct.Struct(">16sBB14s")
_LENGTH = struct.Struct(">I")
_LAST = 1 << 31
_TAG = 16


class BadBackup(Exception):
    """The file cannot be used; the text says why."""


class WrongPassphrase(BadBackup):
    """The first record cannot be read: another passphrase, or a file that is damaged from its beginning."""


def _key(passphrase: str, salt: bytes, cost: int) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=1 << cost, r=8, p=1).derive(passphrase.encode()))


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">QI", number, int(last))


@dataclass(slots=True)
class Progress:
    """How much of a file is done; bytes."""

    done: int = 0
    total: int = 0
    """0 while nobody knows."""


class BackupWriter:
    """Encrypts into an open file; nothing that lacks `finish` can be restored."""

    def __init__(self, file: BinaryIO, passphrase: str, *, cost: int = COST) -> None:
        """Blocks for as long as making the key takes."""
        salt = os.urandom(14)
        self._file = file
        self._head = _HEAD.pack(MAGIC, FORMAT, cost, salt)
        self._key = _key(passphrase, salt, cost)
        self._number = 0
        self._held = bytearray()
        file.write(self._head)
        self._record(b"", last=False)

    def write(self, data: bytes) -> None:
        """Append to the backup."""
        self._held += data
        # One byte stays at least: the last record is written when it is known to be the last.
        while len(self._held) > RECORD:
            self._record(bytes(self._held[:RECORD]), last=False)
            del self._held[:RECORD]

    def finish(self) -> None:
        """The backup is complete."""
        self._record(bytes(self._held), last=True)
        self._held.clear()

    def _record(self, plain: bytes, *, last: bool) -> None:
        sealed = self._key.encrypt(_nonce(self._number, last), plain, self._head)
        self._file.write(_LENGTH.pack(len(sealed) | (_LAST if last else 0)) + sealed)
        self._number += 1


def read_backup(file: BinaryIO, passphrase: str) -> Iterator[bytes]:
    """The backup, piece by piece. BadBackup when the file is no backup, is damaged, or not complete."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        raise BadBackup("this is no backup made by `swarmtui backup`")
    _, number, cost, salt = _HEAD.unpack(head)
    if number != FORMAT:
        raise BadBackup(f"this backup has format {number}, and this program reads format {FORMAT}: a newer one made it")
    if not 1 <= cost <= _HIGHEST_COST:
        raise BadBackup("this backup is damaged: its head says what cannot be")
    key = _key(passphrase, salt, cost)
    count, last = 0, False
    while not last:
        at = file.tell()
        length = file.read(_LENGTH.size)
        if len(length) < _LENGTH.size:
            raise BadBackup(f"this backup is not complete: it ends at byte {at}")
        (size,) = _LENGTH.unpack(length)
        last = bool(size & _LAST)
        size &= ~_LAST
        if not _TAG <= size <= RECORD + _TAG:
            raise BadBackup(f"this backup is damaged at byte {at}")
        sealed = file.read(size)
        if len(sealed) < size:
            raise BadBackup(f"this backup is not complete: it ends within the record at byte {at}")
        try:
            plain = key.decrypt(_nonce(count, last), sealed, head)
        except InvalidTag:
            if count == 0:
                raise WrongPassphrase("wrong passphrase (or its first 52 bytes are damaged)") from None
            raise BadBackup(f"this backup is damaged at byte {at}") from None
        if count:
            yield plain
        count += 1
    if file.read(1):
        raise BadBackup(f"this backup is damaged: something follows its end at byte {file.tell() - 1}")


def check(path: Path, passphrase: str) -> int:
    """Read all of it: its size in bytes, or BadBackup."""
    with path.open("rb") as file:
        for _ in read_backup(file, passphrase):
            pass
        return file.tell()


async def pieces(path: Path, passphrase: str, progress: Progress) -> AsyncIterator[bytes]:
    """The backup as a body to send. Reading and decrypting a record takes less than a millisecond."""
    with path.open("rb") as file:
        for piece in read_backup(file, passphrase):
            progress.done = file.tell()
            yield piece
