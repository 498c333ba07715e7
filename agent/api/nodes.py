"""`/nodes` (moby daemon/cluster/nodes.go, swarmkit manager/controlapi/node.go)."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from agent.api.call import Call, done, reply
from agent.api.filters import Filters
from agent.api.lookup import find_node, manager_store
from agent.api_types.common import Version
from agent.api_types.errors import FailedPrecondition, InvalidArgument, Unimplemented
from agent.api_types.fields import ApiObject, omitempty, present
from agent.api_types.node import Node, NodeAvailability, NodeRole, NodeSpec, NodeState
from agent.store.transactions import ReadTx, WriteTx

MEMBERSHIPS = ("accepted", "pending")


class NodeSpecRequest(ApiObject, frozen=True):
    """Body of `POST /nodes/ID/update`, with words that are not checked yet."""

    name: str = omitempty("Name", "")
    labels: dict[str, str] = present("Labels", {})
    role: str = omitempty("Role", "")
    availability: str = omitempty("Availability", "")


async def list_nodes(call: Call) -> web.StreamResponse:
    """`GET /nodes`, in order of id."""
    store = manager_store(call.backend)
    filters = call.filters("name", "id", "label", "role", "membership", "node.label")
    _check_words(filters)
    await call.fresh(store)
    nodes = store.view(lambda tx: [node for node in tx.all(Node) if _matches(filters, node)])
    return reply(sorted(nodes, key=lambda node: node.id))


def _check_words(filters: Filters) -> None:
    """An unknown role or membership is status 500 in Docker; what a client got wrong is 400 here."""
    for role in filters.get("role"):
        if role.lower() not in list(NodeRole):
            raise InvalidArgument(f"Invalid role filter: '{role}'")
    for membership in filters.get("membership"):
        if membership.lower() not in MEMBERSHIPS:
            raise InvalidArgument(f"Invalid membership filter: '{membership}'")


def _matches(filters: Filters, node: Node) -> bool:
    return (
        filters.prefix("name", node.description.hostname)
        and filters.prefix("id", node.id)
        and filters.labels("label", node.description.engine.labels)
        and filters.labels("node.label", node.spec.labels)
        and (not filters.get("role") or node.spec.role in [role.lower() for role in filters.get("role")])
        # Whoever has a valid token is accepted at once; there is no other membership.
        and (not filters.get("membership") or "accepted" in [word.lower() for word in filters.get("membership")])
    )


async def inspect(call: Call) -> web.StreamResponse:
    """`GET /nodes/ID`; `self` is the docker CLI's own word and means nothing here."""
    store = manager_store(call.backend)
    await call.fresh(store)
    return reply(store.view(lambda tx: find_node(tx, call.params["id"])))


async def update(call: Call) -> web.StreamResponse:
    """`POST /nodes/ID/update`: labels, role, availability."""
    store = manager_store(call.backend)
    request = await call.json(NodeSpecRequest)
    version = call.object_version("node")
    spec = _accept(request)
    changed: list[Node] = []

    def change(tx: WriteTx) -> None:
        node = find_node(tx, call.params["id"])
        _check_role(tx, node, spec.role)
        changed.append(tx.update(replace(node, version=Version(index=version), spec=spec)))

    await store.update(change)
    return done(subject=f"node {changed[0].description.hostname} ({changed[0].id})")


def _accept(request: NodeSpecRequest) -> NodeSpec:
    role, availability = request.role.lower(), request.availability.lower()
    if role not in list(NodeRole):
        raise InvalidArgument(f'invalid Role: "{request.role}"')
    if availability not in list(NodeAvailability):
        raise InvalidArgument(f'invalid Availability: "{request.availability}"')
    return NodeSpec(
        name=request.name, labels=request.labels, role=NodeRole(role), availability=NodeAvailability(availability)
    )


def _check_role(tx: ReadTx, node: Node, role: NodeRole) -> None:
    if node.spec.role is NodeRole.MANAGER and role is NodeRole.WORKER:
        managers = [other for other in tx.all(Node) if other.spec.role is NodeRole.MANAGER]
        if len(managers) <= 1:
            raise FailedPrecondition.grpc("attempting to demote the last manager of the swarm")
    if node.spec.role is NodeRole.WORKER and role is NodeRole.MANAGER:
        raise Unimplemented.grpc("this version keeps a single manager: nodes cannot be promoted yet")


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /nodes/ID`: refused for managers, and without `force` for a node that lives."""
    store = manager_store(call.backend)
    force = call.flag("force", lenient=True)
    removed: list[Node] = []

    def change(tx: WriteTx) -> None:
        node = find_node(tx, call.params["id"])
        if node.spec.role is NodeRole.MANAGER:
            raise FailedPrecondition.grpc(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                "It must be demoted to worker before removal"
            )
        if not force and node.status.state is NodeState.READY:
            raise FailedPrecondition.grpc(f"node {node.id} is not down and can't be removed")
        tx.delete(Node, node.id)
        removed.append(node)

    await store.update(change)
    return done(subject=f"node {removed[0].description.hostname} ({removed[0].id})")
