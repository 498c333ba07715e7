"""Newline-delimited JSON, without I/O: bytes in, whole lines out."""

from __future__ import annotations

from swarmtui.docker_api.errors import MalformedAnswer

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes that one line may have: ten times the largest object that the cluster's store takes."""


class LineSplitter:
    """Cuts chunks into lines; an unfinished line waits for the next chunk."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._rest: list[bytes] = []
        self._size = 0
        self._limit = limit

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their ends; empty lines are left out."""
        *whole, rest = chunk.split(b"\n")
        if not whole:
            self._hold(rest)
            return []
        if self._rest:
            self._rest.append(whole[0])
            whole[0] = b"".join(self._rest)
            self._rest, self._size = [], 0
        self._hold(rest)
        return [line for line in whole if line and not line.isspace()]

    @property
    def unfinished(self) -> bytes:
        """What came after the last line's end."""
        return b"".join(self._rest)

    def _hold(self, rest: bytes) -> None:
        if not rest:
            return
        self._size += len(rest)
        if self._size > self._limit:
            raise MalformedAnswer(f"the engine sent a line of more than {self._limit} bytes")
        self._rest.append(rest)
