"""Starts what runs in an instance: the machine, its engine and images, its agent; each waits until the one before answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from swarmtui.docker_api.errors import EngineError
from swarmtui.playground import agents, engine, forming
from swarmtui.playground.addresses import LAST_NUMBER, hosts_file
from swarmtui.playground.instance import Instance
from swarmtui.playground.keeping import KeeperFailed, KeeperLink
from swarmtui.playground.preparing import Ground
from swarmtui.playground.tier import Tier

_FIRST_ANSWER = 60.0
"""Seconds that an engine or an agent may take until it answers; on a machine that is busy they take ten."""


class Step(StrEnum):
    """What has been done for an instance, in this order; images are loaded while the agent starts."""

    MACHINE = "machine"
    ENGINE = "engine"
    IMAGES = "images"
    AGENT = "agent"
    CLUSTER = "in the cluster"
    READY = "ready"


class Booting:
    """For all instances of one session. `done` is called after each step."""

    def __init__(
        self,
        link: KeeperLink,
        ground: Ground,
        environment: Mapping[str, str],
        agent: Sequence[str],
        done: Callable[[Instance, Step], None],
    ) -> None:
        self._link = link
        self._ground = ground
        self._environment = environment
        self._agent = agent
        self._done = done
        self._endings: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._archive: asyncio.Task[Path] | None = None

    async def start(self, instance: Instance) -> None:
        """Switch an instance on and return when its agent answers. Raises EngineFailed, KeeperFailed, EngineError."""
        instance.folder.mkdir(exist_ok=True)
        addressing = self._ground.addressing
        address = f"{instance.address}/24" if addressing.subnet else ""
        hosts = hosts_file(addressing, range(1, LAST_NUMBER + 1)) if addressing.subnet else ""
        instance.pid = await self._link.start(instance.name, address, hosts)
        self._done(instance, Step.MACHINE)
        if self._ground.choice.tier is not Tier.ENGINE:
            await self.start_agent(instance)
            return
        await self._start_engine(instance)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load_images(instance))
            group.create_task(self.start_agent(instance))

    async def start_agent(self, instance: Instance) -> None:
        """Start the agent alone, in an instance that is switched on."""
        command = agents.command(instance, self._ground.choice.tier, self._agent)
        instance.socket.unlink(missing_ok=True)
        instance.agent_pid = await self._spawn(instance, agents.SERVICE, command, instance.docker_host)
        self._done(instance, Step.AGENT)

    async def close(self) -> None:
        """End what is still being made."""
        if self._archive is not None:
            self._archive.cancel()
            await asyncio.gather(self._archive, return_exceptions=True)

    # What the keeper tells

    def ended(self, instance: Instance, service: str, status: int) -> None:
        """A service has ended: who waits for its answer hears why."""
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = last_lines(instance.folder / f"{service}.log")
        self._tell(instance, service, f"the {service} of {instance.name} {how}: {said}")

    def stopped(self, instance: Instance) -> None:
        """An instance has ended, and all services in it."""
        for name, service in list(self._endings):
            if name == instance.name:
                self._tell(instance, service, f"{instance.name} was stopped while its {service} ran")

    def _tell(self, instance: Instance, service: str, text: str) -> None:
        ending = self._endings.get((instance.name, service))
        if ending is not None and not ending.done():
            ending.set_result(text)

    # Steps

    async def _start_engine(self, instance: Instance) -> None:
        try:
            await self._spawn(instance, engine.SERVICE, engine.command(instance), instance.engine_host)
        except (EngineError, KeeperFailed) as error:
            raise engine.EngineFailed(str(error)) from error
        self._done(instance, Step.ENGINE)

    async def _load_images(self, instance: Instance) -> None:
        """The first instance has the archive made, which is the same for all."""
        if self._archive is None:
            target = self._ground.folder / "images.tar"
            self._archive = asyncio.create_task(engine.export_images(target, self._environment))
        await engine.load_images(instance, await asyncio.shield(self._archive))
        self._done(instance, Step.IMAGES)

    async def _spawn(self, instance: Instance, service: str, command: Sequence[str], host: str) -> int:
        """Start a service and wait until its API answers; returns its process id."""
        self._endings[instance.name, service] = asyncio.get_running_loop().create_future()
        log = instance.folder / f"{service}.log"
        environment = {**self._environment, **agents.ENVIRONMENT}
        pid = await self._link.spawn(instance.name, service, command, environment, log)
        await forming.answering(host, self._ending(instance.name, service), _FIRST_ANSWER)
        return pid

    async def _ending(self, instance: str, service: str) -> str:
        return await asyncio.shield(self._endings[instance, service])


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log, on one line."""
    try:
        return " / ".join(log.read_text(errors="replace").strip().splitlines()[-count:]) or "it said nothing"
    except FileNotFoundError:
        return "it said nothing"
