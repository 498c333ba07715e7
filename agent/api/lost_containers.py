"""Gives the addresses of containers back that were removed: as the engine tells of it, and after the agent was away."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from agent.api.attaching import UNKNOWN, give_back
from agent.api.call import ApiState
from agent.api.engine import Engine
from agent.api_types.codec import encode_json
from agent.api_types.errors import ApiError, Unavailable
from agent.api_types.network import Attachment
from agent.api_types.times import SECOND, parse_time
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.store.store import Store
from agent.store.watching import Watch, WatchOverflow

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds until an engine or a leader that did not answer is asked again."""
STORE_AGAIN = 60.0
"""Seconds until it is looked at whether this node has another store by now."""
LONGEST_BIRTH = 300 * SECOND
"""How long the making of a container may take; what has none after that never gets one."""
_REMOVED = quote(encode_json({"type": ["container"], "event": ["destroy"]}).decode())


async def watch_containers(state: ApiState) -> None:
    """Run until cancelled. Nothing is asked of an engine while no container of this node has an address."""
    if state.engine is None:
        return
    while True:
        store = await _store(state)
        with store.watch(Attachment) as watch:
            if not _own(state, store):
                await _next_change(watch)
                continue
        try:
            await _follow(state, state.engine, store)
        except (ApiError, NotLeader, OutcomeUnknown, aiohttp.ClientError, msgspec.DecodeError) as error:
            log.info("addresses of removed containers are given back later: %s", error)
            await asyncio.sleep(RETRY)


async def _next_change(watch: Watch) -> None:
    """Wait for the next attachment that is made or removed, in a store that this node may have left meanwhile."""
    try:
        async with asyncio.timeout(STORE_AGAIN):
            await anext(watch)
    except TimeoutError:
        return
    except (StopAsyncIteration, WatchOverflow):
        await asyncio.sleep(RETRY)


async def _store(state: ApiState) -> Store:
    footing = state.leadership.footing
    while not state.backend.is_manager or state.backend.store is None:
        footing = await state.leadership.changed(footing)
    return state.backend.store


def _own(state: ApiState, store: Store) -> list[Attachment]:
    found = store.view(lambda tx: tx.find(Attachment, "node", state.backend.node_id))
    return [attachment for attachment in found if attachment.container]


async def _follow(state: ApiState, engine: Engine, store: Store) -> None:
    """Until the last container of a person's on an overlay is gone."""
    async with engine.request("GET", f"/events?filters={_REMOVED}") as events:
        await _sweep(state, engine, store)
        async for _ in events.content:
            await _sweep(state, engine, store)
            if not _own(state, store):
                return
    raise Unavailable("the engine ended its events")


async def _sweep(state: ApiState, engine: Engine, store: Store) -> None:
    own = _own(state, store)
    if not own:
        return
    async with engine.request("GET", "/containers/json?all=true") as answer:
        there = {str(each["Id"]) for each in msgspec.json.decode(await answer.read(), type=list[dict[str, Any]])}
    now = state.backend.clock()
    for attachment in own:
        if attachment.container == UNKNOWN:
            lost = now - parse_time(attachment.created_at) > LONGEST_BIRTH
        else:
            lost = attachment.container not in there
        if lost:
            await give_back(state, [attachment])
