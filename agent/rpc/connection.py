"""Many streams over one connection to another node; either side opens."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

from agent.api_types.errors import ApiError, PermissionDenied
from agent.api_types.node import NodeRole
from agent.rpc.channel import Channel
from agent.rpc.errors import ConnectionLost, ProtocolViolation, RpcError, StreamEnded, StreamFailed
from agent.rpc.frames import CARRIERS, Frame, FrameType, decode_text, encode_text
from agent.rpc.messages import Message
from agent.rpc.peer import Peer, Purpose
from agent.rpc.stream import MAX_MESSAGE, Stream

logger = logging.getLogger("agent.rpc")

Handler = Callable[[Stream, Message, "Connection"], Awaitable[None]]
"""Answers a stream that the other side opened: the stream, its opening message, its connection.

When it returns, the stream is closed in both directions. An ApiError or RpcError that it raises fails the stream with
that text. It is not cancelled at once when the stream fails: `receive` and `send` raise StreamFailed (use
`Stream.guard` around other waits); one that still runs HANDLER_GRACE seconds after is cancelled.
"""

MAX_STREAMS = 1000
"""Streams that one side may have open on a connection; `open` fails beyond."""
HANDLER_GRACE = 5.0
_LAST_NUMBER = (1 << 32) - 2


class Connection:
    """A connection to `peer`. `async with` closes it. Lives on the loop that made it; `dial` and `Listener` make it.

    The side that dialled numbers its streams odd, the other even.
    """

    def __init__(
        self,
        channel: Channel,
        peer: Peer,
        purpose: Purpose,
        *,
        local_id: str,
        dialled: bool,
        handlers: Mapping[str, Handler],
        max_streams: int = MAX_STREAMS,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self.peer = peer
        """The node at the other end."""
        self.purpose = purpose
        """What it was dialled for."""
        self._channel = channel
        self._local_id = local_id
        self._handlers = handlers
        self._max_streams = max_streams
        self._max_message = max_message
        self._parity = 1 if dialled else 0
        self._next = 1 if dialled else 2
        self._streams: dict[int, Stream] = {}
        self._own = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: deque[asyncio.Future[None]] = deque()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reason: str | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.purpose} to {self.peer}{' closed' if self.closed else ''}>"

    async def open(self, method: str, opening: Message) -> Stream:
        """A new stream to the other side's handler of `method`. Raises ConnectionLost; StreamFailed with too many open."""
        if self._reason is not None:
            raise ConnectionLost(self._reason)
        if self._own >= self._max_streams:
            raise StreamFailed(f"{self._max_streams} streams are open to {self.peer}: no more are allowed at once")
        stream = self._add(self._free_number(), method)
        self._own += 1
        self.put(stream.number, FrameType.OPEN, encode_text(method))
        try:
            await stream.send(opening)
        except BaseException:
            stream.fail_now("cancelled before it was opened")
            raise
        return stream

    def close(self, reason: str) -> None:
        """Say goodbye with `reason` and end the connection; every stream fails on both sides. Returns at once."""
        self._end(reason, ConnectionLost(reason), FrameType.GOODBYE)

    def refuse(self, reason: str) -> None:
        """As `close`, when the other side did something wrong: its log shows a warning."""
        self._end(reason, ConnectionLost(reason), FrameType.REFUSE)

    def abort(self, reason: str) -> None:
        """As `close`, at once and without a word: for a peer that does not listen."""
        self._channel.abort(ConnectionLost(reason))
        self._end(reason, None, None)

    async def wait_closed(self) -> str:
        """Wait until the connection has ended, whoever ended it; returns why. Handlers may still run."""
        reason = await asyncio.shield(self._ended)
        await self._channel.wait_closed()
        return reason

    def give_up_after(self, seconds: float) -> None:
        """Take the other side for dead once its host acknowledges nothing for so long, though something was sent.

        It is the other host's kernel that acknowledges: a busy or even frozen agent there is no reason to give up.
        """
        if self._reason is None:
            self._channel.give_up_after(seconds)

    @property
    def local_id(self) -> str:
        """This node; empty without a certificate."""
        return self._local_id

    @property
    def closed(self) -> bool:
        """Whether the connection has ended or is ending."""
        return self._reason is not None

    @property
    def stream_count(self) -> int:
        """Streams that are open, whoever opened them."""
        return len(self._streams)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shut("the other side is done with the connection")

    async def shut(self, reason: str) -> None:
        """Close, and wait until the socket is closed and no handler runs any more."""
        self.close(reason)
        # A handler may call this too, and is not to wait for itself.
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._channel.wait_closed()

    async def settle(self) -> None:
        """Wait until no handler runs any more; once the connection has ended that takes HANDLER_GRACE seconds at most."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def begin(self) -> None:
        """Start to read. Called once, by whoever made the connection."""
        self._channel.read_with(self._frames, self._lost, self._wake_writers)

    # -- what a stream needs (Carrier)

    def put(self, stream: int, kind: FrameType, body: bytes = b"") -> None:
        """Queue a frame."""
        self._channel.put(stream, kind, body)

    @property
    def paused(self) -> bool:
        """Whether the network takes nothing more for now."""
        return self._channel.paused

    async def writable(self) -> None:
        """Wait until it does, or the connection ended. All who wait are woken in turn, and the rest waits again."""
        waiting = asyncio.get_running_loop().create_future()
        self._writers.append(waiting)
        try:
            await waiting
        finally:
            if not waiting.done() or waiting.cancelled():
                self._writers.remove(waiting)

    def forget(self, stream: int) -> None:
        """The stream is over on both sides."""
        if self._streams.pop(stream, None) is not None and stream % 2 == self._parity:
            self._own -= 1

    # -- what the channel calls

    def _frames(self, frames: list[Frame]) -> None:
        """Frames for streams that are gone are dropped: the other side could not know yet."""
        streams = self._streams
        for number, kind, body in frames:
            stream = streams.get(number)
            if stream is not None:
                stream.arrived(kind, body)
            elif kind is FrameType.OPEN:
                self._opened(number, decode_text(body))
            elif kind is FrameType.GOODBYE:
                reason = decode_text(body)
                self._end(f"{self.peer} closed the connection: {reason}", None, None)
            elif kind is FrameType.REFUSE:
                text = f"{self.peer} refused the connection: {decode_text(body)}"
                logger.warning("%s", text)
                self._end(text, None, None)
            elif kind in (FrameType.HELLO, FrameType.REMOVED) or (number == 0 and kind in CARRIERS):
                raise ProtocolViolation(f"a frame of type {kind.name} where none may come")

    def _opened(self, number: int, method: str) -> None:
        if number == 0 or number % 2 == self._parity:
            raise ProtocolViolation(f"a stream with the number {number}, which is not for it to give")
        if len(self._tasks) >= self._max_streams:
            self.put(number, FrameType.FAIL, encode_text(f"{self._max_streams} streams are open: no more are allowed"))
            return
        handler = self._handlers.get(method)
        if handler is None:
            text = f"node {self._local_id} does not answer {method!r}" if self.peer.role else NEEDS_CERTIFICATE
            self.put(number, FrameType.FAIL, encode_text(text))
            return
        stream = self._add(number, method)
        task = asyncio.get_running_loop().create_task(self._answer(stream, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        stream.when_failed(lambda: _cancel_later(task))

    async def _answer(self, stream: Stream, handler: Handler) -> None:
        """Run a handler to its end; whatever it raises concerns its stream alone."""
        try:
            await handler(stream, await stream.receive(), self)
        except asyncio.CancelledError:
            stream.fail_now(f"node {self._local_id} stopped answering")
            raise
        except StreamEnded:
            stream.finish()
        except Exception as error:
            # Whatever a handler does wrong must not reach the other streams; the trace goes to the log.
            text = _expected(error)
            if text is None:
                logger.exception("answering %r of %s failed", stream.method, self.peer)
                text = f"internal error in answering {stream.method!r}: the log of node {self._local_id} says more"
            stream.fail_now(text)
        else:
            stream.finish()

    def _lost(self, error: RpcError) -> None:
        self._end(str(error), None, None)
        if isinstance(error, ProtocolViolation):
            logger.warning("closed the connection to %s: %s", self.peer, error)

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, deque()
        for waiting in writers:
            if not waiting.done():
                waiting.set_result(None)

    # -- both

    def _end(self, reason: str, failure: RpcError | None, last_words: FrameType | None) -> None:
        """End once; the first reason stays."""
        if self._reason is not None:
            return
        self._reason = reason
        for stream in list(self._streams.values()):
            stream.break_off(ConnectionLost(reason))
        self._streams.clear()
        self._channel.end(failure or ConnectionLost(reason), last_words, reason)
        self._wake_writers()
        if not self._ended.done():
            self._ended.set_result(reason)

    def _add(self, number: int, method: str) -> Stream:
        stream = Stream(self, number, method, self._max_message)
        self._streams[number] = stream
        return stream

    def _free_number(self) -> int:
        """The next number of ours. After two billion they come again, without those that are still in use."""
        number = self._next
        while number in self._streams:
            number = self._after(number)
        self._next = self._after(number)
        return number

    def _after(self, number: int) -> int:
        return number + 2 if number + 2 <= _LAST_NUMBER else 2 - self._parity


NEEDS_CERTIFICATE = "this needs a node certificate: join the cluster first"


def only(role: NodeRole, handler: Handler) -> Handler:
    """`handler` for peers of this role alone; others are told why not."""

    async def checked(stream: Stream, opening: Message, connection: Connection) -> None:
        if connection.peer.role is not role:
            raise PermissionDenied(f"{stream.method!r} is for a {role} alone, and {connection.peer} is none")
        await handler(stream, opening, connection)

    return checked


def _expected(error: BaseException) -> str | None:
    """The text of an error that is meant for the other side; None for any other. Looks into groups."""
    if isinstance(error, BaseExceptionGroup):
        texts = [_expected(inner) for inner in error.exceptions]
        return texts[0] if all(text is not None for text in texts) else None
    return str(error) if isinstance(error, ApiError | RpcError) else None


def _cancel_later(task: asyncio.Task[None]) -> None:
    if not task.done():
        timer = asyncio.get_running_loop().call_later(HANDLER_GRACE, task.cancel)
        task.add_done_callback(lambda _: timer.cancel())
