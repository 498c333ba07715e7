"""`/nodes` (moby daemon/cluster/nodes.go, swarmkit manager/controlapi/node.go)."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from agent.api.attempts import changed_before
from agent.api.call import Call, done, reply
from agent.api.filters import Filters
from agent.api.lookup import find_node, manager_store
from agent.api.quorum import with_group_status
from agent.api.removal import remove_object
from agent.api_types.common import Version
from agent.api_types.errors import FailedPrecondition, InvalidArgument
from agent.api_types.fields import ApiObject, omitempty, present
from agent.api_types.node import Node, NodeAvailability, NodeRole, NodeSpec, NodeState
from agent.manager.group import effective_role, survives_without, until_survivable
from agent.raft.interface import GroupStatus
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
    return reply([_shown(call, node) for node in sorted(nodes, key=lambda node: node.id)])


def _shown(call: Call, node: Node) -> Node:
    """A node as it is; who leads and who is reachable is the group's to say while the store is not kept up to date."""
    if not call.is_stale:
        return node
    return with_group_status(node, call.backend.group, leaderless=call.state.leadership.leaderless)


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
    return reply(_shown(call, store.view(lambda tx: find_node(tx, call.params["id"]))))


async def update(call: Call) -> web.StreamResponse:
    """`POST /nodes/ID/update`: labels, role, availability. A change of role is carried out by the cluster later."""
    store = manager_store(call.backend)
    request = await call.json(NodeSpecRequest)
    version = call.object_version("node")
    spec = _accept(request)
    known = store.view(lambda tx: find_node(tx, call.params["id"]))
    if known.spec.role is NodeRole.MANAGER and spec.role is NodeRole.WORKER:
        await until_survivable(call.backend.group, call.backend.group_changed, known.id)
    changed: list[Node] = []

    def change(tx: WriteTx) -> None:
        node = find_node(tx, call.params["id"])
        changed.append(node)
        if not changed_before(call.attempt, tx, node, version, node.spec == spec):
            if node.spec.role is NodeRole.MANAGER and spec.role is NodeRole.WORKER:
                _check_demotion(tx, node, call.backend.group)
            tx.update(replace(node, version=Version(index=version), spec=spec))

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


def _check_demotion(tx: ReadTx, node: Node, group: GroupStatus | None) -> None:
    """The cluster keeps a manager, and those that stay keep their majority (swarmkit manager/controlapi/node.go)."""
    managers = [other for other in tx.all(Node) if other.spec.role is NodeRole.MANAGER]
    if len(managers) <= 1:
        raise FailedPrecondition.grpc("attempting to demote the last manager of the swarm")
    if group is not None and not survives_without(group, node.id):
        raise FailedPrecondition.grpc("can't remove member from the raft: this would result in a loss of quorum")


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /nodes/ID`: refused for managers, and without `force` for a node that lives."""
    store = manager_store(call.backend)
    force = call.flag("force", lenient=True)
    wanted = call.params["id"]

    def check(tx: ReadTx, node: Node) -> None:
        # A node that was demoted counts as a manager until it has left the group: without its vote nobody could be removed.
        if effective_role(node, call.backend.group) is NodeRole.MANAGER:
            raise FailedPrecondition.grpc(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                "It must be demoted to worker before removal"
            )
        if not force and node.status.state is NodeState.READY:
            raise FailedPrecondition.grpc(f"node {node.id} is not down and can't be removed")

    removed = await remove_object(call, store, Node, lambda tx: find_node(tx, wanted), check)
    return done(subject=f"node {wanted if removed is None else f'{removed.description.hostname} ({removed.id})'}")
