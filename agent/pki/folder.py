"""Files that hold secrets: whole or not at all, on the disk before the call returns, readable by their owner alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

_CHECKSUM_LENGTH = 16


class IdentityMissing(Exception):
    """The file is not there: the node has not joined, or left."""


class IdentityDamaged(Exception):
    """The file is there but cannot be used; the text names file and reason, never the contents."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")
        self.path = path


def write_secret(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a crash leaves the old file or the new one. The folder becomes 0700, the file 0600."""
    _make_folder(path.parent)
    draft = path.with_name(f".{path.name}.draft")
    # A draft left by a crash is nobody's: a new file makes sure that no other process has it open.
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_secret(path: Path) -> bytes:
    """The file's bytes; IdentityMissing or IdentityDamaged."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise IdentityMissing(f"{path} does not exist: this node has no identity") from None
    except OSError as error:
        raise IdentityDamaged(path, error.strerror or str(error)) from None


def remove_secret(path: Path) -> None:
    """Forget the file, for good when this returns; nothing happens when there is none."""
    if path.exists():
        path.unlink()
        sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """A folder for its owner alone; each one that is made on the way is durable."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_document(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON with a checksum, so that damage is told from a wrong key."""
    body = msgspec.json.encode(content, order="deterministic")
    write_secret(path, msgspec.json.format(msgspec.json.encode({"content": content, "checksum": _checksum(body)})))


def read_document(path: Path) -> dict[str, Any]:
    """What `write_document` wrote; IdentityMissing, or IdentityDamaged for anything else."""
    try:
        document = msgspec.json.decode(read_secret(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise IdentityDamaged(path, "it is not the JSON that was written") from None
    content = document.get("content")
    if not isinstance(content, dict):
        raise IdentityDamaged(path, "it has no content")
    if document.get("checksum") != _checksum(msgspec.json.encode(content, order="deterministic")):
        raise IdentityDamaged(path, "its checksum does not fit its content")
    return content


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:_CHECKSUM_LENGTH]
