"""One request as a route's handler sees it, and the answers it can give."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl

from aiohttp import HttpVersion11, web

from agent.api.attempts import Attempt
from agent.api.backend import Backend
from agent.api.engine import Engine
from agent.api.events import EventLog
from agent.api.exec_table import Execs
from agent.api.filters import Filters, parse_filters
from agent.api.front import Front
from agent.api.leadership import Leadership
from agent.api.metrics import Metrics
from agent.api.names import NameSource
from agent.api.reads import ReadGate
from agent.api_types.codec import decode_json, encode_json
from agent.api_types.errors import ApiError, InvalidArgument
from agent.api_types.identity import IdSource
from agent.store.store import Store

audit = logging.getLogger("swarmtui.audit")

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - an object of the store

SLICE = 500
"""Members of a list that are encoded before the loop breathes."""

MAX_BODY = 4 * 1024 * 1024
"""Bytes of JSON a request may carry (gRPC's bound in SwarmKit); bodies that go to the engine have none."""

STALE: web.RequestKey[bool] = web.RequestKey("stale", bool)
"""Set on a request that is answered from the last known state."""
STALE_WARNING = {"Warning": '110 swarmtui "Response is Stale"'}
BODY: web.RequestKey[bytes] = web.RequestKey("body", bytes)
"""The whole body of a request that may have to be sent more than once."""
BEGUN: web.RequestKey[bool] = web.RequestKey("begun", bool)
"""Set once a part of an answer without a length is on its way: it can be broken off, but not answered otherwise."""

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class BodyTooLarge(ApiError):
    """More bytes than a request of its kind can need."""

    status = 413
    code = "ResourceExhausted"


@dataclass(frozen=True, slots=True)
class ApiState:
    """What lives as long as the server: the node behind it and what the routes share."""

    backend: Backend
    engine: Engine | None
    front: Front
    events: EventLog
    execs: Execs
    reads: ReadGate
    metrics: Metrics
    leadership: Leadership
    new_name: NameSource
    new_id: IdSource
    writes: set[asyncio.Task[web.StreamResponse]] = field(default_factory=set)
    """Writes that run here; they end by themselves, whatever becomes of their clients."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that matched a route.

    `path` is decoded and without the version prefix; `version` is what the client asked for, None without a prefix;
    `params` are the parts of the path that the route names; `attempt` says who asks, and for the how-manieth time.
    """

    request: web.BaseRequest
    state: ApiState
    path: str
    version: tuple[int, ...] | None
    params: Mapping[str, str]
    query: Mapping[str, str]
    attempt: Attempt

    @property
    def backend(self) -> Backend:
        """The node that answers."""
        return self.state.backend

    @property
    def writes(self) -> bool:
        """Whether the request may change something."""
        return self.request.method not in ("GET", "HEAD")

    def filters(self, *accepted: str) -> Filters:
        """The `filters` of the query; InvalidArgument for a key that the route does not know."""
        return parse_filters(self.query.get("filters", ""), accepted)

    def flag(self, name: str, *, lenient: bool = False) -> bool:
        """A boolean of the query as Go parses it. `lenient`: whatever is not plainly false is true, as for `force`."""
        value = self.query.get(name, "")
        if lenient:
            return value.strip().lower() not in ("", "0", "no", "false", "none")
        if value in _TRUE:
            return True
        if value == "" or value in _FALSE:
            return False
        raise InvalidArgument(f"invalid value for {name}: {value}")

    def object_version(self, noun: str) -> int:
        """The `version` of the query: the index of the object that the client read before it changed it."""
        raw = self.query.get("version", "")
        if raw.isascii() and raw.isdigit() and int(raw) < 1 << 64:
            return int(raw)
        reason = "value out of range" if raw.isascii() and raw.isdigit() else "invalid syntax"
        raise InvalidArgument(f"invalid {noun} version '{raw}': strconv.ParseUint: parsing \"{raw}\": {reason}")

    async def fresh(self, store: Store) -> None:
        """Wait until the store shows every write acknowledged so far; when that takes too long the answer says so."""
        if self.state.leadership.leaderless or not await self.state.reads.fresh(store):
            self.request[STALE] = True

    @property
    def is_stale(self) -> bool:
        """Whether the answer is made from the last known state."""
        return STALE in self.request

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """The answer has no end of its own while this lasts: the server breaks it off when it stops."""
        task = asyncio.current_task()
        assert task is not None
        self.state.metrics.streams.add(task)
        try:
            yield
        finally:
            self.state.metrics.streams.discard(task)

    async def open_stream(self, media: str) -> web.StreamResponse:
        """An answer whose body is written piece by piece; its head is sent at once."""
        stale = STALE_WARNING if STALE in self.request else {}
        response = web.StreamResponse(headers={**self.state.front.headers, **stale, "Content-Type": media})
        self.request[BEGUN] = True
        if self.request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(self.request)
        return response

    def break_off(self, reason: str) -> None:
        """End an answer that has begun so that nobody takes it for complete; nothing happens to one that has not."""
        if BEGUN in self.request:
            if self.request.transport is not None:
                self.request.transport.abort()
            raise ConnectionResetError(reason)

    async def keep_body(self) -> bytes:
        """The whole body, kept for as often as it is asked for."""
        if BODY not in self.request:
            self.request[BODY] = await self.body()
        return self.request[BODY]

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """The whole body; BodyTooLarge beyond `limit` bytes, before the rest is read."""
        if BODY in self.request:
            return self.request[BODY]
        length = self.request.content_length
        if length is not None and length > limit:
            raise BodyTooLarge(
                f"request body of {length} bytes is larger than the {limit} bytes that are accepted here"
            )
        chunks, size = [], 0
        async for chunk in self.request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"request body is larger than the {limit} bytes that are accepted here")
            chunks.append(chunk)
        return b"".join(chunks)

    async def json(self, kind: type[T]) -> T:
        """The body as a `kind`; InvalidArgument says what is wrong with it."""
        return decode_json(await self.json_body(), kind)

    async def json_body(self) -> bytes:
        """The body of a request that has to have one, of JSON; InvalidArgument when it has none."""
        media = self.request.headers.get("Content-Type", "")
        if media and media.split(";")[0].strip().lower() != "application/json":
            raise InvalidArgument(f"unsupported Content-Type header ({media}): must be 'application/json'")
        body = await self.body()
        if not body.strip():
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return body


def parse_query(raw: str) -> dict[str, str]:
    """A query string; of a name that comes twice the first counts, as Go's `Get` has it."""
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        query.setdefault(name, value)
    return query


SUBJECT: web.ResponseKey[str] = web.ResponseKey("subject", str)
"""What a write was about, for the audit line: `service web (id)`."""
AUDITED: web.ResponseKey[bool] = web.ResponseKey("audited", bool)
"""Set on the answer to a write whose audit line is written, here or at the leader."""


def write_audit(call: Call, response: web.StreamResponse) -> None:
    """Who, from where, what: one line for every write that was accepted, at the manager that made the change."""
    if not call.writes or response.status >= 400 or AUDITED in response:
        return
    response[AUDITED] = True
    audit.info(
        "%s %s %s from %s%s: %s",
        call.request.method,
        call.path,
        response.status,
        call.attempt.caller,
        ", sent again" if call.attempt.repeated else "",
        response.get(SUBJECT) or "-",
    )


def reply(value: object, status: int = 200, *, subject: str = "") -> web.Response:
    """`value` as JSON."""
    return raw_reply(encode_json(value) + b"\n", status, subject=subject)


async def reply_list(objects: Sequence[O], shown: Callable[[O], object]) -> web.Response:
    """A list as JSON, as `shown` makes its members; the loop breathes between slices, so that long lists hold nobody up."""
    if len(objects) <= SLICE:
        return reply([shown(obj) for obj in objects])
    parts = []
    for start in range(0, len(objects), SLICE):
        parts.append(encode_json([shown(obj) for obj in objects[start : start + SLICE]])[1:-1])
        await asyncio.sleep(0)
    return raw_reply(b"[" + b",".join(parts) + b"]\n")


def raw_reply(body: bytes, status: int = 200, *, subject: str = "") -> web.Response:
    """JSON that is encoded already."""
    response = web.Response(body=body, status=status, content_type="application/json")
    if subject:
        response[SUBJECT] = subject
    return response


def done(status: int = 200, *, subject: str = "") -> web.Response:
    """An answer without a body."""
    response = web.Response(status=status)
    if subject:
        response[SUBJECT] = subject
    return response


def refused(error: ApiError) -> web.Response:
    """An error as the API tells it."""
    return reply({"message": str(error)}, error.status)
