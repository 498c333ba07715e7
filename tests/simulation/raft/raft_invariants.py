"""What must hold after every step, whatever the network, the disks and the clocks do (thesis, figure 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

from raft_disk import SimulatedDisk

from agent.raft.core.messages import AnyMessage, AppendResponse, Entry, VoteRequest, VoteResponse
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import Ready, RoleName


class Violation(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """Sees every step of every member, before anything that it says is delivered."""

    def __init__(self, disks: Mapping[str, SimulatedDisk]) -> None:
        self._disks = disks
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[int, str], str] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int | None]] = {}
        self._committed: dict[int, Entry] = {}
        self._committed_in: dict[int, int] = {}
        self._last_committed = 0
        self._digests: dict[int, bytes] = {}
        self._seen_commit: dict[str, int] = {}
        self._promised_in: dict[str, int] = {}

    @property
    def last_committed(self) -> int:
        return self._last_committed

    def committed_entry(self, index: int) -> Entry | None:
        return self._committed.get(index)

    def member_started(self, core: RaftCore) -> None:
        if core.log.committed > self._last_committed:
            raise Violation(f"{core.id} starts with {core.log.committed} committed; it is {self._last_committed}")
        if core.term < self._promised_in.get(core.id, 0):
            raise Violation(
                f"durable promises: {core.id} starts in term {core.term}; it promised something in term "
                f"{self._promised_in[core.id]}"
            )
        self._seen_commit[core.id] = core.log.snapshot.index
        self.after_step(core)

    def after_step(self, core: RaftCore) -> None:
        if core.role.name is RoleName.LEADER and self._leaders.get(core.term) != core.id:
            self._election_safety(core)
        if core.log.committed > self._seen_commit[core.id]:
            self._commit(core)

    def ready(self, core: RaftCore, ready: Ready) -> None:
        """Log matching: an index and a term name one entry with one history."""
        for entry in ready.entries:
            before = core.log.term_at(entry.index - 1)
            known = self._entries.setdefault((entry.index, entry.term), (entry, before))
            if known != (entry, before):
                raise Violation(f"log matching: {core.id} has {entry} after term {before}, elsewhere it is {known}")

    def sent(self, message: AnyMessage) -> None:
        """One vote a term, restarts or not."""
        if isinstance(message, VoteRequest | VoteResponse | AppendResponse) and not getattr(message, "pre", False):
            self._promised_in[message.sender] = max(self._promised_in.get(message.sender, 0), message.term)
        match message:
            case VoteRequest(pre=False):
                self._vote(message.term, message.sender, message.sender)
            case VoteResponse(pre=False, granted=True):
                self._vote(message.term, message.sender, message.recipient)
            case _:
                pass

    def applied(self, member: str, index: int, digest: bytes) -> None:
        """State machine safety."""
        if self._digests.setdefault(index, digest) != digest:
            raise Violation(f"state machine safety: {member} applied something else up to {index}")

    def _vote(self, term: int, voter: str, candidate: str) -> None:
        if self._votes.setdefault((term, voter), candidate) != candidate:
            first = self._votes[(term, voter)]
            raise Violation(f"one vote a term: {voter} voted for {first} and for {candidate} in term {term}")

    def _election_safety(self, core: RaftCore) -> None:
        other = self._leaders.setdefault(core.term, core.id)
        if other != core.id:
            raise Violation(f"election safety: {other} and {core.id} lead in term {core.term}")
        # One that froze may win a term that is long over; it need not know what was committed in later ones.
        index = self._last_committed
        while self._committed_in.get(index, 0) > core.term:
            index -= 1
        last = self._committed.get(index)
        if last is not None and last.index > core.log.snapshot.index and core.log.term_at(last.index) != last.term:
            raise Violation(f"leader completeness: {core.id} leads in term {core.term} without {last}")

    def _commit(self, core: RaftCore) -> None:
        log = core.log
        first = max(self._seen_commit[core.id] + 1, log.first_index)
        for entry in log.between(first, log.committed):
            known = self._committed.get(entry.index)
            if known is None:
                self._durable_on_a_quorum(core, entry)
                self._committed[entry.index] = entry
                self._committed_in[entry.index] = core.term
                self._last_committed = max(self._last_committed, entry.index)
            elif known != entry:
                raise Violation(f"{core.id} commits {entry}, but {known} was committed")
        self._seen_commit[core.id] = log.committed

    def _durable_on_a_quorum(self, core: RaftCore, entry: Entry) -> None:
        voters = core.membership.voters
        holders = [voter for voter in voters if self._disks[voter].holds(entry.index, entry.term)]
        if 2 * len(holders) <= len(voters):
            raise Violation(f"{core.id} commits {entry} which is durable on {holders} of {voters}")
