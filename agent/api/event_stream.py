"""`/events`: the cluster's and the engine's, in one stream of JSON objects."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import web

from agent.api.call import Call
from agent.api.engine import Engine, end_to_end
from agent.api.events import ClusterEvent, Subscription
from agent.api.filters import Filters, parse_filters
from agent.api.moments import parse_moment
from agent.api_types.codec import encode_json
from agent.api_types.errors import Unavailable
from agent.api_types.times import SECOND

_BY_OBJECT = ("config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume")


def matches(filters: Filters, event: ClusterEvent) -> bool:
    """moby's rule (daemon/events/filter.go): a filter by object holds back every event that is not about that object."""
    name = event.attributes.get("name", "")
    return (
        filters.exact("event", event.action)
        and filters.exact("type", event.type)
        and filters.exact("scope", "swarm")
        and filters.labels("label", event.attributes)
        and all(filters.prefix(kind, event.id) or filters.prefix(kind, name) for kind in _BY_OBJECT)
    )


async def stream(call: Call) -> web.StreamResponse:
    """`GET /events`. With `since` what is remembered comes first; `until` ends the stream.

    An engine that cannot be reached, or that goes away, leaves the cluster's events running.
    """
    filters = parse_filters(call.query.get("filters", ""), accepted=None)
    since = parse_moment(call.query.get("since", ""), "since")
    until = parse_moment(call.query.get("until", ""), "until")
    log = call.state.events
    log.listen_to(call.backend.store)
    now = call.backend.clock()
    with log.subscribe() as news, call.streaming():
        past = [event for event in log.past() if _told(event, since if since is not None else now, until, filters)]
        response = await call.open_stream("application/json")
        await response.write(b"".join(_line(event) for event in past))
        try:
            async with asyncio.timeout(None if until is None else max(0.0, (until - now) / SECOND)):
                await _follow(call, response, news, filters)
        except TimeoutError:
            if call.state.engine is not None and until is not None and until <= now:
                await _engine_events(call, call.state.engine, response)
    return response


def _told(event: ClusterEvent, since: int, until: int | None, filters: Filters) -> bool:
    return since <= event.time and (until is None or event.time <= until) and matches(filters, event)


def _line(event: ClusterEvent) -> bytes:
    return encode_json(event.message()) + b"\n"


async def _follow(call: Call, response: web.StreamResponse, news: Subscription, filters: Filters) -> None:
    async with asyncio.TaskGroup() as group:
        if call.state.engine is not None:
            group.create_task(_engine_events(call, call.state.engine, response))
        while not news.overflow:
            event = await news.queue.get()
            if matches(filters, event):
                await response.write(_line(event))
        # Cut off: a reader that is told so by the end of the stream can ask for what it missed with `since`.
        raise ConnectionResetError("the reader of events fell behind")


async def _engine_events(call: Call, engine: Engine, response: web.StreamResponse) -> None:
    headers = end_to_end(call.request.headers)
    try:
        async with engine.request("GET", call.request.raw_path, headers=headers) as answer:
            if answer.status == 200:
                async for line in answer.content:
                    await response.write(line)
    except (Unavailable, aiohttp.ClientPayloadError):
        return
