"""What the core asks of its driver, and in which order.

The contract:

1.  `RaftCore.ready()` returns the next `Ready`, or None when there is nothing to do. The driver may take further ones
    before the first is durable; it must finish them in order.
2.  `messages` may be sent at once. They promise nothing about this member's disk: they come from a leader whose term and
    vote are durable, or from a follower whose term is.
3.  If `snapshot` is set: make it durable (it came with the stream that led to it), and only then empty the log on disk;
    what the log held, before and after the snapshot's index, is void. A crash between the two is undone by
    `recovery.recover`.
4.  Append `hard_state` and `entries` to the log on disk, in one write. An entry replaces what the log has at its index
    and voids all that follows. With `must_sync` the write must be durable (fdatasync) before the next step; without it,
    it may be left out or written with the next one.
5.  Send `messages_when_durable`, call `RaftCore.advance(ready)`. Never before: these are votes and acknowledgements.
    A `Ready` that writes nothing still waits for the earlier ones.
6.  If `snapshot` is set, restore the state machine from it; then apply `committed` in order. All of it is durable
    here already, so this may happen before or after step 4, but in the order of the `Ready`s.
7.  A read in `reads` may be served once the state machine has applied its `index`.
8.  Whenever `status` names another leader, another term or no leader, the reads that have not come are lost and must be
    asked again; a proposal at a `Position` is decided by the entry that is committed at its index.

9.  While a write takes longer than an election's time, the driver stops calling `tick`: a leader whose disk hangs must
    fall silent, or it keeps its place and applies nothing.

A write that fails with a full disk may be tried again; after any other failure the core must not be used again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from agent.raft.core.messages import AnyMessage, Entry, HardState, SnapshotMeta


class RoleName(Enum):
    """What a member is at the moment."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Status(NamedTuple):
    """Who leads, as this member sees it. `leader` is "" when it knows none."""

    role: RoleName
    term: int
    leader: str


@dataclass(frozen=True, slots=True)
class ReadState:
    """The answer to `RaftCore.read_index(context)`."""

    context: int
    index: int


@dataclass(frozen=True, slots=True)
class Ready:
    """One round of work; see the module's contract."""

    number: int
    status: Status
    messages: tuple[AnyMessage, ...]
    snapshot: SnapshotMeta | None
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    must_sync: bool
    messages_when_durable: tuple[AnyMessage, ...]
    committed: tuple[Entry, ...]
    reads: tuple[ReadState, ...]
