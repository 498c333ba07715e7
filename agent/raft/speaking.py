"""What goes out to the other members: one call of the transport a member for all that came together in a turn."""

from __future__ import annotations

from collections.abc import Callable

from agent.raft.core.messages import Heartbeat, InstallSnapshot, VoteRequest
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import Status
from agent.raft.interface import Transport
from agent.raft.knocking import Knocking
from agent.raft.wire import Expelled, Knock, Whereabouts, WireMessage, encode

WARM = 5.0
"""Seconds between two looks at the connections to the other members."""


class Speaking:
    """Gives messages their addresses. `stream` is called for those that ask for a snapshot to be streamed."""

    def __init__(
        self,
        core: RaftCore,
        address: str,
        transport: Transport,
        knocking: Knocking,
        stream: Callable[[InstallSnapshot, str], None],
    ) -> None:
        self._core = core
        self._address = address
        self._transport = transport
        self._knocking = knocking
        self._stream = stream
        self._outbox: dict[str, list[WireMessage]] = {}
        self._warm_next = 0.0

    def post(self, message: WireMessage) -> None:
        """To be sent at the next `flush`, after what was posted before."""
        self._outbox.setdefault(message.recipient, []).append(message)

    def flush(self) -> None:
        """Send everything."""
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, {}
        for member, messages in outbox.items():
            self._send(member, messages)

    def knock(self, now: float, status: Status) -> None:
        """Ask whether this member still belongs to the group, when there is reason to."""
        for message in self._knocking.due(now, status):
            self.post(message)

    def keep_warm(self, now: float) -> None:
        """Stay connected to every member, also between followers: a new connection in the moment when the leader is lost
        would wait behind all who come then.
        """
        if now < self._warm_next:
            return
        self._warm_next = now + WARM
        for member in self._core.membership.members:
            if member != self._core.id and (address := self._knocking.address_of(member)):
                self._transport.send(member, address, ())

    def hear(self, message: Whereabouts | Knock | Expelled) -> str:
        """A neighbour's word. Why this member is no longer one, if that is what it says."""
        if message.recipient != self._core.id:
            return ""
        match message:
            case Whereabouts():
                self._knocking.note_address(message.sender, message.address)
            case Knock():
                answer = self._knocking.answer(message)
                if answer is not None:
                    self.post(answer)
            case Expelled():
                if self._knocking.believes(message):
                    return f"{message.sender}, which leads, says that this manager was removed"
        return ""

    def _send(self, member: str, messages: list[WireMessage]) -> None:
        address = self._knocking.address_of(member)
        if not address:
            return
        encoded = []
        for message in messages:
            if isinstance(message, InstallSnapshot):
                self._stream(message, address)
                continue
            if isinstance(message, VoteRequest | Heartbeat) and self._knocking.should_introduce(message):
                encoded.append(encode(Whereabouts(self._core.id, member, message.term, self._address)))
            encoded.append(encode(message))
        if encoded:
            self._transport.send(member, address, encoded)
