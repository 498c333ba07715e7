"""A snapshot on its way, in chunks: which chunk may follow which.

The core says that a follower needs one (`InstallSnapshot`), the driver cuts it into chunks and sends them in order; on
the other side the driver writes what `IncomingSnapshot.add` accepts, and hands the core an `InstallSnapshot` at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.raft.core.messages import InstallSnapshot, Message, SnapshotMeta


class SnapshotChunk(Message, frozen=True):
    """A piece: `number` counts from 0, `last` marks the end."""

    snapshot: SnapshotMeta
    number: int
    data: bytes
    last: bool = False


class StreamBroken(Exception):
    """A chunk is missing or belongs elsewhere; the stream is given up and the leader starts another one."""


def chunks_of(message: InstallSnapshot, data: Iterable[bytes]) -> Iterator[SnapshotChunk]:
    """The chunks that carry `data`; at least one, the last of them marked."""
    number = 0
    held: bytes = b""
    for piece in data:
        if number:
            yield SnapshotChunk(
                message.sender, message.recipient, message.term, message.snapshot, number - 1, held, False
            )
        held = piece
        number += 1
    yield SnapshotChunk(
        message.sender, message.recipient, message.term, message.snapshot, max(number - 1, 0), held, True
    )


class IncomingSnapshot:
    """One stream's receiving end, begun by its first chunk."""

    def __init__(self, first: SnapshotChunk) -> None:
        self._of = (first.sender, first.term, first.snapshot)
        self._next = 0
        self.complete = False

    def add(self, chunk: SnapshotChunk) -> bytes:
        """The bytes to write; `StreamBroken` when this is not the chunk that follows."""
        if self.complete or chunk.number != self._next or (chunk.sender, chunk.term, chunk.snapshot) != self._of:
            raise StreamBroken(f"chunk {chunk.number} of the snapshot at {chunk.snapshot.index} is not the next one")
        self._next += 1
        self.complete = chunk.last
        return chunk.data

    def install(self, recipient: str) -> InstallSnapshot:
        """What the core is told once all of it is there."""
        if not self.complete:
            raise StreamBroken(f"only {self._next} chunks have come")
        sender, term, snapshot = self._of
        return InstallSnapshot(sender, recipient, term, snapshot)
