"""What the containers API asks of the process executor: `docker ps`, inspect, logs, top, stats, stop, kill, rm, exec, images.

Errors are the API's own, with Docker's texts and statuses. Answers are JSON objects as the engine would send them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from agent.api_types.errors import ApiError, InvalidArgument, NotFound, Unavailable
from agent.api_types.times import SECOND, Clock
from agent.worker.executors.images import catalog, programs
from agent.worker.executors.process import docker_json, usage
from agent.worker.executors.process.cgroups import Usage
from agent.worker.executors.process.container import OUT_OF_MEMORY, Container, Surroundings
from agent.worker.executors.process.controller import container_logs
from agent.worker.executors.process.docker_json import Json, View
from agent.worker.executors.process.execs import ExecProcess, ExecRefused, execute
from agent.worker.executors.process.host import UnknownAccount, find_account
from agent.worker.executors.process.plan import parse_signal
from agent.worker.executors.process.records import Phase
from agent.worker.interface import LogLine, RejectedByExecutor, Stream, TemporaryFailure

Filters = Mapping[str, Sequence[str]]
STATS_PERIOD = 1.0

_FILTER_NAMES = "ancestor before exited expose health id is-task label name network publish since status volume"
FILTERS = frozenset(_FILTER_NAMES.split(" "))
"""Filters of `docker ps` that engine 20.10 takes, but for Windows' isolation."""


class Conflict(ApiError):
    """The container's state does not allow it."""

    status = 409


class Inventory:
    """Containers by what people call them: id, the beginning of an id, or name."""

    def __init__(
        self,
        containers: Callable[[], Awaitable[list[Container]]],
        surroundings: Callable[[], Awaitable[Surroundings]],
        forget: Callable[[str], Awaitable[None]],
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._containers = containers
        self._surroundings = surroundings
        self._forget = forget
        self._clock = clock
        self._sleep = sleep

    async def find(self, reference: str) -> Container:
        """The container of that id, name or beginning of an id."""
        wanted = reference.removeprefix("/")
        containers = await self._containers()
        for container in containers:
            if wanted in (container.record.container_id, container.record.name):
                return container
        found = [container for container in containers if wanted and container.record.container_id.startswith(wanted)]
        if len(found) > 1:
            raise InvalidArgument(f"Multiple IDs found with provided prefix: {wanted}")
        if not found:
            raise NotFound(f"No such container: {wanted}")
        return found[0]

    async def list_containers(self, all: bool = False, filters: Filters | None = None, limit: int = 0) -> list[Json]:
        """GET /containers/json, newest first. A filter on the status means all states, as does a limit."""
        wanted = filters or {}
        for name in wanted:
            if name not in FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        views = [self._view(container) for container in await self._containers()]
        bounds = [await self._bound(wanted, name) for name in ("before", "since")]
        shown = all or bool(limit) or "status" in wanted or "exited" in wanted
        chosen = [
            view
            for view in views
            if (shown or view.phase is Phase.RUNNING)
            and matches(view, wanted)
            and (bounds[0] is None or view.record.created_at < bounds[0])
            and (bounds[1] is None or view.record.created_at > bounds[1])
        ]
        return [docker_json.summary(view) for view in (chosen[:limit] if limit > 0 else chosen)]

    async def inspect(self, reference: str) -> Json:
        """GET /containers/ID/json."""
        container = await self.find(reference)
        image = next((image for image in catalog.IMAGES if image.id == container.record.image_id), None)
        return docker_json.inspection(self._view(container), image, str(container.folder))

    async def logs(
        self,
        reference: str,
        *,
        since: int = 0,
        until: int = 0,
        follow: bool = False,
        tail: int = -1,
        stdout: bool = True,
        stderr: bool = True,
    ) -> AsyncIterator[LogLine]:
        """Its lines, times in nanoseconds (0 for no bound)."""
        container = await self.find(reference)
        around = await self._surroundings()
        streams = {Stream.STDOUT: stdout, Stream.STDERR: stderr}
        try:
            async for line in container_logs(container, around.watch, since, follow, tail):
                if until and line.timestamp > until:
                    return
                if streams[line.stream]:
                    yield line
        except RejectedByExecutor as error:
            raise ApiError(str(error)) from None

    async def top(self, reference: str) -> Json:
        """GET /containers/ID/top with the columns of `ps -ef`."""
        container = await self._running(reference)
        return usage.top(usage.members(container))

    async def stats(self, reference: str, *, stream: bool = True, one_shot: bool = False) -> AsyncIterator[Json]:
        """GET /containers/ID/stats: an element a second while it runs, or one that knows the second before it."""
        container = await self.find(reference)
        around = await self._surroundings()
        before: Json | None = None
        while True:
            used = usage.measure(container) if container.running else Usage()
            element = usage.stats(container, used, before, self._clock(), around.host.memory_bytes, around.host.cpus)
            if stream or one_shot or before is not None:
                yield element
            if not stream and (one_shot or before is not None):
                return
            before = element
            await self._sleep(STATS_PERIOD)
            if stream and not container.running:
                return

    async def stop(self, reference: str, timeout: int | None = None, signal: str = "") -> bool:
        """POST /containers/ID/stop: the signal, `timeout` seconds (negative: for ever), kill. False when it did not run."""
        container = await self.find(reference)
        if not container.running:
            return False
        number = self._signal(signal) if signal else container.record.stop_signal
        await container.stop(number, container.record.stop_grace if timeout is None else timeout * SECOND)
        return True

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        """POST /containers/ID/kill."""
        number = self._signal(signal or "SIGKILL")
        container = await self.find(reference)
        if not container.send(number):
            raise Conflict(
                f"Cannot kill container: {reference}: Container {container.record.container_id} is not running"
            )

    async def wait(self, reference: str) -> int:
        """POST /containers/ID/wait: the exit code, once it has ended."""
        container = await self.find(reference)
        try:
            return (await container.wait()).code
        except TemporaryFailure:
            return 0  # Docker's answer for a container that was never started

    async def remove(self, reference: str, force: bool = False) -> None:
        """DELETE /containers/ID."""
        container = await self.find(reference)
        if container.running and not force:
            raise Conflict(
                f"You cannot remove a running container {container.record.container_id}. "
                "Stop the container before attempting removal or force remove"
            )
        await self._forget(container.record.task_id)

    async def exec(
        self,
        reference: str,
        cmd: Sequence[str],
        *,
        env: Sequence[str] = (),
        working_dir: str = "",
        user: str = "",
        tty: bool = False,
        stdin: bool = False,
    ) -> ExecProcess:
        """Run a program in a running container. Its streams are the caller's; close it, which also ends it."""
        if not cmd:
            raise InvalidArgument("No exec command specified")
        container = await self._running(reference)
        around = await self._surroundings()
        account = None
        try:
            if user:
                who = find_account(user)
                account = (who.uid, who.gid, list(who.groups or ()))
            return await execute(
                container,
                around.spawner,
                cmd,
                env=env,
                cwd=working_dir,
                account=account,
                terminal=tty,
                stdin=stdin,
            )
        except (ExecRefused, UnknownAccount) as error:
            # The engine's status: the request was right, the program is not.
            raise InvalidArgument(str(error)) from None
        except TemporaryFailure as error:
            raise Unavailable(str(error)) from None

    async def images(self, filters: Filters | None = None) -> list[Json]:
        """GET /images/json."""
        wanted = filters or {}
        chosen = [
            image
            for image in catalog.IMAGES
            if (not wanted.get("reference") or any(_refers(text, image) for text in wanted["reference"]))
            and _labelled(image.labels, wanted.get("label", ()))
        ]
        return docker_json.image_summaries(chosen, await asyncio.to_thread(programs_size))

    async def image(self, reference: str) -> Json:
        """GET /images/NAME/json, by name or id."""
        image = catalog.find_by_id(reference)
        if image is None:
            try:
                image = catalog.find_image(reference)
            except catalog.UnknownImage as error:
                raise NotFound(str(error)) from None
        around = await self._surroundings()
        return docker_json.image_inspection(image, await asyncio.to_thread(programs_size), around.host.architecture)

    # -- inside

    async def _running(self, reference: str) -> Container:
        container = await self.find(reference)
        if not container.running:
            raise Conflict(f"Container {container.record.container_id} is not running")
        return container

    async def _bound(self, filters: Filters, name: str) -> int | None:
        references = filters.get(name)
        return (await self.find(references[0])).record.created_at if references else None

    def _signal(self, text: str) -> int:
        try:
            return parse_signal(text)
        except RejectedByExecutor:
            raise InvalidArgument(f"Invalid signal: {text}") from None

    def _view(self, container: Container) -> View:
        container.look()
        killed = container.exit is not None and container.exit.error == OUT_OF_MEMORY
        return View(
            record=container.record,
            phase=container.phase,
            run=container.run,
            exit=container.exit,
            health=container.health,
            now=self._clock(),
            out_of_memory=killed,
        )


def matches(view: View, filters: Filters) -> bool:
    """Whether a container is among those asked for. Values of one filter are alternatives, labels are all needed."""
    record = view.record
    health = view.health.status.value if view.health is not None else "none"
    published = [f"{port.published_port}/{port.protocol or 'tcp'}" for port in record.published]
    facts: dict[str, Callable[[str], bool]] = {
        "id": record.container_id.startswith,
        "name": lambda text: text.removeprefix("/") in record.name,
        "status": lambda text: text == docker_json.state_name(view),
        "health": lambda text: text == health,
        "ancestor": lambda text: _is_from(text, record.image, record.image_id),
        "exited": lambda text: view.exit is not None and str(view.exit.code) == text,
        "is-task": lambda text: text in ("true", "1"),
        "network": lambda text: text == "host",
        "volume": lambda text: any(text in (mount.name, mount.target) for mount in record.mounts),
        "publish": lambda text: _port(text) in published,
        "expose": lambda text: _port(text) in record.exposed,
    }
    return _labelled(record.labels, filters.get("label", ())) and all(
        any(fact(text) for text in filters[name]) for name, fact in facts.items() if filters.get(name)
    )


def _labelled(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    pairs = [text.partition("=") for text in wanted]
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in pairs)


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _is_from(text: str, image: str, image_id: str) -> bool:
    if text in (image, image_id):
        return True
    try:
        return catalog.find_image(text).id == image_id
    except catalog.UnknownImage:
        found = catalog.find_by_id(text)
        return found is not None and found.id == image_id


def _refers(text: str, image: catalog.Image) -> bool:
    try:
        reference = catalog.parse_reference(text)
    except catalog.UnknownImage:
        return False
    return reference.name == image.name and reference.tag in ("", image.tag)


def programs_size() -> int:
    """Bytes of the images' programs, which all images share."""
    folder = os.path.dirname(programs.__file__)
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.name.endswith(".py"))
