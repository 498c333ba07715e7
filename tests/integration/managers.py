"""What tests of several managers share: services that are quick to create, a writer that remembers, a look at the slots."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cluster import AgentProcess, Cluster

UNKNOWN_OUTCOME = "may have been made or not"
"""In the answer to a change of which nobody knows what became of it."""

ANSWERS = (OSError, aiohttp.ClientError, TimeoutError)
"""What a caller sees whose manager is gone or says nothing."""


def service(name: str, replicas: int = 0) -> dict[str, Any]:
    """A service; without replicas it costs a write and nothing else."""
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "swarmtui/whoami"},
            "RestartPolicy": {"Condition": "any", "Delay": 100_000_000},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


async def create(node: AgentProcess, name: str, replicas: int = 0, within: float = 20.0) -> float:
    """Create a service; seconds until it was acknowledged."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        status, answer = await node.api("POST", "/services/create", service(name, replicas))
    assert status == 201, f"{name} at {node.name}: {status} {answer}"
    return time.monotonic() - began


async def listed(node: AgentProcess) -> list[str]:
    """The names of the services that a manager knows, each as often as it is there."""
    status, services = await node.api("GET", "/services")
    assert status == 200, services
    return [one["Spec"]["Name"] for one in services]


async def leader_and_others(
    cluster: Cluster, managers: Sequence[AgentProcess]
) -> tuple[AgentProcess, list[AgentProcess]]:
    """Who leads, once every manager is reachable from everywhere, and who does not."""
    for manager in managers:
        await cluster.until_managers(len(managers), manager, within=30)
    leader = await cluster.leader(managers)
    return leader, [manager for manager in managers if manager is not leader]


@dataclass
class Writer:
    """Creates services at managers drawn at random and keeps what it was told."""

    managers: Sequence[AgentProcess]
    chance: random.Random
    patience: float = 10.0
    prefix: str = "w"
    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """What was surely not done, as the answer said."""
    unknown: list[str] = field(default_factory=list)
    longest: float = 0.0

    @contextlib.asynccontextmanager
    async def writing(self, side_by_side: int = 2) -> AsyncIterator[Writer]:
        """Write as long as the body runs."""
        names = itertools.count()
        tasks = [asyncio.create_task(self._write(names)) for _ in range(side_by_side)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if not isinstance(outcome, asyncio.CancelledError):
                    assert not isinstance(outcome, BaseException), outcome

    async def _write(self, names: itertools.count[int]) -> None:
        while True:
            name = f"{self.prefix}{next(names)}"
            node = self.chance.choice(self.managers)
            # It counts as unknown until there is an answer, also when this writer is stopped.
            self.unknown.append(name)
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.patience):
                    status, answer = await node.api("POST", "/services/create", service(name))
            except aiohttp.ClientConnectorError:
                # Nobody was there to be asked.
                self.unknown.remove(name)
                await asyncio.sleep(0.02)
                continue
            except ANSWERS:
                await asyncio.sleep(0.02)
                continue
            if status == 201:
                self.unknown.remove(name)
                self.acknowledged.append(name)
                self.longest = max(self.longest, time.monotonic() - began)
            elif UNKNOWN_OUTCOME not in str(answer):
                self.unknown.remove(name)
                self.refused.append(name)
                await asyncio.sleep(0.02)
            await asyncio.sleep(0)

    def check(self, names: Sequence[str]) -> None:
        """Everything acknowledged is there, nothing that was refused, and nothing twice or out of nowhere."""
        mine = Counter(name for name in names if name.startswith(self.prefix))
        lost = [name for name in self.acknowledged if name not in mine]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged services are lost: {lost[:10]}"
        assert not set(mine) & {*self.refused}, "what was refused was done all the same"
        assert set(mine) <= {*self.acknowledged, *self.unknown}
        assert not mine or max(mine.values()) == 1, [name for name, count in mine.items() if count > 1]


@dataclass
class SlotWatch:
    """Looks at the wanted tasks of a service again and again, at whichever manager answers."""

    managers: Sequence[AgentProcess]
    name: str
    looks: int = 0
    wrong: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[SlotWatch]:
        """Look as long as the body runs; two tasks wanted in one slot fail it."""
        task = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not self.wrong, self.wrong[:5]
        assert self.looks > 0

    async def _watch(self) -> None:
        while True:
            for node in self.managers:
                with contextlib.suppress(*ANSWERS):
                    async with asyncio.timeout(5):
                        status, tasks = await node.api("GET", "/tasks")
                    if status == 200:
                        self.looks += 1
                        self._look(node, tasks)
                await asyncio.sleep(0.05)

    def _look(self, node: AgentProcess, tasks: list[dict[str, Any]]) -> None:
        slots = Counter(
            (task["ServiceID"], task["Slot"]) for task in tasks if "Slot" in task and task["DesiredState"] == "running"
        )
        for slot, count in slots.items():
            if count > 1:
                found = [
                    (task["ID"], task["NodeID"], task["Status"]["State"])
                    for task in tasks
                    if (task["ServiceID"], task.get("Slot")) == slot and task["DesiredState"] == "running"
                ]
                self.wrong.append(f"{node.name} wants {count} tasks in slot {slot}: {found}")
