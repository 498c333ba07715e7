"""`/swarmtui/v1/explain`: why a task, a service or a network is as it is, as the manager's control loops see it."""

from __future__ import annotations

from aiohttp import web

from agent.api.backend import Backend, Explainer
from agent.api.call import Call, reply
from agent.api.lookup import NO_LEADER, find_network, find_service, find_task, manager_store
from agent.api_types.errors import Unavailable


def _explainer(backend: Backend) -> Explainer:
    if backend.explainer is None:
        raise Unavailable(NO_LEADER)
    return backend.explainer


async def task(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/explain/task/ID`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    found = store.view(lambda tx: find_task(tx, call.params["id"]))
    return reply(_explainer(call.backend).explain_task(found.id))


async def service(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/explain/service/ID`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    found = store.view(lambda tx: find_service(tx, call.params["id"]))
    return reply(_explainer(call.backend).explain_service(found.id))


async def network(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/explain/network/ID`."""
    store = manager_store(call.backend)
    await call.fresh(store)
    found = store.view(lambda tx: find_network(tx, call.params["id"]))
    return reply(_explainer(call.backend).explain_network(found.id))
