"""What is said when managers are missing: who, what still works, and how to get out of it."""

from __future__ import annotations

from msgspec.structs import replace

from agent.api.lookup import NO_LEADER
from agent.api_types.node import ManagerStatus, Node
from agent.manager.group import member_of, voters
from agent.raft.interface import GroupStatus, MemberStatus
from agent.store.store import Store

RECOVERY = "docker swarm init --force-new-cluster"


def missing_managers(group: GroupStatus) -> list[MemberStatus]:
    """The voters that this manager should hear and does not. Beside a leader it hears only that one."""
    expected = (
        voters(group)
        if group.leading or not group.leader
        else [member for member in voters(group) if member.id == group.leader]
    )
    return [member for member in expected if not member.active and member.id != group.member_id]


def hostname_of(member: MemberStatus, store: Store | None) -> str:
    """The name of a manager's host, empty when it is not known."""
    node = None if store is None else store.view(lambda tx: tx.get(Node, member.id))
    return "" if node is None else node.description.hostname


def manager_name(member: MemberStatus, store: Store | None) -> str:
    """A manager for people: hostname and address, as far as they are known."""
    name = hostname_of(member, store) or member.id
    return f"{name} ({member.address})" if member.address else name


def with_group_status(node: Node, group: GroupStatus | None, *, leaderless: bool) -> Node:
    """A node whose place among the managers is as this manager sees it, for when the store cannot know.

    Who is not heard is unreachable once a quorum is missing; before that the last word on it stands.
    """
    member = member_of(group, node.id)
    if group is None or member is None:
        return node
    known = "unknown" if node.manager_status is None else node.manager_status.reachability
    silent = "unreachable" if leaderless else known
    status = ManagerStatus(
        leader=member.id == group.leader,
        reachability="reachable" if member.active or member.id == group.member_id else silent,
        addr=member.address,
    )
    return replace(node, manager_status=status)


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
