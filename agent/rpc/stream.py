"""One conversation on a connection: messages and bytes both ways, each direction with credit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Protocol, Self

import msgspec

from agent.rpc.errors import ProtocolViolation, StreamEnded, StreamFailed
from agent.rpc.frames import (
    HEADER,
    MAX_BODY,
    FrameType,
    decode_count,
    decode_text,
    encode_count,
    encode_text,
)
from agent.rpc.messages import AnyMessage, Message

WINDOW = 256 * 1024
"""Bytes of frames that a sender may be ahead of the reader, a stream and direction."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message: the assignments of a large node with all its secrets fit."""
MAX_MESSAGE_OF_STRANGER = 64 * 1024
"""The same without a certificate on one of the two sides."""

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(AnyMessage).decode


class Carrier(Protocol):
    """What a stream needs of its connection."""

    def put(self, stream: int, kind: FrameType, body: bytes = b"") -> None:
        """Queue a frame."""

    @property
    def paused(self) -> bool:
        """Whether the network takes nothing more for now."""

    async def writable(self) -> None:
        """Wait until it does, or the connection ended."""

    def forget(self, stream: int) -> None:
        """The stream is over on both sides."""


class Stream:
    """One conversation of a connection.

    Sending waits for the other side's credit, so a slow reader stops its writer and nobody else. Several tasks may send,
    one may receive. A cancelled call leaves the stream usable: a message is sent whole or not at all; of cancelled
    `send_bytes` a part may have been sent. What arrived before a failure can still be received.
    """

    def __init__(self, carrier: Carrier, number: int, method: str, max_message: int = MAX_MESSAGE) -> None:
        self._carrier = carrier
        self.number = number
        self.method = method
        """What the stream was opened for."""
        self.taken = 0
        """Bytes of frames that the other side's reader has taken, as far as it has said so."""
        self._max_message = max_message
        self._credit = WINDOW
        self._owed = 0
        self._held = 0
        self._queue: deque[tuple[FrameType, bytes]] = deque()
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._arrived: asyncio.Future[None] | None = None
        self._granted: asyncio.Future[None] | None = None
        self._sending = asyncio.Lock()
        self._ended = False
        self._peer_ended = False
        self._peer_done = False
        self._failure: StreamFailed | None = None
        self._on_failure: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        state = "failed" if self._failure else "ended" if self._ended and self._peer_ended else "open"
        return f"<Stream {self.number} {self.method} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Done with the stream in both directions; when the body raised, the other side is told that it failed."""
        if error is None:
            self.finish()
        else:
            self.fail_now(
                "cancelled" if isinstance(error, asyncio.CancelledError) else str(error) or type(error).__name__
            )

    @property
    def failed(self) -> bool:
        """Whether the stream broke."""
        return self._failure is not None

    # -- sending

    async def send(self, message: Message) -> None:
        """Send a message; returns once it is on its way.

        Raises StreamFailed; StreamEnded when the other side reads nothing more; ValueError when it is too long.
        """
        body = _encode(message)
        if self._put_now(body):
            return
        if len(body) > self._max_message:
            raise ValueError(f"a {type(message).__name__} of {len(body)} bytes; {self._max_message} are allowed")
        async with self._sending:
            begun = False
            try:
                for start in range(0, len(body), MAX_BODY):
                    piece = body[start : start + MAX_BODY]
                    last = start + MAX_BODY >= len(body)
                    await self._put(FrameType.MESSAGE if last else FrameType.PART, piece)
                    begun = not last
            finally:
                if begun and self._failure is None and not self._peer_done:
                    self._carrier.put(self.number, FrameType.ABANDON)

    def send_now(self, message: Message) -> bool:
        """Send a message if that needs no waiting; False when it does, or needs several frames. Raises as `send`."""
        return self._put_now(_encode(message))

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send raw bytes of any length, for relays. Raises as `send`."""
        async with self._sending:
            with memoryview(data) as view, view.cast("B") as octets:
                for start in range(0, len(octets), MAX_BODY):
                    await self._put(FrameType.BYTES, bytes(octets[start : start + MAX_BODY]))

    async def end(self) -> None:
        """Send nothing more; receiving goes on. A second call does nothing."""
        if self._ended or self._failure is not None:
            return
        async with self._sending:
            self._end(FrameType.END)

    async def fail(self, text: str) -> None:
        """Break the stream off in both directions; the other side's calls raise StreamFailed(text)."""
        self.fail_now(text)

    def _put_now(self, body: bytes) -> bool:
        """Put a message into one frame, if that needs no waiting."""
        cost = HEADER.size + len(body)
        if len(body) > MAX_BODY or cost > self._credit or self._sending.locked() or self._carrier.paused:
            return False
        self._check_sending()
        self._credit -= cost
        self._carrier.put(self.number, FrameType.MESSAGE, body)
        return True

    async def _put(self, kind: FrameType, body: bytes) -> None:
        cost = HEADER.size + len(body)
        while True:
            self._check_sending()
            if self._credit < cost:
                self._granted = asyncio.get_running_loop().create_future()
                try:
                    await self._granted
                finally:
                    self._granted = None
            elif self._carrier.paused:
                await self._carrier.writable()
            else:
                break
        self._credit -= cost
        self._carrier.put(self.number, kind, body)

    def _check_sending(self) -> None:
        if self._failure is not None:
            raise self._broken(self._failure)
        if self._ended:
            raise RuntimeError(f"{self!r}: sending after the end")
        if self._peer_done:
            raise StreamEnded("the other side is done with the stream and reads nothing more")

    # -- receiving

    async def receive(self) -> Message:
        """The next message. Raises StreamEnded when the other side is done, StreamFailed when the stream broke."""
        while True:
            await self._available()
            kind, body = self._take()
            if kind is FrameType.PART:
                self._parts.append(body)
                self._parts_size += len(body)
                if self._parts_size > self._max_message:
                    raise self._give_up(f"a message of more than {self._max_message} bytes")
            elif kind is FrameType.ABANDON:
                self._parts.clear()
                self._parts_size = 0
            elif kind is FrameType.MESSAGE:
                if self._parts:
                    body = b"".join([*self._parts, body])
                    self._parts.clear()
                    self._parts_size = 0
                try:
                    return _decode(body)
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    raise self._give_up(f"a message that cannot be read: {error}") from None
            else:
                raise self._give_up("raw bytes where a message was expected")

    async def receive_bytes(self) -> bytes:
        """Some raw bytes, as many as have arrived; b"" once the other side is done. Raises StreamFailed."""
        try:
            await self._available()
        except StreamEnded:
            return b""
        chunks: list[bytes] = []
        while self._queue and self._queue[0][0] is FrameType.BYTES:
            chunks.append(self._take()[1])
        if not chunks:
            raise self._give_up("a message where raw bytes were expected")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Work that ends with the stream: when the stream fails, the body is cancelled and StreamFailed raised.

        For handlers that wait for something else than the stream, such as the next line of a log.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("guard needs a task")
        if self._failure is not None:
            raise self._broken(self._failure)
        interrupted = False
        scheduled: asyncio.Handle | None = None

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        def failed() -> None:
            # In a turn of its own: the body may be what fails the stream, and a task that cancels itself would be
            # cancelled after the guard.
            nonlocal scheduled
            scheduled = asyncio.get_running_loop().call_soon(interrupt)

        self._on_failure.append(failed)
        cancelling = task.cancelling()
        try:
            yield
        except asyncio.CancelledError:
            # Ours alone becomes StreamFailed; a cancellation from outside goes its way.
            if interrupted and task.uncancel() <= cancelling and self._failure is not None:
                raise self._broken(self._failure) from None
            raise
        except BaseException:
            if interrupted:
                task.uncancel()
            raise
        finally:
            if scheduled is not None:
                scheduled.cancel()
            if failed in self._on_failure:
                self._on_failure.remove(failed)

    async def _available(self) -> None:
        """Wait for something in the queue, or raise why nothing will come."""
        while not self._queue:
            if self._failure is not None:
                raise self._broken(self._failure)
            if self._peer_ended:
                raise StreamEnded(f"the other side ended the stream {self.method!r}")
            if self._arrived is not None:
                raise RuntimeError(f"{self!r}: two tasks receive from one stream")
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None

    @staticmethod
    def _broken(failure: StreamFailed) -> StreamFailed:
        """A new exception each time, so that the traces of several callers do not pile up in one."""
        return type(failure)(str(failure))

    def _take(self) -> tuple[FrameType, bytes]:
        kind, body = self._queue.popleft()
        if kind is not FrameType.ABANDON:
            self._consumed(HEADER.size + len(body))
        return kind, body

    def _consumed(self, cost: int) -> None:
        self._held -= cost
        self._owed += cost
        if self._owed >= WINDOW // 2 and not self._peer_ended and self._failure is None:
            self._carrier.put(self.number, FrameType.CREDIT, encode_count(self._owed))
            self._owed = 0

    def _give_up(self, text: str) -> StreamFailed:
        """Fail the stream because of what the other side sent."""
        self.fail_now(text)
        return StreamFailed(f"the other side sent {text}")

    # -- what the connection calls

    def arrived(self, kind: FrameType, body: bytes) -> None:
        """A frame for this stream. ProtocolViolation when it is none that may come now."""
        if kind is FrameType.MESSAGE or kind is FrameType.BYTES or kind is FrameType.PART:
            if self._peer_ended:
                raise ProtocolViolation(f"a frame on stream {self.number} after its end")
            cost = HEADER.size + len(body)
            self._held += cost
            if self._held + self._owed > WINDOW:
                raise ProtocolViolation(f"more on stream {self.number} than it had credit for")
            self._queue.append((kind, body))
            _wake(self._arrived)
        elif kind is FrameType.CREDIT:
            granted = decode_count(body)
            self._credit += granted
            self.taken += granted
            if self._credit > WINDOW:
                raise ProtocolViolation(f"more credit on stream {self.number} than was used")
            _wake(self._granted)
        elif kind is FrameType.ABANDON:
            # Only of use behind a PART; two in a row would let a queue grow for nothing.
            last = self._queue[-1][0] if self._queue else FrameType.PART if self._parts else None
            if last is FrameType.PART:
                self._queue.append((kind, b""))
                _wake(self._arrived)
        elif kind is FrameType.FAIL:
            self.break_off(StreamFailed(decode_text(body)))
            self._carrier.forget(self.number)
        else:
            self._peer_ended = True
            self._peer_done = kind is FrameType.DONE
            _wake(self._arrived)
            _wake(self._granted)
            if self._ended or self._peer_done:
                self._carrier.forget(self.number)

    def break_off(self, failure: StreamFailed) -> None:
        """The stream is broken; whoever waits is told. What arrived before can still be received."""
        if self._failure is not None:
            return
        self._failure = failure
        _wake(self._arrived)
        _wake(self._granted)
        callbacks, self._on_failure = self._on_failure, []
        for callback in callbacks:
            callback()

    def fail_now(self, text: str) -> None:
        """As `fail`. Nothing is received any more."""
        if self._failure is not None or (self._ended and self._peer_ended):
            return
        if not self._peer_done:
            self._carrier.put(self.number, FrameType.FAIL, encode_text(text))
        self._queue.clear()
        self.break_off(StreamFailed(text))
        self._carrier.forget(self.number)

    def finish(self) -> None:
        """Done in both directions: nothing more is sent, and what still comes is not read."""
        if self._failure is not None:
            return
        self._queue.clear()
        if self._peer_ended:
            self._end(FrameType.END)
        else:
            self._ended = True
            self._carrier.put(self.number, FrameType.DONE)
            self._carrier.forget(self.number)

    def when_failed(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the stream fails."""
        self._on_failure.append(callback)

    def _end(self, kind: FrameType) -> None:
        if self._ended or self._failure is not None:
            return
        self._ended = True
        if self._peer_done:
            return
        self._carrier.put(self.number, kind)
        if self._peer_ended:
            self._carrier.forget(self.number)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
