"""Snapshots on their way to and from other members, on the driver's loop; the disk is read and written in a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from agent.raft.core.messages import InstallSnapshot, SnapshotMeta
from agent.raft.core.snapshot_stream import IncomingSnapshot, SnapshotChunk, StreamBroken, chunks_of
from agent.raft.frames import DamagedFile
from agent.raft.interface import Transport
from agent.raft.snapshots import SnapshotWriter
from agent.raft.storage import MemberStorage, SnapshotStream
from agent.raft.wire import encode

logger = logging.getLogger(__name__)

PIECE = 256 * 1024
"""Bytes of a snapshot's chunk that travel at once. A chunk stays one: the state machine knows it as a whole."""

_MORE, _END = b"\1", b"\0"
"""The first byte of a piece: whether more of the same chunk follows."""


class OutgoingSnapshots:
    """The streams to followers, one each. `ended` is called once for every stream that was begun and not replaced."""

    def __init__(
        self,
        storage: MemberStorage,
        transport: Transport,
        reading: ThreadPoolExecutor,
        ended: Callable[[str, bool], None],
    ) -> None:
        self._storage = storage
        self._transport = transport
        self._reading = reading
        self._ended = ended
        self._streams: dict[str, tuple[int, asyncio.Task[None]]] = {}

    @property
    def oldest(self) -> int | None:
        """The lowest index of a snapshot on its way: what follows it will be asked for next."""
        return min((index for index, _ in self._streams.values()), default=None)

    def begin(self, message: InstallSnapshot, address: str) -> None:
        """Stream that snapshot; an older stream to the same member ends."""
        previous = self._streams.pop(message.recipient, None)
        if previous is not None:
            previous[1].cancel()
        task = asyncio.create_task(self._stream(message, address), name=f"raft-snapshot-to-{message.recipient}")
        self._streams[message.recipient] = (message.snapshot.index, task)

    async def close(self) -> None:
        """End all of them; nobody is told."""
        tasks = [task for _, task in self._streams.values()]
        self._streams.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, message: InstallSnapshot, address: str) -> None:
        member, index = message.recipient, message.snapshot.index
        arrived = False
        try:
            logger.info("sending the snapshot at %d to %s", index, member)
            await self._transport.send_snapshot(member, address, self._chunks(message))
            arrived = True
        except (OSError, ValueError, DamagedFile) as error:
            logger.warning("the snapshot at %d did not reach %s: %s", index, member, error)
        current = self._streams.get(member)
        if current is not None and current[1] is asyncio.current_task():
            del self._streams[member]
            self._ended(member, arrived)

    async def _chunks(self, message: InstallSnapshot) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        stream = await loop.run_in_executor(self._reading, self._storage.read, message.snapshot)
        encoded = (encode(chunk) for chunk in chunks_of(message, _pieces(stream)))
        while (data := await loop.run_in_executor(self._reading, next, encoded, None)) is not None:
            yield data


class _Incoming:
    """A stream on its way in, and what has come of the chunk that is not whole yet."""

    def __init__(self, stream: IncomingSnapshot, writer: SnapshotWriter) -> None:
        self.stream = stream
        self.writer = writer
        self._pieces: list[bytes] = []

    def add(self, chunk: SnapshotChunk) -> bytes | None:
        """The chunk of the snapshot that is whole now, if one is."""
        data = self.stream.add(chunk)
        self._pieces.append(data[1:])
        if data[:1] == _MORE:
            if self.stream.complete:
                raise StreamBroken("the stream ends in the middle of a chunk")
            return None
        whole, self._pieces = b"".join(self._pieces), []
        # A state without chunks travels as one piece without a mark.
        return whole if data else None


class IncomingSnapshots:
    """Snapshots that leaders stream to this member, one a leader. Each is durable before it counts as having come."""

    def __init__(self, storage: MemberStorage, writing: ThreadPoolExecutor) -> None:
        self._storage = storage
        self._writing = writing
        self._incoming: dict[str, _Incoming] = {}

    async def add(self, chunk: SnapshotChunk) -> tuple[IncomingSnapshot, SnapshotStream] | None:
        """Take a chunk; after the last one: what has come, and the durable snapshot opened for reading.

        Raises `StreamBroken` for a chunk that does not follow, OSError when the disk does not take it.
        """
        loop = asyncio.get_running_loop()
        if chunk.number == 0:
            await self.abandon(chunk.sender)
            writer = await loop.run_in_executor(self._writing, self._storage.begin, chunk.snapshot)
            self._incoming[chunk.sender] = _Incoming(IncomingSnapshot(chunk), writer)
        coming = self._incoming.get(chunk.sender)
        if coming is None:
            raise StreamBroken("the stream's first chunk did not come")
        try:
            data = coming.add(chunk)
            if data is not None:
                await loop.run_in_executor(self._writing, coming.writer.add, data)
            if not coming.stream.complete:
                return None
            snapshot = await loop.run_in_executor(self._writing, self._finish, coming.writer, chunk.snapshot)
        except BaseException:
            await self.abandon(chunk.sender)
            raise
        del self._incoming[chunk.sender]
        return coming.stream, snapshot

    async def abandon(self, member: str) -> None:
        """Forget what has come of the member's stream."""
        found = self._incoming.pop(member, None)
        if found is not None:
            await asyncio.get_running_loop().run_in_executor(self._writing, found.writer.abandon)

    async def close(self) -> None:
        """Forget all of them."""
        for member in list(self._incoming):
            await self.abandon(member)

    def _finish(self, writer: SnapshotWriter, snapshot: SnapshotMeta) -> SnapshotStream:
        # In one go in the one thread that writes snapshots, so that no newer one takes its place in between.
        writer.finish()
        return self._storage.read(snapshot)


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, max(len(chunk), 1), PIECE):
            last = start + PIECE >= len(chunk)
            yield (_END if last else _MORE) + chunk[start : start + PIECE]


async def each_in_thread(chunks: Iterator[bytes], executor: ThreadPoolExecutor) -> AsyncIterator[bytes]:
    """The chunks, the next one read while the one before it is taken."""
    loop = asyncio.get_running_loop()
    coming = loop.run_in_executor(executor, next, chunks, None)
    while (chunk := await coming) is not None:
        coming = loop.run_in_executor(executor, next, chunks, None)
        yield chunk
