"""One agreed log and a store for each manager that follows it, with lag; who leads is the test's to say.

What Raft promises is taken for granted here (tests/simulation/raft holds it against that): entries have one order, a new
leader has every committed one before it leads, of the entries under way when a leader is lost a prefix is committed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from virtual_time import VirtualLoop

from agent.api_types.identity import IdSource
from agent.raft.interface import GroupStatus, MemberRole, MemberStatus, NotLeader, OutcomeUnknown
from agent.store.entries import entry_nonce
from agent.store.store import Store

NOBODY = ""


class Lost(OutcomeUnknown):
    """The leader was lost; the test alone knows whether the entry is `committed`."""

    def __init__(self, committed: bool) -> None:
        super().__init__("the leader was lost")
        self.committed = committed


@dataclass
class Proposal:
    """An entry under way."""

    data: bytes
    future: asyncio.Future[int]
    committed: bool = False


@dataclass
class Member:
    """A manager's own part: its store, how far it has applied, what it believes. Made anew at every start."""

    id: str
    log: AgreedLog
    store: Store
    applied: int = 0
    believes: bool = False
    """Whether it takes itself for the leader and has applied all before its term."""
    believed_term: int = 0
    dead: bool = False
    underway: deque[Proposal] = field(default_factory=deque)
    """Proposed while it led."""
    lost: list[Proposal] = field(default_factory=list)
    """Of a leader that does not know yet that it is none: nobody can say what becomes of them."""

    # -- Consensus

    @property
    def leading(self) -> bool:
        return self.believes

    def propose(self, data: bytes) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self.believes:
            future.set_exception(NotLeader("this manager does not lead"))
            return future
        self.underway.append(Proposal(data, future))
        self.log.loop.call_later(self.log.latency, self.log.commit_next, self)
        return future

    async def read_index(self) -> int:
        await asyncio.sleep(self.log.latency)
        if not self.believes:
            raise NotLeader("this manager does not lead")
        return self.store.index

    # -- Group

    @property
    def status(self) -> GroupStatus:
        return self.log.status_of(self)

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        while self.status == seen:
            await self.log.next_change()
        return self.status

    async def add_learner(self, member: str, address: str) -> None:
        raise AssertionError("these managers stay what they are")

    async def promote(self, member: str) -> None:
        raise AssertionError("these managers stay what they are")

    async def remove(self, member: str) -> None:
        raise AssertionError("these managers stay what they are")

    async def move(self, member: str, address: str) -> None:
        raise AssertionError("these managers stay what they are")

    async def transfer_leadership(self, to: str | None = None) -> None:
        raise AssertionError("these managers stay what they are")


class AgreedLog:
    """The log, its members, and a witness: a store that has every entry the moment it is committed."""

    def __init__(
        self,
        members: Sequence[str],
        loop: VirtualLoop,
        rng: random.Random,
        ids: IdSource,
        *,
        latency: float = 0.002,
        lag: float = 0.3,
    ) -> None:
        self.loop = loop
        self.latency = latency
        self.lag = lag
        self.leader = NOBODY
        self.term = 0
        self.entries: list[bytes] = []
        """By index, from 1; an empty one begins a term."""
        self.nonces: set[int] = set()
        """Of every committed transaction."""
        self.members: dict[str, Member] = {}
        self.cut: set[str] = set()
        """Members that nobody reaches."""
        self._ids = ids
        self._rng = rng
        self._leaderless_since = 1
        self._changes: asyncio.Future[None] | None = None
        self._election: asyncio.TimerHandle | None = None
        self.witness = Store(clock=loop.clock, ids=ids)
        for member in members:
            self.start(member)

    # -- members' lives

    def start(self, member_id: str) -> Member:
        """A manager starts and reads its log again."""
        store = Store(clock=self.loop.clock, ids=self._ids)
        made = Member(member_id, self, store)
        store.connect(made)
        self.members[member_id] = made
        self._apply(made, len(self.entries))
        self.note()
        return made

    def kill(self, member_id: str) -> None:
        """kill -9."""
        member = self.members[member_id]
        member.dead = True
        if self.leader == member_id:
            self._depose(member)
        self._fail(member)
        self.note()

    def cut_off(self, member_id: str) -> None:
        """Nobody reaches the member. It takes itself for the leader until an election's time has passed."""
        self.cut.add(member_id)
        if self.leader == member_id:
            member = self.members[member_id]
            self._depose(member)
            self.loop.call_later(self._rng.uniform(0.5, 1.0), self._notice, member)
        self.note()

    def reconnect(self, member_id: str) -> None:
        self.cut.discard(member_id)
        self._notice(self.members[member_id])
        self._spread()
        self.note()

    def hand_over(self, member_id: str) -> None:
        """An orderly change of leader: everything under way is committed before."""
        former = self.members.get(self.leader)
        if former is None or member_id == self.leader or not self._eligible(self.members[member_id]):
            return
        while former.underway:
            self.commit_next(former)
        self._depose(former)
        self._notice(former)
        self._elect(self.members[member_id])

    def _depose(self, former: Member) -> None:
        """Of what was under way a prefix is committed; who proposed it can never know."""
        for proposal in list(former.underway)[: self._rng.randint(0, len(former.underway))]:
            self._append(proposal.data)
            proposal.committed = True
        former.lost.extend(former.underway)
        former.underway.clear()
        self.leader = NOBODY
        self._leaderless_since = self.loop.monotonic() + 1

    def _notice(self, member: Member) -> None:
        """The member learns that it does not lead, if it did not know."""
        if self.leader != member.id and not member.dead:
            self._fail(member)
            self.note()

    def _fail(self, member: Member) -> None:
        member.believes = False
        lost, member.lost = member.lost, []
        for proposal in (*lost, *member.underway):
            if not proposal.future.done():
                proposal.future.set_exception(Lost(proposal.committed))
        member.underway.clear()

    # -- elections

    def _eligible(self, member: Member) -> bool:
        return not member.dead and member.id not in self.cut

    def _elect_soon(self) -> None:
        if self.leader == NOBODY and self._election is None:
            self._election = self.loop.call_later(self._rng.uniform(0.5, 1.2), self._elect_somebody)

    def _elect_somebody(self) -> None:
        self._election = None
        candidates = [member for _, member in sorted(self.members.items()) if self._eligible(member)]
        if self.leader == NOBODY and len(candidates) > len(self.members) // 2:
            self._elect(self._rng.choice(candidates))

    def _elect(self, member: Member) -> None:
        self.leader = member.id
        self.term += 1
        self._append(b"")
        self.loop.call_later(self.latency, self._begin_to_lead, member, self.term)
        self.note()

    def _begin_to_lead(self, member: Member, term: int) -> None:
        """All before its term is applied: now it may decide."""
        if self.leader == member.id and self.term == term and not member.dead:
            self._apply(member, len(self.entries))
            member.believes, member.believed_term = True, term
            self.note()

    # -- entries

    def commit_next(self, member: Member) -> None:
        """The oldest entry under way of a leader that still is one is committed and applied there."""
        if self.leader != member.id or not member.underway:
            return
        proposal = member.underway.popleft()
        index = self._append(proposal.data)
        self._apply(member, index)
        if not proposal.future.done():
            proposal.future.set_result(index)
        self.note()

    def _append(self, data: bytes) -> int:
        self.entries.append(data)
        index = len(self.entries)
        if data:
            self.nonces.add(entry_nonce(data))
            self.witness.apply(index, data)
        self._spread()
        return index

    def _spread(self) -> None:
        """The others hear of it a little later, each at its own pace."""
        for member in self.members.values():
            if self._eligible(member) and member.id != self.leader and member.applied < len(self.entries):
                self.loop.call_later(self._rng.uniform(0, self.lag), self._catch_up, member, len(self.entries))

    def _catch_up(self, member: Member, index: int) -> None:
        if self._eligible(member):
            self._apply(member, index)

    def _apply(self, member: Member, index: int) -> None:
        while member.applied < index:
            member.applied += 1
            if data := self.entries[member.applied - 1]:
                member.store.apply(member.applied, data)

    # -- what members see

    def status_of(self, member: Member) -> GroupStatus:
        alone = member.id in self.cut
        leader = (member.id if member.believes else NOBODY) if alone else self.leader
        return GroupStatus(
            member_id=member.id,
            role=MemberRole.LEADER if member.believes else MemberRole.FOLLOWER,
            term=member.believed_term if member.believes else self.term,
            leader=leader,
            leading=member.believes,
            committed=member.applied,
            applied=member.applied,
            last_index=member.applied,
            members=tuple(
                MemberStatus(other.id, listener(other.id), True, other.applied, self._eligible(other) and not alone)
                for other in self.members.values()
            ),
            leaderless_since=0 if leader else self._leaderless_since,
        )

    def note(self) -> None:
        """Something changed."""
        self._elect_soon()
        changes, self._changes = self._changes, None
        if changes is not None:
            changes.set_result(None)

    async def next_change(self) -> None:
        """Wait for it."""
        if self._changes is None:
            self._changes = self.loop.create_future()
        await asyncio.shield(self._changes)


def listener(member: str) -> str:
    """A manager's address."""
    return f"10.0.0.{member}:2377"
