"""`/swarmtui/v1/backup` and `/swarmtui/v1/restore`: the whole state of a cluster as a stream of bytes, and back.

A backup holds every secret and the authority's key; whoever may use the socket may have them, and keeps them safe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from agent.api.call import Call, reply
from agent.api.lookup import manager_store
from agent.api.swarm import check_init
from agent.api_types.errors import InvalidArgument
from agent.api_types.swarm import InitRequest

MEDIA = "application/octet-stream"


async def save(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/backup`. A backup that breaks off has no end: nobody takes it for complete."""
    store = manager_store(call.backend)
    await call.fresh(store)
    chunks = call.backend.backup()
    with call.streaming():
        # Whatever keeps the backup from being made is told before anything is on its way.
        first = await anext(chunks, b"")
        response = await call.open_stream(MEDIA)
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    return response


async def restore(call: Call) -> web.StreamResponse:
    """`POST /swarmtui/v1/restore`: begin the cluster of a backup again, with this node as its only manager; the node's id.

    The body is the backup, of any length. `listenAddr`, `advertiseAddr`, `dataPathAddr` and `availability` of the query
    are those of `init`.
    """
    query = call.query
    request = InitRequest(
        listen_addr=query.get("listenAddr", "") or "0.0.0.0:2377",
        advertise_addr=query.get("advertiseAddr", ""),
        data_path_addr=query.get("dataPathAddr", ""),
        availability=query.get("availability", ""),
    )
    check_init(call.backend, request)
    if call.request.content_length == 0:
        raise InvalidArgument("the body of a restore is the backup, and this one is empty")
    node_id = await call.backend.restore(_body(call), request)
    return reply(node_id, subject=f"swarm of node {node_id}, from a backup")


async def _body(call: Call) -> AsyncIterator[bytes]:
    async for chunk in call.request.content.iter_any():
        yield chunk
