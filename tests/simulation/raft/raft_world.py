"""A group of members in simulated time: every event in its order, everything drawn from one seed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from raft_disk import SimulatedDisk
from raft_invariants import Invariants, Violation
from raft_member import SimulatedMember

from agent.raft.core.membership import Membership
from agent.raft.core.messages import AnyMessage, InstallSnapshot, SnapshotMeta
from agent.raft.core.ready import RoleName
from agent.raft.core.settings import Settings
from agent.raft.core.snapshot_stream import SnapshotChunk


class World:
    """Members, the network between them, and the time that passes, in milliseconds."""

    tick = 20

    def __init__(self, seed: int, voters: int, member_type: type[SimulatedMember] = SimulatedMember) -> None:
        self.random = Random(seed)
        self.now = 0
        self.settings = Settings(
            election_ticks=5,
            heartbeat_ticks=1,
            max_message_bytes=self.random.choice((64, 300, 1 << 20)),
            max_inflight_messages=self.random.choice((1, 3, 64)),
            promotion_lag=10,
        )
        self.disks: dict[str, SimulatedDisk] = {}
        self.members: dict[str, SimulatedMember] = {}
        self.invariants = Invariants(self.disks)
        self.trace: deque[tuple[int, str, Any]] = deque(maxlen=400)
        self.loss = self.random.choice((0.0, 0.02, 0.15))
        self.duplication = self.random.choice((0.0, 0.05, 0.3))
        self.delay = self.random.choice(((1, 3), (1, 15), (1, 50)))
        self.skew = self.random.choice((1.05, 1.3, 2.0))
        """How many times faster or slower than the right time a member's clock may run."""
        self.cut: set[tuple[str, str]] = set()
        """Links, one way each, that carry nothing."""
        self.paused: dict[str, int] = {}
        """Members that do nothing until then; what comes for them waits."""
        self._events: list[tuple[int, int, str, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._arrived: set[tuple[str, str, int]] = set()
        self._member_type = member_type
        names = tuple(f"m{number}" for number in range(1, voters + 1))
        first = SnapshotMeta(0, 0, Membership(names))
        for name in names:
            self.add(name, first)

    def add(self, name: str, first: SnapshotMeta | None = None) -> None:
        """A new machine; without `first` it waits to be told who belongs to the group."""
        disk = self.disks[name] = SimulatedDisk(first or SnapshotMeta())
        member = self.members[name] = self._member_type(self, name, disk)
        member.start()

    # -- time

    def after(self, delay: int, name: str, action: Callable[..., None], *arguments: Any) -> None:
        """Do it `delay` milliseconds from now, on the member `name` or, with "", on nobody."""
        self._sequence += 1
        heapq.heappush(self._events, (self.now + delay, self._sequence, name, action, arguments))

    def run(self, until: int) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, sequence, name, action, arguments = heapq.heappop(self._events)
            resumes = self.paused.get(name, 0)
            if resumes > self.now:
                heapq.heappush(self._events, (resumes, sequence, name, action, arguments))
                continue
            action(*arguments)
        self.now = until

    def run_until(self, condition: Callable[[], bool], within: int, what: str) -> None:
        deadline = self.now + within
        while not condition():
            if self.now >= deadline:
                raise Violation(f"not within {within} ms: {what}")
            self.run(self.now + self.tick)

    # -- network

    def send(self, message: AnyMessage | SnapshotChunk, extra_delay: int = 0) -> None:
        self.trace.append((self.now, "sends", message))
        if message.recipient not in self.members or (message.sender, message.recipient) in self.cut:
            return
        random = self.random
        if self.loss and random.random() < self.loss:
            return
        copies = 2 if self.duplication and random.random() < self.duplication else 1
        for _ in range(copies):
            self.after(
                extra_delay + random.randint(*self.delay), message.recipient, self._deliver, message.recipient, message
            )

    def _deliver(self, name: str, message: AnyMessage | SnapshotChunk) -> None:
        member = self.members[name]
        if member.running:
            self.trace.append((self.now, "receives", message))
            member.receive(message)

    def stream(self, sender: SimulatedMember, message: InstallSnapshot, chunks: list[SnapshotChunk]) -> None:
        """The chunks keep their order, but any of them can be lost."""
        key = (message.sender, message.recipient, message.snapshot.index)
        self._arrived.discard(key)
        slowest = self.delay[1]
        for number, chunk in enumerate(chunks):
            self.send(chunk, number * slowest)
        self.after((len(chunks) + 2) * slowest, sender.id, self._stream_ended, sender, sender.life, key)

    def snapshot_arrived(self, chunk: SnapshotChunk) -> None:
        self._arrived.add((chunk.sender, chunk.recipient, chunk.snapshot.index))

    def _stream_ended(self, sender: SimulatedMember, life: int, key: tuple[str, str, int]) -> None:
        if sender.running and sender.life == life:
            sender.act(lambda core: core.snapshot_ended(key[1], arrived=key in self._arrived))

    # -- looking

    def leader(self) -> SimulatedMember | None:
        """The running leader of the highest term."""
        leaders = [m for m in self.members.values() if m.running and m.core.role.name is RoleName.LEADER]
        return max(leaders, key=lambda member: member.core.term, default=None)

    def note(self, what: str) -> None:
        self.trace.append((self.now, what, ""))

    def story(self, lines: int = 80) -> str:
        return "\n".join(f"{now:>7} {what} {detail}" for now, what, detail in list(self.trace)[-lines:])
