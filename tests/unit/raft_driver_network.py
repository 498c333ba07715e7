"""Members in one process over a network in memory, which can lose, delay and cut; and state machines that remember."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random

from agent.raft.core.settings import Settings
from agent.raft.interface import GroupStatus, Receiver, Sealer
from agent.raft.log import DurableLog, Record, RecordKind
from agent.raft.member import RaftMember
from agent.raft.snapshots import SnapshotWriter

TICK = 0.02
"""Elections after 200 to 400 ms."""


class Plain:
    """A sealer that leaves everything readable, so that tests can aim at bytes."""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes) -> bytes:
        return sealed


class Unconnected:
    """The transport of a member that is alone."""

    async def start(self, receiver: Receiver) -> None:
        return

    def send(self, member: str, address: str, messages: Sequence[bytes]) -> None:
        raise AssertionError("there is nobody to send to")

    async def send_snapshot(self, member: str, address: str, chunks: AsyncIterator[bytes]) -> None:
        raise AssertionError("there is nobody to send to")

    async def close(self) -> None:
        return


def write_group_of_one(
    folder: Path, member: str, entries: Sequence[bytes], *, snapshot: Sequence[bytes] | None = None
) -> int:
    """A folder as versions wrote it that knew no membership: term and vote, then commands from index 1; its term.

    `snapshot` is the state at the second entry, where the log then begins.
    """
    folder.mkdir(parents=True)
    log = DurableLog(folder, Plain())
    log.replay()
    log.append([Record(RecordKind.HARD_STATE, 3, 0, member.encode())])
    for index, data in enumerate(entries, 1):
        log.append([Record(RecordKind.ENTRY, 3, index, data)])
    if snapshot is not None:
        writer = SnapshotWriter(folder, 2, 3, Plain())
        for chunk in snapshot:
            writer.add(chunk)
        writer.finish()
        log.rotate(Record(RecordKind.HARD_STATE, 3, 0, member.encode()))
        log.compact(2)
    log.close()
    return 3


class Remembering:
    """A state machine that keeps what it was given, and how."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.base = 0
        """Index of the last snapshot it was restored from."""
        self.restores = 0

    @property
    def data(self) -> list[bytes]:
        return [data for _, data in self.entries]

    def apply(self, index: int, data: bytes) -> None:
        assert index > (self.entries[-1][0] if self.entries else self.base)
        self.entries.append((index, data))

    async def snapshot(self) -> AsyncIterator[bytes]:
        entries = list(self.entries)
        for start in range(0, len(entries), 100):
            yield b"".join(
                index.to_bytes(8, "big") + len(data).to_bytes(4, "big") + data
                for index, data in entries[start : start + 100]
            )
            await asyncio.sleep(0)

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        self.entries = []
        async for chunk in chunks:
            while chunk:
                size = int.from_bytes(chunk[8:12], "big")
                self.entries.append((int.from_bytes(chunk[:8], "big"), chunk[12 : 12 + size]))
                chunk = chunk[12 + size :]
        self.base = index
        self.restores += 1


class Network:
    """Who reaches whom. Used from the threads of all members."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._random = Random(seed)
        self._ends: dict[str, Wire] = {}
        self._cut: set[frozenset[str]] = set()
        self.loss = 0.0
        self.delay = 0.0
        self.snapshots = 0
        """Streams that were begun."""
        self.break_snapshots_after: int | None = None
        """Chunks after which every stream fails."""

    def wire(self, member: str, address: str) -> Wire:
        return Wire(self, member, address)

    def attach(self, wire: Wire) -> None:
        with self._lock:
            self._ends[wire.address] = wire

    def detach(self, wire: Wire) -> None:
        with self._lock:
            if self._ends.get(wire.address) is wire:
                del self._ends[wire.address]

    def cut(self, *members: str, off: Sequence[str] = ()) -> None:
        """Between these members nothing passes; with `off`, between these and those."""
        with self._lock:
            for one in members:
                for other in off or members:
                    if one != other:
                        self._cut.add(frozenset((one, other)))

    def heal(self) -> None:
        with self._lock:
            self._cut.clear()

    def route(self, sender: str, member: str, address: str) -> tuple[Wire, float] | None:
        with self._lock:
            end = self._ends.get(address)
            if end is None or end.member != member or frozenset((sender, member)) in self._cut:
                return None
            if self.loss and self._random.random() < self.loss:
                return None
            return end, self.delay * self._random.random()


class Wire:
    """One member's transport."""

    def __init__(self, network: Network, member: str, address: str) -> None:
        self.network = network
        self.member = member
        self.address = address
        self.receiver: Receiver
        self.loop: asyncio.AbstractEventLoop
        self.sent: Callable[[str, Sequence[bytes]], None] = lambda member, messages: None

    async def start(self, receiver: Receiver) -> None:
        self.receiver, self.loop = receiver, asyncio.get_running_loop()
        self.network.attach(self)

    def send(self, member: str, address: str, messages: Sequence[bytes]) -> None:
        self.sent(member, messages)
        found = self.network.route(self.member, member, address)
        if found is None:
            self.loop.call_soon(self.receiver.unreachable, member)
            return
        end, delay = found
        try:
            if delay:
                end.loop.call_soon_threadsafe(end.loop.call_later, delay, end.arrive, self.member, list(messages))
            else:
                end.loop.call_soon_threadsafe(end.arrive, self.member, list(messages))
        except RuntimeError:
            self.receiver.unreachable(member)

    def arrive(self, member: str, messages: Sequence[bytes]) -> None:
        with self.network._lock:
            here = self.network._ends.get(self.address) is self
        if here:
            self.receiver.received(member, messages)

    async def send_snapshot(self, member: str, address: str, chunks: AsyncIterator[bytes]) -> None:
        self.network.snapshots += 1
        number = 0
        async for chunk in chunks:
            found = self.network.route(self.member, member, address)
            if found is None or number == self.network.break_snapshots_after:
                raise ConnectionError("cut")
            number += 1
            end = found[0]
            try:
                await asyncio.wrap_future(
                    asyncio.run_coroutine_threadsafe(end.receiver.snapshot_chunk(self.member, chunk), end.loop)
                )
            except Exception as error:
                raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        self.network.detach(self)


class Group:
    """Members by name, each with a folder and a machine. `async with` stops all that run."""

    def __init__(self, folder: Path, *, seed: int = 0, sealer: Sealer | None = None, **options: object) -> None:
        self.folder = folder
        self.network = Network(seed)
        self.members: dict[str, RaftMember] = {}
        self.machines: dict[str, Remembering] = {}
        self.wires: dict[str, Wire] = {}
        self._sealer = sealer or Plain()
        self._options: dict[str, object] = {"tick": TICK, "settings": Settings(), **options}
        self._random = random.Random(seed)

    async def __aenter__(self) -> Group:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self.members):
            await self.stop(name)

    def path(self, name: str) -> Path:
        return self.folder / name

    async def start(self, name: str, *, address: str = "", **options: object) -> RaftMember:
        wire = self.network.wire(name, address or f"{name}:1")
        machine = Remembering()
        member = RaftMember(
            self.path(name),
            machine,
            self._sealer,
            name,
            wire,
            address=wire.address,
            random=Random(self._random.random()),
            **{**self._options, **options},  # type: ignore[arg-type]
        )
        await member.__aenter__()
        self.members[name], self.machines[name], self.wires[name] = member, machine, wire
        return member

    async def stop(self, name: str) -> None:
        await self.members.pop(name).__aexit__(None, None, None)

    async def found(self, *names: str) -> RaftMember:
        """A group of these, the first of them leading."""
        first = await self.start(names[0], founding=True)
        for name in names[1:]:
            await self.join(name, first)
        return first

    async def join(self, name: str, leader: RaftMember, **options: object) -> RaftMember:
        member = await self.start(name, **options)
        await leader.add_learner(name, self.wires[name].address)
        await when(leader, lambda status: any(m.id == name and m.match >= status.last_index for m in status.members))
        await leader.promote(name)
        return member

    async def leader(self, *names: str) -> RaftMember:
        """Whoever of these comes to lead."""
        return self.members[await self.leader_name(*names)]

    async def leader_name(self, *names: str) -> str:
        waits = {
            asyncio.create_task(when(self.members[name], lambda status: status.leading)): name
            for name in names or self.members
        }
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        return waits[done.pop()]

    async def converge(self, *names: str) -> None:
        """Until these have applied the same."""
        chosen = [self.members[name] for name in names or self.members]
        top = max(member.applied for member in chosen)
        for member in chosen:
            await when(member, lambda status: status.applied >= top)


async def when(member: RaftMember, wanted: Callable[[GroupStatus], bool]) -> GroupStatus:
    """Wait until the member's status is so."""
    status = member.status
    while not wanted(status):
        status = await member.status_changed(status)
    return status
