"""The server: one unix socket, one dispatcher, one answer for every request whatever happens."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket as sockets
import struct
import time
from types import TracebackType
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import PayloadEncodingError
from aiohttp.web_protocol import RequestHandler

from agent.api.attempts import OUTCOME, UNKNOWN_OUTCOME, Outcome, received_attempt
from agent.api.backend import Backend
from agent.api.call import BEGUN, STALE, STALE_WARNING, ApiState, Call, parse_query, refused, reply, write_audit
from agent.api.containers import NO_ENGINE
from agent.api.engine import Engine
from agent.api.events import EventLog
from agent.api.exec_table import Execs
from agent.api.forwarding import by_the_leader
from agent.api.front import Front
from agent.api.leadership import Leadership
from agent.api.listening import SOCKET_GROUP, ListeningSocket, open_socket
from agent.api.lookup import NO_LEADER
from agent.api.lost_containers import watch_containers
from agent.api.metrics import Metrics
from agent.api.names import random_name
from agent.api.passthrough import RelayedResponse, allow_body, pass_to_engine
from agent.api.reads import ReadGate
from agent.api.routes import By, Match, RouteKind, find_route
from agent.api.splice import TakenOver, is_gone
from agent.api_types.errors import ApiError, InvalidArgument, NotFound, Unavailable, Unimplemented
from agent.api_types.identity import IdSource, new_id
from agent.raft.interface import NotLeader, OutcomeUnknown

log = logging.getLogger("swarmtui.api")

SHUTDOWN_PATIENCE = 2.0
"""Seconds that requests under way have when the server stops."""
_LINGER = 1.0


class ApiServer:
    """The front door of one node. `async with ApiServer(backend, path) as server:` serves until the block ends."""

    def __init__(
        self,
        backend: Backend,
        socket_path: str,
        *,
        group: str | None = SOCKET_GROUP,
        rng: random.Random | None = None,
        ids: IdSource = new_id,
    ) -> None:
        engine = None if backend.engine_socket is None else Engine(backend.engine_socket)
        names = rng or random.Random()
        self._state = ApiState(
            backend=backend,
            engine=engine,
            front=Front(),
            events=EventLog(backend.clock),
            execs=Execs(),
            reads=ReadGate(),
            metrics=Metrics(time.monotonic),
            leadership=Leadership(backend),
            new_name=lambda: random_name(names),
            new_id=ids,
        )
        self._socket_path = socket_path
        self._group = group
        self._socket: ListeningSocket | None = None
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._watches: list[asyncio.Task[None]] = []

    @property
    def metrics(self) -> Metrics:
        """The counters of this server."""
        return self._state.metrics

    async def __aenter__(self) -> ApiServer:
        if self._state.engine is not None:
            await self._state.front.learn(self._state.engine)
        self._socket = open_socket(self._socket_path, self._group)
        self._http = _Http(self._answer)
        self._listener = await asyncio.get_running_loop().create_unix_server(self._http, sock=self._socket.sock)
        self._watches = [
            asyncio.create_task(self._state.metrics.measure_lag(), name="api-lag"),
            asyncio.create_task(self._state.leadership.run(), name="api-leadership"),
            asyncio.create_task(watch_containers(self._state), name="api-containers"),
        ]
        for watch in self._watches:
            watch.add_done_callback(_report_end)
        self._state.events.listen_to(self._state.backend.store)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is None or self._listener is None or self._http is None:
            return
        self._listener.close()
        await self._state.events.close()
        for stream in self._state.metrics.streams:
            stream.cancel()
        self._http.pre_shutdown()
        await self._http.shutdown(SHUTDOWN_PATIENCE)
        left = [*self._state.writes, *self._watches]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._state.execs.close()
        await self._state.reads.close()
        if self._state.engine is not None:
            await self._state.engine.close()
        self._socket.remove()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request, with the headers that every answer has."""
        match = find_route(request.method, request.path)
        self._state.events.listen_to(self._state.backend.store)
        call = self._call(request, match)
        outcome: Outcome | None = None
        try:
            response = await self._dispatch(call, match)
        except ApiError as error:
            response = refused(error)
        except PayloadEncodingError as error:
            response = refused(InvalidArgument(f"the request's body is incomplete: {error.message}"))
        except NotLeader as error:
            response = refused(Unavailable(str(error) or NO_LEADER))
            outcome = Outcome.NOT_TAKEN
        except OutcomeUnknown:
            response = refused(Unavailable(UNKNOWN_OUTCOME))
            outcome = Outcome.UNKNOWN
        if response.status >= 400 and not response.prepared:
            # What is on its way already cannot become a refusal.
            call.break_off("the answer failed in the middle")
        self._state.events.listen_to(self._state.backend.store)
        self._state.metrics.requests[match.kind.value, response.status] += 1
        if isinstance(response, TakenOver | RelayedResponse):
            return response
        if not response.prepared:
            if outcome is not None and call.attempt.forwarded:
                response.headers[OUTCOME] = outcome
            ours = {**self._state.front.headers, **(STALE_WARNING if STALE in request else {})}
            response.headers.extend((name, value) for name, value in ours.items() if name not in response.headers)
        if match.kind is not RouteKind.PASSED:
            write_audit(call, response)
        return response

    def _call(self, request: web.BaseRequest, match: Match) -> Call:
        pid, peer = _peer(request)
        attempt = received_attempt(request.headers, own_process=pid == os.getpid(), peer=peer)
        query = parse_query(request.query_string)
        return Call(request, self._state, match.path, match.version, match.params, query, attempt)

    async def _dispatch(self, call: Call, match: Match) -> web.StreamResponse:
        request, route = call.request, match.route
        if route is None:
            if match.kind is RouteKind.OWN or match.path == "/":
                raise NotFound("page not found")
            if self._state.engine is None:
                raise Unimplemented(f"{request.method} {match.path}: {NO_ENGINE}")
        if self._state.engine is not None and match.kind in (RouteKind.PASSED, RouteKind.PROCESS):
            return await pass_to_engine(request, self._state.engine, match.path)
        assert route is not None
        if match.kind is not RouteKind.MERGED:
            await allow_body(request)
        if route.by is By.LEADER:
            return await by_the_leader(call, route.handler, route.object_of)
        return await route.handler(call)


def _report_end(watch: asyncio.Task[None]) -> None:
    if not watch.cancelled() and watch.exception() is not None:
        log.critical("the API's watch %s ended", watch.get_name(), exc_info=watch.exception())


def _peer(request: web.BaseRequest) -> tuple[int, str]:
    """The process at the other end of the socket, as the kernel vouches for it: its number, and who it is for people."""
    transport = request.transport
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return 0, "a client that is gone"
    try:
        raw = sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return 0, "a client that is gone"
    pid, uid, gid = struct.unpack("3i", raw)
    return pid, f"uid={uid} gid={gid} pid={pid}"


class _Http(web.Server):
    """aiohttp's HTTP server with our connections."""

    def __init__(self, handler: Any) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            tcp_keepalive=False,
            lingering_time=_LINGER,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """A client's connection. One that has said all it wants to say still gets its answers."""

    __slots__ = ("_newest_body", "half_closed")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.half_closed = False
        self._newest_body: StreamReader | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._newest_body = self._messages[-1][1]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None or is_gone(sock):
            return None
        self.half_closed = True
        if self._waiter is not None and not self._waiter.done():
            return None  # between two requests: there is no answer to wait for
        self._end_body()
        return True

    def _end_body(self) -> None:
        """The body that is being received will get no longer: whoever reads it learns that."""
        try:
            if self._parser is not None:
                self._parser.feed_eof()
        except PayloadEncodingError as error:
            if self._newest_body is not None:
                self._newest_body.set_exception(error)

    async def _handle_request(self, *args: Any) -> tuple[web.StreamResponse, bool]:
        answered = await super()._handle_request(*args)
        if self.half_closed and not self._messages:
            # Nothing can follow: after this answer the connection is of no more use.
            self._close = True
        return answered

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What the HTTP server itself answers: to bytes that are no HTTP, and when a handler failed."""
        if exc is not None and status == 500:
            log.error("%s %s failed", request.method, request.raw_path, exc_info=exc)
            message = f"internal error: {type(exc).__name__}; the agent's log says more"
            if BEGUN in request and request.transport is not None:
                request.transport.abort()
        response = reply({"message": message or f"HTTP status {status}"}, status)
        response.force_close()
        return response
