"""A driver for one core on simulated disk, network and time: it keeps to the contract of `Ready`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from raft_disk import AppendRecords, Change, DropEntries, EmptyLog, SaveSnapshot, SimulatedDisk
from raft_linearizability import Value
from raft_machine import RegisterMachine

from agent.raft.core.errors import ProposalRefused
from agent.raft.core.messages import AnyMessage, InstallSnapshot, Position, SnapshotMeta
from agent.raft.core.node import RaftCore
from agent.raft.core.ready import Ready, Status
from agent.raft.core.recovery import Recovered
from agent.raft.core.snapshot_stream import IncomingSnapshot, SnapshotChunk, StreamBroken, chunks_of
from agent.raft.interface import NotLeader

if TYPE_CHECKING:
    from raft_world import World

CHUNK = 48

Done = Callable[[Value], None]
Failed = Callable[[bool], None]
"""Called with True when the command surely does not count, with False when nobody knows."""


class SimulatedMember:
    """One member. `crash` and `start` are what happens to its machine; all else goes through `act`."""

    def __init__(self, world: World, member_id: str, disk: SimulatedDisk) -> None:
        self.world = world
        self.id = member_id
        self.disk = disk
        self.random = Random(world.random.random())
        self.core: RaftCore
        self.machine = RegisterMachine()
        self.running = False
        self.life = 0
        """Counts the starts; what an earlier life left behind in the air does not reach a later one."""
        self.tick_length = round(world.tick * self.random.uniform(1 / world.skew, world.skew))
        self.sync_time = 4
        self.snapshot_interval = self.random.choice((5, 15, 40))
        self.keep = self.random.choice((0, 0, 3))

    # -- life

    def start(self) -> None:
        self.life += 1
        self.running = True
        recovered = self.recovered()
        self.core = RaftCore(
            self.id,
            random=self.random,
            settings=self.world.settings,
            hard_state=recovered.hard_state,
            snapshot=recovered.snapshot,
            entries=recovered.entries,
        )
        self.machine = RegisterMachine()
        self.machine.restore(self.disk.snapshot_data)
        self._waiting: dict[Position, tuple[Done, Failed]] = {}
        self._asked_reads: dict[int, Done] = {}
        self._due_reads: list[tuple[int, Done]] = []
        self._next_read = 0
        self._incoming: dict[str, tuple[IncomingSnapshot, bytes]] = {}
        self._received: dict[int, bytes] = {}
        self._status: Status | None = None
        self.saving = self._syncing = False
        self.world.invariants.member_started(self.core)
        self.world.after(self.tick_length, self.id, self._tick, self.life)

    def recovered(self) -> Recovered:
        return self.disk.recover()

    def crash(self) -> None:
        self.running = False
        self.disk.crash(self.random)
        self._abandon(surely=False)

    def act(self, action: Callable[[RaftCore], None]) -> None:
        """Do something with the core, then everything that follows from it."""
        action(self.core)
        self.world.invariants.after_step(self.core)
        self._pump()

    def _tick(self, life: int) -> None:
        if life == self.life and self.running:
            self.world.after(self.tick_length, self.id, self._tick, life)
            self.act(RaftCore.tick)

    # -- what clients do

    def propose(self, data: bytes, done: Done, failed: Failed) -> None:
        try:
            position = self.core.propose(data)
        except (NotLeader, ProposalRefused):
            failed(True)
            return
        self._waiting[self._key(position)] = (done, failed)
        self.act(lambda core: None)

    def read(self, key: str, done: Done) -> None:
        self._next_read += 1
        context = self._next_read
        self._asked_reads[context] = lambda _: done(self.machine.read(key))
        try:
            self.core.read_index(context)
        except NotLeader:
            del self._asked_reads[context]
            return
        self.act(lambda core: None)

    def _key(self, position: Position) -> Position:
        return position

    # -- messages

    def receive(self, message: AnyMessage | SnapshotChunk) -> None:
        if isinstance(message, SnapshotChunk):
            self._receive_chunk(message)
        else:
            self.act(lambda core: core.step(message))

    def _receive_chunk(self, chunk: SnapshotChunk) -> None:
        if chunk.number == 0:
            self._incoming[chunk.sender] = (IncomingSnapshot(chunk), b"")
        if chunk.sender not in self._incoming:
            return
        incoming, data = self._incoming[chunk.sender]
        try:
            data += incoming.add(chunk)
        except StreamBroken:
            del self._incoming[chunk.sender]
            return
        self._incoming[chunk.sender] = (incoming, data)
        if incoming.complete:
            del self._incoming[chunk.sender]
            self._received[chunk.snapshot.index] = data
            self.act(lambda core: core.step(incoming.install(self.id)))
            self._received.clear()
            self.world.snapshot_arrived(chunk)

    def _send(self, message: AnyMessage) -> None:
        self.world.invariants.sent(message)
        if isinstance(message, InstallSnapshot):
            # The stream takes the newest snapshot; the core knows no newer one than the disk.
            chunks = [self.disk.snapshot_data[at : at + CHUNK] for at in range(0, len(self.disk.snapshot_data), CHUNK)]
            assert self.disk.snapshot == message.snapshot
            self.world.stream(self, message, list(chunks_of(message, chunks)))
        else:
            self.world.send(message)

    # -- the contract

    def _pump(self) -> None:
        while self.running and (ready := self.core.ready()) is not None:
            self._take(ready)

    def _take(self, ready: Ready) -> None:
        self.world.invariants.ready(self.core, ready)
        self._note_status(ready.status)
        for message in ready.messages:
            self._send(message)
        self.promise_early(ready)
        changes: list[Change] = []
        if ready.snapshot is not None:
            changes += [SaveSnapshot(ready.snapshot, self._received[ready.snapshot.index]), EmptyLog()]
        if ready.hard_state is not None or ready.entries:
            state = () if ready.hard_state is None else (ready.hard_state,)
            changes.append(AppendRecords((*state, *ready.entries)))
        if not changes and not self.disk.busy:
            self._finish(ready)
            return
        for change in changes[:-1]:
            self._write(change, lambda: None)
        self._write(changes[-1] if changes else AppendRecords(()), lambda: self._finish(ready))

    def promise_early(self, ready: Ready) -> None:
        """Nothing; a driver that breaks its contract would send its promises here."""

    def _write(self, change: Change, when_durable: Callable[[], None]) -> None:
        self.disk.begin(change, when_durable)
        if not self._syncing:
            self._syncing = True
            self.world.after(self.random.randint(0, self.sync_time), self.id, self._sync, self.life)

    def _sync(self, life: int) -> None:
        if life != self.life or not self.running:
            return
        self.disk.sync_next()
        self._syncing = self.disk.busy
        if self._syncing:
            self.world.after(self.random.randint(0, self.sync_time), self.id, self._sync, life)
        self._pump()

    def _finish(self, ready: Ready) -> None:
        for message in ready.messages_when_durable:
            self._send(message)
        self.core.advance(ready)
        self.world.invariants.after_step(self.core)
        if ready.snapshot is not None:
            self.machine.restore(self.disk.snapshot_data)
            assert self.machine.applied == ready.snapshot.index
            self._overtaken(ready.snapshot.index)
        for entry in ready.committed:
            result = self.machine.apply(entry)
            self.world.invariants.applied(self.id, entry.index, self.machine.digest)
            self._decide(Position(entry.term, entry.index), result)
        for read in ready.reads:
            if read.context in self._asked_reads:
                self._due_reads.append((read.index, self._asked_reads.pop(read.context)))
        due = [done for index, done in self._due_reads if index <= self.machine.applied]
        self._due_reads = [item for item in self._due_reads if item[0] > self.machine.applied]
        for done in due:
            done(None)
        self._snapshot_if_due()

    # -- commands

    def _note_status(self, status: Status) -> None:
        if self._status is not None and (status.term, status.leader) != (self._status.term, self._status.leader):
            self._asked_reads.clear()
            if self._status.leader == self.id:
                self._abandon(surely=False)
        self._status = status

    def _decide(self, position: Position, result: Value) -> None:
        found = self._waiting.pop(self._key(position), None)
        if found is not None:
            found[0](result)

    def _overtaken(self, index: int) -> None:
        for position in [position for position in self._waiting if position.index <= index]:
            self._waiting.pop(position)[1](False)

    def _abandon(self, *, surely: bool) -> None:
        waiting, self._waiting = self._waiting, {}
        for _, failed in waiting.values():
            failed(surely)

    # -- snapshots

    def _snapshot_if_due(self) -> None:
        index = self.machine.applied
        if self.saving or index - self.core.log.snapshot.index < self.snapshot_interval:
            return
        if self.core.log.term_at(index) is None:
            # The core has a newer snapshot from the leader already.
            return
        self.saving = True
        self.save_snapshot(self.core.snapshot_meta(index), self.machine.snapshot())

    def save_snapshot(self, snapshot: SnapshotMeta, data: bytes) -> None:
        self._write(SaveSnapshot(snapshot, data), lambda: self._saved(snapshot))

    def _saved(self, snapshot: SnapshotMeta) -> None:
        self.saving = False
        if snapshot.index > self.core.log.snapshot.index:
            self.core.compact(snapshot, keep=self.keep)
            self._write(DropEntries(snapshot.index), lambda: None)
