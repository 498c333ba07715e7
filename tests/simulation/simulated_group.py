"""A group of managers without a log: its memberships are the core's own, its bad luck is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.raft.core.errors import ChangeRefused
from agent.raft.core.membership import ChangeKind, Membership, MembershipChange, changed
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus, NotLeader, OutcomeUnknown


class SimulatedGroup:
    """The group as the member `leader` sees it: implements `agent.manager.group.Group`.

    `before` and `after` are called around the moment in which a change takes effect and may raise. A learner catches up
    within `catch_up` seconds; None: never.
    """

    def __init__(self, leader: str, *others: str, latency: float = 0.01, catch_up: float | None = 0.2) -> None:
        voters = tuple(sorted((leader, *others)))
        self.membership = Membership(voters, (), {each: f"{each}:2377" for each in voters})
        self.me = leader
        self.leader = leader
        self.term = 1
        self.index = 100
        self.latency = latency
        self.catch_up = catch_up
        self.dead: set[str] = set()
        self.caught_up: set[str] = set(voters)
        self.log: list[str] = []
        """What was done, in order."""
        self.before: Callable[[str], None] = lambda step: None
        self.after: Callable[[str], None] = lambda step: None
        self.memberships = [self.membership]
        self.heir_takes_over = True
        self._changing = False
        self._changed = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []

    # -- Group

    @property
    def status(self) -> GroupStatus:
        leading = self.leader == self.me
        return GroupStatus(
            member_id=self.me,
            role=MemberRole.LEADER if leading else MemberRole.FOLLOWER,
            term=self.term,
            leader=self.leader,
            leading=leading,
            committed=self.index,
            applied=self.index,
            last_index=self.index,
            members=tuple(self._member(each) for each in self.membership.members),
            leaderless_since=0 if self.leader else 1,
        )

    def _member(self, each: str) -> MemberStatus:
        return MemberStatus(
            id=each,
            address=self.membership.addresses[each],
            voter=each in self.membership.voters,
            match=self.index if each in self.caught_up else 0,
            active=each not in self.dead,
        )

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        while self.status == seen:
            self._changed.clear()
            await self._changed.wait()
        return self.status

    async def add_learner(self, member: str, address: str) -> None:
        await self._change(MembershipChange(ChangeKind.ADD_LEARNER, member, address))
        self.caught_up.discard(member)
        if self.catch_up is not None:
            self._timers.append(asyncio.get_running_loop().call_later(self.catch_up, self._catch_up, member))

    async def promote(self, member: str) -> None:
        if member not in self.caught_up:
            raise ChangeRefused(f"{member} has not caught up")
        await self._change(MembershipChange(ChangeKind.PROMOTE, member))

    async def remove(self, member: str) -> None:
        await self._change(MembershipChange(ChangeKind.REMOVE, member))

    async def move(self, member: str, address: str) -> None:
        await self._change(MembershipChange(ChangeKind.MOVE, member, address))

    async def transfer_leadership(self, to: str | None = None) -> None:
        self._check()
        step = f"hand over to {to}"
        self.before(step)
        await asyncio.sleep(self.latency)
        if not self.heir_takes_over or to is None or to in self.dead:
            raise TimeoutError(f"{to} did not take over")
        self._check()
        self.log.append(step)
        self.lead(to)

    async def _change(self, change: MembershipChange) -> None:
        self._check()
        if self._changing:
            raise ChangeRefused("another change is under way")
        after = changed(self.membership, change)
        step = f"{change.kind.value} {change.member}"
        self._changing = True
        try:
            self.before(step)
            term = self.term
            await asyncio.sleep(self.latency)
            if self.term != term or self.leader != self.me:
                raise OutcomeUnknown("the leader was lost")
            if sum(voter not in self.dead for voter in after.voters) <= len(after.voters) // 2:
                raise AssertionError(f"{step} costs the group its majority")
            self.membership = after
            self.memberships.append(after)
            self.log.append(step)
            self.note()
            self.after(step)
        finally:
            self._changing = False

    def _check(self) -> None:
        if self.leader != self.me:
            raise NotLeader("this manager no longer leads")

    # -- what happens to it

    def _catch_up(self, member: str) -> None:
        if member in self.membership.members and member not in self.dead:
            self.caught_up.add(member)
            self.note()

    def note(self) -> None:
        """The status is another one."""
        self._changed.set()

    def lead(self, member: str) -> None:
        """Another member leads (or none: ""), in a term of its own."""
        self.leader = member
        self.term += 1
        self.note()

    def view_from(self, member: str) -> None:
        """Look at the group from another member."""
        self.me = member
        self.note()

    def die(self, *members: str) -> None:
        self.dead.update(members)
        self.note()

    def revive(self, *members: str) -> None:
        self.dead.difference_update(members)
        self.note()

    def write(self, entries: int = 1) -> None:
        """The log grows; everybody who lives and has caught up has it at once."""
        self.index += entries
        self.note()
