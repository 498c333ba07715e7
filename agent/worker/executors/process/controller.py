"""One task on this host, as the worker drives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from agent.api_types.task import ContainerStatus, PortStatus
from agent.api_types.times import SECOND, Clock
from agent.worker.executors.process.container import Container
from agent.worker.executors.process.execs import ExecProcess, ExecRefused, run_check
from agent.worker.executors.process.folder_watch import FolderWatch
from agent.worker.executors.process.health import Health, HealthState, Result
from agent.worker.executors.process.host import LOW_PORT
from agent.worker.executors.process.logs import read_log
from agent.worker.executors.process.records import ExitRecord, Phase
from agent.worker.interface import Dependencies, ExitStatus, LogLine, RejectedByExecutor, TemporaryFailure

UNHEALTHY = "dockerexec: unhealthy container"
"""moby's text (daemon/cluster/executor/container/errors.go)."""

Sleep = Callable[[float], Awaitable[None]]


def exit_status(exit: ExitRecord, stopping: bool, unhealthy: bool = False) -> ExitStatus:
    """How the worker is told of an end, with SwarmKit's text. An end that was wanted is no error."""
    if stopping and not unhealthy:
        return ExitStatus(exit.code)
    cause = UNHEALTHY if unhealthy else exit.error
    if exit.code == 0:
        return ExitStatus(0, cause)
    return ExitStatus(exit.code, f"task: non-zero exit ({exit.code})" + (f": {cause}" if cause else ""))


class ProcessController:
    """Implements `Controller`. Several of one task share its container."""

    def __init__(
        self,
        find: Callable[[], Container | None],
        create: Callable[[], Awaitable[Container]],
        forget: Callable[[], Awaitable[None]],
        execute: Callable[[Container, tuple[str, ...]], Awaitable[ExecProcess]],
        watch: FolderWatch,
        dependencies: Dependencies,
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self._find = find
        self._create = create
        self._forget = forget
        self._execute = execute
        self._watch = watch
        self._dependencies = dependencies
        self._clock = clock
        self._sleep = sleep

    async def prepare(self) -> None:
        """Decide on everything and write it down."""
        if self._find() is None:
            await self._create()

    async def start(self) -> None:
        """Start it; with a health check, return when it is healthy."""
        container = self._existing()
        await container.start(self._dependencies)
        health = container.begin_health()
        if health is None or health.status is Health.HEALTHY:
            return
        ended = await self._watch_health(container, health, until_healthy=True)
        if ended is not None and (ended.error or ended.code):
            raise RejectedByExecutor(ended.error or f"task: non-zero exit ({ended.code})")

    async def wait(self) -> ExitStatus:
        """Return when it ended; meanwhile its health is looked after."""
        container = self._existing()
        health = container.begin_health()
        if health is not None:
            ended = await self._watch_health(container, health, until_healthy=False)
            assert ended is not None
            return ended
        return exit_status(await container.wait(), container.stopping)

    async def shutdown(self) -> None:
        """Stop signal, grace period, kill."""
        container = self._find()
        if container is not None:
            container.want_end()
            await container.stop(container.record.stop_signal, container.record.stop_grace)

    async def terminate(self) -> None:
        """Kill it."""
        container = self._find()
        if container is not None:
            container.want_end()
            await container.kill()

    async def remove(self) -> None:
        """End it and remove all of it."""
        await self._forget()

    async def logs(self, since: int, follow: bool, tail: int) -> AsyncIterator[LogLine]:
        """Its lines; nothing for a task that never came to be."""
        container = self._find()
        if container is None:
            return
        async for line in container_logs(container, self._watch, since, follow, tail):
            yield line

    async def status(self) -> tuple[ContainerStatus | None, PortStatus]:
        """As it is now; host ports while it runs."""
        container = self._find()
        if container is None:
            return None, PortStatus()
        running = container.running
        status = ContainerStatus(
            container_id=container.record.container_id,
            pid=container.run.task if running and container.run is not None else 0,
            exit_code=container.exit.code if container.exit is not None else 0,
        )
        return status, PortStatus(ports=list(container.record.published) if running else [])

    def address(self, port: int, protocol: str) -> tuple[str, int] | None:
        """The task's own loopback address; low ports are moved up where they are kept to root."""
        container = self._find()
        if container is None or not container.running:
            return None
        record = container.record
        return record.address, port + record.port_shift if port < LOW_PORT else port

    def _existing(self) -> Container:
        container = self._find()
        if container is None:
            raise TemporaryFailure("the container was not prepared, or is removed")
        return container

    async def _watch_health(self, container: Container, health: HealthState, until_healthy: bool) -> ExitStatus | None:
        """Check until it is healthy (None, if that is asked for), or until it ended or was stopped as unhealthy."""
        checks = asyncio.create_task(self._check(container, health, until_healthy))
        end = asyncio.create_task(container.wait())
        try:
            await asyncio.wait({checks, end}, return_when=asyncio.FIRST_COMPLETED)
            if not end.done() and checks.result() is Health.HEALTHY:
                return None
        finally:
            for task in (checks, end):
                task.cancel()
            await asyncio.wait({checks, end})
        if container.running:
            await container.stop(container.record.stop_signal, container.record.stop_grace)
        unhealthy = health.status is Health.UNHEALTHY
        return exit_status(await container.wait(), container.stopping, unhealthy)

    async def _check(self, container: Container, health: HealthState, until_healthy: bool) -> Health:
        while True:
            await self._sleep(health.pause(self._clock()) / SECOND)
            status = health.add(await self._run(container, health))
            if status is Health.UNHEALTHY or (until_healthy and status is Health.HEALTHY):
                return status

    async def _run(self, container: Container, health: HealthState) -> Result:
        start = self._clock()
        timeout = health.check.timeout / SECOND
        try:
            async with asyncio.timeout(timeout):
                process = await self._execute(container, health.check.argv)
                code, output = await run_check(process)
        except TimeoutError:
            code, output = -1, f"Health check exceeded timeout ({timeout:g}s)"
        except ExecRefused as error:
            code, output = -1, str(error)
        except TemporaryFailure as error:
            # Nothing is known of the container's health; it is over, or the host is short of something.
            code, output = -1, str(error)
        return Result(start, self._clock(), code, output)


async def container_logs(
    container: Container, watch: FolderWatch, since: int, follow: bool, tail: int
) -> AsyncIterator[LogLine]:
    """Lines of a container, as `Controller.logs` wants them. RejectedByExecutor when it keeps none."""
    if container.record.log_driver == "none":
        raise RejectedByExecutor("configured logging driver does not support reading")

    def ended() -> bool:
        container.look()
        return container.removed or container.phase is Phase.EXITED or not container.folder.is_dir()

    async for line in read_log(
        container.folder,
        since=since,
        tail=tail,
        follow=follow,
        watching=watch.watching,
        ended=ended,
        end=container.gone,
    ):
        yield line
