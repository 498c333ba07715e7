"""`/swarmtui/v1/attachments`: addresses for containers that people run on attachable networks, as managers ask for them."""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from agent.api.attempts import chosen_id, found_again
from agent.api.call import Call, done, reply
from agent.api.lookup import find_network, manager_store
from agent.api_types.errors import InvalidArgument, NotFound, PermissionDenied
from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node
from agent.store.transactions import ReadTx, WriteTx

ROUTE = "/swarmtui/v1/attachments"


def check_attachable(network: Network) -> None:
    """PermissionDenied, in SwarmKit's words, for a network that is for services alone."""
    if not network.spec.attachable:
        name = network.spec.name
        raise PermissionDenied(
            f"Could not attach to network {name}: rpc error: code = PermissionDenied desc = "
            f"network {name} not manually attachable"
        )


async def put(call: Call) -> web.StreamResponse:
    """`POST /swarmtui/v1/attachments/create`: make one, or say of one which container it became. Answers with its id."""
    store = manager_store(call.backend)
    asked = await call.json(Attachment)
    if not asked.container:
        raise InvalidArgument("an attachment is for a container")
    put_down: list[Attachment] = []

    def change(tx: WriteTx) -> None:
        object_id = chosen_id(call.attempt, tx)
        stored = tx.get(Attachment, object_id)
        if stored is not None:
            put_down.append(tx.update(replace(stored, container=asked.container)))
            return
        if tx.get(Node, asked.node_id) is None:
            raise NotFound(f"node {asked.node_id} not found")
        check_attachable(find_network(tx, asked.network_id))
        put_down.append(tx.create(replace(asked, id=object_id, err="")))

    await store.update(change)
    return reply({"ID": put_down[0].id}, 201, subject=f"attachment of container {asked.container} ({put_down[0].id})")


async def remove(call: Call) -> web.StreamResponse:
    """`DELETE /swarmtui/v1/attachments/ID`: one that is not there any more is no error."""
    store, wanted = manager_store(call.backend), call.params["id"]

    def find(tx: ReadTx) -> Attachment:
        found = tx.get(Attachment, wanted)
        if found is None or not found.container:
            raise NotFound(f"attachment {wanted} not found")
        return found

    def change(tx: WriteTx) -> None:
        found = found_again(call.attempt, tx, find)
        if found is not None:
            tx.delete(Attachment, found.id)

    await store.update(change)
    return done(204, subject=f"attachment {wanted}")
