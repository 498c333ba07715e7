"""What the store and consensus expect of each other.

A group of one member and a group of many (`member.RaftMember`) implement `Consensus` alike, so that nothing above this room
changes with the number of managers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Sealer(Protocol):
    """Encryption of what goes to disk; `agent.pki` implements it."""

    def seal(self, plain: bytes) -> bytes:
        """`plain` encrypted and authenticated."""
        ...

    def open(self, sealed: bytes) -> bytes:
        """The plain bytes; raises ValueError when they were changed or the key is another one."""
        ...


class StateMachine(Protocol):
    """Who the committed entries are for; `agent.store` implements it. Called on one loop, in order of index."""

    def apply(self, index: int, data: bytes) -> None:
        """Take one committed entry. Must not fail and must not block."""
        ...

    def snapshot(self) -> AsyncIterator[bytes]:
        """The whole state as of now, in chunks; yields to the loop between them."""
        ...

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        """Replace the state by a snapshot taken at `index`."""
        ...


class Consensus(Protocol):
    """An agreed, durable order of entries."""

    @property
    def leading(self) -> bool:
        """Whether entries may be proposed here now: a leader that has applied all that was committed before its term."""
        ...

    def propose(self, data: bytes) -> asyncio.Future[int]:
        """Ask for an entry; the future holds its index once it is durable, committed and applied here.

        It fails with `NotLeader` when it surely was not taken, with `OutcomeUnknown` when nobody can say.
        """
        ...

    async def read_index(self) -> int:
        """An index that covers every write acknowledged before the call; waits until it is applied here."""
        ...


class Receiver(Protocol):
    """Who a transport delivers to: the driver. Called on the driver's own loop."""

    def received(self, member: str, messages: Sequence[bytes]) -> None:
        """Messages of a member, in the order it sent them. `member` is the id in the certificate of the other end."""
        ...

    def unreachable(self, member: str) -> None:
        """Messages to the member were probably lost; may be said again and again."""
        ...

    async def snapshot_chunk(self, member: str, chunk: bytes) -> None:
        """The next chunk of a snapshot stream; returns when the following one may come. What it raises ends the stream."""
        ...


class Transport(Protocol):
    """Carries messages between members; `agent.rpc` implements it. Every call is made on the driver's own loop."""

    async def start(self, receiver: Receiver) -> None:
        """Deliver from now on."""
        ...

    def send(self, member: str, address: str, messages: Sequence[bytes]) -> None:
        """Send as soon as possible and in order, or lose them: never waits, never fails, holds a bounded number of bytes.

        A connection is made when it is needed and made again when `address` is another one than before. Without messages
        it is only made or kept, so that it is there when an election needs it.
        """
        ...

    async def send_snapshot(self, member: str, address: str, chunks: AsyncIterator[bytes]) -> None:
        """Stream chunks, each as fast as the other side takes them; returns when the last was taken, else OSError."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class MemberRole(StrEnum):
    """What a member of the group is at the moment."""

    LEADER = "leader"
    CANDIDATE = "candidate"
    FOLLOWER = "follower"
    LEARNER = "learner"


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member as this one sees it. `match` is the last index known to be durable there (-1: only a leader knows);
    `active` whether it was heard of within an election's time. A follower knows that of its leader and itself only; while
    nobody leads, of all, for then everybody asks for votes.
    """

    id: str
    address: str
    voter: bool
    match: int = -1
    active: bool = False


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """The group as this member sees it, at one moment.

    `leader` is "" while none is known. `leading` is True only once everything that was committed before this leader's
    term is applied here, so that decisions may be made on the store. `leaderless_since` is the driver's monotonic clock
    in nanoseconds, 0 while a leader is known. `members` holds this member too, while it belongs to the group.
    """

    member_id: str
    role: MemberRole
    term: int
    leader: str
    leading: bool
    committed: int
    applied: int
    last_index: int
    members: tuple[MemberStatus, ...]
    leaderless_since: int = 0


class NotLeader(Exception):
    """This member does not lead; the entry was not taken."""


class OutcomeUnknown(Exception):
    """The leader was lost while the entry was under way; it may or may not come to be."""
