"""The durable log: segments of frames, a batch of records a frame, one fdatasync for all that waits.

A frame is what one fdatasync made durable, so that only the last one can be torn. The functions here block; the driver
calls them in a thread of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import msgspec

from agent.raft.frames import HEADER_SIZE, LOG_MAGIC, DamagedFile, encode_frame, file_header, read_frames
from agent.raft.interface import Sealer

SEGMENT_SIZE = 16 * 1024 * 1024
"""Bytes after which a new segment is begun."""


class RecordKind(IntEnum):
    """What a record says."""

    ENTRY = 1
    HARD_STATE = 2
    MEMBERSHIP = 3
    TERM_START = 4
    RESET = 5
    """All before it is void: a snapshot of the leader's took its place."""


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An entry (`index`, `data`), or the hard state of Raft.

    Of a hard state `term` is the term, `data` the id of the member voted for, `index` what is known to be committed.
    """

    kind: int
    term: int
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the log held: the last term and vote, the entries in order."""

    term: int
    vote: bytes
    entries: list[Record]


class LogFull(OSError):
    """The disk took no more; what was asked for is not in the log and the log is as it was before."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


def sync_folder(folder: Path) -> None:
    """Make new and removed names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DurableLog:
    """The segments in a folder. Call `recover` first, then `append`; everything blocks."""

    def __init__(self, folder: Path, sealer: Sealer, *, segment_size: int = SEGMENT_SIZE) -> None:
        self._folder = folder
        self._sealer = sealer
        self._segment_size = segment_size
        self._fd = -1
        self._path = folder
        self._size = 0
        self._sequence = 0
        self._last_index = 0

    def recover(self, after: int) -> Recovered:
        """Read everything, cut a torn last frame, and open the last segment for appending.

        Entries up to the index `after` (in a snapshot already) are left out. Raises `DamagedFile` for damage and for
        entries that are missing in between.
        """
        term, vote, entries = 0, b"", []
        for record in self.replay():
            if record.kind == RecordKind.HARD_STATE:
                term, vote = record.term, record.data
            elif record.index > after:
                entries.append(record)
        expected = after
        for record in entries:
            expected += 1
            if record.index != expected:
                raise DamagedFile(self._segments()[0], 0, f"entry {expected} is missing, {record.index} follows")
        return Recovered(term, vote, entries)

    def replay(self) -> list[Record]:
        """All records in the order of writing, for a log in which later entries replace earlier ones.

        Otherwise like `recover`: a torn last frame is cut, the last segment is opened, `DamagedFile` for damage.
        """
        records: list[Record] = []
        segments = self._segments()
        for number, path in enumerate(segments):
            last = number == len(segments) - 1
            end = HEADER_SIZE
            for frame in read_frames(path, LOG_MAGIC, self._sealer):
                if self._sequence and frame.sequence != self._sequence + 1:
                    raise DamagedFile(path, end, f"frame {self._sequence + 1} is missing")
                self._sequence = frame.sequence
                end = frame.end
                for record in _decode(frame.payload):
                    if record.kind != RecordKind.HARD_STATE:
                        self._last_index = record.index
                    records.append(record)
            size = path.stat().st_size
            if end < size:
                if not last:
                    raise DamagedFile(path, end, "a segment that is not the last one ends in the middle of a frame")
                self._cut(path, end)
            if last:
                self._open(path)
        if self._fd < 0:
            self._begin_segment()
        return records

    def append(self, records: Sequence[Record]) -> None:
        """Write a batch as one frame and make it durable.

        Raises `LogFull` when the disk took no more (the log is as before); any other OSError means that nobody knows what
        is on the disk, and the log must not be used further.
        """
        if self._size >= self._segment_size:
            self._begin_segment()
        frame = encode_frame(self._sequence + 1, _encode(list(records)), self._sealer)
        try:
            written = 0
            while written < len(frame):
                written += os.pwrite(self._fd, frame[written:], self._size + written)
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            raise LogFull(error.errno, f"cannot write to {self._path}: {error.strerror}") from error
        os.fdatasync(self._fd)
        self._size += len(frame)
        self._sequence += 1
        for record in records:
            if record.kind != RecordKind.HARD_STATE:
                self._last_index = record.index

    def compact(self, index: int) -> None:
        """Drop the segments that hold nothing after `index`, which a durable snapshot covers."""
        segments = self._segments()
        # When a segment began, the log ended right before its first index; what was written earlier and is not covered
        # has been replaced since.
        keep_from = max((at for at in range(1, len(segments)) if _first_index(segments[at]) <= index + 1), default=0)
        for path in segments[:keep_from]:
            path.unlink()
        if keep_from > 0:
            sync_folder(self._folder)

    def rotate(self, hard_state: Record) -> None:
        """Begin a new segment that opens with the hard state, so that older segments can go."""
        if self._size > HEADER_SIZE:
            self._begin_segment()
        self.append([hard_state])

    def reset(self, index: int, hard_state: Record) -> None:
        """Void everything: the log goes on after a snapshot at `index`. The older segments are removed."""
        self._last_index = index
        self._begin_segment()
        self.append([Record(RecordKind.RESET, 0, index, b""), hard_state])
        for path in self._segments()[:-1]:
            path.unlink()
        sync_folder(self._folder)

    def close(self) -> None:
        """Close the file; everything appended is durable already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _segments(self) -> list[Path]:
        # By their frames: where entries were replaced, a later segment can begin at an earlier index.
        return sorted(self._folder.glob("log-*.wal"), key=lambda path: path.stem.split("-")[2])

    def _begin_segment(self) -> None:
        path = self._folder / f"log-{self._last_index + 1:020d}-{self._sequence + 1:020d}.wal"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, file_header(LOG_MAGIC), 0)
            os.fdatasync(fd)
            sync_folder(self._folder)
        except OSError as error:
            os.close(fd)
            raise LogFull(error.errno, f"cannot begin {path}: {error.strerror}") from error
        self.close()
        self._fd, self._path, self._size = fd, path, HEADER_SIZE

    def _open(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._path = path
        self._size = path.stat().st_size
        if self._size < HEADER_SIZE:
            os.pwrite(self._fd, file_header(LOG_MAGIC), 0)
            os.fdatasync(self._fd)
            self._size = HEADER_SIZE

    def _cut(self, path: Path, end: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, max(end, 0))
            os.fsync(fd)
        finally:
            os.close(fd)


def _first_index(path: Path) -> int:
    return int(path.name.split("-")[1])
