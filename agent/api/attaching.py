"""Containers that people run on attachable overlays: `docker run --network OVERLAY` and `docker network connect`.

The engine knows an overlay only as the bridge that carries it on this host, and would choose an address by itself. So a
request that names an overlay waits here until the managers have given the container an address and the network is on this
host; then it goes to the engine with that address. The address is given back when the container is removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import quote

import msgspec
from aiohttp import web

from agent.api.attachments import ROUTE, check_attachable, put, remove
from agent.api.call import ApiState, Call, raw_reply
from agent.api.containers import NO_ENGINE
from agent.api.lookup import find_network, manager_store
from agent.api.network_specs import OVERLAY
from agent.api.networks import ask_engine, engines_network, is_carrier
from agent.api.own_requests import ask_for
from agent.api.passthrough import allow_body
from agent.api_types.codec import encode_json
from agent.api_types.common import Driver
from agent.api_types.errors import ApiError, NotFound, Unavailable, Unimplemented
from agent.api_types.network import Attachment, Network, NetworkAttachment
from agent.api_types.task import Task
from agent.worker.interface import RejectedByExecutor, TemporaryFailure

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds for an address and for the network to come to this host."""
UNKNOWN = "(a container that is being made)"
"""In the container's place until the engine has given it an id."""
NOT_OVERLAYS = frozenset({"", "default", "bridge", "host", "none", "nat"})

Body = dict[str, Any]


@runtime_checkable
class Placing(Protocol):
    """An executor whose engine can put other containers on an overlay, too."""

    async def place(self, attachment: NetworkAttachment) -> tuple[str, Body, list[str]]:
        """The engine's name of the network, the endpoint's configuration, and the resolvers that know its names."""
        ...


# -- requests


async def create_container(call: Call) -> web.StreamResponse:
    """`POST /containers/create`."""
    engine = call.state.engine
    if engine is None:
        raise Unimplemented(f"{call.request.method} {call.path}: {NO_ENGINE}")
    await allow_body(call.request)
    body = await call.keep_body()
    try:
        asked = msgspec.json.decode(body, type=Body)
    except msgspec.DecodeError:
        asked = {}
    host_config = asked.get("HostConfig") or {}
    endpoints: dict[str, Any] = (asked.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    names = dict.fromkeys([str(host_config.get("NetworkMode") or ""), *endpoints])
    overlays = {name: network for name in names if (network := await _overlay(call, name)) is not None}
    if not overlays:
        status, answer = await ask_engine(engine, call, body)
        return raw_reply(answer, status)
    container = call.query.get("name", "")
    given: list[Attachment] = []
    try:
        for name, network in overlays.items():
            endpoint = endpoints.pop(name, None) or {}
            attachment = await _attach(call, network, UNKNOWN, container, endpoint, given)
            theirs, place, resolvers = await _place(call, network, attachment)
            endpoints[theirs] = endpoint | place
            if host_config.get("NetworkMode") == name:
                host_config["NetworkMode"] = theirs
            host_config["Dns"] = [*resolvers, *(host_config.get("Dns") or [])]
        asked |= {"HostConfig": host_config, "NetworkingConfig": {"EndpointsConfig": endpoints}}
        status, answer = await ask_engine(engine, call, encode_json(asked))
        if status == 201:
            await _name(call, given, str(msgspec.json.decode(answer, type=Body)["Id"]))
            given = []
        return raw_reply(answer, status)
    finally:
        await give_back(call.state, given)


async def connect(call: Call) -> web.StreamResponse:
    """`POST /networks/ID/connect`."""
    engine = call.state.engine
    if engine is None:
        raise Unimplemented(f"{call.request.method} {call.path}: {NO_ENGINE}")
    body = await call.keep_body()
    network = await _overlay(call, call.params["id"])
    if network is None:
        status, answer = await ask_engine(engine, call, body)
        return raw_reply(answer, status)
    asked = msgspec.json.decode(body, type=Body)
    told = await engine.json(f"/containers/{quote(str(asked.get('Container', '')), safe='')}/json")
    given: list[Attachment] = []
    try:
        endpoint = asked.get("EndpointConfig") or {}
        attachment = await _attach(call, network, str(told["Id"]), str(told["Name"]).lstrip("/"), endpoint, given)
        theirs, place, _ = await _place(call, network, attachment)
        status, answer = await ask_engine(
            engine,
            call,
            encode_json(asked | {"EndpointConfig": endpoint | place}),
            target=f"/networks/{quote(theirs, safe='')}/connect",
        )
        if status == 200:
            given = []
        return raw_reply(answer, status)
    finally:
        await give_back(call.state, given)


async def disconnect(call: Call) -> web.StreamResponse:
    """`POST /networks/ID/disconnect`."""
    engine = call.state.engine
    if engine is None:
        raise Unimplemented(f"{call.request.method} {call.path}: {NO_ENGINE}")
    body = await call.keep_body()
    network = await _overlay(call, call.params["id"])
    if network is None:
        status, answer = await ask_engine(engine, call, body)
        return raw_reply(answer, status)
    asked = msgspec.json.decode(body, type=Body)
    told = await engine.json(f"/containers/{quote(str(asked.get('Container', '')), safe='')}/json")
    theirs = await engines_network(call, network.spec.name)
    name = theirs["Name"] if theirs is not None and is_carrier(theirs) else f"{network.spec.name}.{network.id[:10]}"
    status, answer = await ask_engine(engine, call, body, target=f"/networks/{quote(str(name), safe='')}/disconnect")
    if status == 200:
        store = manager_store(call.backend)
        mine = store.view(lambda tx: tx.find(Attachment, "network", network.id))
        await give_back(call.state, [each for each in mine if each.container == told["Id"]])
    return raw_reply(answer, status)


async def _overlay(call: Call, name: str) -> Network | None:
    """The overlay that a request means, None for a network of the engine's own. Unavailable on a worker."""
    if name in NOT_OVERLAYS or name.startswith("container:"):
        return None
    store = call.backend.store
    if store is not None and call.backend.is_manager:
        try:
            found = store.view(lambda tx: find_network(tx, name))
        except NotFound:
            return None
        if name in (found.id, found.spec.name):
            return found
        theirs = await engines_network(call, name)
        return found if theirs is None or is_carrier(theirs) else None
    theirs = await engines_network(call, name)
    if theirs is not None and is_carrier(theirs):
        raise Unavailable(
            f"network {name} is an overlay, and this node is no manager: only managers can give a container of yours an "
            "address there. Run it on a manager, or as a service"
        )
    return None


# -- an address, and a place


async def _attach(
    call: Call, network: Network, container: str, name: str, endpoint: Mapping[str, Any], given: list[Attachment]
) -> Attachment:
    """An attachment with its address; it is in `given` from the moment that there may be one."""
    check_attachable(network)
    executor: object = call.backend.executor
    if call.backend.networks is None or not isinstance(executor, Placing):
        raise Unimplemented(f"network {network.spec.name} cannot be had on this node: its agent does not run overlays")
    store = manager_store(call.backend)
    ipam = endpoint.get("IPAMConfig") or {}
    wanted = [str(ipam["IPv4Address"])] if ipam.get("IPv4Address") else []
    attachment = Attachment(
        id=call.state.new_id(),
        network_id=network.id,
        node_id=call.backend.node_id,
        container=container,
        name=name,
        aliases=[str(alias) for alias in endpoint.get("Aliases") or []],
        addresses=wanted,
    )
    given.append(attachment)
    with store.watch(Attachment) as watch:
        await ask_for(
            call.state,
            "POST",
            f"{ROUTE}/create",
            put,
            caller=call.attempt.caller,
            object_id=attachment.id,
            body=attachment,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    found = store.view(lambda tx: tx.get(Attachment, attachment.id))
                    if found is not None and any("/" in address for address in found.addresses):
                        return found
                    if found is not None and found.err:
                        raise Unavailable(f"Could not attach to network {network.spec.name}: {found.err}")
                    await anext(watch)
        except TimeoutError:
            raise Unavailable(
                f"Could not attach to network {network.spec.name}: no manager gave it an address in {PATIENCE:.0f} s"
            ) from None


async def _place(call: Call, network: Network, attachment: Attachment) -> tuple[str, Body, list[str]]:
    networks, executor = call.backend.networks, cast(object, call.backend.executor)
    assert networks is not None
    assert isinstance(executor, Placing)
    place = NetworkAttachment(network=network, addresses=attachment.addresses)
    try:
        await networks.attach(Task(id=attachment.id, networks_attachments=[place]))
        return await executor.place(place)
    except (TemporaryFailure, RejectedByExecutor) as error:
        raise Unavailable(f"Could not attach to network {network.spec.name}: {error}") from None


async def _name(call: Call, given: list[Attachment], container: str) -> None:
    """The container has an id now. Should nobody hear of it, the address is given back with those of lost containers."""
    for attachment in given:
        told = msgspec.structs.replace(attachment, container=container)
        await ask_for(
            call.state, "POST", f"{ROUTE}/create", put, caller=call.attempt.caller, object_id=attachment.id, body=told
        )


async def give_back(state: ApiState, given: list[Attachment]) -> None:
    """These are not on this host any more."""
    for attachment in given:
        network = Network(id=attachment.network_id, driver_state=Driver(name=OVERLAY))
        place = NetworkAttachment(network=network, addresses=attachment.addresses)
        if state.backend.networks is not None:
            await state.backend.networks.detach(Task(id=attachment.id, networks_attachments=[place]))
        with suppress(ApiError):
            target = f"{ROUTE}/{attachment.id}"
            await ask_for(
                state,
                "DELETE",
                target,
                remove,
                caller="the agent, for a container that is gone",
                object_id=attachment.id,
            )
