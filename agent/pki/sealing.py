"""Encryption of a manager's state at rest, with a data key in the identity's folder.

A sealed record is: format (1 byte), number of the data key (4), salt (16), counter (8), AES-256-GCM ciphertext and tag.
Each `Sealing` derives a key of its own from the data key and a random salt (HKDF) and counts its nonces, so that no
nonce can come twice however many records are written and however often the agent starts.

The file keeps each data key either plain or wrapped by the unlock key (auto-lock). It also keeps the one key that
identity.json's private key is sealed with: so that a single file, replaced whole, decides what opens both, and no crash
can leave one of them to an unlock key that nobody knows.
"""

from __future__ import annotations

import base64
import itertools
import os
import secrets
import struct
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agent.pki.folder import IdentityDamaged, IdentityMissing, read_document, remove_secret, write_document
from agent.pki.unlock import InvalidUnlockKey, parse_unlock_key

DATA_KEY_FILE = "data-keys.json"
FILE_FORMAT = 1
RECORD_FORMAT = 1
_KEY_BYTES = 32
_SALT_BYTES = 16
_NONCE_BYTES = 12
_HEADER = struct.Struct(">BI16sQ")
OVERHEAD = _HEADER.size + 16
"""Bytes that sealing adds to a record."""
_MAX_DERIVED = 4096
_IDENTITY_CONTEXT = b"swarmtui identity"


class Locked(Exception):
    """The data key is wrapped by an unlock key that is needed first."""


class _Epoch(NamedTuple):
    """What `seal` uses from one rotation (or start) to the next: read at once, so that threads never mix two."""

    number: int
    salt: bytes
    cipher: AESGCM
    counter: itertools.count[int]


class Sealing:
    """AES-256-GCM with the node's data keys; implements `agent.raft.interface.Sealer`. The repr shows nothing of it.

    `seal` and `open` may be called from any thread.
    """

    def __init__(
        self, folder: Path, keys: dict[int, bytes], unlock_key: str | None = None, identity_key: bytes | None = None
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._unlock_key = unlock_key
        self._identity_key = identity_key
        self._derived: dict[tuple[int, bytes], AESGCM] = {}
        self._begin()

    def __repr__(self) -> str:
        return f"Sealing(key={self._epoch.number})"

    @classmethod
    def create(cls, folder: Path) -> Sealing:
        """A new data key, saved in `folder` (0600) before this returns. FileExistsError rather than losing a key."""
        path = folder / DATA_KEY_FILE
        if path.exists():
            raise FileExistsError(f"{path} exists: the state sealed with its key would be lost")
        sealing = cls(folder, {1: secrets.token_bytes(_KEY_BYTES)}, None, secrets.token_bytes(_KEY_BYTES))
        sealing._save()
        return sealing

    @classmethod
    def load(cls, folder: Path, unlock_key: str | None = None) -> Sealing:
        """The saved data keys; IdentityMissing, IdentityDamaged, Locked (no unlock key), InvalidUnlockKey (a wrong one)."""
        path = folder / DATA_KEY_FILE
        content = read_document(path)
        if content.get("format") != FILE_FORMAT:
            raise IdentityDamaged(path, f"its format is {content.get('format')!r}; this agent knows {FILE_FORMAT}")
        if content.get("locked"):
            if unlock_key is None:
                raise Locked(f"{path} is locked: this manager's unlock key is needed")
            wrapping: bytes | None = parse_unlock_key(unlock_key)
        else:
            wrapping = unlock_key = None
        try:
            keys = {
                int(number): _unwrap(stored, _context_of(number), wrapping)
                for number, stored in content["keys"].items()
            }
            own = content.get("identity")
            identity_key = _unwrap(own, _IDENTITY_CONTEXT, wrapping) if own is not None else None
        except InvalidTag:
            raise InvalidUnlockKey("invalid key") from None
        except (KeyError, ValueError, TypeError, AttributeError):
            raise IdentityDamaged(path, "its data keys cannot be read") from None
        if not keys or any(
            len(key) != _KEY_BYTES for key in [*keys.values(), identity_key or next(iter(keys.values()))]
        ):
            raise IdentityDamaged(path, "it holds no data key of 32 bytes")
        return cls(folder, keys, unlock_key, identity_key)

    @classmethod
    def load_or_create(cls, folder: Path) -> Sealing:
        """The saved data key, or a new one where there is none."""
        try:
            return cls.load(folder)
        except IdentityMissing:
            return cls.create(folder)

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget the data keys, and with them all that they sealed. An identity that is still needed is saved plain first."""
        remove_secret(folder / DATA_KEY_FILE)

    def seal(self, plain: bytes) -> bytes:
        """`plain` encrypted and authenticated, `OVERHEAD` bytes longer."""
        epoch = self._epoch
        count = next(epoch.counter)
        header = _HEADER.pack(RECORD_FORMAT, epoch.number, epoch.salt, count)
        return header + epoch.cipher.encrypt(_nonce(count), plain, header)

    def open(self, sealed: bytes) -> bytes:
        """The plain bytes; ValueError when they were changed or the key is another one."""
        if len(sealed) < OVERHEAD:
            raise ValueError(f"a sealed record of {len(sealed)} bytes is too short")
        header = bytes(sealed[: _HEADER.size])
        form, number, salt, count = _HEADER.unpack(header)
        if form != RECORD_FORMAT:
            raise ValueError(f"a sealed record of format {form}; this agent knows {RECORD_FORMAT}")
        try:
            return self._derive(number, salt).decrypt(_nonce(count), sealed[_HEADER.size :], header)
        except InvalidTag:
            raise ValueError("a sealed record was changed, or sealed with another key") from None

    def rotate(self) -> None:
        """Seal with a new data key from now on; what older keys sealed can still be opened. Saved when this returns."""
        previous = dict(self._keys)
        self._keys[self._epoch.number + 1] = secrets.token_bytes(_KEY_BYTES)
        try:
            self._save()
        except OSError:
            self._keys = previous
            raise
        self._begin()

    def forget_older(self) -> None:
        """Drop every data key but the current one: nothing that they sealed is needed any more."""
        self._keys = {self._epoch.number: self._keys[self._epoch.number]}
        self._derived.clear()
        self._save()

    @property
    def unlock_key(self) -> str | None:
        """What the keys on disk are wrapped by; None while they are plain."""
        return self._unlock_key

    @property
    def folder(self) -> Path:
        """Where the keys are kept."""
        return self._folder

    def lock(self, unlock_key: str | None) -> None:
        """Wrap the keys on disk by `unlock_key` from now on, or keep them plain again with None. Whole or not at all.

        `custody.lock` does this and sees to the identity too.
        """
        if unlock_key is not None:
            parse_unlock_key(unlock_key)
        previous, self._unlock_key = self._unlock_key, unlock_key
        try:
            self._save()
        except OSError:
            self._unlock_key = previous
            raise

    def seal_identity(self, key_pem: bytes) -> dict[str, str]:
        """A node's private key, for identity.json. No rotation of data keys touches what this seals with."""
        if self._identity_key is None:
            self._identity_key = secrets.token_bytes(_KEY_BYTES)
            self._save()
        return _wrap(key_pem, _IDENTITY_CONTEXT, self._identity_key)

    def open_identity(self, sealed: dict[str, str]) -> bytes:
        """The opposite; ValueError when it was changed or sealed by another node."""
        try:
            if self._identity_key is not None:
                return _unwrap(sealed, _IDENTITY_CONTEXT, self._identity_key)
        except (InvalidTag, KeyError, TypeError, ValueError):
            pass
        raise ValueError("the private key was changed, or sealed with another key")

    def _begin(self) -> None:
        number = max(self._keys)
        salt = os.urandom(_SALT_BYTES)
        self._epoch = _Epoch(number, salt, self._derive(number, salt), itertools.count())

    def _derive(self, number: int, salt: bytes) -> AESGCM:
        cipher = self._derived.get((number, salt))
        if cipher is None:
            key = self._keys.get(number)
            if key is None:
                raise ValueError(f"a sealed record needs data key {number}, which this node does not have")
            if len(self._derived) >= _MAX_DERIVED:
                self._derived.clear()
            derived = HKDF(hashes.SHA256(), _KEY_BYTES, salt, b"swarmtui sealing 1").derive(key)
            cipher = self._derived[number, salt] = AESGCM(derived)
        return cipher

    def _save(self) -> None:
        wrapping = parse_unlock_key(self._unlock_key) if self._unlock_key else None
        content = {
            "format": FILE_FORMAT,
            "locked": wrapping is not None,
            "keys": {str(number): _wrap(key, _context_of(number), wrapping) for number, key in self._keys.items()},
        }
        if self._identity_key is not None:
            content["identity"] = _wrap(self._identity_key, _IDENTITY_CONTEXT, wrapping)
        write_document(self._folder / DATA_KEY_FILE, content)


def is_locked(folder: Path) -> bool:
    """Whether the data keys saved in `folder` need an unlock key. IdentityDamaged when the file cannot be read."""
    try:
        return bool(read_document(folder / DATA_KEY_FILE).get("locked"))
    except IdentityMissing:
        return False


def _nonce(count: int) -> bytes:
    return count.to_bytes(_NONCE_BYTES, "big")


def _wrap(key: bytes, context: bytes, wrapping: bytes | None) -> dict[str, str]:
    if wrapping is None:
        return {"plain": base64.b64encode(key).decode()}
    nonce = os.urandom(_NONCE_BYTES)
    wrapped = AESGCM(wrapping).encrypt(nonce, key, context)
    return {"nonce": base64.b64encode(nonce).decode(), "wrapped": base64.b64encode(wrapped).decode()}


def _unwrap(stored: dict[str, Any], context: bytes, wrapping: bytes | None) -> bytes:
    if wrapping is None:
        return base64.b64decode(stored["plain"], validate=True)
    nonce = base64.b64decode(stored["nonce"], validate=True)
    wrapped = base64.b64decode(stored["wrapped"], validate=True)
    return AESGCM(wrapping).decrypt(nonce, wrapped, context)


def _context_of(number: str | int) -> bytes:
    return f"swarmtui data key {int(number)}".encode()
