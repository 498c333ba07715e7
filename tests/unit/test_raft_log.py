"""The durable log: nothing acknowledged is lost, a torn end is cut, any other damage refuses to start."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.raft.frames import DamagedFile, NewerFormat
from agent.raft.interface import NotLeader
from agent.raft.log import DurableLog, Record, RecordKind
from agent.raft.single import FolderInUse, SingleMember


class Plain:
    """A sealer that leaves everything readable, so that tests can aim at bytes."""

    def seal(self, plain: bytes) -> bytes:
        return plain

    def open(self, sealed: bytes) -> bytes:
        return sealed


class Machine:
    """A state machine that remembers what it was given."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.base = 0

    def apply(self, index: int, data: bytes) -> None:
        self.entries.append((index, data))

    async def snapshot(self) -> AsyncIterator[bytes]:
        for index, data in list(self.entries):
            yield index.to_bytes(8, "big") + data

    async def restore(self, index: int, chunks: AsyncIterator[bytes]) -> None:
        self.entries = [(int.from_bytes(chunk[:8], "big"), chunk[8:]) async for chunk in chunks]
        self.base = index


def entry(index: int, data: bytes) -> Record:
    return Record(RecordKind.ENTRY, 1, index, data)


def recover(folder: Path) -> list[bytes]:
    log = DurableLog(folder, Plain())
    try:
        return [record.data for record in log.recover(0).entries]
    finally:
        log.close()


def write(folder: Path, *batches: list[bytes], segment_size: int = 1 << 20) -> Path:
    log = DurableLog(folder, Plain(), segment_size=segment_size)
    index = len(log.recover(0).entries)
    for batch in batches:
        log.append([entry(index + n, data) for n, data in enumerate(batch, 1)])
        index += len(batch)
    log.close()
    return sorted(folder.glob("log-*.wal"))[-1]


def test_cut_at_every_byte_keeps_whole_batches_only(tmp_path: Path) -> None:
    path = write(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    allowed = ([], [b"one"], [b"one", b"two", b"three"], [b"one", b"two", b"three", b"four"])
    seen = set()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        got = recover(tmp_path)
        assert got in allowed
        seen.add(len(got))
        # What was cut is gone for good: the next append continues behind it.
        write(tmp_path, [b"more"])
        assert recover(tmp_path) == [*got, b"more"]
    assert seen == {0, 1, 3, 4}


def test_bit_flipped_in_every_byte_is_never_wrong_data_and_never_silent(tmp_path: Path) -> None:
    path = write(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    for offset in range(len(whole)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << (offset % 8)
        path.write_bytes(damaged)
        with pytest.raises((DamagedFile, NewerFormat)) as caught:
            recover(tmp_path)
        assert path.name in str(caught.value)
        assert path.read_bytes() == bytes(damaged), "a refusal changes nothing"


def test_missing_segment_is_damage(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, [b"x" * 50 + bytes([number])], segment_size=60)
    segments = sorted(tmp_path.glob("log-*.wal"))
    assert len(segments) >= 3
    segments[1].unlink()
    with pytest.raises(DamagedFile, match="missing"):
        recover(tmp_path)


async def test_proposals_are_applied_in_order_and_survive(tmp_path: Path) -> None:
    machine = Machine()
    async with SingleMember(tmp_path, machine, Plain(), "me") as member:
        indexes = await asyncio.gather(*(member.propose(b"%d" % n) for n in range(500)))
        assert indexes == list(range(1, 501))
        assert await member.read_index() == 500
        first_term = member.term
    again = Machine()
    async with SingleMember(tmp_path, again, Plain(), "me") as member:
        assert again.entries == [(n + 1, b"%d" % n) for n in range(500)]
        assert member.term == first_term + 1
        with pytest.raises(FolderInUse):
            async with SingleMember(tmp_path, Machine(), Plain(), "other"):
                pass
    with pytest.raises(NotLeader):
        await member.propose(b"late")


async def test_snapshot_replaces_old_segments(tmp_path: Path) -> None:
    machine = Machine()
    async with SingleMember(tmp_path, machine, Plain(), "me", snapshot_interval=100) as member:
        for n in range(250):
            await member.propose(b"%d" % n)
    assert len(list(tmp_path.glob("snapshot-*.snap"))) == 1
    restored = Machine()
    async with SingleMember(tmp_path, restored, Plain(), "me", snapshot_interval=100) as member:
        assert restored.base >= 100
        assert restored.entries == machine.entries
        assert await member.propose(b"next") == 251


async def test_damaged_snapshot_refuses_to_start(tmp_path: Path) -> None:
    async with SingleMember(tmp_path, Machine(), Plain(), "me", snapshot_interval=10) as member:
        for n in range(30):
            await member.propose(b"%d" % n)
    snapshot = next(tmp_path.glob("snapshot-*.snap"))
    snapshot.write_bytes(snapshot.read_bytes()[:-7])
    with pytest.raises(DamagedFile, match="not whole"):
        async with SingleMember(tmp_path, Machine(), Plain(), "me"):
            pass


async def test_full_disk_refuses_the_change_and_goes_on(tmp_path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    machine = Machine()
    async with SingleMember(tmp_path, machine, Plain(), "me") as member:
        await member.propose(b"first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(NotLeader, match="not written"):
                await member.propose(b"x" * 10_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert await member.propose(b"second") == 2
    again = Machine()
    async with SingleMember(tmp_path, again, Plain(), "me"):
        assert again.entries == [(1, b"first"), (2, b"second")]


_WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_raft_log import Machine, Plain
from agent.raft.single import SingleMember
async def main():
    async with SingleMember(Path(sys.argv[1]), Machine(), Plain(), "me", snapshot_interval=200) as member:
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
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(acknowledged)]
        os.kill(process.pid, signal.SIGKILL)
        lines += [line.split() for line in process.stdout.read().splitlines() if re.fullmatch(r"\d+ \d+", line)]
    machine = Machine()
    async with SingleMember(tmp_path, machine, Plain(), "me"):
        kept = dict(machine.entries)
    for index, number in lines:
        assert kept[int(index)] == number.encode()
