"""Rounds of faults among real managers under a writer: what was acknowledged must be there, and no slot wanted twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster import AgentProcess, Cluster, eventually
from managers import SlotWatch, Writer, create, listed

WHOLE = 40.0
"""Seconds within which everybody is back and agrees."""


@dataclass
class Rounds:
    """What happened, and how long each round took until a write was acknowledged and until all was whole again."""

    cluster: Cluster
    managers: list[AgentProcess]
    chance: random.Random
    replicas: int = 5
    written: list[tuple[str, float]] = field(default_factory=list)

    async def run(self, count: int, report: Callable[[str], None] = lambda line: None) -> Writer:
        """So many rounds; the writer and what it knows."""
        await create(self.managers[0], "steady", self.replicas)
        await self._steady()
        writer = Writer(self.managers, self.chance)
        async with writer.writing(), SlotWatch(self.managers, "steady").watching():
            for number in range(count):
                what = self.chance.choice((self.leader_killed, self.leader_frozen, self.anyone_killed, self.two_killed))
                began = time.monotonic()
                known = len(writer.acknowledged)
                await what()
                await self._whole()
                new = len(writer.acknowledged) - known
                self.written.append((what.__name__, time.monotonic() - began))
                report(f"round {number + 1}: {what.__name__}: whole after {self.written[-1][1]:.1f} s, {new} writes")
        await self._agree()
        for manager in self.managers:
            writer.check(await listed(manager))
        return writer

    async def leader_killed(self) -> None:
        """Power for the leader's agent is cut, and comes back some time later."""
        await self._kill([await self.cluster.leader(self.managers, within=WHOLE)])

    async def anyone_killed(self) -> None:
        """The same for a manager whoever it is."""
        await self._kill([self.chance.choice(self.managers)])

    async def two_killed(self) -> None:
        """The quorum is lost for a moment."""
        await self._kill(self.chance.sample(self.managers, 2))

    async def leader_frozen(self) -> None:
        """The leader stands still, and goes on later as if nothing had been."""
        leader = await self.cluster.leader(self.managers, within=WHOLE)
        assert leader.process is not None
        leader.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.1, 3.0))
        leader.process.send_signal(signal.SIGCONT)

    async def _kill(self, managers: list[AgentProcess]) -> None:
        for manager in managers:
            manager.kill()
        await asyncio.sleep(self.chance.uniform(0.0, 2.0))
        for manager in managers:
            manager.start()
            await manager.ready()

    async def _whole(self) -> None:
        for manager in self.managers:
            await self.cluster.until_managers(len(self.managers), manager, WHOLE)
        await self._steady()

    async def _steady(self) -> None:
        """All tasks of the service that was there from the beginning run."""
        filters = '{"service":["steady"],"desired-state":["running"]}'
        await eventually(
            self.managers[0],
            lambda tasks: (
                isinstance(tasks, list)
                and [task["Status"]["State"] for task in tasks] == ["running"] * self.replicas
                and len({task["Slot"] for task in tasks}) == self.replicas
            ),
            f"/tasks?filters={filters}",
            WHOLE,
        )

    async def _agree(self) -> None:
        """Every manager shows the same services; what a writer had under way when it was stopped may still come in."""
        deadline = time.monotonic() + WHOLE
        while True:
            shown = [sorted(await listed(manager)) for manager in self.managers]
            if all(names == shown[0] for names in shown[1:]):
                return
            differing = [sorted({*names} ^ {*shown[0]})[:10] for names in shown[1:]]
            assert time.monotonic() < deadline, f"the managers do not agree: {differing}"
            await asyncio.sleep(0.1)
