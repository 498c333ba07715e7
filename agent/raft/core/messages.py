"""What members say to each other, and the records that outlive them.

Every message carries the sender's term; a receiver of a later term ignores it or says so, one of an earlier term
adopts it (`node.RaftCore.step`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from agent.raft.core.membership import Membership

NOBODY = ""
"""The id that no member has: no vote, no leader."""


class EntryKind(IntEnum):
    """What an entry holds."""

    COMMAND = 1
    """`data` is for the state machine."""
    MEMBERSHIP = 2
    """`data` is a whole membership; it counts from the moment it is in the log."""
    TERM_START = 3
    """The first entry of a leader, empty: once it is committed, so is all before it (thesis, 3.6.2)."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One place in the log."""

    term: int
    index: int
    kind: EntryKind
    data: bytes = b""

    @property
    def size(self) -> int:
        """Bytes it counts for in the bounds of `Settings`."""
        return len(self.data) + 32


@dataclass(frozen=True, slots=True)
class Position:
    """Where a proposal was put. It came to be if the entry committed at `index` has this `term`, else it did not."""

    term: int
    index: int


class HardState(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a member must know after a restart. `commit` may lag behind and may be lost; term and vote may not."""

    term: int = 0
    vote: str = NOBODY
    commit: int = 0


class SnapshotMeta(msgspec.Struct, frozen=True, gc=False):
    """What a snapshot replaces: all entries up to `index`, the last of them of `term`, and the membership there."""

    index: int = 0
    term: int = 0
    membership: Membership = Membership()


class Message(msgspec.Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """Base of every message; the class name is its tag."""

    sender: str
    recipient: str
    term: int


class VoteRequest(Message, frozen=True):
    """Asks for a vote. With `pre` it asks whether one would be given, in the term after the sender's own."""

    last_index: int
    last_term: int
    pre: bool = False
    handover: bool = False
    """The leader wants this election: a live leader is no reason to be silent."""


class VoteResponse(Message, frozen=True):
    """Answers it."""

    granted: bool
    pre: bool = False


class AppendRequest(Message, frozen=True):
    """Entries that follow the one at `prev_index`, and how far the leader has committed."""

    prev_index: int
    prev_term: int
    commit: int
    entries: Sequence[Entry] = ()


class AppendResponse(Message, frozen=True):
    """All up to `index` is durable here; or, `rejected`, the entry at `index` is not the leader's.

    `hint_index` and `hint_term` then name the last entry that may still be, so that a whole term is skipped at once.
    """

    index: int
    rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(Message, frozen=True):
    """The leader lives. `read` is the newest read that waits to know that it still leads."""

    commit: int
    read: int = 0


class HeartbeatResponse(Message, frozen=True):
    """Still followed, as of `read`."""

    read: int = 0


class InstallSnapshot(Message, frozen=True):
    """To a driver: stream this snapshot. From a driver: the whole of it has come (`snapshot_stream`)."""

    snapshot: SnapshotMeta


class TimeoutNow(Message, frozen=True):
    """Stand for election at once."""


class ReadIndexRequest(Message, frozen=True):
    """A follower asks the leader for a read index; `context` comes back."""

    context: int


class ReadIndexResponse(Message, frozen=True):
    """What has been applied up to `index` is new enough."""

    context: int
    index: int


AnyMessage = (
    VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode_message(message: AnyMessage) -> bytes:
    """A message for the wire."""
    return _encoder.encode(message)


def decode_message(data: bytes) -> AnyMessage:
    """The reverse; raises msgspec.DecodeError for anything else."""
    return _decoder.decode(data)
