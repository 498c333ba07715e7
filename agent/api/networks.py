"""`/networks`: the overlays of the swarm beside the networks of the host's engine."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from agent.api.call import Call, done, raw_reply, reply
from agent.api.engine import Engine, end_to_end
from agent.api.filters import Filters, parse_filters
from agent.api.forwarding import by_the_leader
from agent.api.lookup import find_network, manager_store
from agent.api.passthrough import pass_to_engine
from agent.api.removal import remove_object
from agent.api_types.codec import encode_json
from agent.api_types.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from agent.api_types.network import Network
from agent.api_types.service import Service
from agent.store.transactions import ReadTx

OVERLAY_LABEL = "swarmtui.network"
"""On the bridge that carries an overlay on a host; clients see the overlay in its place."""


def network_view(network: Network) -> dict[str, Any]:
    """An overlay in the form of the engine's own networks."""
    spec, ipam = network.spec, network.ipam_options
    configs = [] if ipam is None else [_ipam_config(c.subnet, c.range, c.gateway) for c in ipam.configs]
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": network.created_at,
        "Scope": "swarm",
        "Driver": network.driver_state.name or "overlay",
        "EnableIPv6": spec.ipv6_enabled,
        "IPAM": {"Driver": (ipam.driver.name if ipam else "") or "default", "Options": None, "Config": configs},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": network.driver_state.options or None,
        "Labels": spec.labels or None,
    }


def _ipam_config(subnet: str, address_range: str, gateway: str) -> dict[str, str]:
    config = {"Subnet": subnet, "IPRange": address_range, "Gateway": gateway}
    return {name: value for name, value in config.items() if value}


def _matches(filters: Filters, network: Network) -> bool:
    return (
        filters.exact("driver", network.driver_state.name or "overlay")
        and filters.exact("scope", "swarm")
        and filters.prefix("id", network.id)
        and (not filters.get("name") or any(part in network.spec.name for part in filters.get("name")))
        and filters.labels("label", network.spec.labels)
        and filters.exact("type", "builtin" if network.spec.ingress else "custom")
        and not filters.get("dangling")
    )


def _overlays(call: Call, filters: Filters) -> list[Network]:
    store = call.backend.store
    if not call.backend.is_manager or store is None:
        return []
    found = store.view(lambda tx: [network for network in tx.all(Network) if _matches(filters, network)])
    return sorted(found, key=lambda network: network.id)


async def list_networks(call: Call) -> web.StreamResponse:
    """`GET /networks`."""
    filters = parse_filters(call.query.get("filters", ""), accepted=None)
    await _freshen(call)
    networks = [network_view(network) for network in _overlays(call, filters)]
    if call.state.engine is not None:
        status, body = await _ask(call.state.engine, call)
        if status != 200:
            return raw_reply(body, status)
        told = msgspec.json.decode(body, type=list[dict[str, Any]])
        networks += [network for network in told if OVERLAY_LABEL not in (network.get("Labels") or {})]
    return reply(networks)


async def _ask(engine: Engine, call: Call, body: bytes | None = None) -> tuple[int, bytes]:
    """The engine's status and whole answer to the client's own request."""
    request = call.request
    headers = end_to_end(request.headers)
    async with engine.request(request.method, request.raw_path, headers=headers, body=body) as answer:
        try:
            return answer.status, await answer.read()
        except aiohttp.ClientPayloadError as error:
            raise engine.unreachable(error) from error


async def _freshen(call: Call) -> None:
    if call.backend.is_manager and call.backend.store is not None:
        await call.fresh(call.backend.store)


def _find(call: Call) -> Network | None:
    """The overlay that the path names, None when there is none of that name."""
    store = call.backend.store
    if not call.backend.is_manager or store is None:
        return None
    try:
        return store.view(lambda tx: find_network(tx, call.params["id"]))
    except NotFound:
        return None


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /networks/ID`: an overlay, else the engine's."""
    await _freshen(call)
    found = _find(call) if call.query.get("scope", "swarm") == "swarm" else None
    if found is not None:
        return raw_reply(encode_json(network_view(found)) + b"\n")
    if call.state.engine is None or call.query.get("scope") == "swarm":
        raise NotFound(f"network {call.params['id']} not found")
    return await pass_to_engine(call.request, call.state.engine, call.path)


async def create(call: Call) -> web.StreamResponse:
    """`POST /networks/create`: the engine's; overlays cannot be made yet."""
    body = await call.body()
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    if str(told.get("Driver", "")).lower() == "overlay" or told.get("Scope") == "swarm":
        manager_store(call.backend)
        raise Unimplemented("overlay networks cannot be created yet: this agent joins tasks by published ports")
    if call.state.engine is None:
        raise Unimplemented("this node has no Docker Engine: tasks are processes on the networks of the host")
    status, answer = await _ask(call.state.engine, call, body)
    return raw_reply(answer, status, subject=f"network {told.get('Name', '')}")


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /networks/ID`: an overlay that no service uses, at the leader; else the engine's."""
    await _freshen(call)
    found = _find(call)
    if found is not None or call.attempt.forwarded:
        # What another manager sent here is an overlay, and never this host's engine's business.
        return await by_the_leader(call, _remove_overlay, lambda call: "" if found is None else found.id)
    if call.state.engine is None:
        raise NotFound(f"network {call.params['id']} not found")
    return await pass_to_engine(call.request, call.state.engine, call.path)


async def _remove_overlay(call: Call) -> web.StreamResponse:
    store, wanted = manager_store(call.backend), call.params["id"]
    removed = await remove_object(call, store, Network, lambda tx: find_network(tx, wanted), _refuse_used)
    return done(204, subject=f"network {wanted if removed is None else f'{removed.spec.name} ({removed.id})'}")


def _refuse_used(tx: ReadTx, network: Network) -> None:
    if network.spec.ingress:
        raise FailedPrecondition.grpc("the ingress network belongs to the swarm and cannot be removed")
    for service in tx.all(Service):
        attachments = (*service.spec.task_template.networks, *service.spec.networks)
        if any(attachment.target == network.id for attachment in attachments):
            raise FailedPrecondition.grpc(f"network {network.id} is in use by service {service.id}")
