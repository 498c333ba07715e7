"""The managers' group as the leader's rooms see it: who belongs to it, who survives what, where the leader is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol

from agent.api_types.node import Node, NodeRole
from agent.api_types.times import SECOND
from agent.raft.interface import GroupStatus, MemberStatus
from agent.rpc.messages import ManagerAddress, SessionEnd

LEADERLESS_AFTER = 3 * SECOND
"""Without a leader for so long the managers cannot have one before others come back: an election takes a second or two."""

HEARING = 2.0
"""Seconds in which a new leader has heard every member that lives."""

ELSEWHERE = "this manager does not lead the cluster"


class Group(Protocol):
    """The group of managers; `agent.raft` implements it.

    Every change returns once it is committed. It raises ChangeRefused when it was surely not made and may be tried again,
    NotLeader and OutcomeUnknown when this manager leads no more.
    """

    @property
    def status(self) -> GroupStatus:
        """The newest that is known."""
        ...

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        """Wait for a status other than `seen`."""
        ...

    async def add_learner(self, member: str, address: str) -> None:
        """Send the log to a further member, which counts for nothing yet."""
        ...

    async def promote(self, member: str) -> None:
        """Make a learner a voter."""
        ...

    async def remove(self, member: str) -> None:
        """Take a member out."""
        ...

    async def move(self, member: str, address: str) -> None:
        """A member is reached at another address."""
        ...

    async def transfer_leadership(self, to: str | None = None) -> None:
        """Let another member lead (None: the best follower); TimeoutError when none took over in time."""
        ...


def member_of(status: GroupStatus | None, node_id: str) -> MemberStatus | None:
    """The node as a member of the group."""
    return None if status is None else next((member for member in status.members if member.id == node_id), None)


def voters(status: GroupStatus) -> list[MemberStatus]:
    """The members whose votes count."""
    return [member for member in status.members if member.voter]


def leads(status: GroupStatus, member: MemberStatus) -> bool:
    """Whether the member is the one that leads and says so itself."""
    return status.leading and member.id == status.member_id


def lives(status: GroupStatus, member: MemberStatus) -> bool:
    """Whether the leader hears the member; it always hears itself."""
    return member.active or leads(status, member)


def survives_without(status: GroupStatus, node_id: str) -> bool:
    """Whether the group still has a majority of living voters once the node is taken out. Asked of the leader's status.

    Source: swarmkit manager/state/raft, CanRemoveMember.
    """
    rest = [member for member in voters(status) if member.id != node_id]
    if member_of(status, node_id) is None:
        return True
    return bool(rest) and sum(lives(status, member) for member in rest) > len(rest) // 2


async def until_survivable(
    status: GroupStatus | None, changed: Callable[[GroupStatus], Awaitable[GroupStatus | None]], node_id: str
) -> None:
    """Wait until the group survives without the node, HEARING seconds at most: a new leader has not heard anybody yet.

    `changed` waits for a status other than the one it is given. The wait ends too when this member leads no more.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(HEARING):
            while status is not None and status.leading and len(voters(status)) > 1:
                if survives_without(status, node_id):
                    return
                status = await changed(status)


def effective_role(node: Node, status: GroupStatus | None) -> NodeRole:
    """What a node is for now: a manager from the moment it is to be one until it has left the group."""
    if node.spec.role is NodeRole.MANAGER or member_of(status, node.id) is not None:
        return NodeRole.MANAGER
    return NodeRole.WORKER


def addresses(members: Iterable[MemberStatus]) -> list[ManagerAddress]:
    """Where the members are."""
    return [ManagerAddress(member.id, member.address) for member in members if member.address]


def leader_of(status: GroupStatus) -> ManagerAddress | None:
    """Who leads, if another one does and its address is known."""
    member = member_of(status, status.leader)
    if member is None or not member.address or member.id == status.member_id:
        return None
    return ManagerAddress(member.id, member.address)


def is_leaderless(status: GroupStatus, now: int) -> bool:
    """Whether there has been no leader for longer than an election takes. `now` is the driver's monotonic clock."""
    return not status.leader and bool(status.leaderless_since) and now - status.leaderless_since >= LEADERLESS_AFTER


def elsewhere(status: GroupStatus | None, now: int, reason: str = ELSEWHERE) -> SessionEnd:
    """What a manager that does not lead answers to a node that wants a session."""
    if status is None:
        return SessionEnd(reason)
    return SessionEnd(reason, leader=leader_of(status), leaderless=is_leaderless(status, now))
