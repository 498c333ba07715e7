"""A cluster that things happen to: a playground for as long as is asked, or so many rounds of dying managers.

`./run soak MINUTES=10` starts a playground.
Each round does one thing (an agent is killed, a power cut, a machine hangs, one is added or removed, a service is scaled) and
waits until every replica runs on a node that is there. Managers are harmed too, one of them at a time. It ends with how long that
took, by kind, or with the first round that did not heal, its seed and the state of the cluster.

`./run soak ROUNDS=100` runs three managers and two workers as processes of this machine, with writers at every manager. In
each round managers are killed or frozen; in the end nothing acknowledged may be missing, and two tasks may never be wanted in
one slot.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from swarmtui.docker_api.address import EngineAddress, parse_address
from swarmtui.docker_api.client import EngineClient
from swarmtui.docker_api.errors import EngineError
from swarmtui.playground import forming
from swarmtui.playground.instance import Instance, InstanceState, Role
from swarmtui.playground.session import Options, PlaygroundError, PlaygroundSession

PATIENCE = 60.0
IMAGE = "swarmtui/whoami"
NAME = "soak"
MANAGERS = 3


class DidNotHeal(Exception):
    """The text says what the cluster looked like."""


class Soak:
    """One cluster, one service, one source of chance."""

    def __init__(self, session: PlaygroundSession, api: EngineClient, chance: random.Random) -> None:
        self._session = session
        self._api = api
        self._chance = chance
        self._replicas = 6

    async def begin(self) -> None:
        """Create the service."""
        spec = {
            "Name": NAME,
            "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}, "RestartPolicy": {"Delay": 1_000_000_000}},
            "Mode": {"Replicated": {"Replicas": self._replicas}},
        }
        await self._api.create_service(spec)
        await self.healed()

    async def round(self) -> tuple[str, float]:
        """Do one thing; what it was and how many seconds the cluster took to be whole again."""
        name, what = self._chance.choice(self._possible())
        began = time.monotonic()
        await what()
        await self.healed()
        return name, time.monotonic() - began

    async def healed(self) -> None:
        """Return when the service runs in full, each replica once, on nodes that are there."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not await seen(self._is_whole()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise DidNotHeal(await self._picture()) from None

    async def _is_whole(self) -> bool:
        ready = {node.id for node in await self._api.nodes() if node.status.state == "ready"}
        wanted = [task for task in await self._api.tasks() if task.desired_state == "running"]
        running = [task for task in wanted if task.status.state == "running" and task.node_id in ready]
        return len(running) == len(wanted) == len({task.slot for task in running}) == self._replicas

    async def _picture(self) -> str:
        lines = [f"wanted: {self._replicas}"]
        lines += [f"{node.description.hostname}: {node.status.state}" for node in await self._api.nodes()]
        lines += [
            f"{task.slot} {task.id} on {task.node_id}: {task.status.state}, wanted {task.desired_state} {task.status.err}"
            for task in await self._api.tasks()
        ]
        return "\n".join(lines)

    async def _is_lost(self, instance: Instance) -> None:
        """Return when the cluster and the session have noticed; before, all looks whole."""
        async with asyncio.timeout(PATIENCE):
            while instance.state is InstanceState.RUNNING or not await seen(self._is_missed(instance)):
                await asyncio.sleep(0.05)

    async def _is_missed(self, instance: Instance) -> bool:
        named = [node for node in await self._api.nodes() if node.description.hostname == instance.name]
        return all(node.status.state != "ready" for node in named)

    # What can happen

    def _possible(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        possible: list[tuple[str, Callable[[], Awaitable[None]]]] = [("scale", self.scale)]
        if len(self._running(Role.WORKER)) > 2:
            possible += [("removed", self.removed), *self._harms(Role.WORKER)]
        if len(self._running(Role.MANAGER)) == MANAGERS:
            possible += self._harms(Role.MANAGER)
        if len(self._session.instances) < self._session.limit:
            possible += [("added", self.added)] * 2
        if self._stopped():
            possible += [("started_again", self.started_again)] * 3
        return possible

    def _harms(self, role: Role) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        harms = [self.agent_killed, self.power_cut, *([self.hangs] if self._session.tier.grouped else [])]
        return [(f"{role} {harm.__name__}", partial(harm, role)) for harm in harms]

    def _running(self, role: Role) -> list[Instance]:
        return [one for one in self._session.instances if one.role is role and one.state is InstanceState.RUNNING]

    def _stopped(self) -> list[Instance]:
        stopped = (InstanceState.STOPPED, InstanceState.WITHOUT_AGENT)
        return [one for one in self._session.instances if one.state in stopped]

    async def scale(self) -> None:
        """The service gets another number of replicas."""
        self._replicas = self._chance.randint(1, 12)
        service = await self._api.raw_service(NAME)
        spec = {**service["Spec"], "Mode": {"Replicated": {"Replicas": self._replicas}}}
        await self._api.update_service(service["ID"], service["Version"]["Index"], spec)

    async def agent_killed(self, role: Role) -> None:
        """An agent is killed; its tasks are not."""
        harmed = self._chance.choice(self._running(role))
        os.kill(harmed.agent_pid, signal.SIGKILL)
        await self._is_lost(harmed)

    async def power_cut(self, role: Role) -> None:
        """Everything in an instance is killed."""
        harmed = self._chance.choice(self._running(role))
        os.kill(harmed.pid, signal.SIGKILL)
        await self._is_lost(harmed)

    async def hangs(self, role: Role) -> None:
        """An instance stands still for a while, then goes on as if nothing had been."""
        name = self._chance.choice(self._running(role)).name
        await self._session.freeze(name)
        await asyncio.sleep(self._chance.uniform(0.5, 6))
        await self._session.thaw(name)

    async def started_again(self) -> None:
        """A stopped instance is switched on, or an agent started."""
        chosen = self._chance.choice(self._stopped())
        others = [one for one in self._running(Role.MANAGER) if one is not chosen]
        await self._session.start(chosen.name)
        managers = [chosen.name] if chosen.role is Role.MANAGER else []
        await forming.all_ready(others[0].docker_host, [chosen.name], PATIENCE, managers=managers)

    async def added(self) -> None:
        """One more instance."""
        await self._session.add()

    async def removed(self) -> None:
        """One less."""
        await self._session.remove(self._chance.choice(self._running(Role.WORKER)).name)


async def seen(look: Awaitable[bool]) -> bool:
    """What a look at the cluster finds; while another manager takes over there may be nothing to see."""
    try:
        return await look
    except EngineError:
        return False


async def soak(minutes: float, tier: str, seed: int) -> None:
    """Rounds until the time is over; the figures on stdout."""
    took: dict[str, list[float]] = defaultdict(list)
    async with PlaygroundSession(Options(nodes=6, limit=8, tier=tier, managers=MANAGERS)) as session:

        def managers() -> list[EngineAddress]:
            return [parse_address(one.docker_host) for one in session.instances if one.role is Role.MANAGER]

        async with EngineClient(managers()[0], timeout=30.0, others=managers) as api:
            running = Soak(session, api, random.Random(seed))
            await running.begin()
            end = time.monotonic() + minutes * 60
            while time.monotonic() < end:
                what, seconds = await running.round()
                took[what].append(seconds)
                print(f"{what}: {seconds:.1f} s", file=sys.stderr)
        kind = session.tier.tier
    _print_times(took)
    print(f"tier {kind}, seed {seed}: {sum(map(len, took.values()))} rounds, all healed")


async def soak_managers(rounds: int, seed: int) -> None:
    """So many rounds of faults among three managers; the figures on stdout."""
    sys.path.insert(0, str(Path(__file__).parent / "integration"))
    from cluster import running_cluster
    from manager_rounds import Rounds

    async with running_cluster(5, managers=3) as cluster:
        running = Rounds(cluster, cluster.nodes[:3], random.Random(seed))
        writer = await running.run(rounds, lambda line: print(line, file=sys.stderr))
    took: dict[str, list[float]] = defaultdict(list)
    for what, seconds in running.written:
        took[what].append(seconds)
    _print_times(took)
    print(
        f"seed {seed}: {rounds} rounds; {len(writer.acknowledged)} writes acknowledged and none lost, the slowest took "
        f"{writer.longest:.1f} s; {len(writer.refused)} refused and none of those done; {len(writer.unknown)} with an unknown "
        "outcome"
    )


def _print_times(took: dict[str, list[float]]) -> None:
    for what, times in sorted(took.items()):
        times.sort()
        print(
            f"{what:<14} {len(times):>4} times   median {times[len(times) // 2]:>5.1f} s   longest {times[-1]:>5.1f} s"
        )


def main() -> None:
    """The command line: NAME=VALUE, as `./run soak` has it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="MINUTES=10 TIER=auto ROUNDS=0 SEED=1")
    known = {"MINUTES": "10", "TIER": "auto", "ROUNDS": "0", "SEED": str(random.SystemRandom().randrange(1_000_000))}
    for setting in parser.parse_args().settings:
        name, _, value = setting.partition("=")
        if name not in known:
            parser.error(f"unknown setting {setting!r}; there are {', '.join(known)}")
        known[name] = value
    try:
        if int(known["ROUNDS"]):
            asyncio.run(soak_managers(int(known["ROUNDS"]), int(known["SEED"])))
        else:
            asyncio.run(soak(float(known["MINUTES"]), known["TIER"], int(known["SEED"])))
    except (DidNotHeal, PlaygroundError, AssertionError) as error:
        sys.exit(f"seed {known['SEED']}: {error}")


if __name__ == "__main__":
    main()
