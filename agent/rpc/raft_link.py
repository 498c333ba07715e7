"""The way to one other member of the group: a connection that is made again whenever it breaks, and a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.rpc.connection import Connection
from agent.rpc.errors import RpcError
from agent.rpc.frames import MAX_BODY
from agent.rpc.messages import RaftBatch, RaftOpen
from agent.rpc.stream import MAX_MESSAGE, Stream

logger = logging.getLogger("agent.rpc")

RAFT = "raft"
MAX_QUEUED = 20 * 1024 * 1024
"""Bytes that wait for one member: what the core lets be on the way to a follower (16 MiB of entries), and some."""
_OVERHEAD = 64
"""Bytes that a message costs beside itself, at most: in a frame, and in the queue's count."""
_LONGEST = MAX_MESSAGE - _OVERHEAD


@dataclass(frozen=True, slots=True)
class Patience:
    """What a member is given time for, in seconds."""

    answer: float = 0.7
    """To answer what was sent. A member that is slower is frozen or cut off: about the time in which an election begins."""
    dial: float = 5.0
    """For a new connection, once the other host took it: the agent there may be busy with a thousand others."""
    first_pause: float = 0.05
    longest_pause: float = 0.5
    """Between two attempts to connect; the time that an attempt took counts."""
    idle: float = 30.0
    """A connection that nothing was sent on for so long is closed, and not made again before something is to be sent."""
    chunk: float = 30.0
    """For a chunk of a snapshot to be taken: the last one may wait for a slow disk."""


class Link:
    """Messages to `member`, on one loop. `lost` is called (never from within `send`) when some probably were lost."""

    def __init__(
        self,
        member: str,
        dial: Callable[[str], Awaitable[Connection]],
        lost: Callable[[], None],
        patience: Patience,
    ) -> None:
        self.member = member
        self._dial = dial
        self._lost = lost
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._address = ""
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._waiting_since = 0.0
        self._wanted_until = 0.0
        self._stream: Stream | None = None
        self._connection: Connection | None = None
        self._ask_next = 0.0
        self._question: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._hurry: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._told = ""

    def send(self, address: str, messages: Sequence[bytes]) -> None:
        """Send in order, or lose. Never waits. Without messages: connect, or ask whether the connection is alive."""
        now = self._loop.time()
        self._wanted_until = now + self._patience.idle
        if address != self._address:
            self._move(address)
        if not messages:
            self._keep(now)
            return
        if not self._queue:
            if self._stream is not None:
                messages = self._send_now(self._stream, messages, now)
            if not messages:
                return
            self._waiting_since = now
        elif self._stream is None and now - self._waiting_since > self._patience.answer:
            # What has waited for so long is no use to anybody.
            self._lose()
            self._waiting_since = now
        if max(map(len, messages)) > _LONGEST:
            logger.error("a message of more than %d bytes for manager %s is lost", _LONGEST, self.member)
            messages = [message for message in messages if len(message) <= _LONGEST]
            self._loop.call_soon(self._say_lost)
        size = sum(map(len, messages)) + _OVERHEAD * len(messages)
        if self._queue and self._queued + size > MAX_QUEUED:
            self._loop.call_soon(self._say_lost)
            return
        self._queue.extend(messages)
        self._queued += size
        if self._task is None:
            self._connect()
        elif self._writable is not None:
            _wake(self._writable)

    def _connect(self) -> None:
        self._task = self._loop.create_task(self._run())

    def _keep(self, now: float) -> None:
        if self._task is None:
            self._connect()
        elif self._stream is not None and not self._queue and self._asks(now):
            # A connection that broke is known to its own task in a moment.
            with contextlib.suppress(RpcError):
                if self._stream.send_now(RaftBatch([], ask=True)):
                    self._asked(self._stream, now)

    def renew(self) -> None:
        """Connect anew: this node's certificate is another one."""
        self._break("this node's certificate was renewed")

    async def close(self) -> None:
        """Lose what waits, and close the connection."""
        self._lost = _ignore
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # -- the connection

    async def _run(self) -> None:
        """Connect, serve, and again, for as long as something is to be sent."""
        pause = self._patience.first_pause
        try:
            while self._loop.time() < self._wanted_until:
                began = self._loop.time()
                try:
                    connection = await self._dial(self._address)
                except (RpcError, OSError) as error:
                    # OSError: this host has no file descriptors or memory left, for now.
                    self._say(f"cannot reach manager {self.member}: {error}")
                    self._lose()
                    lasted = False
                else:
                    self._told = ""
                    logger.info("connected to manager %s at %s", self.member, self._address)
                    await self._serve(connection)
                    lasted = self._loop.time() - began > self._patience.longest_pause
                if lasted:
                    pause = self._patience.first_pause
                    continue
                # The time that an attempt took was pause too.
                spent = self._loop.time() - began
                await self._sleep(max(self._patience.first_pause, pause - spent))
                pause = min(2 * pause, self._patience.longest_pause)
        finally:
            self._task = None

    async def _serve(self, connection: Connection) -> None:
        """Send and read answers until the connection ends."""
        self._connection = connection
        writer: asyncio.Task[None] | None = None
        self._idle = self._loop.call_later(self._patience.idle, self._close_when_idle)
        try:
            stream = await connection.open(RAFT, RaftOpen())
            if self._connection is connection:
                self._stream, self._ask_next = stream, 0.0
            writer = self._loop.create_task(self._write(stream))
            while True:
                await stream.receive()
                self._answered()
        except RpcError as error:
            if self._loop.time() < self._wanted_until:
                self._say(f"lost the connection to manager {self.member}: {error}")
        finally:
            if self._idle is not None:
                self._idle.cancel()
            if self._connection is connection:
                self._break("the link to this manager ends")
            if writer is not None:
                writer.cancel()
                await asyncio.wait([writer])
            await connection.wait_closed()

    def _break(self, reason: str) -> None:
        """End the connection at once, and lose what waited for it; what comes later waits for the next one."""
        connection, self._connection, self._stream = self._connection, None, None
        if connection is None:
            return
        self._answered()
        self._lose()
        connection.abort(reason)

    async def _write(self, stream: Stream) -> None:
        """Send what could not be sent at once."""
        try:
            while self._stream is stream:
                if self._queue:
                    await stream.send(self._take(stream))
                else:
                    self._writable = self._loop.create_future()
                    await self._writable
        except RpcError:
            # Whoever reads the answers learns the same.
            pass
        finally:
            self._writable = None

    def _send_now(self, stream: Stream, messages: Sequence[bytes], now: float) -> Sequence[bytes]:
        """Send without waiting; returns what is left."""
        done = 0
        try:
            for batch in batches(messages):
                ask = self._asks(now)
                if len(batch[0]) > MAX_BODY - _OVERHEAD or not stream.send_now(RaftBatch(batch, ask=ask)):
                    break
                if ask:
                    self._asked(stream, now)
                done += len(batch)
        except RpcError:
            # The connection broke and its task does not know yet: the rest is lost with it.
            pass
        return messages[done:] if done else messages

    def _take(self, stream: Stream) -> RaftBatch:
        """The next batch of the queue, which is no longer in it."""
        batch = next(batches(self._queue))
        for message in batch:
            self._queue.popleft()
            self._queued -= len(message) + _OVERHEAD
        now = self._waiting_since = self._loop.time()
        ask = self._asks(now)
        if ask:
            self._asked(stream, now)
        return RaftBatch(batch, ask=ask)

    # -- questions

    def _asks(self, now: float) -> bool:
        """Whether the next batch is to be answered: one question at a time, a few in the time that an answer has."""
        return self._question is None and now >= self._ask_next

    def _asked(self, stream: Stream, now: float) -> None:
        """An answer is expected; or, when much is on the way, that the other side goes on taking it."""
        self._ask_next = now + self._patience.answer / 8
        self._question = self._loop.call_later(self._patience.answer, self._overdue, stream, stream.taken)

    def _answered(self) -> None:
        if self._question is not None:
            self._question.cancel()
            self._question = None

    def _overdue(self, stream: Stream, taken: int) -> None:
        """The answer may be here, unread: when it was this process that stood still, a moment shows it."""
        self._question = self._loop.call_later(self._patience.answer / 16, self._no_answer, stream, taken)

    def _no_answer(self, stream: Stream, taken: int) -> None:
        if stream.taken > taken:
            self._asked(stream, self._loop.time())
            return
        self._question = None
        text = f"no answer within {self._patience.answer:g} s: its agent is frozen, or the network between is cut"
        self._break(text)

    # -- ends

    def _move(self, address: str) -> None:
        if self._address:
            logger.info("manager %s is at %s now, no longer at %s", self.member, address, self._address)
        self._address = address
        self._break(f"manager {self.member} is at {address} now")
        if self._hurry is not None:
            _wake(self._hurry)

    def _close_when_idle(self) -> None:
        rest = self._wanted_until - self._loop.time()
        if rest > 0:
            self._idle = self._loop.call_later(rest, self._close_when_idle)
        else:
            self._break("nothing was sent for a while")

    async def _sleep(self, seconds: float) -> None:
        """Wait, or less when the address changes."""
        self._hurry = self._loop.create_future()
        timer = self._loop.call_later(seconds, _wake, self._hurry)
        try:
            await self._hurry
        finally:
            timer.cancel()
            self._hurry = None

    def _lose(self) -> None:
        """Lose what waits, and say so."""
        self._queue.clear()
        self._queued = 0
        self._loop.call_soon(self._say_lost)

    def _say_lost(self) -> None:
        self._lost()

    def _say(self, text: str) -> None:
        """To the log, once for as long as it stays the same."""
        if text != self._told:
            self._told = text
            logger.warning("%s", text)


def batches(messages: Sequence[bytes] | deque[bytes]) -> Iterator[list[bytes]]:
    """`messages` in order, as many together as fit into one frame; a longer one alone."""
    batch: list[bytes] = []
    room = MAX_BODY - _OVERHEAD
    for message in messages:
        cost = len(message) + _OVERHEAD
        if batch and cost > room:
            yield batch
            batch, room = [], MAX_BODY - _OVERHEAD
        batch.append(message)
        room -= cost
    if batch:
        yield batch


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _ignore() -> None:
    pass
