"""Who belongs to the group, and the changes that lead from one membership to the next.

One member at a time (thesis, 4.1): any majority of the old membership and any of the new one have a member in common.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from agent.raft.core.errors import ChangeRefused


class Membership(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Voters and learners by id. Learners receive everything and count for nothing."""

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    addresses: dict[str, str] = {}
    """Where a member's listener is, by id; opaque here."""

    @property
    def members(self) -> tuple[str, ...]:
        """Everyone who is sent entries."""
        return self.voters + self.learners


class ChangeKind(Enum):
    """What a change does."""

    ADD_LEARNER = "add a learner"
    PROMOTE = "promote a learner to voter"
    REMOVE = "remove a member"
    MOVE = "give a member another address"


class MembershipChange(msgspec.Struct, frozen=True, gc=False):
    """One step. `address` counts for ADD_LEARNER and MOVE."""

    kind: ChangeKind
    member: str
    address: str = ""


def changed(membership: Membership, change: MembershipChange) -> Membership:
    """The membership after the change; `ChangeRefused` when it does not apply."""
    voters, learners, addresses = membership.voters, membership.learners, dict(membership.addresses)
    member = change.member
    if not member:
        raise ChangeRefused("a member needs an id")
    match change.kind:
        case ChangeKind.ADD_LEARNER:
            if member in membership.members:
                raise ChangeRefused(f"{member} is a member already")
            learners = tuple(sorted((*learners, member)))
            addresses[member] = change.address
        case ChangeKind.PROMOTE:
            if member in voters:
                raise ChangeRefused(f"{member} is a voter already")
            if member not in learners:
                raise ChangeRefused(f"{member} is not a learner; add it as one first")
            learners = tuple(other for other in learners if other != member)
            voters = tuple(sorted((*voters, member)))
        case ChangeKind.REMOVE:
            if member not in membership.members:
                raise ChangeRefused(f"{member} is not a member")
            if voters == (member,):
                raise ChangeRefused(f"{member} is the last voter")
            voters = tuple(other for other in voters if other != member)
            learners = tuple(other for other in learners if other != member)
            addresses.pop(member, None)
        case ChangeKind.MOVE:
            if member not in membership.members:
                raise ChangeRefused(f"{member} is not a member")
            addresses[member] = change.address
    return Membership(voters, learners, addresses)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Membership)


def encode_membership(membership: Membership) -> bytes:
    """The data of a membership entry: the whole membership, so that the newest such entry is all there is to know."""
    return _encoder.encode(membership)


def decode_membership(data: bytes) -> Membership:
    """The reverse; raises msgspec.DecodeError for anything else."""
    return _decoder.decode(data)
