"""Carries the messages of the group of managers: `agent.raft.interface.Transport` over connections of their own.

Everything here lives on the loop that calls `start`, the driver's, in whatever thread that is: what the agent does on its
main loop never delays a heartbeat. Only connections that other managers make begin on the main loop, where the listener
is; `adopt` moves them over.

Each member dials each other one it has something to say to, and only the one that dialled speaks there. A snapshot has a
connection to itself for as long as it takes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import chain

from agent.api_types.node import NodeRole
from agent.api_types.times import Clock, now_ns
from agent.pki.identity import NodeIdentity
from agent.raft.interface import Receiver
from agent.rpc.client import dial
from agent.rpc.connection import Connection
from agent.rpc.errors import ProtocolViolation, RpcError, StreamEnded, StreamFailed
from agent.rpc.handover import Handover
from agent.rpc.messages import Message, RaftBatch, RaftChunk, RaftSnapshotOpen, RaftTaken
from agent.rpc.peer import Purpose
from agent.rpc.raft_link import RAFT, Link, Patience
from agent.rpc.stream import Stream

logger = logging.getLogger("agent.rpc")

SNAPSHOT = "raft-snapshot"
_LAST_WORDS = 0.2
"""Seconds for saying goodbye at the end."""
_PER_MEMBER = 4
"""Connections that one member may have here: messages, a snapshot, and what each of them is about to replace."""


class RaftTransport:
    """`RaftTransport(lambda: identity, source=None)`; the driver calls `start`, the listener's `on_raft` is `adopt`.

    `identity` is asked for each new connection and may be called from another thread; when it gives another one than
    before, connections are made anew. `source` is the local address to connect from.
    """

    def __init__(
        self,
        identity: Callable[[], NodeIdentity],
        *,
        source: str | None = None,
        clock: Clock = now_ns,
        patience: Patience | None = None,
    ) -> None:
        self._identity = identity
        self._source = source
        self._clock = clock
        self._patience = patience or Patience()
        self._links: dict[str, Link] = {}
        self._used: NodeIdentity | None = None
        self._speaking: dict[str, Stream] = {}
        self._hosted: dict[str, list[Connection]] = {}
        self._sending: list[tuple[str, Connection]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._arriving: list[Handover] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receiver: Receiver | None = None
        self._closed = False

    def adopt(self, handover: Handover) -> None:
        """Take over a connection that another manager made. From any thread; closed at once before `start` and after
        `close`: the other side tries again.
        """
        with self._lock:
            loop = None if self._closed else self._loop
            if loop is None or loop.is_closed():
                handover.close()
                return
            self._arriving.append(handover)
            loop.call_soon_threadsafe(self._land_all)

    async def start(self, receiver: Receiver) -> None:
        """Deliver to `receiver` from now on, on the running loop."""
        with self._lock:
            if self._loop is not None:
                raise RuntimeError("the transport was started before")
            self._receiver = receiver
            self._loop = asyncio.get_running_loop()

    def send(self, member: str, address: str, messages: Sequence[bytes]) -> None:
        """Send as soon as possible and in order, or lose them: never waits, never fails, holds a bounded number of bytes.

        Without messages the connection is made or kept, and looked at: a dead one is made anew before it is needed.
        """
        if self._closed:
            return
        identity = self._identity()
        if identity is not self._used:
            if self._used is not None:
                for known in self._links.values():
                    known.renew()
            self._used = identity
        link = self._links.get(member)
        if link is None:
            link = Link(member, partial(self._dial, member), partial(self._lost, member), self._patience)
            self._links[member] = link
        link.send(address, messages)

    async def send_snapshot(self, member: str, address: str, chunks: AsyncIterator[bytes]) -> None:
        """Stream chunks, each when the other side has taken the one before; returns when the last was, else OSError."""
        try:
            connection = await self._dial(member, address)
            self._sending.append((member, connection))
            try:
                stream = await connection.open(SNAPSHOT, RaftSnapshotOpen())
                async for chunk in chunks:
                    async with asyncio.timeout(self._patience.chunk):
                        await stream.send(RaftChunk(chunk))
                        await stream.receive()
                connection.close("the snapshot is complete")
            finally:
                self._sending.remove((member, connection))
                connection.abort("the snapshot ends here")
                await connection.wait_closed()
        except TimeoutError:
            raise TimeoutError(
                f"manager {member} did not take a piece of a snapshot within {self._patience.chunk:g} s"
            ) from None
        except RpcError as error:
            raise OSError(f"manager {member} did not take the snapshot: {error}") from None

    async def close(self) -> None:
        """Close every connection; nothing is delivered any more."""
        with self._lock:
            self._closed = True
            arriving, self._arriving = self._arriving, []
        for handover in arriving:
            handover.close()
        self._receiver = None
        for connection in [*chain(*self._hosted.values()), *(connection for _, connection in self._sending)]:
            connection.close("this manager stops")
        await asyncio.gather(*(link.close() for link in self._links.values()))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- going out

    async def _dial(self, member: str, address: str) -> Connection:
        return await dial(
            address,
            self._identity(),
            purpose=Purpose.RAFT,
            expect_node=member,
            expect_role=NodeRole.MANAGER,
            source=self._source,
            clock=self._clock,
            timeout=self._patience.dial,
            host_timeout=self._patience.answer,
        )

    def _lost(self, member: str) -> None:
        for to, connection in list(self._sending):
            if to == member:
                connection.abort(f"manager {member} does not answer")
        if self._receiver is not None:
            self._receiver.unreachable(member)

    # -- coming in

    def _land_all(self) -> None:
        with self._lock:
            arriving, self._arriving = self._arriving, []
        for handover in arriving:
            task = asyncio.get_running_loop().create_task(self._host(handover))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # A task that is cancelled before its first step has closed nothing.
            task.add_done_callback(partial(_close, handover))

    async def _host(self, handover: Handover) -> None:
        """Serve a connection that another manager made, to its end."""
        member = handover.peer.node_id
        try:
            connection = await handover.land({RAFT: self._take, SNAPSHOT: self._take_snapshot}, max_streams=1)
        except OSError as error:
            logger.warning("lost %s: %s", handover.peer, error)
            return
        hosted = self._hosted.setdefault(member, [])
        hosted.append(connection)
        try:
            if len(hosted) > _PER_MEMBER:
                hosted[0].abort(f"manager {member} made more than {_PER_MEMBER} connections")
            reason = await connection.wait_closed()
            logger.debug("disconnected: %r: %s", connection, reason)
        finally:
            hosted.remove(connection)
            if not hosted:
                self._hosted.pop(member, None)
            connection.abort("this manager stops")
            await connection.shut("this manager stops")

    async def _take(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """`raft`: the newest stream of a member is the one that counts; those before it belong to lost connections."""
        member = connection.peer.node_id
        before = self._speaking.get(member)
        self._speaking[member] = stream
        if before is not None:
            before.fail_now(f"manager {member} made a newer connection")
        try:
            while True:
                batch = await stream.receive()
                if not isinstance(batch, RaftBatch):
                    raise ProtocolViolation(f"a {type(batch).__name__} where a RaftBatch was expected")
                if self._receiver is None or self._speaking.get(member) is not stream:
                    return
                if batch.messages:
                    self._receiver.received(member, batch.messages)
                if batch.ask:
                    await stream.send(RaftTaken())
        finally:
            if self._speaking.get(member) is stream:
                del self._speaking[member]

    async def _take_snapshot(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """`raft-snapshot`."""
        member = connection.peer.node_id
        while True:
            try:
                chunk = await stream.receive()
            except StreamEnded:
                return
            if not isinstance(chunk, RaftChunk):
                raise ProtocolViolation(f"a {type(chunk).__name__} where a RaftChunk was expected")
            receiver = self._receiver
            if receiver is None:
                return
            try:
                await receiver.snapshot_chunk(member, chunk.data)
            except Exception as error:
                # Whatever it is, it ends the stream and nothing else: that is the receiver's way to say so.
                logger.warning("gave up a snapshot from manager %s: %s", member, error)
                raise StreamFailed(f"{type(error).__name__}: {error}") from error
            await stream.send(RaftTaken())


def _close(handover: Handover, _: object) -> None:
    handover.close()
