"""`/swarmtui/v1/watch`: the whole cluster and everything that happens to it, one JSON object a line.

First a `snapshot` line for every object, then `synced` with the index that they show, then `create`, `update` and `remove`
as they are committed. A client that comes back with `?since=INDEX` gets only what it missed, or 410 when that is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import ClassVar

from aiohttp import web

from agent.api.call import Call
from agent.api.lookup import manager_store
from agent.api.views import without_credentials
from agent.api_types.codec import encode_json
from agent.api_types.errors import ApiError, InvalidArgument
from agent.api_types.network import Network
from agent.api_types.node import Node
from agent.api_types.secret import Config, Secret
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task
from agent.store.tables import SCHEMA_OF, StoreObject
from agent.store.transactions import ReadTx
from agent.store.watching import Commit, IndexGone, WatchOverflow

SLICE = 500
"""Objects that are encoded before the loop breathes."""


WRITE_PATIENCE = 10.0
"""Seconds a reader may let one write wait before it is cut off."""


class Gone(ApiError):
    """What the client wants to resume from is forgotten: it starts over without `since`."""

    status: ClassVar[int] = 410


async def stream(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/watch`. A reader that is too slow for the queue behind it is cut off and starts over."""
    store = manager_store(call.backend)
    since = _since(call)
    await call.fresh(store)
    if since is not None and since > store.index:
        raise Gone(f"index {since} is not known here, the last one is {store.index}")
    try:
        watch = store.watch(since=since)
    except IndexGone as error:
        raise Gone(str(error)) from None
    with watch, call.streaming():
        # No await between opening the watch and taking the snapshot: together they show every change exactly once.
        index = store.index if since is None else since
        objects = store.view(_everything) if since is None else []
        response = await call.open_stream("application/x-ndjson")
        try:
            for start in range(0, len(objects), SLICE):
                chunk = objects[start : start + SLICE]
                await _write(response, b"".join(_line("snapshot", obj, index) for obj in chunk))
                await asyncio.sleep(0)
            await _write(response, encode_json({"kind": "synced", "index": index}) + b"\n")
            async for commit in watch:
                await _write(response, b"".join(_commit_lines(commit)))
        except (WatchOverflow, TimeoutError):
            if call.request.transport is not None:
                call.request.transport.abort()
            raise ConnectionResetError("the reader of the watch fell behind") from None
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_PATIENCE):
        await response.write(data)


def _since(call: Call) -> int | None:
    raw = call.query.get("since", "")
    if not raw:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) < 20):
        raise InvalidArgument(f"invalid value for since: {raw}")
    return int(raw)


def _everything(tx: ReadTx) -> list[StoreObject]:
    return [
        *tx.all(Cluster),
        *tx.all(Node),
        *tx.all(Network),
        *tx.all(Secret),
        *tx.all(Config),
        *tx.all(Service),
        *tx.all(Task),
    ]


def _commit_lines(commit: Commit) -> Iterator[bytes]:
    for event in commit.events:
        yield _line(event.kind.value, event.object, commit.index)


def _line(kind: str, obj: StoreObject, index: int) -> bytes:
    return (
        encode_json(
            {"kind": kind, "table": SCHEMA_OF[type(obj)].name, "index": index, "object": without_credentials(obj)}
        )
        + b"\n"
    )
