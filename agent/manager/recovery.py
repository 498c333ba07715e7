"""A group that began anew with one manager: by force after a lost quorum, or from a backup."""

from __future__ import annotations

import msgspec

from agent.api_types.node import Node, NodeRole
from agent.store.transactions import WriteTx


def begin_alone(tx: WriteTx, node_id: str) -> None:
    """Make every other manager a worker, in the first transaction of the new group.

    Their logs may hold what the new group never agreed on, so none of them may simply go on: one that comes back is told
    that it is a worker, forgets its log, and can then be promoted again.
    """
    for node in tx.all(Node):
        if node.id == node_id:
            if node.spec.role is not NodeRole.MANAGER:
                tx.update(_in_role(node, NodeRole.MANAGER))
        elif node.spec.role is NodeRole.MANAGER or node.manager_status is not None:
            tx.update(msgspec.structs.replace(_in_role(node, NodeRole.WORKER), manager_status=None))


def _in_role(node: Node, role: NodeRole) -> Node:
    return msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, role=role))
