"""The managers' group as the views show it, and the arithmetic of majorities: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarmtui.docker_api.managers import Managers
from swarmtui.docker_api.types import Node

NO_LEADER = "does not have a leader"
"""In the text of a Docker manager that has no quorum (swarmkit manager/controlapi)."""


def majority(voters: int) -> int:
    """How many of `voters` must answer for anything to be decided."""
    return voters // 2 + 1


def survived(voters: int) -> int:
    """How many of `voters` may fail while the rest still decides."""
    return max(0, voters - majority(voters))


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One manager."""

    id: str
    hostname: str
    address: str
    role: str
    """leader, follower, candidate, learner, or manager where nobody says more."""
    voter: bool
    reachable: bool
    index: int
    """The last entry of the log that is known to be there; -1: not known."""
    lag: int
    """Entries that it lacks; -1: not known."""
    since: int
    """Since when it does not answer, nanoseconds since the epoch; 0 while it does."""


@dataclass(frozen=True, slots=True)
class ManagerGroup:
    """All managers."""

    term: int
    """0 where nobody says (a real Docker Swarm)."""
    leader: str
    """The leader's hostname, "" while nobody leads."""
    quorum: bool
    """Whether changes can be made."""
    stale: bool
    """What is shown may not be the newest."""
    members: tuple[MemberRow, ...]
    """By hostname."""

    @property
    def voters(self) -> tuple[MemberRow, ...]:
        """Those whose votes count; a learner only takes the log."""
        return tuple(member for member in self.members if member.voter)

    @property
    def missing(self) -> tuple[MemberRow, ...]:
        """The voters that do not answer."""
        return tuple(member for member in self.voters if not member.reachable)

    @property
    def needed(self) -> int:
        """How many of the missing must come back before anything can be decided; 0 with a quorum."""
        if self.quorum:
            return 0
        answering = len(self.voters) - len(self.missing)
        return max(1, majority(len(self.voters)) - answering)

    @property
    def spare(self) -> int:
        """How many more of those that answer may fail."""
        return max(0, len(self.voters) - len(self.missing) - majority(len(self.voters)))

    @property
    def index(self) -> int:
        """The furthest entry known anywhere; -1: not known."""
        return max((member.index for member in self.members), default=-1)

    def member(self, node_id: str) -> MemberRow | None:
        """The row of a node."""
        return next((member for member in self.members if member.id == node_id), None)


def group_of_nodes(nodes: Iterable[Node], *, quorum: bool = True) -> ManagerGroup | None:
    """What `/nodes` says of the managers: all there is with a real Docker Swarm; None when it knows no manager."""
    members = []
    for node in nodes:
        manager = node.manager_status
        if manager is None:
            continue
        members.append(
            MemberRow(
                id=node.id,
                hostname=node.description.hostname or node.id,
                address=manager.addr,
                role="leader" if manager.leader else "manager",
                voter=True,
                reachable=manager.reachability == "reachable",
                index=-1,
                lag=-1,
                since=0,
            )
        )
    if not members:
        return None
    leader = next((member.hostname for member in members if member.role == "leader"), "") if quorum else ""
    return ManagerGroup(0, leader, quorum, not quorum, _ordered(members))


ELECTION_SECONDS = 3.0
"""An election takes one second or two; a quorum that nobody has for longer is lost (the agents wait as long)."""


class GroupHistory:
    """Turns answers into groups. It remembers since when a member has been silent, and tells an election from a loss."""

    def __init__(self) -> None:
        self._silent: dict[str, int] = {}
        self._heard: dict[str, bool] = {}
        self._leaderless: float | None = None
        self._stale: float | None = None

    def take(
        self, answer: Managers, nodes: Mapping[str, Node], now: int, monotonic: float, *, stale: bool = False
    ) -> ManagerGroup:
        """The group of an answer; `nodes` know hostnames that the answer does not.

        `now` is the wall clock in nanoseconds, `monotonic` in seconds.
        """
        if answer.quorum:
            self._leaderless = None
        elif self._leaderless is None:
            self._leaderless = monotonic
        lost = self._leaderless is not None and monotonic - self._leaderless >= ELECTION_SECONDS
        if not (answer.stale or stale):
            self._stale = None
        elif self._stale is None:
            self._stale = monotonic
        # What is a moment old while a leader is elected is worth no warning.
        old = self._stale is not None and monotonic - self._stale >= ELECTION_SECONDS
        members = []
        for member in answer.members:
            node = nodes.get(member.id)
            reachable = member.reachable and member.id not in answer.missing
            if reachable:
                self._silent.pop(member.id, None)
            else:
                self._silent.setdefault(member.id, member.since or now)
            if answer.stale and not lost:
                # Only a leader hears all others; until there is one again, what the last one said holds.
                reachable = reachable or self._heard.get(member.id, True)
            self._heard[member.id] = reachable
            members.append(
                MemberRow(
                    id=member.id,
                    hostname=member.hostname or (node.description.hostname if node else "") or member.id[:12],
                    address=member.address,
                    role="leader" if member.id == answer.leader and member.id else (member.role or "manager"),
                    voter=member.voter,
                    reachable=reachable,
                    # A new leader counts from nothing until it has heard of a member.
                    index=member.index if reachable or member.index > 0 else -1,
                    lag=member.lag if reachable or member.index > 0 else -1,
                    since=0 if reachable else member.since or self._silent[member.id],
                )
            )
        leader = next((member.hostname for member in members if member.id == answer.leader), answer.leader[:12])
        return ManagerGroup(answer.term, leader, not lost, old, _ordered(members))


def _ordered(members: list[MemberRow]) -> tuple[MemberRow, ...]:
    return tuple(sorted(members, key=lambda member: (member.hostname, member.id)))
