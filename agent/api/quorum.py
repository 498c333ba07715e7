"""What is said when managers are missing: who, what still works, and how to get out of it."""

from __future__ import annotations

from agent.api.lookup import NO_LEADER
from agent.api_types.node import Node
from agent.manager.group import voters
from agent.raft.interface import GroupStatus, MemberStatus
from agent.store.store import Store

RECOVERY = "docker swarm init --force-new-cluster"


def missing_managers(group: GroupStatus) -> list[MemberStatus]:
    """The voters that this manager does not hear, as far as it can know: all others while nobody leads and none was heard."""
    return [member for member in voters(group) if not member.active and member.id != group.member_id]


def manager_name(member: MemberStatus, store: Store | None) -> str:
    """A manager for people: hostname and address, as far as they are known."""
    node = None if store is None else store.view(lambda tx: tx.get(Node, member.id))
    name = node.description.hostname if node is not None and node.description.hostname else member.id
    return f"{name} ({member.address})" if member.address else name


def quorum_lost(group: GroupStatus | None, store: Store | None) -> str:
    """Why nothing can be changed now, which managers are missing, and what to do."""
    if group is None:
        return NO_LEADER
    missing = ", ".join(manager_name(member, store) for member in missing_managers(group))
    heard = f" Not heard from: {missing}." if missing else ""
    return (
        f"{NO_LEADER}{heard} Bring them back; if they are lost for good, run `{RECOVERY}` on this manager: "
        "it keeps the cluster's state and goes on as the only manager."
    )
