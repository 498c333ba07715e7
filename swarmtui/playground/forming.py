"""How bare instances become a cluster, through the API that a person's `docker swarm init` and `join` use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from contextlib import aclosing
from ipaddress import IPv4Address

from swarmtui.docker_api.address import parse_address
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.engine_types import JoinTokens
from swarmtui.docker_api.errors import ApiError, ConnectionFailed, EngineError
from swarmtui.docker_api.types import Node
from swarmtui.playground.addresses import SWARM_PORT
from swarmtui.playground.instance import Instance

_BETWEEN_TRIES = 0.03
_ANSWER = 2.0
"""Seconds in which a manager must answer for itself."""


def client(docker_host: str) -> EngineClient:
    """A client of one instance's agent or engine."""
    return EngineClient(parse_address(docker_host), timeout=30.0)


async def answering(docker_host: str, ended: Awaitable[str], timeout: float) -> None:
    """Return when an API answers on a socket that is about to be made.

    A socket's appearance is told by nothing that Python can wait for, hence the short pauses; the end of the program behind it
    is told by `ended`, whose text is raised as ConnectionFailed at once.
    """
    async with client(docker_host) as api:
        trying = asyncio.ensure_future(_first_answer(api))
        ending = asyncio.ensure_future(ended)
        try:
            done, _pending = await asyncio.wait({trying, ending}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if trying in done:
                return trying.result()
            raise ConnectionFailed(
                ending.result() if ending in done else f"no answer on {docker_host} within {timeout:.0f} s"
            )
        finally:
            trying.cancel()
            ending.cancel()
            await asyncio.gather(trying, ending, return_exceptions=True)


async def _first_answer(api: EngineClient) -> None:
    while True:
        try:
            await api.ping()
        except ConnectionFailed:
            await asyncio.sleep(_BETWEEN_TRIES)
        except ApiError as error:
            if error.status != 503:
                raise
            await asyncio.sleep(_BETWEEN_TRIES)
        else:
            return


async def init(docker_host: str, address: IPv4Address) -> JoinTokens:
    """Make an instance the first manager of a new cluster; returns the tokens for others."""
    own = f"{address}:{SWARM_PORT}"
    async with client(docker_host) as api:
        await api.init_swarm({"ListenAddr": own, "AdvertiseAddr": own})
        return (await api.swarm()).join_tokens


async def tokens(docker_host: str) -> JoinTokens:
    """The tokens for new nodes, asked of a manager."""
    async with client(docker_host) as api:
        return (await api.swarm()).join_tokens


async def manager_among(instances: Iterable[Instance]) -> Instance | None:
    """The first of them that answers as a manager: roles change, whatever an instance began as."""
    for instance in instances:
        try:
            async with EngineClient(parse_address(instance.docker_host), timeout=_ANSWER) as api:
                await api.swarm()
        except EngineError:
            continue
        return instance
    return None


async def join(docker_host: str, address: IPv4Address, manager: IPv4Address, token: str) -> None:
    """Let an instance join the cluster that the token is for."""
    own = f"{address}:{SWARM_PORT}"
    async with client(docker_host) as api:
        await api.join_swarm(
            {
                "ListenAddr": own,
                "AdvertiseAddr": own,
                "RemoteAddrs": [f"{manager}:{SWARM_PORT}"],
                "JoinToken": token,
            }
        )


async def all_ready(manager: str, names: Collection[str], timeout: float, *, managers: Collection[str] = ()) -> None:
    """Return when the manager holds every named node for ready, and `managers` for managers that it hears.

    Raises TimeoutError with the missing ones.
    """
    ready: set[str] = set()
    try:
        async with asyncio.timeout(timeout), client(manager) as api, aclosing(api.watch()) as batches:  # type: ignore[type-var]
            async for batch in batches:
                for line in batch:
                    if isinstance(line.object, Node) and line.kind != "remove" and _is_ready(line.object, managers):
                        ready.add(line.object.description.hostname)
                if ready.issuperset(names):
                    return
    except TimeoutError:
        missing = ", ".join(sorted(set(names) - ready))
        raise TimeoutError(f"not ready after {timeout:.0f} s: {missing}") from None


def _is_ready(node: Node, managers: Collection[str]) -> bool:
    if node.status.state != "ready":
        return False
    status = node.manager_status
    return node.description.hostname not in managers or (status is not None and status.reachability == "reachable")


async def demote(manager: str, hostname: str, timeout: float) -> None:
    """Make a worker of the node of an instance that is about to go, if it is a manager, and wait until it is one.

    Raises TimeoutError, or the cluster's refusal.
    """
    async with client(manager) as api, asyncio.timeout(timeout):
        for node in await api.nodes():
            if node.description.hostname == hostname and node.spec.role == "manager":
                raw = await api.raw_node(node.id)
                await api.update_node(node.id, raw["Version"]["Index"], {**raw["Spec"], "Role": "worker"})
                await _let_go(api, node.id)


async def _let_go(api: EngineClient, node_id: str) -> None:
    async with aclosing(api.watch()) as batches:  # type: ignore[type-var]
        async for batch in batches:
            for line in batch:
                if isinstance(line.object, Node) and line.object.id == node_id and line.object.manager_status is None:
                    return


async def forget(manager: str, hostname: str) -> None:
    """Remove the node of an instance that is gone from the cluster's list."""
    async with client(manager) as api:
        for node in await api.nodes():
            if node.description.hostname == hostname:
                await api.remove_node(node.id, force=True)
