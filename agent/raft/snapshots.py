"""Snapshots: the whole state at an index, written beside the log so that old segments can go.

Written under another name, synced, renamed, and the folder synced: a snapshot that is there is whole.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from agent.raft.frames import SNAPSHOT_MAGIC, DamagedFile, OpenFile, encode_frame, file_header, frames_in
from agent.raft.interface import Sealer
from agent.raft.log import sync_folder

_numbers = itertools.count(1)


class _Trailer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Last frame of a snapshot: what it is of, how many chunks came before, and who belonged to the group (opaque)."""

    index: int
    term: int
    chunks: int
    membership: bytes = b""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot on disk."""

    path: Path
    index: int


def newest_snapshot(folder: Path) -> SnapshotInfo | None:
    """The snapshot with the highest index, or None."""
    paths = sorted(folder.glob("snapshot-*.snap"))
    return SnapshotInfo(paths[-1], int(paths[-1].stem.split("-")[1])) if paths else None


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """What a whole snapshot says of itself: the term of its last entry, and the membership as it was given."""

    term: int
    membership: bytes


def read_snapshot(info: SnapshotInfo, sealer: Sealer) -> Generator[bytes, None, SnapshotEnd]:
    """The chunks of a snapshot, and what it says of itself as the generator's value; `DamagedFile` when it is not whole.

    The file is opened at once: it may be removed from then on.
    """
    return _read(info, OpenFile(info.path), sealer)


def _read(info: SnapshotInfo, content: OpenFile, sealer: Sealer) -> Generator[bytes, None, SnapshotEnd]:
    chunks = 0
    pending: bytes | None = None
    end = 0
    for frame in frames_in(info.path, content, SNAPSHOT_MAGIC, sealer):
        if pending is not None:
            yield pending
            chunks += 1
        pending, end = frame.payload, frame.end
    trailer = None
    if pending is not None:
        try:
            trailer = msgspec.msgpack.decode(pending, type=_Trailer)
        except msgspec.DecodeError:
            trailer = None
    if trailer is None or trailer.chunks != chunks or trailer.index != info.index:
        raise DamagedFile(info.path, end, "the snapshot is not whole")
    return SnapshotEnd(trailer.term, trailer.membership)


class SnapshotWriter:
    """Writes one snapshot chunk by chunk; everything blocks. `finish` makes it count, `abandon` removes it."""

    def __init__(self, folder: Path, index: int, term: int, sealer: Sealer, membership: bytes = b"") -> None:
        self._membership = membership
        self._folder = folder
        self._index = index
        self._term = term
        self._sealer = sealer
        self._chunks = 0
        # Two of the same index can be written at once: the own state's, and one that a leader streams.
        self._temporary = folder / f"snapshot-{index:020d}-{next(_numbers)}.tmp"
        self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._write(file_header(SNAPSHOT_MAGIC))

    def add(self, chunk: bytes) -> None:
        """One chunk."""
        self._chunks += 1
        self._write(encode_frame(self._chunks, chunk, self._sealer))

    def finish(self, keep: int = 1) -> SnapshotInfo:
        """Make it durable and remove older ones beyond `keep`."""
        trailer = msgspec.msgpack.encode(_Trailer(self._index, self._term, self._chunks, self._membership))
        self._write(encode_frame(self._chunks + 1, trailer, self._sealer))
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        path = self._folder / f"snapshot-{self._index:020d}.snap"
        os.rename(self._temporary, path)
        sync_folder(self._folder)
        for old in sorted(self._folder.glob("snapshot-*.snap"))[:-keep]:
            old.unlink()
        return SnapshotInfo(path, self._index)

    def abandon(self) -> None:
        """Remove what was written so far."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._temporary.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.write(self._fd, data[written:])
