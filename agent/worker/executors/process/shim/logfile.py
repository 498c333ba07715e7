"""A container's output on disk: one record a line, in files of bounded size and number.

A record is one line of text, `TIME K DATA`: nanoseconds since the epoch, then `o` or `e` for the last piece of a line of
stdout or stderr, `O` or `E` for a piece that goes on. Output is split at line ends, so DATA holds none, and a reader that
starts in the middle finds the next record by itself. Times rise strictly within a container, so they order its lines.

Files are `log.1`, `log.2` and so on; a file is never written again once the next one exists, and the oldest are removed.
The first line of each, `#N`, counts the records of all files before it: a reader that was overtaken knows what it missed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 16 * 1024
"""Bytes after which a line without an end is written as a piece, as Docker does."""

STDOUT = b"o"
STDERR = b"e"


def log_name(number: int) -> str:
    """Name of a log file."""
    return f"log.{number}"


class LogWriter:
    """Writes the records of one container. Errors of the disk never reach the container: lines are dropped and counted."""

    def __init__(
        self, folder: int, file_bytes: int, files: int, write: Callable[[int, memoryview], int] = os.write
    ) -> None:
        """`folder` is a descriptor; no output is kept when `files` is 0."""
        self._folder = folder
        self._file_bytes = file_bytes
        self._files = files
        self._write_call = write
        self._rest = {STDOUT: b"", STDERR: b""}
        self._last = 0
        self._records = 0
        self._dropped = 0
        self._reason = ""
        self._number = 0
        self._size = 0
        self._header = b""
        self._file: int | None = None

    def feed(self, stream: bytes, data: bytes, now: int) -> None:
        """Output that came at `now`."""
        if not self._files:
            return
        lines = (self._rest[stream] + data).split(b"\n")
        rest = lines.pop()
        out: list[bytes] = []
        if self._last < now:
            self._last = now - 1
        for line in lines:
            if len(line) > PIECE:
                line = self._pieces(stream, line, out)
            self._last += 1
            out.append(b"%d %s %s\n" % (self._last, stream, line))
        if len(rest) > PIECE:
            rest = self._pieces(stream, rest, out)
        self._rest[stream] = rest
        if out:
            self._append(out, now)

    def end(self, now: int) -> None:
        """The container ended: what has no line end is a line too."""
        for stream, rest in self._rest.items():
            if rest:
                self._rest[stream] = b""
                self.feed(stream, rest + b"\n", now)
        if self._dropped:
            self._append([], now)

    def _pieces(self, stream: bytes, line: bytes, out: list[bytes]) -> bytes:
        while len(line) > PIECE:
            self._last += 1
            out.append(b"%d %s %s\n" % (self._last, stream.upper(), line[:PIECE]))
            line = line[PIECE:]
        return line

    def _append(self, records: list[bytes], now: int) -> None:
        if self._dropped:
            self._last += 1
            notice = b"%d e swarmtui: %d lines were lost: %s\n" % (self._last, self._dropped, self._reason.encode())
            if not self._put(notice, 1):
                self._dropped += len(records)
                return
            self._dropped = 0
        if records and not self._put(b"".join(records), len(records)):
            self._dropped += len(records)

    def _put(self, data: bytes, records: int) -> bool:
        """Write whole or not at all; False when the disk refused."""
        try:
            if self._file is None or self._size + len(data) > self._file_bytes:
                self._rotate()
            self._write_whole(data)
        except OSError as error:
            self._reason = error.strerror or "unknown error"
            return False
        self._records += records
        return True

    def _write_whole(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[self._write_call(self._file, view) :]
        except OSError:
            if len(view) != len(data):
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        """Begin the next file; the one that falls out goes first, as it makes room where the disk is full."""
        if self._file is not None and not self._records_in_file():
            return
        oldest = self._number + 1 - self._files
        if oldest > 0:
            _remove(log_name(oldest), self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(log_name(self._number + 1), flags, 0o600, dir_fd=self._folder)
        if self._file is not None:
            os.close(self._file)
        self._file, self._size, self._number = descriptor, 0, self._number + 1
        self._header = b"#%d\n" % self._records
        self._write_whole(self._header)

    def _records_in_file(self) -> bool:
        return self._size > len(self._header)


def _remove(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
