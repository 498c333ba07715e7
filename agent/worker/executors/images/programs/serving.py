"""A small HTTP/1.1 server on epoll, for pages that are made in memory.

The standard library's http.server costs 9 MB a process and 40 ms at start, asyncio 10 MB and 50 ms; this costs 0.5 MB.
`_socket` and `_signal` are what `socket` and `signal` wrap: those two alone would add 2 MB to each task.

Stopping is graceful: the listener closes, requests that have come are answered, idle connections close, then `run` returns.
"""

from __future__ import annotations

# typeshed knows only the wrapper.
import _signal  # type: ignore[import-not-found]
import _socket
import errno
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD = 16 * 1024
"""Bytes of a request's head; a longer one is answered with 431."""
MAX_BODY = 1024 * 1024
"""Bytes of a request's body that are read and thrown away; more is answered with 413."""
MAX_CONNECTIONS = 512
MAX_WAIT = 60.0
"""Seconds that `?wait=` may delay an answer."""
IDLE_SECONDS = 75.0
"""A connection without a request is closed after this."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
}


class Request:
    """One request: method, path without the query, query as it came, headers by lower-case name, the client's address."""

    __slots__ = ("headers", "method", "path", "query", "remote", "version")

    def __init__(self, method: str, target: str, version: str, headers: dict[str, str], remote: str) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.version = version
        self.headers = headers
        self.remote = remote

    def parameter(self, name: str) -> str:
        """A value of the query, empty when it is not there. Nothing is unescaped: the values used here are plain words."""
        for part in self.query.split("&"):
            key, _, value = part.partition("=")
            if key == name:
                return value
        return ""


class BadRequest(Exception):
    """What came is no request; `status` is what the client is told."""

    def __init__(self, status: int) -> None:
        super().__init__(REASONS[status])
        self.status = status


class Answer:
    """What the client is told."""

    __slots__ = ("body", "content_type", "status")

    def __init__(self, body: str, content_type: str = "text/plain; charset=utf-8", status: int = 200) -> None:
        self.body = body.encode()
        self.content_type = content_type
        self.status = status


def parse_head(head: bytes, remote: str) -> Request:
    """The request in `head` (without the empty line). BadRequest when it is none."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha():
        raise BadRequest(400)
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400)
        headers[name.lower()] = value.strip()
    return Request(words[0], words[1], words[2], headers, remote)


def body_length(request: Request) -> int:
    """Bytes of body that follow the head."""
    if "transfer-encoding" in request.headers:
        raise BadRequest(501)
    text = request.headers.get("content-length", "0")
    if not text.isdigit():
        raise BadRequest(400)
    length = int(text)
    if length > MAX_BODY:
        raise BadRequest(413)
    return length


def parse_wait(text: str) -> float:
    """Seconds in `200ms`, `2s` or `2`; 0 for anything else."""
    number, factor = (text[:-2], 0.001) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        seconds = float(number) * factor
    except ValueError:
        return 0.0
    return min(seconds, MAX_WAIT) if seconds > 0 else 0.0


def encode(answer: Answer, keep: bool, head_only: bool) -> bytes:
    """The answer as bytes of HTTP."""
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    ).encode()
    return head if head_only else head + answer.body


class _Client:
    __slots__ = ("closing", "due", "held", "incoming", "outgoing", "remote", "seen", "skip", "sock")

    def __init__(self, sock: _socket.socket, remote: str, now: float) -> None:
        self.sock = sock
        self.remote = remote
        self.incoming = b""
        self.outgoing = b""
        self.skip = 0
        """Bytes of a body still to be thrown away."""
        self.held = b""
        """An answer that waits for `due`."""
        self.due = 0.0
        self.closing = False
        self.seen = now

    @property
    def busy(self) -> bool:
        return bool(self.outgoing or self.held or self.incoming or self.skip)


class Server:
    """Answers with `respond(request)` on one address until SIGTERM or SIGINT."""

    def __init__(
        self,
        address: str,
        port: int,
        respond: Callable[[Request], Answer],
        log: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._respond = respond
        self._log = log
        self._monotonic = monotonic
        self._clients: dict[int, _Client] = {}
        self._stopping = False
        self._listener: _socket.socket | None = _socket.socket(
            _socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
        )
        self._listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._poll = select.epoll()
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT begin the graceful stop."""
        _signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (_signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, lambda _number, _frame: self.stop())

    def stop(self) -> None:
        """Take no more requests; `run` returns when those that have come are answered."""
        self._stopping = True
        try:
            os.write(self._waker, b"\0")
        except BlockingIOError:
            return  # it is full of wake-ups already

    def run(self) -> None:
        """Serve until stopped."""
        try:
            while True:
                if self._stopping:
                    self._drain()
                    if not self._clients:
                        return
                for descriptor, events in self._poll.poll(self._next_wait()):
                    self._handle(descriptor, events)
                self._release_due()
        finally:
            self.close()

    def close(self) -> None:
        """Close everything at once. Idempotent."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._stop_listening()
        if not self._poll.closed:
            self._poll.close()
            os.close(self._wake)
            os.close(self._waker)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._poll.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _drain(self) -> None:
        self._stop_listening()
        for client in list(self._clients.values()):
            client.closing = True
            if not client.busy:
                self._drop(client)

    def _next_wait(self) -> float | None:
        times = [client.due if client.held else client.seen + IDLE_SECONDS for client in self._clients.values()]
        return max(0.0, min(times) - self._monotonic()) if times else None

    def _release_due(self) -> None:
        now = self._monotonic()
        for client in list(self._clients.values()):
            if client.held:
                if client.due <= now:
                    client.outgoing, client.held = client.outgoing + client.held, b""
                    self._send(client)
            elif client.seen + IDLE_SECONDS <= now:
                self._drop(client)

    def _handle(self, descriptor: int, events: int) -> None:
        if descriptor == self._wake:
            os.read(self._wake, 4096)
        elif self._listener is not None and descriptor == self._listener.fileno():
            self._accept(self._listener)
        elif (client := self._clients.get(descriptor)) is not None:
            if events & select.EPOLLOUT:
                self._send(client)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and descriptor in self._clients:
                self._receive(client)

    def _accept(self, listener: _socket.socket) -> None:
        try:
            descriptor, remote = listener._accept()  # type: ignore[attr-defined]
        except OSError as error:
            # The client is gone already, or there are no descriptors left: others go on.
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.EPROTO):
                raise
            return
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, descriptor)
        if len(self._clients) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._clients[descriptor] = _Client(sock, f"{remote[0]}:{remote[1]}", self._monotonic())
        self._poll.register(descriptor, select.EPOLLIN)

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not data:
            # Half-closed by the client: what it asked for is still answered.
            client.closing = True
            if not (client.outgoing or client.held):
                self._drop(client)
            else:
                self._poll.modify(client.sock.fileno(), select.EPOLLOUT if client.outgoing else 0)
            return
        client.seen = self._monotonic()
        client.incoming += data
        if client.held and len(client.incoming) > MAX_HEAD:
            # It sends on while its answer is held back: nothing is kept without bound.
            self._drop(client)
            return
        self._advance(client)

    def _advance(self, client: _Client) -> None:
        """Answer the requests that have come whole, one at a time while an answer is held back."""
        while client.incoming and not client.held:
            if client.skip:
                taken = min(client.skip, len(client.incoming))
                client.incoming, client.skip = client.incoming[taken:], client.skip - taken
                continue
            end = client.incoming.find(b"\r\n\r\n")
            if end < 0 and len(client.incoming) <= MAX_HEAD:
                break
            try:
                if end < 0 or end > MAX_HEAD:
                    raise BadRequest(431)
                request = parse_head(client.incoming[:end], client.remote)
                client.skip = body_length(request)
            except BadRequest as error:
                client.incoming, client.skip, client.closing = b"", 0, True
                client.outgoing += encode(Answer(f"{error}\n", status=error.status), keep=False, head_only=False)
                break
            client.incoming = client.incoming[end + 4 :]
            self._answer(client, request)
        self._send(client)

    def _answer(self, client: _Client, request: Request) -> None:
        if request.method in ("GET", "HEAD", "POST", "PUT"):
            answer = self._respond(request)
        else:
            answer = Answer("Method Not Allowed\n", status=405)
        connection = request.headers.get("connection", "").lower()
        keep = (
            connection == "keep-alive" if request.version == "HTTP/1.0" else connection != "close"
        ) and not self._stopping
        client.closing = client.closing or not keep
        answered = encode(answer, keep, request.method == "HEAD")
        wait = parse_wait(request.parameter("wait"))
        if wait:
            client.held, client.due = answered, self._monotonic() + wait
        else:
            client.outgoing += answered
        self._log(f"{client.remote} {request.method} {request.path[:200]} {answer.status}")

    def _send(self, client: _Client) -> None:
        try:
            while client.outgoing:
                client.outgoing = client.outgoing[client.sock.send(client.outgoing) :]
        except BlockingIOError:
            self._poll.modify(client.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            self._drop(client)
            return
        if client.held:
            return
        if client.closing and not client.skip:
            self._drop(client)
        elif client.incoming and client.incoming.find(b"\r\n\r\n") >= 0:
            self._advance(client)
        else:
            self._poll.modify(client.sock.fileno(), select.EPOLLIN)

    def _drop(self, client: _Client) -> None:
        descriptor = client.sock.fileno()
        del self._clients[descriptor]
        self._poll.unregister(descriptor)
        client.sock.close()
