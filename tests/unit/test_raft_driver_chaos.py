"""Members on real folders and threads under random faults: what was acknowledged stays, what was refused never comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from raft_driver_network import Group

from agent.raft.interface import NotLeader, OutcomeUnknown

SEEDS = int(os.environ.get("RAFT_CHAOS_SEEDS", "3"))
TURNS = 12


class Disks:
    """The disks of all members: held while a power cut takes its picture, or one of them for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.power = threading.RLock()
        self.hanging: str | None = None
        self.go_on = threading.Event()
        for name in ("pwrite", "write", "ftruncate", "rename", "unlink", "open"):
            monkeypatch.setattr(os, name, self._under_power(getattr(os, name)))
        fdatasync = os.fdatasync

        def hang_or_sync(fd: int) -> None:
            hanging = self.hanging
            if hanging is not None and os.readlink(f"/proc/self/fd/{fd}").startswith(hanging):
                self.go_on.wait()
            fdatasync(fd)

        monkeypatch.setattr(os, "fdatasync", hang_or_sync)

    def hang(self, folder: Path) -> None:
        self.go_on.clear()
        self.hanging = f"{folder}/"

    def free(self) -> None:
        self.hanging = None
        self.go_on.set()

    def _under_power(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            with self.power:
                return function(*args, **options)

        return guarded


class History:
    """What clients were told."""

    def __init__(self) -> None:
        self.acknowledged: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.asked = 0

    async def write(self, group: Group, random: Random, stop: asyncio.Event) -> None:
        """Propose to whoever says that it leads, or to anybody."""
        while not stop.is_set():
            leaders = [name for name, member in group.members.items() if member.status.leading]
            name = random.choice(leaders or list(group.members) or [""])
            if not name:
                await asyncio.sleep(0.01)
                continue
            self.asked += 1
            data = b"%d" % self.asked
            try:
                await group.members[name].propose(data)
                self.acknowledged.add(data)
            except NotLeader:
                self.refused.add(data)
                await asyncio.sleep(0.01)
            except OutcomeUnknown:
                pass


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_faults(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    disks = Disks(monkeypatch)
    async with Group(tmp_path, seed=seed, snapshot_interval=random.choice((30, 150)), keep_entries=3) as group:
        await group.found("a", "b", "c")
        history, stop = History(), asyncio.Event()
        writers = [asyncio.create_task(history.write(group, random, stop)) for _ in range(8)]
        for turn in range(TURNS):
            await fault(group, disks, random, turn)
        disks.free()
        group.network.heal()
        group.network.loss = group.network.delay = 0.0
        for name in "abc":
            if name not in group.members:
                await group.start(name)
        stop.set()
        async with asyncio.timeout(15):
            await asyncio.gather(*writers)
            while True:
                try:
                    await (await group.leader()).read_index()
                    break
                except NotLeader:
                    continue
            await group.converge()
        kept = group.machines["a"].data
        assert all(machine.data == kept for machine in group.machines.values())
        assert len(set(kept)) == len(kept)
        assert history.acknowledged <= set(kept), "acknowledged and lost"
        assert not history.refused & set(kept), "refused and there all the same"
        assert not any(member.broken.done() for member in group.members.values())
        assert len(history.acknowledged) > 50


async def fault(group: Group, disks: Disks, random: Random, turn: int) -> None:
    name = random.choice("abc")
    pause = random.uniform(0.0, 0.6)
    match random.choice(("cut", "part", "restart", "power", "hang", "loss", "transfer", "down")):
        case "cut":
            group.network.cut(name, off="abc")
        case "part":
            group.network.cut(*random.sample("abc", 2))
        case "restart" if name in group.members:
            await group.stop(name)
            await group.start(name)
        case "power" if name in group.members:
            group.network.cut(name, off="abc")
            image = group.folder / f"image {turn}"
            with disks.power:
                shutil.copytree(group.path(name), image)
            disks.free()
            await group.stop(name)
            shutil.rmtree(group.path(name))
            image.rename(group.path(name))
            group.network.heal()
            await group.start(name)
        case "hang":
            disks.hang(group.path(name))
            await asyncio.sleep(pause)
            disks.free()
        case "loss":
            group.network.loss, group.network.delay = random.choice((0.0, 0.1, 0.3)), random.choice((0.0, 0.02))
        case "transfer" if name in group.members:
            with contextlib.suppress(NotLeader, TimeoutError):
                await group.members[name].transfer_leadership(random.choice((None, *"abc")))
        case "down" if len(group.members) == 3:
            await group.stop(name)
        case _:
            for missing in sorted(set("abc") - set(group.members)):
                await group.start(missing)
    await asyncio.sleep(pause)
    if random.random() < 0.5:
        group.network.heal()
