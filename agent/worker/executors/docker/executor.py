"""The executor: the engine's description, the controllers of tasks, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from agent.api_types.network import NetworkAttachment
from agent.api_types.node import NodeDescription
from agent.api_types.task import Task
from agent.worker.executors.docker import names
from agent.worker.executors.docker.controller import DockerController, Surroundings
from agent.worker.executors.docker.describe import EngineInfo, description
from agent.worker.executors.docker.engine import Engine, EngineError, filters
from agent.worker.executors.docker.events import Events
from agent.worker.executors.docker.files import TaskFiles
from agent.worker.executors.docker.images import Credentials, Images
from agent.worker.executors.docker.networks import Bridging, OverlayNetworks, endpoint_config
from agent.worker.interface import Dependencies, RejectedByExecutor, TemporaryFailure
from agent.worker.overlay_places import overlay_places

SECRETS_ROOT = Path("/dev/shm/swarmtui")


class _Listed(msgspec.Struct, frozen=True, rename="pascal"):
    labels: dict[str, str] | None = None


class DockerExecutor:
    """`Executor` on the engine at `address` (`unix:///path`). Must be made on a running loop; `close` ends it.

    `owner` tells the containers of agents that share an engine apart; `secrets_root` is a folder on a tmpfs that engine and
    agent both see. With `prefer_local_images` an image that is here is not asked of its registry again. `bridging` says how
    this host has overlay networks; without it tasks that ask for one are refused.
    """

    def __init__(
        self,
        address: str,
        *,
        owner: str = "",
        secrets_root: Path = SECRETS_ROOT,
        credentials: Credentials = lambda image: None,
        prefer_local_images: bool = False,
        bridging: Bridging | None = None,
    ) -> None:
        self._engine = Engine(address)
        self._networks = OverlayNetworks(self._engine, owner, bridging) if bridging is not None else None
        self._owner = owner
        self._secrets_root = secrets_root / (owner or "agent")
        self._events = Events(self._engine)
        self._reading = asyncio.create_task(self._events.run(), name="engine events")
        self._requests: set[asyncio.Task[None]] = set()
        self._described: NodeDescription | None = None
        self._around = Surroundings(
            engine=self._engine,
            events=self._events,
            images=Images(self._engine, credentials, prefer_local_images),
            owner=owner,
            describe=self._last_description,
            spawn=self._spawn,
            networks=self._networks,
        )

    async def describe(self) -> NodeDescription:
        """The engine's host. TemporaryFailure while the engine is away."""
        try:
            self._described = description(await self._engine.get("info", EngineInfo))
        except EngineError as error:
            raise TemporaryFailure(f"the Docker Engine does not describe itself: {error.message}") from None
        return self._described

    async def description_changed(self) -> None:
        """Wait until `describe` may answer differently: the engine was restarted or read its settings again."""
        await self._events.engine_changed()

    async def controller(self, task: Task, dependencies: Dependencies) -> DockerController:
        """The controller of `task`; asks the engine nothing yet."""
        return DockerController(task, dependencies, TaskFiles(self._secrets_root, task.id), self._around)

    async def known_tasks(self) -> list[str]:
        """Every task of this agent that has a container or files here."""
        label = filters(label=[f"{names.OWNER}={self._owner}", names.TASK_ID])
        try:
            listed = await self._engine.get("containers/json", list[_Listed], {"all": True, "filters": label})
        except EngineError as error:
            raise TemporaryFailure(f"the Docker Engine does not list its containers: {error.message}") from None
        tasks = {(one.labels or {}).get(names.TASK_ID, "") for one in listed}
        if self._secrets_root.is_dir():
            tasks |= {folder.name for folder in self._secrets_root.iterdir()}
        return sorted(tasks - {""})

    async def place(self, attachment: NetworkAttachment) -> tuple[str, dict[str, Any], list[str]]:
        """A place on an overlay for a container that is no task's; the overlay is on this host already.

        The engine's name of the network, the endpoint's configuration, the resolvers that know the network's names.
        RejectedByExecutor and TemporaryFailure when it cannot be had.
        """
        if self._networks is None:
            raise RejectedByExecutor("this agent does not look after networks")
        (place,) = overlay_places(Task(networks_attachments=[attachment]))
        name = await self._networks.have(place)
        return name, endpoint_config(place, self._networks.bridging), list(place.gateways[:1])

    async def release_network(self, network_id: str) -> None:
        """No task of this host is on the overlay any more. TemporaryFailure while a container is."""
        if self._networks is not None:
            await self._networks.remove(network_id)

    async def close(self) -> None:
        """Wait for requests that must not be broken off, then let go of the engine. Containers go on."""
        if self._requests:
            await asyncio.wait(self._requests)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._engine.close()

    async def _last_description(self) -> NodeDescription:
        return self._described if self._described is not None else await self.describe()

    def _spawn(self, request: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(request)
        self._requests.add(task)
        task.add_done_callback(self._requested)
        return task

    def _requested(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            # Whoever still waits gets the error from the task; for others it must not count as lost.
            task.exception()
