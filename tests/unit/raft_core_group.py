"""Cores in one room: messages are handed over in order, writes are durable at once, unless a test holds them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from agent.raft.core.membership import ChangeKind, Membership, MembershipChange
from agent.raft.core.messages import AnyMessage, Entry, EntryKind, HardState, InstallSnapshot, Position, SnapshotMeta
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import ReadState, RoleName
from agent.raft.core.recovery import Recovered, recover
from agent.raft.core.settings import Settings


class Group:
    """Members by id, and what became of them."""

    def __init__(self, *voters: str, settings: Settings | None = None, learners: tuple[str, ...] = ()) -> None:
        self.settings = settings or Settings()
        self.cores: dict[str, RaftCore] = {}
        self.applied: dict[str, list[bytes]] = {}
        self.reads: dict[str, list[ReadState]] = {}
        self.sent: list[AnyMessage] = []
        """All messages since `sent` was last cleared, lost ones included."""
        self.held: list[AnyMessage] = []
        """Messages that `hold` picked out."""
        self.hold: Callable[[AnyMessage], bool] = lambda message: False
        self.lose: Callable[[AnyMessage], bool] = lambda message: False
        self._cut: set[str] = set()
        self._records: dict[str, list[Entry | HardState]] = {}
        self._snapshots: dict[str, SnapshotMeta] = {}
        self._wire: deque[AnyMessage] = deque()
        for name in (*voters, *learners):
            self.add(name, Membership(voters, learners))

    # -- members

    def add(self, name: str, membership: Membership | None = None) -> RaftCore:
        """A new member; without a membership it waits to be told."""
        self._records[name] = []
        self._snapshots[name] = SnapshotMeta(0, 0, membership or Membership())
        return self.restart(name)

    def restart(self, name: str) -> RaftCore:
        """It comes back with what it had written."""
        return self.start(name, self.recovered(name))

    def recovered(self, name: str) -> Recovered:
        """What it had written."""
        return recover(self._snapshots[name], self._records[name])

    def start(self, name: str, recovered: Recovered) -> RaftCore:
        """It starts with this."""
        hard_state, snapshot, entries = recovered
        self.applied[name] = []
        self.reads[name] = []
        self.cores[name] = RaftCore(
            name,
            random=Random(f"{name}"),
            settings=self.settings,
            hard_state=hard_state,
            snapshot=snapshot,
            entries=entries,
        )
        return self.cores[name]

    def cut(self, *names: str) -> None:
        """Nothing goes in or out."""
        self._cut = set(names)

    # -- what happens

    def run(self) -> None:
        """Until nobody has anything to say."""
        moved = True
        while moved:
            moved = sum(self.pump(name) for name in self.cores) > 0
            while self._wire:
                message = self._wire.popleft()
                self.cores[message.recipient].step(message)
                moved = True

    def pump(self, name: str) -> bool:
        """Do what one member wants; its messages go on the wire."""
        core, moved = self.cores[name], False
        while (ready := core.ready()) is not None:
            moved = True
            self._post(ready.messages)
            if ready.snapshot is not None:
                self._snapshots[name] = ready.snapshot
                self._records[name].clear()
            self._records[name] += [*([ready.hard_state] if ready.hard_state else []), *ready.entries]
            self._post(ready.messages_when_durable)
            core.advance(ready)
            self.applied[name] += [entry.data for entry in ready.committed if entry.kind == EntryKind.COMMAND]
            self.reads[name] += ready.reads
        return moved

    def _post(self, messages: tuple[AnyMessage, ...]) -> None:
        for message in messages:
            self.sent.append(message)
            if self.hold(message):
                self.held.append(message)
            elif message.recipient in self.cores and not (
                self._cut & {message.sender, message.recipient} or self.lose(message)
            ):
                self._wire.append(message)

    def release(self) -> None:
        """The held messages arrive now."""
        held, self.held, self.hold = self.held, [], lambda message: False
        for message in held:
            self.cores[message.recipient].step(message)
        self.run()

    def tick(self, name: str, count: int = 1) -> None:
        """Ticks of one member alone, with all that follows from each."""
        for _ in range(count):
            self.cores[name].tick()
            self.run()

    def tick_all(self, count: int = 1) -> None:
        """Ticks of all members."""
        for _ in range(count):
            for core in self.cores.values():
                core.tick()
            self.run()

    def elect(self, name: str) -> RaftCore:
        """Make it stand although a leader may live; returns its core."""
        for core in self.cores.values():
            core.follow(core.term, "")
        self.cores[name].ask_for_support()
        self.run()
        return self.cores[name]

    def propose(self, name: str, data: bytes) -> Position:
        """Ask that member, and let all follow."""
        position = self.cores[name].propose(data)
        self.run()
        return position

    def change(self, name: str, kind: ChangeKind, member: str) -> Position:
        """The same for a change of membership."""
        position = self.cores[name].propose_membership(MembershipChange(kind, member))
        self.run()
        return position

    def compact(self, name: str, keep: int = 0) -> SnapshotMeta:
        """Snapshot what was applied."""
        core = self.cores[name]
        snapshot = core.snapshot_meta(core.log.handed)
        self._snapshots[name] = snapshot
        core.compact(snapshot, keep=keep)
        return snapshot

    # -- looking

    def leads(self, name: str) -> bool:
        """Whether it believes so."""
        return self.cores[name].role.name is RoleName.LEADER

    def of_kind(self, kind: type[AnyMessage]) -> list[AnyMessage]:
        """What was sent of one kind."""
        return [message for message in self.sent if isinstance(message, kind)]

    def snapshots_sent(self) -> list[InstallSnapshot]:
        """The snapshots among them."""
        return [message for message in self.sent if isinstance(message, InstallSnapshot)]


def log_of(core: RaftCore) -> list[tuple[int, bytes]]:
    """Terms and data of a log that was never compacted."""
    return [(entry.term, entry.data) for entry in core.log.between(core.log.first_index, core.log.last_index)]
