"""Requests that only the leader can answer: run here while this manager leads, else sent on to the one that does.

A request is never lost without a word and never done twice. What was not taken is tried again as it is; what may have been
taken is tried again as a repeat, which the leader recognises (`attempts`). A request that another manager sent here is
never sent further: when this manager does not lead any more, it says so, and the sender looks for the new leader itself.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, replace

from aiohttp import web
from msgspec import DecodeError
from msgspec.json import decode

from agent.api.attempts import OUTCOME, PREFIX, UNKNOWN_OUTCOME, Attempt, Outcome
from agent.api.call import AUDITED, STALE, Call, raw_reply, write_audit
from agent.api.engine import end_to_end
from agent.api.exchange import Head, read_body, read_head, send_request
from agent.api.leadership import Footing, LeaderGone
from agent.api.lookup import NO_LEADER
from agent.api.quorum import quorum_lost
from agent.api_types.errors import ApiError, Unavailable
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.rpc.errors import RpcError

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
ObjectOf = Callable[[Call], str]
"""The id of the object that a request is about, chosen or found here before it is sent on; empty when nobody knows."""

PATIENCE = 10.0
"""Seconds after which no further attempt begins, whatever the managers do."""
ANSWER_PATIENCE = 20.0
"""Seconds a leader that is not lost may take to begin its answer."""
QUESTION_PATIENCE = 0.15
"""Seconds the leader may take for what this manager could answer by itself, if not as well."""
REFUSAL_PATIENCE = 1.0
"""Seconds until it is certain that a manager leads although its log refused an entry."""
FIRST_PAUSE, LAST_PAUSE = 0.02, 0.5
"""Seconds until a leader that cannot be reached is tried again, unless another one is known before."""


class NotTaken(Exception):
    """The request surely was not taken: nothing was sent, or the other side said so. The text says why."""


async def by_the_leader(call: Call, handler: Handler, object_of: ObjectOf | None = None) -> web.StreamResponse:
    """The leader's answer to a request. Writes wait for an election, and fail at once while a quorum is missing."""
    body = await call.keep_body()
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + PATIENCE, FIRST_PAUSE
    lead, attempt = call.state.leadership, call.attempt
    why = "the leader of the swarm cannot be reached"
    while True:
        footing = lead.footing
        if not call.backend.is_manager or not footing.member:
            if attempt.repeated:
                raise Unavailable(UNKNOWN_OUTCOME)
            # No manager, or one without a group: the handler knows what to say.
            return await _run(call, handler)
        try:
            if footing.leading:
                async with lead.as_long_as(footing) if not call.writes else nullcontext():
                    return await _run(call, handler)
            if attempt.forwarded and footing.leader != footing.member:
                raise NotLeader
            if footing.elsewhere:
                if object_of is not None and not attempt.object_id:
                    attempt.object_id = object_of(call)
                return await _send_on(call, footing, body)
        except NotTaken as error:
            why = str(error)
        except NotLeader as error:
            if footing.leading:
                await lead.wait(footing, REFUSAL_PATIENCE)
                if lead.footing == footing:
                    # It leads all the same: its disk is full, or has failed.
                    raise Unavailable(str(error) or NO_LEADER) from None
            if attempt.forwarded:
                raise
        except (OutcomeUnknown, LeaderGone) as error:
            call.break_off("the leader was lost in the middle of its answer")
            if attempt.forwarded:
                raise OutcomeUnknown(str(error)) from error
            attempt.repeated = call.writes
        if lead.leaderless or loop.time() >= until:
            if attempt.forwarded:
                raise NotLeader
            raise _given_up(call, why)
        await lead.wait(footing, pause if footing.leader else until - loop.time())
        pause = min(2 * pause, LAST_PAUSE)


def _given_up(call: Call, why: str) -> ApiError:
    text = quorum_lost(call.backend.group, call.backend.store)
    if call.attempt.repeated:
        return Unavailable(f"{UNKNOWN_OUTCOME}. {text}" if call.state.leadership.leaderless else UNKNOWN_OUTCOME)
    return Unavailable(text if call.state.leadership.leaderless else why)


# -- here


async def _run(call: Call, handler: Handler) -> web.StreamResponse:
    if not call.writes:
        return await handler(call)
    # A client that goes away takes nothing back: what was begun is done, and has its audit line.
    task = asyncio.create_task(_write(call, handler))
    call.state.writes.add(task)
    task.add_done_callback(call.state.writes.discard)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def _write(call: Call, handler: Handler) -> web.StreamResponse:
    response = await handler(call)
    write_audit(call, response)
    return response


# -- at the leader


@dataclass(slots=True)
class _Progress:
    sent: bool = False


async def _send_on(call: Call, footing: Footing, sent: bytes) -> web.StreamResponse:
    """The answer of the manager that leads; NotTaken, OutcomeUnknown or LeaderGone when there is none."""
    progress = _Progress()
    try:
        async with call.state.leadership.as_long_as(footing), AsyncExitStack() as link:
            head, reader, body = await _exchange(call, sent, link, progress)
            if body is None:
                return await _relay_stream(call, head, reader)
    except LeaderGone:
        if not progress.sent:
            raise NotTaken("another manager leads now") from None
        raise
    if call.writes and head.status < 400 and call.backend.store is not None:
        # Whoever wrote through this manager finds it here, even should the leader be lost the moment after.
        await call.state.reads.fresh(call.backend.store)
    response = raw_reply(body, head.status)
    response.headers["Content-Type"] = head.headers.get("Content-Type", "application/json")
    if not body:
        del response.headers["Content-Type"]
    response[AUDITED] = True
    return response


async def _exchange(
    call: Call, body: bytes, link: AsyncExitStack, progress: _Progress
) -> tuple[Head, StreamReader, bytes | None]:
    """The answer's head and its body; None in the body's place when that has no end of its own."""
    attempt = replace(call.attempt, caller=_caller(call))
    try:
        reader, writer = await link.enter_async_context(call.backend.leader_link(attempt.caller))
    except (OSError, RpcError) as error:
        raise NotTaken(f"the leader of the swarm cannot be reached: {error}") from error
    except Unavailable as error:
        if attempt.repeated:
            raise Unavailable(f"{UNKNOWN_OUTCOME}. {error}") from None
        raise
    request = call.request
    headers = [(name, value) for name, value in end_to_end(request.headers) if _goes_on(name)]
    progress.sent = True
    call.state.metrics.forwarded += 1
    try:
        async with asyncio.timeout(ANSWER_PATIENCE):
            await send_request(writer, request.method, request.raw_path, [*headers, *attempt.headers()], body)
            head = await read_head(reader)
            outcome = head.headers.get(OUTCOME)
            if outcome == Outcome.NOT_TAKEN:
                raise NotTaken(_message(b"".join([piece async for piece in read_body(reader, head)])))
            if outcome == Outcome.UNKNOWN:
                raise OutcomeUnknown
            if "Warning" in head.headers:
                request[STALE] = True
            if head.length is None and head.status == 200:
                return head, reader, None
            return head, reader, b"".join([piece async for piece in read_body(reader, head)])
    except OSError as error:
        raise OutcomeUnknown(str(error)) from error


async def ask_leader(call: Call, target: str) -> bytes | None:
    """What the leader answers to a GET of this manager's own; None when there is none, or it takes too long."""
    lead = call.state.leadership
    footing, caller = lead.footing, _caller(call)
    if not footing.elsewhere:
        return None
    try:
        async with (
            asyncio.timeout(QUESTION_PATIENCE),
            lead.as_long_as(footing),
            call.backend.leader_link(caller) as (reader, writer),
        ):
            await send_request(writer, "GET", target, [("Host", "docker"), *Attempt(caller).headers()], b"")
            head = await read_head(reader)
            body = b"".join([piece async for piece in read_body(reader, head)])
            return body if head.status == 200 else None
    except (OSError, RpcError, Unavailable, LeaderGone):
        return None


def _caller(call: Call) -> str:
    """Who asks, at which node."""
    return f"{call.attempt.caller} at {call.backend.hostname} ({call.backend.node_id})"


def _message(body: bytes) -> str:
    """The text of a refusal."""
    try:
        return str(decode(body, type=dict[str, str]).get("message", ""))
    except DecodeError:
        return body.decode(errors="replace")


def _goes_on(name: str) -> bool:
    """Whether a header of the client's is for the leader; who is asked and how long the body is, is our own to say."""
    return name.lower() not in ("content-length", "expect") and not name.lower().startswith(PREFIX)


async def _relay_stream(call: Call, head: Head, reader: StreamReader) -> web.StreamResponse:
    with call.streaming():
        response = await call.open_stream(head.headers.get("Content-Type", "application/octet-stream"))
        try:
            async for piece in read_body(reader, head):
                await response.write(piece)
        except OSError:
            call.break_off("the leader broke off its answer")
            raise
    return response
