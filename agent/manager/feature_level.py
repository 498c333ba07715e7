"""The feature level: what the log may hold, so that two versions of the agent can meet during an upgrade.

A level is a protocol number (`agent.rpc.protocols`): whoever speaks it reads every entry of that level. The leader raises
the cluster's level to what all members of the group speak, and never lowers it; a node that speaks less becomes no manager.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent.api_types.swarm import Cluster
from agent.raft.interface import GroupStatus
from agent.rpc.protocols import SPOKEN
from agent.store.transactions import ReadTx, WriteTx

ProtocolOf = Callable[[str], int | None]
"""The protocol that a node speaks with this manager; None while it has no session."""


def common_level(status: GroupStatus, protocol_of: ProtocolOf) -> int | None:
    """The highest level that every member reads; None while one of them has not been heard."""
    spoken = [SPOKEN.newest if member.id == status.member_id else protocol_of(member.id) for member in status.members]
    known = [protocol for protocol in spoken if protocol is not None]
    return min(known) if known and len(known) == len(spoken) else None


def level_of(tx: ReadTx) -> int:
    """The cluster's level."""
    return max((cluster.feature_level for cluster in tx.all(Cluster)), default=0)


def raise_level(tx: WriteTx, level: int) -> None:
    """Raise the cluster's level to `level`, if it is below."""
    for cluster in tx.all(Cluster):
        if cluster.feature_level < level:
            tx.update(msgspec.structs.replace(cluster, feature_level=level))
