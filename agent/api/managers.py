"""`/swarmtui/v1/managers`: the group of managers, who leads, who is missing, how far everybody is.

A manager that follows knows its own place and the leader's; how far the others are, the leader tells it. Without a leader
it answers with what it knows itself.
"""

from __future__ import annotations

from aiohttp import web
from msgspec import DecodeError, Struct
from msgspec.json import decode

from agent.api.call import Call, reply
from agent.api.forwarding import ask_leader
from agent.api.lookup import manager_store
from agent.api.quorum import hostname_of, missing_managers
from agent.api_types.errors import Unimplemented
from agent.manager.group import voters
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus
from agent.store.store import Store

PATH = "/swarmtui/v1/managers"


class MemberView(Struct, frozen=True, gc=False):
    """A manager. `match` is the last entry known to be on its disk and `lag` how many it lacks, -1 when nobody knows."""

    id: str
    hostname: str
    address: str
    role: MemberRole
    voter: bool
    reachable: bool
    match: int
    lag: int


class ManagersView(Struct, frozen=True, gc=False):
    """The group. `leader` is an id, empty while nobody leads; `quorum` whether changes can be made; `stale` whether this is
    only what the manager that was asked knows by itself; `missing` the ids of voters that it does not hear."""

    term: int
    leader: str
    quorum: bool
    stale: bool
    committed: int
    applied: int
    missing: list[str]
    members: list[MemberView]


def managers_view(group: GroupStatus, store: Store) -> ManagersView:
    """The group as this manager knows it."""
    heard = sum(_is_heard(group, member) for member in voters(group))
    return ManagersView(
        term=group.term,
        leader=group.leader,
        quorum=heard > len(voters(group)) // 2 if group.leading else bool(group.leader),
        stale=not group.leading,
        committed=max(group.committed, group.applied),
        applied=group.applied,
        missing=[member.id for member in missing_managers(group)],
        members=[_member_view(group, member, store) for member in group.members],
    )


def _is_heard(group: GroupStatus, member: MemberStatus) -> bool:
    return member.active or member.id == group.member_id


def _member_view(group: GroupStatus, member: MemberStatus, store: Store) -> MemberView:
    itself = member.id == group.member_id
    match = group.last_index if itself else member.match
    return MemberView(
        id=member.id,
        hostname=hostname_of(member, store),
        address=member.address,
        role=_role(group, member),
        voter=member.voter,
        reachable=_is_heard(group, member),
        match=match,
        lag=max(0, group.last_index - match) if group.leading and match >= 0 else -1,
    )


def _role(group: GroupStatus, member: MemberStatus) -> MemberRole:
    if member.id == group.member_id:
        return group.role
    if member.id == group.leader:
        return MemberRole.LEADER
    return MemberRole.FOLLOWER if member.voter else MemberRole.LEARNER


async def show(call: Call) -> web.StreamResponse:
    """`GET /swarmtui/v1/managers`."""
    store, group = manager_store(call.backend), call.backend.group
    if group is None:
        raise Unimplemented("this manager has no group: it runs alone")
    if not group.leading and not call.attempt.forwarded:
        answer = await ask_leader(call, PATH)
        if answer is not None:
            try:
                told = decode(answer, type=ManagersView)
            except DecodeError:
                told = None
            if told is not None and not told.stale:
                return reply(told)
    return reply(managers_view(group, store))
