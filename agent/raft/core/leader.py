"""A member that leads: takes proposals, replicates them, and counts who has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.raft.core import quorum
from agent.raft.core.errors import BrokenInvariant, ChangeRefused, ProposalRefused
from agent.raft.core.membership import ChangeKind, MembershipChange, changed, encode_membership
from agent.raft.core.messages import (
    NOBODY,
    AnyMessage,
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Position,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from agent.raft.core.progress import Progress, ProgressState
from agent.raft.core.read_index import ReadQueue
from agent.raft.core.ready import ReadState, RoleName

if TYPE_CHECKING:
    from agent.raft.core.node import RaftCore


class Leader:
    """Leads in one term. Leads on after its own removal until that is committed (thesis, 4.2.2)."""

    name = RoleName.LEADER
    hears_leader = True

    def __init__(self, core: RaftCore) -> None:
        self._core = core
        self.progress: dict[str, Progress] = {}
        """What is known of each other member."""
        self.transferee = NOBODY
        """Who is to lead next; no proposals are taken meanwhile."""
        self._reads = ReadQueue()
        self._sent_read = 0
        self._heartbeat_elapsed = 0
        self._quorum_elapsed = 0
        self._transfer_elapsed = 0
        log = core.log
        self._uncommitted_bytes = sum(entry.size for entry in log.between(log.committed + 1, log.last_index))
        self._follow_membership()

    # -- what the driver asks for

    def propose(self, data: bytes) -> Position:
        """See `RaftCore.propose`."""
        if self.transferee:
            raise ProposalRefused(f"leadership is being handed to {self.transferee}; try again")
        bound = self._core.settings.max_uncommitted_bytes
        if self._uncommitted_bytes and self._uncommitted_bytes + len(data) > bound:
            raise ProposalRefused(f"{self._uncommitted_bytes} bytes wait for a quorum already; try again later")
        return self.append(EntryKind.COMMAND, data)

    def propose_membership(self, change: MembershipChange) -> Position:
        """See `RaftCore.propose_membership`."""
        if self.transferee:
            raise ChangeRefused(f"leadership is being handed to {self.transferee}; try again")
        reason = self._why_no_change()
        if reason:
            raise ChangeRefused(reason)
        membership = changed(self._core.log.membership, change)
        if change.kind is ChangeKind.PROMOTE:
            lacks = self._core.log.last_index - self.progress[change.member].match
            if lacks > self._core.settings.promotion_lag:
                raise ChangeRefused(f"{change.member} still lacks {lacks} entries; try again once it has caught up")
        position = self.append(EntryKind.MEMBERSHIP, encode_membership(membership))
        self._follow_membership()
        self._commit()
        return position

    def transfer(self, to: str) -> None:
        """See `RaftCore.transfer_leadership`."""
        if to == self._core.id:
            return
        if to not in self._core.log.membership.voters:
            raise ProposalRefused(f"{to} is not a voter of this group")
        if to == self.transferee:
            return
        self.transferee = to
        self._transfer_elapsed = 0
        self._hand_over()

    def read(self, member: str, context: int) -> None:
        """A read of this member's own, or one that a follower passed on."""
        if self.commits_own_term:
            self._reads.ask(member, context, self._core.log.committed)
            self._answer_reads()
        else:
            self._reads.ask_early(member, context)

    def snapshot_ended(self, member: str, arrived: bool) -> None:
        """See `RaftCore.snapshot_ended`."""
        if member in self.progress:
            self.progress[member].snapshot_ended(arrived)

    def unreachable(self, member: str) -> None:
        """See `RaftCore.unreachable`."""
        if member in self.progress:
            self.progress[member].unreachable()

    # -- what happens

    def append(self, kind: EntryKind, data: bytes) -> Position:
        """Put an entry at the end of the log."""
        core = self._core
        entry = Entry(core.term, core.log.last_index + 1, kind, data)
        core.log.append([entry])
        self._uncommitted_bytes += entry.size
        return Position(entry.term, entry.index)

    def step(self, message: AnyMessage) -> None:
        """A message of this term."""
        if isinstance(message, ReadIndexRequest):
            self.read(message.sender, message.context)
            return
        if isinstance(message, AppendRequest | Heartbeat | InstallSnapshot):
            raise BrokenInvariant(
                f"{message.sender} leads in term {message.term} too: a member's disk forgot its vote, or its folder was "
                f"copied. Find the copy and stop it, or remove that member and let it join under a new identity."
            )
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        match message:
            case AppendResponse():
                progress.recent_active = True
                self._appended(progress, message)
            case HeartbeatResponse():
                progress.recent_active = True
                progress.heartbeat_answered(self._core.log.last_index, self._core.settings)
                self._reads.confirm(message.sender, message.read)
                self._answer_reads()
            case _:
                pass

    def tick(self) -> None:
        """A tick has passed."""
        settings = self._core.settings
        self._heartbeat_elapsed += 1
        self._quorum_elapsed += 1
        self._transfer_elapsed += 1
        if self.transferee and self._transfer_elapsed >= settings.election_ticks:
            self.transferee = NOBODY
        if self._quorum_elapsed >= settings.election_ticks:
            self._quorum_elapsed = 0
            if not self._has_quorum():
                self._core.follow(self._core.term, NOBODY)
                return
        if self._heartbeat_elapsed >= settings.heartbeat_ticks:
            self._heartbeat()

    def flush(self) -> None:
        """Send what has come together: entries, the commit index, and the question whether this member still leads."""
        for member, progress in self.progress.items():
            self._send_appends(member, progress)
        if self._reads.newest > self._sent_read:
            self._heartbeat()

    def persisted(self) -> None:
        """A write is durable: the own log counts up to `stable`."""
        self._commit()

    # -- replication

    def _send_appends(self, member: str, progress: Progress) -> None:
        core, log, settings = self._core, self._core.log, self._core.settings
        while not progress.paused(settings):
            prev_index = progress.next - 1
            prev_term = log.term_at(prev_index)
            if prev_term is None:
                self._send_snapshot(member, progress)
                return
            entries = log.between(progress.next, log.last_index, settings.max_message_bytes)
            known = min(log.committed, prev_index + len(entries))
            tells_commit = progress.state is ProgressState.REPLICATE and progress.sent_commit < known
            if not (entries or tells_commit or progress.wants_empty_append):
                return
            core.send(AppendRequest(core.id, member, core.term, prev_index, prev_term, log.committed, entries))
            progress.sent_commit = known
            progress.sent(prev_index + len(entries), len(entries), sum(entry.size for entry in entries))

    def _send_snapshot(self, member: str, progress: Progress) -> None:
        if progress.recent_active:
            core = self._core
            progress.sent_snapshot(core.log.snapshot.index)
            core.send(InstallSnapshot(core.id, member, core.term, core.log.snapshot))

    def _appended(self, progress: Progress, message: AppendResponse) -> None:
        log = self._core.log
        if message.rejected:
            index = message.hint_index
            if message.hint_term:
                index = log.conflict_hint(message.hint_index, message.hint_term)[0]
            progress.rejected(message.index, index + 1)
            return
        if progress.acknowledged(message.index, log.first_index - 1):
            self._commit()
        if message.sender == self.transferee:
            self._hand_over()

    def _commit(self) -> None:
        core, log = self._core, self._core.log
        reached = {member: progress.match for member, progress in self.progress.items()}
        reached[core.id] = log.stable
        index = quorum.agreed(log.membership.voters, reached)
        before = log.committed
        if self._counts_for_commit(index) and log.commit_to(index):
            self._uncommitted_bytes -= sum(entry.size for entry in log.between(before + 1, index))
            for member, context in self._reads.take_early():
                self.read(member, context)
            if core.id not in log.membership.voters and log.membership_index <= log.committed:
                self._retire()

    def _counts_for_commit(self, index: int) -> bool:
        """Only entries of the own term are committed by counting; earlier ones with them (thesis, 3.6.2)."""
        return self._core.log.term_at(index) == self._core.term

    @property
    def commits_own_term(self) -> bool:
        """True once this leader has committed an entry: from then on it knows what is committed."""
        return self._core.log.term_at(self._core.log.committed) == self._core.term

    # -- membership

    def _why_no_change(self) -> str:
        """Why a change must not begin now, or "". Without these rules two changes could commit on disjoint quorums."""
        log = self._core.log
        if log.membership_index > log.committed:
            return "the change of membership before this one is not committed yet; try again"
        if not self.commits_own_term:
            return "this leader has not committed an entry of its own term yet; try again"
        return ""

    def _follow_membership(self) -> None:
        log = self._core.log
        others = [member for member in log.membership.members if member != self._core.id]
        for member in others:
            if member not in self.progress:
                self.progress[member] = Progress(log.last_index + 1)
        for member in [member for member in self.progress if member not in others]:
            del self.progress[member]
        if self.transferee not in log.membership.voters:
            self.transferee = NOBODY

    def _retire(self) -> None:
        """The own removal is committed: tell the others, and let the one that knows most lead at once."""
        core = self._core
        self.flush()
        voters = core.log.membership.voters
        best = max(voters, key=lambda voter: (self.progress[voter].match, voter))
        if self.progress[best].match == core.log.last_index:
            core.send(TimeoutNow(core.id, best, core.term))
        core.follow(core.term, NOBODY)

    # -- leadership

    def _has_quorum(self) -> bool:
        """CheckQuorum: whether a majority was heard of since the last time (thesis, 6.2)."""
        active = {member for member, progress in self.progress.items() if progress.recent_active}
        for progress in self.progress.values():
            progress.recent_active = False
        return quorum.has_majority(self._core.log.membership.voters, active | {self._core.id})

    def _heartbeat(self) -> None:
        core = self._core
        self._heartbeat_elapsed = 0
        self._sent_read = self._reads.newest
        for member, progress in self.progress.items():
            commit = min(progress.match, core.log.committed)
            core.send(Heartbeat(core.id, member, core.term, commit, self._reads.newest))

    def _hand_over(self) -> None:
        core = self._core
        if self.progress[self.transferee].match == core.log.last_index:
            core.send(TimeoutNow(core.id, self.transferee, core.term))

    def _answer_reads(self) -> None:
        core = self._core
        for read in self._reads.take_confirmed(core.log.membership.voters, core.id):
            if read.member == core.id:
                core.answer_read(ReadState(read.context, read.index))
            else:
                core.send(ReadIndexResponse(core.id, read.member, core.term, read.context, read.index))
