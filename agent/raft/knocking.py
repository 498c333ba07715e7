"""Where the others are, who does not know where this member is, and whether this member still belongs to the group.

The core sends by id. Here ids get addresses: those of the membership, and newer ones that members tell of themselves,
for a member that starts with an empty log knows no membership, and one that came back elsewhere is in it with its old
address. A member that was removed hears nothing any more; it asks (`Knock`), and a leader answers (`Expelled`).
"""

from __future__ import annotations

from agent.raft.core.leader import Leader
from agent.raft.core.membership import Membership
from agent.raft.core.messages import NOBODY, Heartbeat, VoteRequest
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import Status
from agent.raft.wire import Expelled, Knock

PERIOD = 1.0
"""Seconds between two knocks."""


class Knocking:
    """Reads the core, changes nothing in it. `life` is a number that no earlier run of this member had."""

    def __init__(self, core: RaftCore, address: str, life: int) -> None:
        self._core = core
        self._address = address
        self._life = life
        self._told: dict[str, str] = {}
        self._listed: dict[str, str] = {}
        self._membership = Membership()
        self._next = 0.0

    def address_of(self, member: str) -> str:
        """Where a member is, also one that was removed a while ago; "" when nobody has said."""
        self._follow_membership()
        return self._told.get(member) or self._listed.get(member, "")

    def note_address(self, member: str, address: str) -> None:
        """The member says where it is."""
        self._follow_membership()
        self._told[member] = address

    def should_introduce(self, message: VoteRequest | Heartbeat) -> bool:
        """Whether the recipient may not know where this member is."""
        core = self._core
        if core.membership.addresses.get(core.id) != self._address or isinstance(message, VoteRequest):
            return True
        if not isinstance(core.role, Leader):
            return False
        progress = core.role.progress.get(message.recipient)
        return progress is not None and progress.match < core.log.membership_index

    @property
    def left_out(self) -> bool:
        """Whether the committed membership is without this member."""
        log = self._core.log
        return log.membership_index <= log.committed and self._core.id not in log.membership.members

    def due(self, now: float, status: Status) -> list[Knock]:
        """The questions that are due. None while a leader is heard that has this member in its log."""
        core = self._core
        others = [member for member in core.membership.members if member != core.id]
        if not others or (status.leader != NOBODY and not self.left_out):
            self._next = now + PERIOD
            return []
        if now < self._next:
            return []
        self._next = now + PERIOD
        return [Knock(core.id, member, core.term, self._address, self._life) for member in others]

    def answer(self, knock: Knock) -> Expelled | None:
        """What a leader that knows what is committed has to say to somebody who is not a member."""
        self.note_address(knock.sender, knock.address)
        core, log = self._core, self._core.log
        if not isinstance(core.role, Leader) or not core.role.commits_own_term:
            return None
        if knock.sender in log.membership.members or log.membership_index > log.committed:
            return None
        return Expelled(core.id, knock.sender, core.term, knock.life, log.membership_index)

    def believes(self, message: Expelled) -> bool:
        """False for an answer that is older than what this member has in its own log."""
        log = self._core.log
        if message.life != self._life:
            return False
        return message.index > log.membership_index or self._core.id not in log.membership.members

    def _follow_membership(self) -> None:
        membership = self._core.membership
        if membership is self._membership:
            return
        for member, address in membership.addresses.items():
            if self._membership.addresses.get(member) != address and member in self._membership.addresses:
                self._told.pop(member, None)
        self._listed.update(membership.addresses)
        self._membership = membership
