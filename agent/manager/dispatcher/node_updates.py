"""What a node is told of itself and of its cluster: its role, the managers, the roots to trust, who signs."""

from __future__ import annotations

from agent.api_types.node import Node, NodeRole
from agent.api_types.swarm import Cluster
from agent.api_types.times import SECOND
from agent.manager import group as managers_group
from agent.manager.authority import issuer_digest, trusted_roots
from agent.manager.group import Group, effective_role
from agent.rpc.messages import ManagerAddress, NodeUpdate
from agent.store.store import Store
from agent.store.transactions import ReadTx

DEFAULT_PERIOD = SECOND


def managers(tx: ReadTx) -> list[ManagerAddress]:
    """The managers and their listeners, as the store has them."""
    return [
        ManagerAddress(node.id, node.manager_status.addr)
        for node in tx.all(Node)
        if node.manager_status is not None and node.manager_status.addr
    ]


def heartbeat_period_of(cluster: Cluster) -> int:
    """The period that a person set, in nanoseconds, else a second."""
    return cluster.spec.dispatcher.heartbeat_period or DEFAULT_PERIOD


def heartbeat_period(tx: ReadTx) -> int:
    """The cluster's heartbeat period in nanoseconds."""
    return next((heartbeat_period_of(cluster) for cluster in tx.all(Cluster)), DEFAULT_PERIOD)


def cluster_id(tx: ReadTx) -> str:
    """The cluster's id, empty before it has one."""
    return next((cluster.id for cluster in tx.all(Cluster)), "")


class NodeUpdates:
    """Makes the updates of all nodes; what they have in common is made once and kept until `refresh`."""

    def __init__(self, store: Store, group: Group | None) -> None:
        self._store = store
        self._group = group
        self._common: NodeUpdate | None = None

    def refresh(self) -> bool:
        """Make anew what all nodes are told; whether it is other than before."""
        before, self._common = self._common, self._store.view(self._make)
        return before != self._common

    def managers(self) -> list[ManagerAddress]:
        """The members of the group, where there is one; else what the store says."""
        if self._group is None:
            return self._store.view(managers)
        return managers_group.addresses(managers_group.voters(self._group.status))

    def of(self, node_id: str) -> NodeUpdate | None:
        """What the node is to know now; None when it is no part of the cluster any more."""
        node = self._store.view(lambda tx: tx.get(Node, node_id))
        if node is None:
            return None
        if self._common is None:
            self.refresh()
        assert self._common is not None
        role = effective_role(node, None if self._group is None else self._group.status)
        common = self._common
        return NodeUpdate(role=role, managers=common.managers, roots=common.roots, issuer=common.issuer)

    def _make(self, tx: ReadTx) -> NodeUpdate:
        clusters = tx.all(Cluster)
        roots = trusted_roots(clusters[0]) if clusters else b""
        issuer = issuer_digest(clusters[0]) if clusters else ""
        return NodeUpdate(role=NodeRole.WORKER, managers=self.managers(), roots=roots, issuer=issuer)
