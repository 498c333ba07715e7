"""Names to ids: networks, secrets and configs that a specification refers to."""

from __future__ import annotations

from collections.abc import Sequence

from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.types import Node
from swarmtui.operations.base import OperationFailed


async def network_targets(client: EngineClient, names: Sequence[str]) -> list[Json]:
    """`Networks` of a task template."""
    found = []
    for name in names:
        network = await client.network(name)
        found.append({"Target": network.id or network.other_id})
    return found


async def secret_references(client: EngineClient, wanted: Sequence[Json]) -> list[Json]:
    """`Secrets` of a container, from `values.reference`."""
    if not wanted:
        return []
    known = {each.spec.name: each.id for each in await client.secrets({"name": [item["name"] for item in wanted]})}
    return _references("secret", wanted, known)


async def config_references(client: EngineClient, wanted: Sequence[Json]) -> list[Json]:
    """`Configs` of a container."""
    if not wanted:
        return []
    known = {each.spec.name: each.id for each in await client.configs({"name": [item["name"] for item in wanted]})}
    return _references("config", wanted, known)


def _references(kind: str, wanted: Sequence[Json], known: dict[str, str]) -> list[Json]:
    missing = [item["name"] for item in wanted if item["name"] not in known]
    if missing:
        raise OperationFailed(f"{kind} not found: {', '.join(missing)}")
    word = kind.capitalize()
    return [{"File": item["File"], f"{word}ID": known[item["name"]], f"{word}Name": item["name"]} for item in wanted]


async def node_id(client: EngineClient, name: str) -> str:
    """A node's id from its id, hostname, the beginning of its id, or `self`."""
    if name != "self":
        return (await client.node(name)).id
    swarm = (await client.info()).swarm
    if swarm is None or not swarm.node_id:
        raise OperationFailed("this node is in no swarm, so there is no node `self`")
    return swarm.node_id


async def hostnames(client: EngineClient) -> dict[str, Node]:
    """The nodes by id, for tables that name them."""
    return {node.id: node for node in await client.nodes()}
