"""A group that begins again with one manager: after the others were lost, or from a backup. Pure, but for the store."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agent.api_types.node import ManagerStatus, Node, NodeRole
from agent.store.transactions import WriteTx


def only_manager(node_id: str, address: str, newcomer: Node | None = None) -> Callable[[WriteTx], None]:
    """What the store is to say then: every other manager is a worker, and has to join again as a manager.

    `newcomer` is this node where the store does not know it yet. Written twice, it changes nothing more.
    """

    def write(tx: WriteTx) -> None:
        if newcomer is not None and tx.get(Node, newcomer.id) is None:
            tx.create(newcomer)
        for node in tx.all(Node):
            wanted = _as_only_manager(node, address) if node.id == node_id else _as_worker(node)
            if wanted != node:
                tx.update(wanted)

    return write


def _as_only_manager(node: Node, address: str) -> Node:
    spec = replace(node.spec, role=NodeRole.MANAGER)
    return replace(node, spec=spec, manager_status=ManagerStatus(leader=True, reachability="reachable", addr=address))


def _as_worker(node: Node) -> Node:
    if node.spec.role is NodeRole.WORKER and node.manager_status is None:
        return node
    return replace(node, spec=replace(node.spec, role=NodeRole.WORKER), manager_status=None)
