"""The group as this member sees it, for everybody else in the process."""

from __future__ import annotations

from agent.raft.core.leader import Leader
from agent.raft.core.messages import NOBODY
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import RoleName
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus

PERIOD = 0.1
"""Seconds between two pictures that differ in nothing but figures."""

_ROLES = {
    RoleName.LEADER: MemberRole.LEADER,
    RoleName.CANDIDATE: MemberRole.CANDIDATE,
    RoleName.FOLLOWER: MemberRole.FOLLOWER,
}


class Picture:
    """Makes `GroupStatus`es of a core; `patience` is the seconds after which a silent member counts as lost."""

    def __init__(self, core: RaftCore, patience: float) -> None:
        self._core = core
        self._patience = patience
        self._heard: dict[str, float] = {}
        self._leaderless_since = 0
        self._newest: GroupStatus | None = None
        self._due = 0.0

    def heard(self, member: str, now: float) -> None:
        """A word of the member came."""
        self._heard[member] = now

    def changed(self, now: float) -> GroupStatus:
        """As of now."""
        self._due = now + PERIOD
        self._newest = self._draw(now)
        return self._newest

    def figures(self, now: float) -> GroupStatus | None:
        """As of now, when that is news and the last picture is old enough."""
        if now < self._due:
            return None
        before = self._newest
        return None if self.changed(now) == before else self._newest

    def broken(self, now: float) -> GroupStatus:
        """Of a member that does nothing any more."""
        status = self._draw(now)
        since = status.leaderless_since or round(now * 1e9)
        return _replaced(status, since)

    def best_follower(self, now: float) -> str | None:
        """The voter to hand leadership to: one that was heard of lately, with the most of the log."""
        core = self._core
        if not isinstance(core.role, Leader):
            return None
        found = [
            (self._fresh(member, now), progress.match, member)
            for member, progress in core.role.progress.items()
            if member in core.membership.voters
        ]
        return max(found)[2] if found else None

    def _draw(self, now: float) -> GroupStatus:
        core, log = self._core, self._core.log
        if core.leader != NOBODY:
            self._leaderless_since = 0
        elif not self._leaderless_since:
            self._leaderless_since = round(now * 1e9)
        membership = core.membership
        role = _ROLES[core.role.name]
        if role is MemberRole.FOLLOWER and core.id not in membership.voters:
            role = MemberRole.LEARNER
        return GroupStatus(
            member_id=core.id,
            role=role,
            term=core.term,
            leader=core.leader,
            leading=False,
            committed=log.committed,
            applied=log.handed,
            last_index=log.last_index,
            members=tuple(self._member(member, now) for member in membership.members),
            leaderless_since=self._leaderless_since,
        )

    def _member(self, member: str, now: float) -> MemberStatus:
        core = self._core
        address, voter = core.membership.addresses.get(member, ""), member in core.membership.voters
        if member == core.id:
            return MemberStatus(member, address, voter, core.log.stable, True)
        fresh = self._fresh(member, now)
        if isinstance(core.role, Leader):
            progress = core.role.progress.get(member)
            return MemberStatus(member, address, voter, progress.match if progress else 0, fresh)
        # Beside a leader the others say nothing to a follower; while all of them look for one, those that are there are heard.
        return MemberStatus(member, address, voter, -1, fresh and core.leader in (member, NOBODY))

    def _fresh(self, member: str, now: float) -> bool:
        return member in self._heard and now - self._heard[member] < self._patience


def _replaced(status: GroupStatus, since: int) -> GroupStatus:
    return GroupStatus(
        status.member_id,
        MemberRole.FOLLOWER,
        status.term,
        NOBODY,
        False,
        status.committed,
        status.applied,
        status.last_index,
        status.members,
        since,
    )
