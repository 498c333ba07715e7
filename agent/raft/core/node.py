"""One member of the group: terms, votes, and the role it has at the moment."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from agent.raft.core.candidate import Candidate
from agent.raft.core.follower import Follower
from agent.raft.core.leader import Leader
from agent.raft.core.log_view import LogView
from agent.raft.core.membership import Membership, MembershipChange
from agent.raft.core.messages import (
    NOBODY,
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Position,
    ReadIndexRequest,
    ReadIndexResponse,
    SnapshotMeta,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from agent.raft.core.ready import ReadState, Ready, Status
from agent.raft.core.settings import Settings
from agent.raft.interface import NotLeader

_PROMISES_NOTHING = (
    AppendRequest,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)


class RaftCore:
    """A member. Feed it with `step`, `tick` and the requests, then do what `ready` says (contract: `ready`).

    Not safe to use from two threads. What follows the restart is given: the last durable `hard_state`, the newest
    durable `snapshot` and the `entries` after it (`recovery.recover`). A new group's first member starts from a
    snapshot at 0 with itself as the only voter; a member that joins starts from one with nobody in it.
    """

    def __init__(
        self,
        member_id: str,
        *,
        random: Random,
        settings: Settings | None = None,
        hard_state: HardState | None = None,
        snapshot: SnapshotMeta | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:
        self.id = member_id
        self.settings = settings or Settings()
        self._random = random
        self.durable = hard_state or HardState()
        """Term and vote as the disk has them."""
        self.term = self.durable.term
        self.vote = self.durable.vote
        self.leader = NOBODY
        """Who leads in this term, as far as is known here."""
        self.log = LogView(snapshot or SnapshotMeta(), entries, self.durable.commit)
        self._offered_state = self.durable
        self._offered_status: Status | None = None
        self._number = 0
        self._advanced = 0
        self._messages: list[AnyMessage] = []
        self._promises: list[AnyMessage] = []
        self._reads: list[ReadState] = []
        self._snapshot: SnapshotMeta | None = None
        self.role: Follower | Candidate | Leader = Follower(self)

    # -- what is asked of it

    @property
    def status(self) -> Status:
        """Who leads."""
        return Status(self.role.name, self.term, self.leader)

    @property
    def membership(self) -> Membership:
        """The newest membership in the log, committed or not."""
        return self.log.membership

    def propose(self, data: bytes) -> Position:
        """Ask for an entry. Raises `NotLeader`, or `ProposalRefused` during a transfer and when too much is uncommitted."""
        return self._as_leader().propose(data)

    def propose_membership(self, change: MembershipChange) -> Position:
        """Ask for a change. Raises `NotLeader`, or `ChangeRefused` with the reason."""
        return self._as_leader().propose_membership(change)

    def transfer_leadership(self, to: str) -> None:
        """Let another voter lead as soon as it has everything; given up after an election's time.

        Raises `NotLeader`, or `ProposalRefused` for somebody who is not a voter. To itself: nothing to do. A second
        transfer replaces the first.
        """
        self._as_leader().transfer(to)

    def read_index(self, context: int) -> None:
        """Ask for an index that covers all that was acknowledged before; it comes as `ReadState` with this context.

        Raises `NotLeader` when no leader is known. A question can be lost with its leader: ask again.
        """
        if isinstance(self.role, Leader):
            self.role.read(self.id, context)
        elif self.leader == NOBODY:
            raise NotLeader("no leader is known")
        else:
            self.send(ReadIndexRequest(self.id, self.leader, self.term, context))

    def step(self, message: AnyMessage) -> None:
        """A message has come. Raises `BrokenInvariant`, after which this member must stop."""
        if message.recipient != self.id:
            return
        if message.term > self.term and not self._adopt_term(message):
            return
        if message.term < self.term:
            self._answer_old_term(message)
        elif isinstance(message, VoteRequest):
            self._answer_vote_request(message)
        else:
            self.role.step(message)

    def tick(self) -> None:
        """A tick has passed."""
        self.role.tick()

    # -- what the driver reports

    def unreachable(self, member: str) -> None:
        """Messages to the member were probably lost."""
        if isinstance(self.role, Leader):
            self.role.unreachable(member)

    def snapshot_ended(self, member: str, *, arrived: bool) -> None:
        """The stream that an `InstallSnapshot` in `Ready.messages` asked for is over."""
        if isinstance(self.role, Leader):
            self.role.snapshot_ended(member, arrived)

    def snapshot_meta(self, index: int) -> SnapshotMeta:
        """What describes a snapshot of the state after entry `index`, the last one applied."""
        term = self.log.term_at(index)
        if term is None:
            raise ValueError(f"entry {index} is not in the log, which begins at {self.log.first_index}")
        return SnapshotMeta(index, term, self.log.membership_at(index))

    def compact(self, snapshot: SnapshotMeta, *, keep: int = 0) -> None:
        """That snapshot is durable: the log may forget what it covers, but for `keep` entries for slow followers."""
        self.log.compact(snapshot, keep)

    # -- what it wants

    def ready(self) -> Ready | None:
        """The next round of work, None when there is none; see the contract in the module `ready`."""
        self.role.flush()
        hard_state: HardState | None = HardState(self.term, self.vote, self.log.committed)
        must_sync = self._snapshot is not None or self.log.offered < self.log.last_index
        if hard_state == self._offered_state:
            hard_state = None
        elif hard_state is not None:
            must_sync |= (self.term, self.vote) != (self._offered_state.term, self._offered_state.vote)
            self._offered_state = hard_state
        committed = self.log.take_committed(self.settings.max_apply_bytes)
        status = self.status
        if not (
            must_sync
            or hard_state is not None
            or committed
            or self._messages
            or self._promises
            or self._reads
            or status != self._offered_status
        ):
            return None
        self._number += 1
        self._offered_status = status
        ready = Ready(
            number=self._number,
            status=status,
            messages=tuple(self._messages),
            snapshot=self._snapshot,
            hard_state=hard_state,
            entries=tuple(self.log.take_unwritten(self._number)),
            must_sync=must_sync,
            messages_when_durable=tuple(self._promises),
            committed=tuple(committed),
            reads=tuple(self._reads),
        )
        self._messages, self._promises, self._reads, self._snapshot = [], [], [], None
        return ready

    def advance(self, ready: Ready) -> None:
        """What that `Ready` wrote is durable. To be called for each of them, in order."""
        if ready.number != self._advanced + 1:
            raise ValueError(f"round {ready.number} cannot be done before round {self._advanced + 1}")
        self._advanced = ready.number
        self.log.written(ready.number)
        if ready.hard_state is not None:
            self.durable = ready.hard_state
        self.role.persisted()

    # -- for the roles

    def send(self, message: AnyMessage) -> None:
        """Send at once, or when all that led to this message is durable."""
        if isinstance(message, _PROMISES_NOTHING) and message.term <= self.durable.term:
            self._messages.append(message)
        else:
            self._promises.append(message)

    def answer_read(self, read: ReadState) -> None:
        """A read of this member's own has its index."""
        self._reads.append(read)

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Begin anew from a leader's snapshot."""
        self.log.restore(snapshot)
        self._snapshot = snapshot

    def election_patience(self) -> int:
        """Ticks to wait; drawn anew each time, so that split votes do not repeat."""
        return self._random.randrange(self.settings.election_ticks, 2 * self.settings.election_ticks)

    @property
    def may_stand(self) -> bool:
        """True for voters, and for one whose removal may not be committed.

        Such a member can be the only one that has the entry that removes it, and then nobody else can win.
        """
        if self.id in self.log.membership.voters:
            return True
        return self.log.membership_index > self.log.committed and self.id in self.log.previous_membership.voters

    def follow(self, term: int, leader: str) -> None:
        """Become a follower of `leader`, who may be nobody."""
        if term != self.term:
            self.term = term
            self.vote = NOBODY
        self.leader = leader
        self.role = Follower(self)

    def ask_for_support(self) -> None:
        """Ask the others whether they would vote for this member. Changes neither term nor vote."""
        self.leader = NOBODY
        candidate = self.role = Candidate(self, pre=True)
        candidate.ask()

    def stand_for_election(self, *, handover: bool = False) -> None:
        """Begin a term and ask for votes in it."""
        self.term += 1
        self.vote = self.id
        self.leader = NOBODY
        candidate = self.role = Candidate(self, pre=False, handover=handover)
        candidate.ask()

    def lead(self) -> None:
        """Become the leader of this term."""
        self.leader = self.id
        leader = self.role = Leader(self)
        leader.append(EntryKind.TERM_START, b"")

    # -- terms and votes

    def _as_leader(self) -> Leader:
        if not isinstance(self.role, Leader):
            raise NotLeader(f"the leader is {self.leader}" if self.leader else "no leader is known")
        return self.role

    def _adopt_term(self, message: AnyMessage) -> bool:
        """Take over a later term where the message is a reason to. False when the message does not count."""
        match message:
            case VoteRequest() if self.role.hears_leader and not message.handover:
                return False
            case VoteRequest(pre=True) | VoteResponse(pre=True, granted=True):
                pass
            case AppendRequest() | Heartbeat() | InstallSnapshot():
                self.follow(message.term, message.sender)
            case _:
                self.follow(message.term, NOBODY)
        return True

    def _answer_old_term(self, message: AnyMessage) -> None:
        """A leader or candidate of an earlier term must hear of this one, or it stays what it is for ever."""
        match message:
            case AppendRequest() | Heartbeat() | InstallSnapshot():
                self.send(AppendResponse(self.id, message.sender, self.term, 0))
            case VoteRequest(pre=True):
                self.send(VoteResponse(self.id, message.sender, self.term, False, True))
            case _:
                pass

    def _answer_vote_request(self, message: VoteRequest) -> None:
        granted = self._may_vote(message) and self.log.is_up_to_date(message.last_index, message.last_term)
        if granted and not message.pre:
            if self.leader == NOBODY:
                self.follow(self.term, NOBODY)
            self.vote = message.sender
        term = message.term if granted else self.term
        self.send(VoteResponse(self.id, message.sender, term, granted, message.pre))

    def _may_vote(self, message: VoteRequest) -> bool:
        """One vote a term; learners vote too, for they may not know yet that they are voters."""
        if message.pre and message.term > self.term:
            return True
        return self.vote == message.sender or (self.vote == NOBODY and self.leader == NOBODY)
