"""Disks that hang, fill up or fail, power cuts, damage, and folders of a group of one."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from raft_driver_network import Group, Plain, when, write_group_of_one

from agent.raft.core.errors import BrokenInvariant
from agent.raft.core.settings import Settings
from agent.raft.frames import DamagedFile
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.raft.member import RaftMember
from agent.raft.storage import MemberStorage


class FaultyDisk:
    """What `os` does with the folders of some members."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folders: tuple[Path, ...] = ()
        self.go_on = threading.Event()
        self.go_on.set()
        self.hung = threading.Event()
        self.write_error = 0
        self.sync_error = 0
        pwrite, fdatasync = os.pwrite, os.fdatasync

        def faulty_pwrite(fd: int, data: bytes, offset: int) -> int:
            if self.write_error and self._mine(fd):
                raise OSError(self.write_error, os.strerror(self.write_error))
            return pwrite(fd, data, offset)

        def faulty_fdatasync(fd: int) -> None:
            if self._mine(fd):
                if not self.go_on.is_set():
                    self.hung.set()
                self.go_on.wait()
                if self.sync_error:
                    raise OSError(self.sync_error, os.strerror(self.sync_error))
            fdatasync(fd)

        monkeypatch.setattr(os, "pwrite", faulty_pwrite)
        monkeypatch.setattr(os, "fdatasync", faulty_fdatasync)

    def _mine(self, fd: int) -> bool:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return any(path.startswith(f"{folder}/") for folder in self.folders)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyDisk]:
    faulty = FaultyDisk(monkeypatch)
    yield faulty
    faulty.go_on.set()


async def test_a_leader_whose_disk_hangs_loses_its_place_and_comes_back(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await leader.propose(b"before")
        disk.folders = (group.path("a"),)
        disk.go_on.clear()
        hanging = leader.propose(b"hanging")
        second = await group.leader("b", "c")
        await second.propose(b"after")
        await when(leader, lambda status: not status.leading)
        disk.go_on.set()
        # The followers had it on their disks: the successor committed it.
        assert await hanging
        await group.converge()
        assert group.machines["a"].data == [b"before", b"hanging", b"after"]


async def test_a_hanging_disk_of_a_follower_holds_nobody_up(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        disk.folders = (group.path("c"),)
        disk.go_on.clear()
        for n in range(20):
            await leader.propose(b"%d" % n)
        disk.go_on.set()
        await group.converge()
        assert leader.status.leading


async def test_nothing_is_acknowledged_before_a_majority_has_it_on_disk(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        disk.folders = (group.path("b"), group.path("c"))
        disk.go_on.clear()
        waiting = leader.propose(b"x")
        await when(leader, lambda status: status.applied < status.last_index)
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        assert leader.status.leading, "followers whose disks hang still answer heartbeats"
        disk.go_on.set()
        assert await waiting


async def test_no_vote_is_given_before_it_is_on_disk(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        await group.found("a", "b", "c")
        disk.folders = (group.path("b"),)
        disk.go_on.clear()
        await group.stop("a")
        standing = asyncio.create_task(group.leader_name("b", "c"))
        done, _ = await asyncio.wait({standing}, timeout=1.5)
        assert not done
        disk.go_on.set()
        assert await standing in "bc"


async def test_alone_with_a_hanging_disk_answers_that_it_cannot_know(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a", founding=True)
        disk.folders = (group.path("a"),)
        disk.go_on.clear()
        with pytest.raises(OutcomeUnknown, match="disk"):
            await member.propose(b"hanging")
        with pytest.raises(NotLeader, match="disk"):
            await member.propose(b"refused at once")
        disk.go_on.set()
        await when(member, lambda status: status.applied >= status.last_index)
        assert await member.propose(b"next")
        assert group.machines["a"].data == [b"hanging", b"next"]


async def test_leaving_with_a_hanging_disk_does_not_hang(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a", founding=True)
        disk.folders = (group.path("a"),)
        disk.go_on.clear()
        hanging = member.propose(b"hanging")
        await asyncio.to_thread(disk.hung.wait)
        async with asyncio.timeout(10):
            await group.stop("a")
        with pytest.raises(OutcomeUnknown):
            await hanging
        disk.go_on.set()


async def test_a_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a", founding=True)
        await member.propose(b"first")
        disk.folders, disk.write_error = (group.path("a"),), errno.ENOSPC
        with pytest.raises(OutcomeUnknown, match="disk"):
            await member.propose(b"waits for room")
        with pytest.raises(NotLeader, match="No space left"):
            await member.propose(b"refused")
        disk.write_error = 0
        await when(member, lambda status: status.applied >= status.last_index)
        while True:
            try:
                await member.propose(b"second")
                break
            except NotLeader:
                await when(member, lambda status: status.leading)
        await group.stop("a")
        await group.start("a")
        assert group.machines["a"].data == [b"first", b"waits for room", b"second"]


async def test_a_full_disk_of_the_leader_lets_another_one_lead(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        disk.folders, disk.write_error = (group.path("a"),), errno.ENOSPC
        waiting = leader.propose(b"waits for room")
        second = await group.leader("b", "c")
        await second.propose(b"after")
        disk.write_error = 0
        results = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(results[0], int | OutcomeUnknown), results
        await group.converge()
        assert group.machines["a"].data == [b"waits for room", b"after"]


async def test_a_failed_sync_ends_the_member_with_a_clear_text(tmp_path: Path, disk: FaultyDisk) -> None:
    async with Group(tmp_path) as group:
        leader = await group.found("a", "b", "c")
        await leader.propose(b"before")
        disk.folders, disk.sync_error = (group.path("a"),), errno.EIO
        with pytest.raises(OutcomeUnknown, match="disk failed"):
            await leader.propose(b"x")
        assert "restart the agent" in await leader.broken
        assert not leader.status.leading
        with pytest.raises(NotLeader, match="disk failed"):
            await leader.propose(b"y")
        with pytest.raises(NotLeader, match="disk failed"):
            await leader.read_index()
        second = await group.leader("b", "c")
        await second.propose(b"after")
        await group.stop("a")
        disk.sync_error = 0
        await group.start("a")
        await group.converge()
        assert group.machines["a"].data == group.machines["b"].data


def _under(lock: threading.RLock, function: Callable[..., Any]) -> Callable[..., Any]:  # type: ignore[valid-type]
    def locked(*args: Any, **options: Any) -> Any:
        with lock:  # type: ignore[attr-defined]
            return function(*args, **options)

    return locked


@pytest.mark.parametrize("seed", range(6))
async def test_power_cuts_lose_nothing_acknowledged(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut: the member hears and says nothing any more, and starts from a copy of its folder of that moment."""
    power = threading.RLock()
    for name in ("pwrite", "write", "ftruncate", "rename", "unlink", "open"):
        monkeypatch.setattr(os, name, _under(power, getattr(os, name)))
    async with Group(tmp_path, seed=seed, snapshot_interval=40, keep_entries=5) as group:
        leader = await group.found("a", "b", "c")
        acknowledged: list[bytes] = []
        for cut in range(4):
            name = await group.leader_name() if (cut + seed) % 2 else "abc"[(cut + seed) % 3]
            leader = await group.leader()
            waiting = {leader.propose(b"%d %d" % (cut, n)): b"%d %d" % (cut, n) for n in range(30 + 7 * seed)}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            group.network.cut(name, off="abc")
            image = tmp_path / f"image {cut}"
            with power:
                shutil.copytree(group.path(name), image)
            await group.stop(name)
            shutil.rmtree(group.path(name))
            image.rename(group.path(name))
            group.network.heal()
            await group.start(name)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            for data, result in zip(waiting.values(), results, strict=True):
                if isinstance(result, int):
                    acknowledged.append(data)
                else:
                    assert isinstance(result, NotLeader | OutcomeUnknown)
            await (await group.leader()).read_index()
        await group.converge()
        kept = group.machines["a"].data
        assert set(acknowledged) <= set(kept)
        assert len(set(kept)) == len(kept)
        assert all(machine.data == kept for machine in group.machines.values())


@pytest.mark.parametrize("with_snapshot", [False, True])
async def test_a_folder_of_a_group_of_one_opens_and_grows(tmp_path: Path, with_snapshot: bool) -> None:
    async with Group(tmp_path) as group:
        data = [b"%d" % n for n in range(200)]
        state = [index.to_bytes(8, "big") + b"\0\0\0\1" + data[index - 1] for index in (1, 2)]
        term = write_group_of_one(group.path("a"), "a", data, snapshot=state if with_snapshot else None)
        leader = await group.start("a")
        assert group.machines["a"].data == data
        assert leader.leading
        assert leader.status.term == term + 1
        for name in "bc":
            await group.join(name, leader)
        await leader.propose(b"more")
        await group.converge()
        assert group.machines["c"].data == [*data, b"more"]
        await group.stop("a")
        assert await group.leader("b", "c")


async def test_a_folder_of_an_idle_group_of_one_opens(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        write_group_of_one(group.path("a"), "a", [])
        assert (await group.start("a")).leading


async def test_one_that_joined_an_old_group_of_one_does_not_lead_itself(tmp_path: Path) -> None:
    """It may have entries from before the first membership in its log, and must not take itself for a group."""
    async with Group(tmp_path) as group:
        write_group_of_one(group.path("a"), "a", [b"%d" % n for n in range(50)])
        leader = await group.start("a", settings=Settings(max_message_bytes=100))
        joiner = await group.start("b")
        group.wires["a"].sent = _cut_when(group, lambda: joiner.status.last_index > 10)
        await leader.add_learner("b", "b:1")
        await when(joiner, lambda status: status.last_index > 10)
        await group.stop("b")
        group.network.heal()
        again = await group.start("b")
        assert not again.leading
        await when(again, lambda status: status.applied >= leader.applied)


def _cut_when(group: Group, wanted: Callable[[], bool]):  # type: ignore[no-untyped-def]
    def sent(member: str, messages: object) -> None:
        if wanted():
            group.network.cut("a", "b")

    return sent


async def test_damage_refuses_to_start_and_frees_the_folder(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a", founding=True)
        for n in range(20):
            await member.propose(b"%d" % n)
        await group.stop("a")
        path = next(group.path("a").glob("log-*.wal"))
        whole = path.read_bytes()
        path.write_bytes(whole[:50] + b"?" + whole[51:])
        with pytest.raises(DamagedFile, match=r"log-.*offset"):
            await group.start("a")
        path.write_bytes(whole)
        assert (await group.start("a")).leading


async def test_a_damaged_snapshot_refuses_to_start(tmp_path: Path) -> None:
    async with Group(tmp_path, snapshot_interval=10) as group:
        member = await group.start("a", founding=True)
        while not list(group.path("a").glob("*.snap")):
            await member.propose(b"x")
        await group.stop("a")
        snapshot = next(group.path("a").glob("*.snap"))
        snapshot.write_bytes(snapshot.read_bytes()[:-7])
        with pytest.raises(DamagedFile, match="not whole"):
            await group.start("a")


_WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from raft_driver_network import Plain, Remembering, Unconnected
from agent.raft.member import RaftMember
from agent.raft.storage import MemberStorage
async def main():
    async with RaftMember(Path(sys.argv[1]), Remembering(), Plain(), "a", Unconnected(), address="a:1", founding=True,
                          snapshot_interval=200) as member:
        async def one(n):
            index = await member.propose(b"%d" % n)
            print(index, n, flush=True)
        n = 0
        while True:
            await asyncio.gather(*(one(n + k) for k in range(16)))
            n += 16
asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 300, 900])
async def test_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    code = _WRITER.format(tests=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(acknowledged)]
        os.kill(process.pid, signal.SIGKILL)
        lines += [line.split() for line in process.stdout.read().splitlines() if re.fullmatch(r"\d+ \d+", line)]
    async with Group(tmp_path) as group:
        await group.start("a")
        kept = dict(group.machines["a"].entries)
    for index, number in lines:
        assert kept[int(index)] == number.encode()


async def test_force_alone_keeps_everything(tmp_path: Path) -> None:
    async with Group(tmp_path, snapshot_interval=30) as group:
        leader = await group.found("a", "b", "c")
        for n in range(100):
            await leader.propose(b"%d" % n)
        await group.converge()
        for name in "abc":
            await group.stop(name)
        RaftMember.force_alone(group.path("b"), Plain(), "b", "b:9")
        alone = await group.start("b", address="b:9")
        assert alone.leading
        assert group.machines["b"].data == [b"%d" % n for n in range(100)]
        assert [(member.id, member.address) for member in alone.status.members] == [("b", "b:9")]
        await alone.propose(b"on")
        await group.stop("b")
        assert (await group.start("b", address="b:9")).leading
        with pytest.raises(ValueError, match="no state"):
            RaftMember.force_alone(tmp_path / "empty", Plain(), "x", "x:1")


async def test_a_log_with_a_gap_refuses_to_start_and_frees_the_folder(tmp_path: Path) -> None:
    async with Group(tmp_path, snapshot_interval=10) as group:
        member = await group.start("a", founding=True)
        while min(group.path("a").glob("*.wal")).name.startswith(f"log-{1:020d}"):
            await member.propose(b"x")
        await group.stop("a")
        next(group.path("a").glob("*.snap")).unlink()
        for _ in range(2):
            with pytest.raises(BrokenInvariant, match="in no snapshot and no log"):
                await group.start("a")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_fault_in_the_writers_thread_ends_the_member(tmp_path: Path) -> None:
    async with Group(tmp_path) as group:
        member = await group.start("a", founding=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemberStorage, "write_all", lambda storage, rounds: 1 / 0)
            with pytest.raises(OutcomeUnknown, match="ZeroDivisionError"):
                await member.propose(b"x")
        assert "fault" in await member.broken
        await group.stop("a")
        assert (await group.start("a")).leading


async def test_leaving_while_a_snapshot_hangs_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, hung, write = threading.Event(), threading.Event(), os.write

    def hanging(fd: int, data: bytes) -> int:
        if threading.current_thread().name.startswith("raft-snapshot"):
            hung.set()
            go_on.wait()
        return write(fd, data)

    async with Group(tmp_path, snapshot_interval=10) as group:
        member = await group.start("a", founding=True)
        monkeypatch.setattr(os, "write", hanging)
        while not hung.is_set():
            await member.propose(b"x")
        async with asyncio.timeout(10):
            await group.stop("a")
        go_on.set()
