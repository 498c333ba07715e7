"""Snapshots of the own state and their way to other members; what the log keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from raft_driver_network import Group, Plain, Remembering, when

from agent.raft import driver, own_snapshots
from agent.raft.core.messages import InstallSnapshot, SnapshotMeta
from agent.raft.core.snapshot_stream import SnapshotChunk, StreamBroken, chunks_of
from agent.raft.member import RaftMember
from agent.raft.storage import MemberStorage
from agent.raft.streams import PIECE
from agent.raft.wire import encode


async def fill(member: RaftMember, count: int, size: int = 10) -> None:
    for start in range(0, count, 50):
        await asyncio.gather(*(member.propose(b"%0*d" % (size, n)) for n in range(start, min(start + 50, count))))


async def snapshot_index(group: Group, name: str, at_least: int = 1) -> int:
    """Wait until there is a snapshot."""
    while True:
        found = [int(path.stem.split("-")[1]) for path in group.path(name).glob("snapshot-*.snap")]
        if found and max(found) >= at_least:
            return max(found)
        status = group.members[name].status
        await group.members[name].propose(b"more")
        assert status.leading


async def test_the_log_shrinks_at_the_interval_and_the_state_comes_back(tmp_path: Path) -> None:
    async with Group(tmp_path, snapshot_interval=100, keep_entries=10) as group:
        member = await group.start("a", founding=True)
        await fill(member, 350)
        await snapshot_index(group, "a", 250)
        assert len(list(group.path("a").glob("snapshot-*.snap"))) == 1
        before = group.machines["a"].data
        await group.stop("a")
        again = await group.start("a")
        assert group.machines["a"].data == before
        assert group.machines["a"].restores == 1
        again.snapshot_interval = 10_000
        await fill(again, 200)
        assert again.snapshot_interval == 10_000


@pytest.mark.parametrize("voter", [True, False])
async def test_a_member_that_was_away_too_long_gets_a_snapshot(tmp_path: Path, voter: bool) -> None:
    async with Group(tmp_path, snapshot_interval=50, keep_entries=5) as group:
        leader = await group.found("a", "b")
        if voter:
            await group.join("c", leader)
        else:
            await group.start("c")
            await leader.add_learner("c", "c:1")
        await when(leader, lambda status: all(member.match >= 3 for member in status.members))
        await group.stop("c")
        # For one that was there just now everything is kept.
        await when(leader, lambda status: not any(m.active for m in status.members if m.id == "c"))
        await fill(leader, 300)
        await snapshot_index(group, "a", 200)
        await group.start("c")
        await group.converge()
        assert group.machines["c"].restores >= 1
        assert group.machines["c"].data == group.machines["a"].data
        before = group.machines["c"].data
        await group.stop("c")
        await group.start("c")
        await group.converge()
        assert group.machines["c"].data == before


async def test_a_new_member_of_an_old_group_begins_with_a_snapshot(tmp_path: Path) -> None:
    async with Group(tmp_path, snapshot_interval=50, keep_entries=0) as group:
        leader = await group.found("a")
        await fill(leader, 200)
        await snapshot_index(group, "a", 150)
        await group.join("b", leader)
        assert group.machines["b"].restores == 1
        await group.converge()
        assert group.machines["b"].data == group.machines["a"].data


async def test_a_stream_that_breaks_is_sent_again(tmp_path: Path) -> None:
    async with Group(tmp_path, snapshot_interval=100, keep_entries=0) as group:
        leader = await group.found("a")
        await fill(leader, 450)
        await snapshot_index(group, "a", 400)
        group.network.break_snapshots_after = 2
        joining = asyncio.create_task(group.join("b", leader))
        while group.network.snapshots < 3:
            await leader.propose(b"meanwhile")
        group.network.break_snapshots_after = None
        await joining
        await group.converge()
        assert group.machines["b"].data == group.machines["a"].data
        assert not list(group.path("b").glob("*.tmp"))


async def test_chunks_of_any_size_arrive_as_they_were(tmp_path: Path) -> None:
    """The state machine's chunks are its own business: they travel in pieces and are put together again."""
    async with Group(tmp_path, snapshot_interval=20, keep_entries=0) as group:
        leader = await group.found("a")
        await fill(leader, 60, size=3 * PIECE // 40)
        await snapshot_index(group, "a", 20)
        await group.join("b", leader)
        await group.converge()
        assert group.machines["b"].data == group.machines["a"].data


async def test_writes_go_on_while_a_follower_takes_snapshot_after_snapshot(tmp_path: Path) -> None:
    """What a follower will ask for after the snapshot on its way is kept, or it would never catch up."""
    async with Group(tmp_path, snapshot_interval=30, keep_entries=2) as group:
        leader = await group.found("a", "b")
        await fill(leader, 200)
        await snapshot_index(group, "a", 150)

        async def write() -> None:
            for n in range(1500):
                await leader.propose(b"%d" % n)

        writing = asyncio.create_task(write())
        await group.join("c", leader)
        await writing
        await group.converge()
        assert group.machines["c"].data == group.machines["a"].data
        assert group.network.snapshots <= 5


class Unwritable(Remembering):
    """Holds its snapshot until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def snapshot(self) -> AsyncIterator[bytes]:
        entries = list(self.entries)
        yield b""
        self.asked.set()
        await self.go_on.wait()
        for index, data in entries:
            yield index.to_bytes(8, "big") + len(data).to_bytes(4, "big") + data


async def test_a_snapshot_is_of_one_moment_and_leaving_does_not_wait_for_it(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        machine = Unwritable()
        wire = group.network.wire("a", "a:1")
        async with RaftMember(
            tmp_path / "a", machine, Plain(), "a", wire, address="a:1", founding=True, snapshot_interval=10
        ) as member:
            await fill(member, 10)
            await machine.asked.wait()
            await fill(member, 30)
            machine.go_on.set()
            while not list((tmp_path / "a").glob("*.snap")):
                await member.propose(b"more")
            machine.asked.clear()
            machine.go_on.clear()
            await fill(member, 20)
            await machine.asked.wait()
        assert not list((tmp_path / "a").glob("*.tmp"))
        storage = MemberStorage(tmp_path / "a", Plain())
        snapshot = storage.newest()
        assert snapshot is not None
        entries = [int.from_bytes(chunk[:8], "big") for chunk in snapshot if chunk]
        assert entries[-1] == snapshot.index
        storage.close()


async def test_a_stream_that_lies_is_refused(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        await group.found("a")
        receiver = group.wires["a"].receiver
        loop = group.wires["a"].loop

        async def take(sender: str, chunk: SnapshotChunk) -> None:
            work = receiver.snapshot_chunk(sender, encode(chunk))
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

        message = InstallSnapshot("x", "a", 9, SnapshotMeta(100, 8))
        first, second, third = chunks_of(message, [b"\0one", b"\0two", b"\0three"])
        with pytest.raises(StreamBroken, match="from x"):
            await take("y", first)
        with pytest.raises(StreamBroken, match="first"):
            await take("x", second)
        await take("x", first)
        with pytest.raises(StreamBroken, match="not the next"):
            await take("x", third)
        assert not list(group.path("a").glob("*.tmp"))
        assert group.members["a"].leading


async def test_large_entries_are_reason_for_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_snapshots, "MAX_LOG_BYTES", 100_000)
    monkeypatch.setattr(driver, "MAX_KEPT_BYTES", 50_000)
    async with Group(tmp_path) as group:
        member = await group.found("a", "b")
        await fill(member, 30, size=10_000)
        assert await snapshot_index(group, "a") < 60
        while min(group.path("a").glob("*.wal")).name.startswith(f"log-{1:020d}"):
            await member.propose(b"more")
        await fill(member, 5, size=10_000)
        await group.join("c", member)
        await group.converge()
        assert group.machines["c"].restores == 1
        assert group.machines["c"].data == group.machines["a"].data
