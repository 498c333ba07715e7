"""The one format on disk: a file header, then frames, each with its own checksums, sealed as a whole.

    file:  magic (8) = "SWARMLOG" or "SWARMSNP" · format (4)
    frame: length (4) · sequence (8) · crc32 of these 12 bytes (4) · sealed payload (length) · crc32 of it (4)

The header has a checksum of its own, so that a flipped bit in the length cannot pass for a torn write: only a frame that
the file ends before, or one with a sector of zeros in it (a file grown by a write whose data never came), is torn.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.raft.interface import Sealer

FORMAT = 1
LOG_MAGIC = b"SWARMLOG"
SNAPSHOT_MAGIC = b"SWARMSNP"

_FILE = struct.Struct("<8sI")
_HEAD = struct.Struct("<IQ")
_CRC = struct.Struct("<I")
_SECTOR = 512

HEADER_SIZE = _FILE.size
OVERHEAD = _HEAD.size + 2 * _CRC.size
MAX_FRAME = 256 * 1024 * 1024


class DamagedFile(Exception):
    """The file holds something that no torn write explains. The text names the file and the offset."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(
            f"{path} is damaged at offset {offset}: {what}. Nothing was changed. Restore this file from a copy, or "
            f"move the folder away and let this node join again."
        )
        self.path = path
        self.offset = offset


class NewerFormat(Exception):
    """The file was written by a newer version of this program."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as read: its sequence number, its plain payload, and the offset behind it."""

    sequence: int
    payload: bytes
    end: int


class Content(Protocol):
    """The bytes of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> bytes: ...


class OpenFile:
    """A file's bytes, read where they are asked for; a file that was opened can be read after its removal."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        pieces, at = [], start
        while at < stop:
            piece = os.pread(self._fd, stop - at, at)
            if not piece:
                break
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def file_header(magic: bytes) -> bytes:
    """The first bytes of a file."""
    return _FILE.pack(magic, FORMAT)


def encode_frame(sequence: int, payload: bytes, sealer: Sealer) -> bytes:
    """One frame, ready to be appended."""
    sealed = sealer.seal(payload)
    head = _HEAD.pack(len(sealed), sequence)
    return b"".join((head, _CRC.pack(zlib.crc32(head)), sealed, _CRC.pack(zlib.crc32(sealed))))


def read_frames(path: Path, magic: bytes, sealer: Sealer) -> Iterator[Frame]:
    """The frames of a file up to a torn one, if the file ends in one; `DamagedFile` for any other damage."""
    return frames_in(path, path.read_bytes(), magic, sealer)


def frames_in(path: Path, data: Content, magic: bytes, sealer: Sealer) -> Iterator[Frame]:
    """The same for the content of the file at `path`."""
    if len(data) < HEADER_SIZE:
        if file_header(magic).startswith(data[:HEADER_SIZE]):
            return
        raise DamagedFile(path, 0, "the file does not begin as it should")
    found, version = _FILE.unpack(data[:HEADER_SIZE])
    if found != magic:
        raise DamagedFile(path, 0, "the file does not begin as it should")
    if version > FORMAT:
        raise NewerFormat(f"{path} has format {version}; this version of swarmtui reads up to {FORMAT}. Upgrade it.")
    if version != FORMAT:
        raise DamagedFile(path, 8, f"format {version} does not exist")
    offset = HEADER_SIZE
    while offset < len(data):
        frame = _read_frame(path, data, offset, sealer)
        if frame is None:
            return
        yield frame
        offset = frame.end


def _read_frame(path: Path, data: Content, offset: int, sealer: Sealer) -> Frame | None:
    start = offset + _HEAD.size + _CRC.size
    if start > len(data):
        return None
    head, check = data[offset : offset + _HEAD.size], data[offset + _HEAD.size : start]
    length, sequence = _HEAD.unpack(head)
    if _CRC.unpack(check)[0] != zlib.crc32(head):
        if not any(data[offset:]):
            return None
        raise DamagedFile(path, offset, "the checksum of a frame's header does not match")
    if length > MAX_FRAME:
        raise DamagedFile(path, offset, f"a frame of {length} bytes")
    end = start + length + _CRC.size
    if end > len(data):
        return None
    sealed = data[start : start + length]
    if _CRC.unpack(data[start + length : end])[0] != zlib.crc32(sealed):
        if end == len(data) and _has_empty_sector(data, offset, end):
            return None
        raise DamagedFile(path, offset, "the checksum of a frame does not match")
    try:
        return Frame(sequence, sealer.open(sealed), end)
    except ValueError as error:
        raise DamagedFile(path, offset, f"a frame cannot be decrypted ({error})") from None


def _has_empty_sector(data: Content, start: int, end: int) -> bool:
    """True when a whole sector inside the frame, or its part of the last one, is zeros: its data never came."""
    position = start
    while position < end:
        boundary = min((position // _SECTOR + 1) * _SECTOR, end)
        if position > start and not any(data[position:boundary]):
            return True
        position = boundary
    return False
