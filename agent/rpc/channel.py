"""Frames over TLS over one TCP connection: a protocol class of its own, one read and one write for many frames.

asyncio's TLS is not used because it keeps to itself what people need to be told: the text of a refusal that arrives with
the first read after the handshake, and that a client spoke no TLS at all.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from typing import cast

from agent.rpc.addresses import socket_address
from agent.rpc.errors import ProtocolViolation, Refused, RpcError, Unreachable
from agent.rpc.frames import Frame, FrameParser, FrameType, encode_frame, encode_text
from agent.rpc.pace import Pace
from agent.rpc.tls import explain
from agent.rpc.tls_session import TlsSession

FLUSH_SIZE = 64 * 1024
"""Bytes that wait for the end of the loop's turn at most."""
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024
"""Senders wait while more than HIGH_WATER encrypted bytes wait for the network, until LOW_WATER is reached."""
HARD_LIMIT = 8 * 1024 * 1024
"""Control frames do not wait; a peer that lets so many pile up does not read at all."""
LINGER = 1.0
"""Seconds that the other side has for reading our last words. Closing at once could destroy them on their way."""
STALL = 20.0
"""Seconds without a byte taken by the network after which the other side is taken for dead."""
ACKNOWLEDGE = 10_000
"""Milliseconds after which sent bytes that TCP did not see acknowledged mean the same."""
KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""An idle connection to a host that is gone is noticed within 11 seconds."""

_TLS_HANDSHAKE = 0x16
_PLAIN_TEXT_ANSWER = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS 1.3 between swarmtui agents.\n"
)
_SCRATCH_SIZE = 256 * 1024


class _Scratch(threading.local):
    """Room for one read, shared by all channels of a thread: a read is decrypted and cut up before the next begins."""

    def __init__(self) -> None:
        self.cipher = memoryview(bytearray(_SCRATCH_SIZE))
        self.plain = memoryview(bytearray(_SCRATCH_SIZE))


_scratch = _Scratch()


class Channel(asyncio.BufferedProtocol):
    """Frames to and from one other node.

    `on_frames`, `on_lost` and `on_writable` are set by whoever reads; until `on_frames` is, at most one batch of frames is
    kept and nothing more is read. `pace`, when given, says when a step of the handshake is taken. `failure` is why the
    channel ended, once it has.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, pace: Pace | None = None) -> None:
        self._session = TlsSession(context, server_side=server_side)
        self._server_side = server_side
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._parser = FrameParser()
        self._transport: asyncio.Transport | None = None
        self._handshake: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._drained: asyncio.Future[None] | None = None
        self._early: list[Frame] = []
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._flush_due: asyncio.Handle | None = None
        self._began = False
        self._waiting_since: float | None = None
        self._waited = 0.0
        self._stopping = False
        self._ending = False
        self._timer: asyncio.TimerHandle | None = None
        self.on_frames: Callable[[list[Frame]], None] | None = None
        self.on_lost: Callable[[RpcError], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.paused = False
        """Whether senders should wait for `on_writable`."""
        self.failure: RpcError | None = None
        self.detached = False
        """Whether it left the loop that made it: whoever did that owns it."""
        self.address = "an unknown address"
        """The other end, `host:port`."""
        self.local_address = "an unknown address"

    # -- what the other modules call

    @property
    def established(self) -> bool:
        """Whether the TLS handshake is done."""
        return self._session.established

    async def detach(self) -> socket.socket:
        """Leave this loop: everything queued is sent first, and nothing that arrives is lost.

        Only between `first_frame` and `read_with`. The socket that is returned is the caller's, to `attach` on another
        loop or to close. Raises why the channel ended before.
        """
        self._flush()
        while self._transport is not None and not self._ending and self._transport.get_write_buffer_size():
            self._drained = self._loop.create_future()
            # With these limits the transport says when it is empty.
            self._transport.set_write_buffer_limits(0, 0)
            await self._drained
        if self._transport is None or self._ending:
            raise self.failure or Unreachable(f"{self.address} is not connected")
        # A descriptor of its own: the old one is closed by the transport.
        connected: socket.socket = self._transport.get_extra_info("socket").dup()
        self._cancel_timer()
        if self._flush_due is not None:
            # It belongs to this loop.
            self._flush_due.cancel()
            self._flush_due = None
        self._transport.pause_reading()
        self._transport.set_protocol(asyncio.Protocol())
        self._transport.abort()
        self._transport = None
        self._pace = None
        self.detached = True
        return connected

    async def attach(self, connected: socket.socket) -> None:
        """Go on, on the running loop, where `detach` left off. Closes the socket when it cannot."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._handshake, self._closed, self._first = (loop.create_future() for _ in range(3))
        self._handshake.set_result(None)
        if self._early:
            self._first.set_result(None)
        self._drained = None
        await attach_socket(loop, connected, self)

    @property
    def held_up(self) -> float:
        """Seconds of the handshake for which the other side waited for us."""
        return self._waited if self._waiting_since is None else self._waited + self._loop.time() - self._waiting_since

    def give_up_after(self, seconds: float) -> None:
        """Take the other side for dead once sent bytes are not acknowledged for so long (ACKNOWLEDGE at first)."""
        if self._transport is not None:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(seconds * 1000)))

    @property
    def ending(self) -> bool:
        """Whether nothing more can be sent."""
        return self._ending

    async def handshake(self) -> None:
        """Wait for the TLS handshake. Raises Refused or Unreachable."""
        await asyncio.shield(self._handshake)

    def peer_certificate(self) -> bytes | None:
        """The other side's certificate (DER), signed by a trusted root; None when it showed none."""
        return self._session.peer_certificate()

    async def first_frame(self) -> Frame:
        """The first frame that arrives; those after it wait for `read_with`. Raises why the channel ended before."""
        await asyncio.shield(self._first)
        return self._early.pop(0)

    def read_with(
        self,
        on_frames: Callable[[list[Frame]], None],
        on_lost: Callable[[RpcError], None],
        on_writable: Callable[[], None],
    ) -> None:
        """From now on frames go to `on_frames`. What came in between goes there first, at once."""
        self.on_frames, self.on_lost, self.on_writable = on_frames, on_lost, on_writable
        if self._closed.done() and self.failure is not None:
            self._loop.call_soon(on_lost, self.failure)
            return
        if self._early:
            early, self._early = self._early, []
            self._guarded(lambda: on_frames(early))
        if self._transport is not None and not self._ending:
            self._transport.resume_reading()

    def put(self, stream: int, kind: FrameType, body: bytes = b"") -> None:
        """Queue a frame; it leaves at the end of the loop's turn, together with others. Dropped once the channel ends."""
        if self._ending:
            return
        frame = encode_frame(stream, kind, body)
        self._pending.append(frame)
        self._pending_size += len(frame)
        if self._pending_size >= FLUSH_SIZE:
            self._flush()
        elif self._flush_due is None:
            self._flush_due = self._loop.call_soon(self._flush_at_end_of_turn)

    def end(self, failure: RpcError, kind: FrameType | None = None, text: str = "") -> None:
        """Send the last words, then close. The other side has LINGER seconds to read them."""
        if self._ending:
            return
        if kind is not None and self._session.established:
            self.put(0, kind, encode_text(text))
        self._stop(failure)

    def abort(self, failure: RpcError) -> None:
        """Close at once, without a word."""
        self._ending = True
        self._note(failure)
        if self._transport is None:
            self._finish()
        else:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await asyncio.shield(self._closed)

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.address = socket_address(transport.get_extra_info("peername"))
        self.local_address = socket_address(transport.get_extra_info("sockname"))
        keep_alive(transport.get_extra_info("socket"))
        if self._ending:
            self._transport.abort()
        elif not self._server_side:
            self._guarded(self._advance)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _scratch.cipher

    def buffer_updated(self, nbytes: int) -> None:
        if self._ending:
            # Lingering: what still comes is read and forgotten, so that closing does not destroy our last words.
            return
        data = _scratch.cipher[:nbytes]
        if not self._began:
            self._began = True
            if self._server_side and data[0] != _TLS_HANDSHAKE:
                self._refuse_plain_text()
                return
        self._session.put(data)
        if self._pace is not None and self._transport is not None and not self._session.established:
            # Until its turn comes, it cannot send more.
            self._transport.pause_reading()
            self._waiting_since = self._loop.time()
            self._pace(self._advance_later)
        else:
            self._guarded(self._advance)

    def eof_received(self) -> bool:
        if self._session.established:
            self._stop(Unreachable(f"{self.address} closed the connection without a word: did its agent end?"))
        else:
            self._stop(Unreachable(f"{self.address} closed the connection during the TLS handshake"))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ending = True
        self._note(self._loss(error))
        self._finish()

    def pause_writing(self) -> None:
        self.paused = True
        if not self._ending:
            self._watch_for_stall()

    def resume_writing(self) -> None:
        self.paused = False
        _wake(self._drained)
        if not self._ending:
            self._cancel_timer()
            if self.on_writable is not None:
                self.on_writable()

    # -- reading

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do `step`; what it finds wrong with TLS or the frames ends the channel, with a text for both sides."""
        try:
            step()
        except ProtocolViolation as error:
            text = f"protocol violation: {error}"
            self.end(ProtocolViolation(f"{self.address} sent {error}"), FrameType.REFUSE, text)
        except ssl.SSLError as error:
            text, by_peer = explain(error)
            self._stop(Refused(f"{self.address}: {text}", by_peer=by_peer))

    def _advance_later(self) -> None:
        if self._waiting_since is not None:
            self._waited += self._loop.time() - self._waiting_since
            self._waiting_since = None
        if not self._ending and self._transport is not None:
            self._transport.resume_reading()
            self._guarded(self._advance)

    def _advance(self) -> None:
        session = self._session
        if not session.established:
            done = session.advance()
            self._send_encrypted()
            if not done:
                return
            if not self._handshake.done():
                self._handshake.set_result(None)
        while True:
            count = session.read(_scratch.plain)
            if count:
                self._deliver(self._parser.feed(_scratch.plain[:count]))
            if session.ended:
                self.eof_received()
            if self._ending:
                return
            if count < _SCRATCH_SIZE and session.error is None:
                break
        # TLS answers by itself now and then (a key update).
        self._send_encrypted()

    def _deliver(self, frames: list[Frame]) -> None:
        if not frames:
            return
        if self.on_frames is not None:
            self.on_frames(frames)
            return
        self._early += frames
        if not self._first.done():
            self._first.set_result(None)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _refuse_plain_text(self) -> None:
        if self._transport is not None:
            self._transport.write(_PLAIN_TEXT_ANSWER)
        text = "it sent plain text (or something else that is not TLS): this port speaks TLS between agents"
        self._stop(Refused(f"{self.address}: {text}", by_peer=False))

    # -- writing

    def _flush_at_end_of_turn(self) -> None:
        self._flush_due = None
        if not self._ending:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        try:
            self._session.write(data)
        except ssl.SSLError as error:
            self._stop(Refused(f"{self.address}: {explain(error)[0]}", by_peer=False))
            return
        self._send_encrypted()

    def _send_encrypted(self) -> None:
        data = self._session.take()
        if data and self._transport is not None:
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > HARD_LIMIT:
                self.abort(Unreachable(f"{self.address} does not read what it is sent"))

    def _watch_for_stall(self) -> None:
        self._cancel_timer()
        if self._transport is not None:
            self._timer = self._loop.call_later(STALL, self._check_stall, self._transport.get_write_buffer_size())

    def _check_stall(self, before: int) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() >= before:
            self.abort(Unreachable(f"{self.address} has taken nothing for {STALL:.0f} s: it hangs, or its host does"))
        else:
            self._watch_for_stall()

    # -- ending

    def _stop(self, failure: RpcError) -> None:
        """Send what is queued and TLS's own last words, close our half, and linger."""
        if self._ending or self._stopping:
            return
        self._stopping = True
        try:
            self._flush()
            self._session.end()
            self._send_encrypted()
        except ssl.SSLError:
            # A broken session can say no more than the alert that it made; that one leaves here.
            self._send_encrypted()
        self._ending = True
        self._note(failure)
        self._cancel_timer()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            try:
                self._transport.write_eof()
            except OSError:
                # The other side has reset the connection, and the loop has not read that yet.
                self._transport.abort()
                return
            self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def _note(self, failure: RpcError) -> None:
        """Remember why, and wake whoever waits. The first reason stays."""
        if self.failure is not None:
            return
        self.failure = failure
        _wake(self._drained)
        for waiting in (self._handshake, self._first):
            if not waiting.done():
                waiting.set_exception(failure)
                # Nobody may be waiting.
                waiting.exception()
        if self.on_lost is not None:
            self.on_lost(failure)

    def _finish(self) -> None:
        self._cancel_timer()
        self._pending.clear()
        # Nothing that is over holds itself in memory: a thousand of them at once would be left to the garbage collector.
        self.on_frames = self.on_lost = self.on_writable = None
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _loss(self, error: Exception | None) -> RpcError:
        if isinstance(error, TimeoutError):
            return Unreachable(f"{self.address} does not answer any more: its host or the network is down")
        if error is None or isinstance(error, ConnectionResetError | BrokenPipeError):
            return Unreachable(f"{self.address} broke off the connection: did its agent end?")
        return Unreachable(f"the connection to {self.address} broke: {error}")


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def attach_socket(loop: asyncio.AbstractEventLoop, connected: socket.socket, channel: Channel) -> None:
    """Let `channel` read and write `connected`, which is closed with it (or now, when that cannot be)."""
    try:
        connected.setblocking(False)
        # asyncio does so itself only for sockets that were made with the protocol's number. Without it a small message
        # waits 40 ms for the acknowledgement of the one before.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.connect_accepted_socket(lambda: channel, connected)
    except BaseException:
        connected.close()
        raise


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel notice a host that is gone, when idle and when sending."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ACKNOWLEDGE)
