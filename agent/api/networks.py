"""`/networks`: the overlays of the swarm beside the networks of the host's engine.

Names are unique among the networks of the swarm. Where an engine has a network of a person's with the name of an overlay,
the overlay comes first, as in Docker; and neither can be made on such a host when the other is there.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import web

from agent.api.attempts import chosen_id, made_before
from agent.api.call import Call, done, raw_reply, reply
from agent.api.engine import Engine, end_to_end
from agent.api.filters import Filters, parse_filters
from agent.api.forwarding import by_the_leader
from agent.api.lookup import find_network, manager_store
from agent.api.network_specs import OVERLAY, NetworkRequest, check_against, driver_of, network_of_every_node, spec_of
from agent.api.network_views import OVERLAY_LABEL, carried_view, detailed_view, network_view, networks_of
from agent.api.passthrough import pass_to_engine
from agent.api.removal import remove_object
from agent.api_types.codec import decode_json, encode_json
from agent.api_types.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from agent.api_types.network import Attachment, Network, NetworkSpec
from agent.api_types.service import Service
from agent.api_types.task import EndpointSpec, Task
from agent.manager.allocator import is_ingress
from agent.manager.allocator.subnets import InvalidNetwork, Unallocatable
from agent.manager.allocator.troubles import check_network
from agent.manager.slots import ended, wanted
from agent.store.transactions import ReadTx, WriteTx

NO_ENGINE = "this node has no Docker Engine: tasks are processes on the networks of the host"
NO_ADDRESSES_V6 = "IPv6 is enabled but no IPv6 subnet is given: the network has none. Give one with --subnet"


def _matches(tx: ReadTx, filters: Filters, network: Network) -> bool:
    return (
        filters.exact("driver", network.driver_state.name or driver_of(network.spec))
        and filters.exact("scope", "swarm")
        and filters.prefix("id", network.id)
        and (not filters.get("name") or any(part in network.spec.name for part in filters.get("name")))
        and filters.labels("label", network.spec.labels)
        and filters.exact("type", "custom")
        and _dangles_as_asked(tx, filters, network)
    )


def _dangles_as_asked(tx: ReadTx, filters: Filters, network: Network) -> bool:
    asked = {value in ("true", "1") for value in filters.get("dangling")}
    return not asked or (user_of(tx, network) == "") in asked


def _overlays(call: Call, filters: Filters) -> list[Network]:
    store = call.backend.store
    if not call.backend.is_manager or store is None:
        return []
    found = store.view(lambda tx: [network for network in tx.all(Network) if _matches(tx, filters, network)])
    return sorted(found, key=lambda network: network.id)


async def list_networks(call: Call) -> web.StreamResponse:
    """`GET /networks`."""
    filters = parse_filters(call.query.get("filters", ""), accepted=None)
    await _freshen(call)
    networks = [network_view(network) for network in _overlays(call, filters)]
    if call.state.engine is not None:
        status, body = await ask_engine(call.state.engine, call)
        if status != 200:
            return raw_reply(body, status)
        told = msgspec.json.decode(body, type=list[dict[str, Any]])
        knows = call.backend.is_manager
        networks += [
            carried_view(network) if is_carrier(network) else network
            for network in told
            if not (knows and is_carrier(network))
        ]
    return reply(networks)


def is_carrier(told: dict[str, Any]) -> bool:
    """Whether an engine's network is the bridge that carries an overlay."""
    return OVERLAY_LABEL in (told.get("Labels") or {})


async def ask_engine(engine: Engine, call: Call, body: bytes | None = None, *, target: str = "") -> tuple[int, bytes]:
    """The engine's status and whole answer to the client's own request, or to one of its kind for another `target`."""
    request = call.request
    # The body may be another one than the client's, and is here already.
    own = ("content-length", "expect")
    headers = [(name, value) for name, value in end_to_end(request.headers) if name.lower() not in own]
    async with engine.request(request.method, target or request.raw_path, headers=headers, body=body) as answer:
        try:
            return answer.status, await answer.read()
        except aiohttp.ClientPayloadError as error:
            raise engine.unreachable(error) from error


async def engines_network(call: Call, name: str) -> dict[str, Any] | None:
    """The network that the host's engine knows by `name`; None when there is none, or the engine does not say."""
    if call.state.engine is None or not name:
        return None
    try:
        async with call.state.engine.request("GET", f"/networks/{quote(name, safe='')}") as answer:
            if answer.status != 200:
                return None
            return msgspec.json.decode(await answer.read(), type=dict[str, Any])
    except (Unavailable, aiohttp.ClientPayloadError, msgspec.DecodeError):
        return None


async def _freshen(call: Call) -> None:
    if call.backend.is_manager and call.backend.store is not None:
        await call.fresh(call.backend.store)


async def _find(call: Call) -> Network | None:
    """The overlay that the path names; None when there is none, or a network of the engine's is meant rather."""
    store, wanted = call.backend.store, call.params["id"]
    if not call.backend.is_manager or store is None:
        return None
    try:
        found = store.view(lambda tx: find_network(tx, wanted))
    except NotFound:
        return None
    if wanted in (found.id, found.spec.name):
        return found
    # The beginning of an id: a whole name or id goes before it, wherever it is.
    theirs = None if call.attempt.forwarded else await engines_network(call, wanted)
    return None if theirs is not None and wanted in (theirs["Name"], theirs["Id"]) else found


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /networks/ID`: an overlay, else the engine's."""
    await _freshen(call)
    scope = call.query.get("scope", "")
    found = await _find(call) if scope in ("", "swarm") else None
    if found is None and scope != "local":
        found, carried = await _carried(call)
        if found is None and carried is not None:
            return reply(carried_view(carried))
    if found is not None:
        return _inspected(call, found)
    everywhere = network_of_every_node(call.params["id"]) if scope == "swarm" and call.backend.is_manager else None
    if everywhere is not None:
        return reply(network_view(everywhere))
    if call.state.engine is None or scope == "swarm":
        raise NotFound(f"network {call.params['id']} not found")
    return await pass_to_engine(call.request, call.state.engine, call.path)


async def _carried(call: Call) -> tuple[Network | None, dict[str, Any] | None]:
    """The overlay whose bridge on this host the path names, as far as it is known here, and what the engine says of it."""
    theirs = await engines_network(call, call.params["id"])
    if theirs is None or not is_carrier(theirs):
        return None, None
    store, network_id = call.backend.store, theirs["Labels"][OVERLAY_LABEL]
    known = store is not None and call.backend.is_manager
    return store.view(lambda tx: tx.get(Network, network_id)) if known and store is not None else None, theirs


def _inspected(call: Call, network: Network) -> web.Response:
    store, verbose = manager_store(call.backend), call.flag("verbose")
    node_id = call.backend.node_id
    return raw_reply(encode_json(store.view(lambda tx: detailed_view(tx, network, node_id, verbose=verbose))) + b"\n")


# -- create


async def create(call: Call) -> web.StreamResponse:
    """`POST /networks/create`: an overlay, or another network of scope swarm, at the leader; else the engine's."""
    body = await call.keep_body()
    asked = decode_json(await call.json_body(), NetworkRequest)
    if asked.is_of_swarm or call.attempt.forwarded:
        manager_store(call.backend)
        spec_of(asked)
        if not call.attempt.forwarded:
            theirs = await engines_network(call, asked.name)
            if theirs is not None and theirs["Name"] == asked.name and not is_carrier(theirs):
                raise AlreadyExists(f"network with name {asked.name} already exists")
        return await by_the_leader(call, _create_overlay, lambda call: call.state.new_id())
    if call.state.engine is None:
        raise Unimplemented(NO_ENGINE)
    _refuse_name_of_overlay(call, asked.name)
    status, answer = await ask_engine(call.state.engine, call, body)
    return raw_reply(answer, status, subject=f"network {asked.name}")


def _refuse_name_of_overlay(call: Call, name: str) -> None:
    store = call.backend.store
    if store is not None and call.backend.is_manager and store.view(lambda tx: tx.find(Network, "name", name)):
        raise AlreadyExists(f"network with name {name} already exists")


async def _create_overlay(call: Call) -> web.StreamResponse:
    store = manager_store(call.backend)
    spec = spec_of(decode_json(await call.body(), NetworkRequest))
    created: list[Network] = []

    def change(tx: WriteTx) -> None:
        before = made_before(call.attempt, tx, Network)
        if before is None:
            check_against(spec, tx.all(Network))
            _check_allocation(tx, spec)
        created.append(before or tx.create(Network(id=chosen_id(call.attempt, tx), spec=spec)))

    await store.update(change)
    configs = [] if spec.ipam_options is None else spec.ipam_options.configs
    lacks = spec.ipv6_enabled and driver_of(spec) == OVERLAY and not any(":" in config.subnet for config in configs)
    told = {"Id": created[0].id, "Warning": NO_ADDRESSES_V6 if lacks else ""}
    return reply(told, 201, subject=f"network {spec.name} ({created[0].id})")


def _check_allocation(tx: ReadTx, spec: NetworkSpec) -> None:
    """Docker would answer with an id, and leave the network without addresses for ever."""
    try:
        check_network(tx, spec)
    except InvalidNetwork as error:
        raise InvalidArgument.grpc(str(error)) from None
    except Unallocatable as error:
        raise FailedPrecondition(f"{error}. {error.advice}") from None


# -- remove


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /networks/ID`: an overlay that no service uses, at the leader; else the engine's."""
    await _freshen(call)
    found = await _find(call)
    if found is not None or call.attempt.forwarded:
        # What another manager sent here is an overlay, and never this host's engine's business.
        return await by_the_leader(call, _remove_overlay, lambda call: "" if found is None else found.id)
    if call.state.engine is None:
        raise NotFound(f"network {call.params['id']} not found")
    theirs = await engines_network(call, call.params["id"])
    if theirs is not None and is_carrier(theirs):
        manager_store(call.backend)
        raise FailedPrecondition(
            f"network {theirs['Name']} is how this host carries an overlay: it goes with the last task that uses it"
        )
    return await pass_to_engine(call.request, call.state.engine, call.path)


async def _remove_overlay(call: Call) -> web.StreamResponse:
    store, wanted = manager_store(call.backend), call.params["id"]
    removed = await remove_object(call, store, Network, lambda tx: find_network(tx, wanted), refuse_used)
    return done(204, subject=f"network {wanted if removed is None else f'{removed.spec.name} ({removed.id})'}")


def refuse_used(tx: ReadTx, network: Network) -> None:
    """FailedPrecondition while somebody needs the network."""
    user = user_of(tx, network)
    if user and network.spec.ingress:
        raise FailedPrecondition.grpc(f"ingress network cannot be removed because {user} depends on it")
    if user:
        raise FailedPrecondition.grpc(f"network {network.id} is in use by {user}")


def user_of(tx: ReadTx, network: Network) -> str:
    """Who needs a network, as `service ID`; empty when nobody does."""
    for service in tx.all(Service):
        ports = [*service.endpoint.ports, *(service.spec.endpoint_spec or EndpointSpec()).ports]
        publishes = any(is_ingress(port) for port in ports)
        if publishes if network.spec.ingress else network.id in networks_of(service):
            return f"service {service.id}"
    if network.spec.ingress:
        return ""
    for task in tx.all(Task):
        # Tasks of a service that was removed are on their way out: `docker stack rm` does not wait for them.
        leaves = ended(task) or not wanted(task) or (task.service_id and tx.get(Service, task.service_id) is None)
        if not leaves and any(attachment.network.id == network.id for attachment in task.networks_attachments):
            return f"task {task.id}"
    for attachment in tx.find(Attachment, "network", network.id):
        if attachment.container:
            return f"container {attachment.container}"
    return ""
