"""One task as a container of the engine (moby daemon/cluster/executor/container/controller.go)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from agent.api_types.container import ContainerSpec
from agent.api_types.node import NodeDescription
from agent.api_types.task import ContainerStatus, PortStatus, Task
from agent.api_types.times import SECOND
from agent.worker.executors.docker import names, outcome
from agent.worker.executors.docker.container import Placement, create_body, grace_seconds
from agent.worker.executors.docker.engine import (
    ANSWER_TIMEOUT,
    Engine,
    EngineError,
    EngineUnavailable,
    Query,
    filters,
)
from agent.worker.executors.docker.events import Events, Watching
from agent.worker.executors.docker.files import Delivered, TaskFiles
from agent.worker.executors.docker.images import Images
from agent.worker.executors.docker.networks import OverlayNetworks, endpoint_config
from agent.worker.executors.docker.outcome import Container
from agent.worker.executors.docker.output import Framed, Terminal
from agent.worker.executors.docker.template import Expansion, expand_spec
from agent.worker.interface import Dependencies, ExitStatus, LogLine, RejectedByExecutor
from agent.worker.overlay_places import OverlayPlace, overlay_places, refuse_overlays

log = logging.getLogger(__name__)

LOOK_AGAIN = 0.5
"""Seconds until a container is looked at again when the engine did not answer though its events still come."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the controllers of an executor share."""

    engine: Engine
    events: Events
    images: Images
    owner: str
    describe: Callable[[], Awaitable[NodeDescription]]
    spawn: Callable[[Awaitable[None]], asyncio.Task[None]]
    """Starts a request that must not be broken off half-way; the executor waits for it before it closes."""
    networks: OverlayNetworks | None = None
    """Overlays at the engine; None where this host cannot have any, `no_networks` says why."""
    no_networks: str = "its agent does not look after networks"


class _Found(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    names: list[str] = []


class _Created(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


class DockerController:
    """`Controller` of `task`. The container is found by the task's label, so any number of agents may come and go."""

    def __init__(self, task: Task, dependencies: Dependencies, files: TaskFiles, around: Surroundings) -> None:
        self._task = task
        self._dependencies = dependencies
        self._files = files
        self._around = around
        self._engine = around.engine
        self._id: str | None = None
        self._address: str | None = None
        self._pending: asyncio.Task[None] | None = None

    # -- Controller

    async def prepare(self) -> None:
        """See to image, files and container."""
        spec = self._task.spec.container_spec
        if spec is None:
            raise RejectedByExecutor("the task has no container: plugins and attachments are not for this executor")
        if self._around.networks is None:
            refuse_overlays(self._task, self._around.no_networks)
        await self._settled()
        if await self._find() is None:
            node = await self._around.describe()
            spec = expand_spec(spec, Expansion.of(self._task, node))
            files = self._files.deliver(spec, self._dependencies)
            registry_auth = spec.pull_options.registry_auth if spec.pull_options is not None else ""
            not_pulled = await self._around.images.have(spec.image, registry_auth)
            places = overlay_places(self._task)
            body = create_body(self._task, spec, await self._placement(files, places))
            await self._whole(lambda: self._create(body, spec.image, not_pulled))
        else:
            # After a reboot of the host the container is there and what was in memory is not.
            self._files.deliver(spec, self._dependencies)

    async def start(self) -> None:
        """Start it; with a health check, wait until it is healthy."""
        await self._settled()
        with self._around.events.watch(self._task.id) as watching:
            container = await self._look()
            if container is None:
                raise RejectedByExecutor(f"No such container: {names.task_name(self._task)}")
            if not container.was_started and not container.runs:
                await self._connect(container)
                await self._whole(self._start)
                container = await self._look()
            await self._healthy(container, watching)

    async def wait(self) -> ExitStatus:
        """Watch it until it ends; stop it when it becomes unhealthy."""
        await self._settled()
        unhealthy = False
        with self._around.events.watch(self._task.id) as watching:
            while True:
                container = await self._patiently(self._look)
                if container is None:
                    return outcome.exit_text(watching.exit_code or 0, outcome.DESTROYED)
                if container.ended:
                    self._files.remove()
                    return outcome.exit_status(container, unhealthy=unhealthy)
                if container.health == "unhealthy" and not unhealthy:
                    unhealthy = True
                    await self.shutdown()
                    continue
                await watching.news()

    async def shutdown(self) -> None:
        """Stop signal, grace, kill; all by the engine, which goes on should the agent die."""
        await self._settled()
        container = await self._look()
        if container is not None and container.runs:
            grace = self._grace(container)
            await self._act("POST", f"containers/{container.id}/stop", {"t": grace}, timeout=ANSWER_TIMEOUT + grace)
        self._files.remove()
        self._address = None

    async def terminate(self) -> None:
        """Kill it and wait until it is gone."""
        await self._settled()
        with self._around.events.watch(self._task.id) as watching:
            container = await self._look()
            if container is not None and container.runs:
                await self._act("POST", f"containers/{container.id}/kill", {"signal": "KILL"}, gone=(404, 409))
            while (container := await self._look()) is not None and container.runs:
                await watching.news()
        self._address = None

    async def remove(self) -> None:
        """Remove container, anonymous volumes and files."""
        await self._settled()
        with self._around.events.watch(self._task.id) as watching:
            while (found := await self._find()) is not None:
                if await self._act("DELETE", f"containers/{found}", {"v": True, "force": True}, gone=(404, 409)) != 409:
                    continue
                # Somebody else is removing it already.
                await watching.news()
        self._files.remove()
        self._id = self._address = None

    async def logs(self, since: int, follow: bool, tail: int) -> AsyncIterator[LogLine]:
        """Its output; a stream that breaks with the engine goes on where it was."""
        last = since - 1
        while (container := await self._patiently(self._look) if follow else await self._look()) is not None:
            try:
                async with aclosing(self._read(container, last + 1, follow, tail)) as lines:
                    async for line in lines:
                        last = max(last, line.timestamp)
                        yield line
            except EngineUnavailable:
                if not follow:
                    raise
                tail = -1
                await self._around.events.connected()
                continue
            except EngineError as error:
                raise RejectedByExecutor(error.message) from None
            return

    async def status(self) -> tuple[ContainerStatus | None, PortStatus]:
        """The container as it is now."""
        container = await self._look()
        if container is None:
            return None, PortStatus()
        return outcome.container_status(container), outcome.port_status(container)

    def address(self, port: int, protocol: str) -> tuple[str, int] | None:
        """The container's own address, as it was last seen."""
        return None if self._address is None else (self._address, port)

    # -- the container

    async def _find(self) -> str | None:
        """The id of the task's container."""
        if self._id is not None and await self._inspect(self._id) is not None:
            return self._id
        label = filters(label=[f"{names.TASK_ID}={self._task.id}", f"{names.OWNER}={self._around.owner}"])
        found = await self._engine.get("containers/json", list[_Found], {"all": True, "filters": label})
        wanted = "/" + names.task_name(self._task)
        found.sort(key=lambda one: wanted not in one.names)
        self._id = found[0].id if found else None
        return self._id

    async def _inspect(self, container_id: str) -> Container | None:
        try:
            return await self._engine.get(f"containers/{container_id}/json", Container)
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _look(self) -> Container | None:
        """The container as it is now, None where there is none."""
        container = await self._inspect(self._id) if self._id is not None else None
        if container is None and await self._find() is not None:
            container = await self._inspect(self._id or "")
        self._address = outcome.address(container) if container is not None else None
        return container

    async def _patiently(self, ask: Callable[[], Awaitable[Container | None]]) -> Container | None:
        """Ask again for as long as the engine is away: a container may well outlive its engine."""
        while True:
            try:
                return await ask()
            except EngineUnavailable as error:
                log.info("task %s: %s; waiting for the engine", self._task.id, error)
                await asyncio.sleep(LOOK_AGAIN)
                await self._around.events.connected()

    async def _create(self, body: object, image: str, not_pulled: str) -> None:
        name = quote(names.task_name(self._task))
        try:
            answer = await self._engine.request("POST", "containers/create", query={"name": name}, body=body)
        except EngineError as error:
            if outcome.name_conflict(error.status, error.message) and await self._find() is not None:
                return
            if outcome.no_such_image(error.status, error.message) and not_pulled:
                raise RejectedByExecutor(f"{error.message} ({not_pulled})") from None
            raise RejectedByExecutor(error.message) from None
        self._id = msgspec.json.decode(answer, type=_Created).id

    async def _placement(self, files: tuple[Delivered, ...], places: Sequence[OverlayPlace]) -> Placement:
        """The first overlay is the container's network from the start; the resolvers know the names of all of them."""
        networks = self._around.networks
        if not places or networks is None:
            return Placement(self._around.owner, files)
        return Placement(
            self._around.owner,
            files,
            network=await networks.have(places[0]),
            endpoint=endpoint_config(places[0], networks.bridging),
            resolvers=tuple(gateway for place in places for gateway in place.gateways[:1]),
        )

    async def _connect(self, container: Container) -> None:
        """Put a container that was made on the rest of its overlays, where it is not on them yet."""
        networks = self._around.networks
        if networks is None:
            return
        for place in overlay_places(self._task)[1:]:
            name = await networks.have(place)
            if name in (container.network_settings.networks or {}):
                continue
            body = {"Container": container.id, "EndpointConfig": endpoint_config(place, networks.bridging)}
            try:
                await self._engine.request("POST", f"networks/{quote(name)}/connect", body=body)
            except EngineError as error:
                if error.status != 403 or "already exists in network" not in error.message:
                    raise RejectedByExecutor(f"network {place.network}: {error.message}") from None

    async def _start(self) -> None:
        try:
            await self._engine.request("POST", f"containers/{self._id}/start")
        except EngineError as error:
            raise RejectedByExecutor(f"starting container failed: {error.message}") from None

    async def _healthy(self, container: Container | None, watching: Watching) -> None:
        """Wait for the first good health check; one that fails for good ends the task with SwarmKit's text."""
        unhealthy = False
        while True:
            if container is None:
                raise RejectedByExecutor(outcome.exit_text(watching.exit_code or 0, outcome.DESTROYED).error)
            if container.health in ("", "healthy"):
                return
            if container.ended:
                end = outcome.exit_status(container, unhealthy=unhealthy)
                if end.error:
                    raise RejectedByExecutor(end.error)
                return
            if container.health == "unhealthy" and not unhealthy:
                unhealthy = True
                await self.shutdown()
            else:
                await watching.news()
            container = await self._look()

    def _grace(self, container: Container) -> int:
        spec: ContainerSpec | None = self._task.spec.container_spec
        if spec is None:
            return container.config.stop_timeout if container.config.stop_timeout is not None else grace_seconds(None)
        return grace_seconds(spec.stop_grace_period)

    # -- requests

    async def _act(
        self,
        method: str,
        path: str,
        query: Query,
        *,
        gone: tuple[int, ...] = (404,),
        timeout: float = ANSWER_TIMEOUT,
    ) -> int:
        """A request that makes the container end; the status, one of `gone` where there was nothing to end."""
        try:
            await self._engine.request(method, path, query=query, timeout=timeout)
        except EngineError as error:
            if error.status in gone:
                return error.status
            raise RejectedByExecutor(error.message) from None
        return 200

    async def _whole(self, request: Callable[[], Awaitable[None]]) -> None:
        """A request that the engine carries out even when nobody waits: cancelled, it goes on, and what comes next waits
        for it. Else a container could come to be after it was looked for and not found."""
        self._pending = self._around.spawn(request())
        await asyncio.shield(self._pending)

    async def _settled(self) -> None:
        """Wait until a request that was broken off has ended, however it did."""
        if self._pending is not None:
            await asyncio.wait({self._pending})
            self._pending = None

    async def _read(self, container: Container, since: int, follow: bool, tail: int) -> AsyncGenerator[LogLine, None]:
        query: dict[str, str | int | bool] = {
            "stdout": True,
            "stderr": True,
            "timestamps": True,
            "follow": follow and container.runs,
            "tail": "all" if tail < 0 else tail,
        }
        if since > 0:
            query["since"] = f"{since // SECOND}.{since % SECOND:09d}"
        parser = Terminal() if container.config.tty else Framed()
        async with self._engine.stream("GET", f"containers/{container.id}/logs", query=query) as answer:
            async for chunk in answer.iter_any():
                for line in parser.feed(chunk):
                    yield line
            for line in parser.rest():
                yield line
