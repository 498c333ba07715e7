"""The executor: finds this node's containers, makes new ones, and hands out what drives and what shows them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from ipaddress import IPv4Network
from pathlib import Path

from agent.api_types.common import Platform, Resources
from agent.api_types.node import EngineDescription, NodeDescription, Plugin
from agent.api_types.task import Task
from agent.api_types.times import Clock, now_ns
from agent.worker.executors.docker.template import Expansion, expand_spec
from agent.worker.executors.images import programs
from agent.worker.executors.process.addresses import AddressPool, NoFreeAddress, node_network
from agent.worker.executors.process.cgroups import Parents
from agent.worker.executors.process.container import Container, Surroundings, open_container
from agent.worker.executors.process.controller import ProcessController, Sleep
from agent.worker.executors.process.execs import ExecProcess, execute
from agent.worker.executors.process.folder_watch import FolderWatch
from agent.worker.executors.process.host import Host, find_account, has_pidfds, look
from agent.worker.executors.process.inventory import Inventory
from agent.worker.executors.process.launching import sandbox_settings
from agent.worker.executors.process.plan import plan_container
from agent.worker.executors.process.records import CONTAINER, write_record
from agent.worker.executors.process.shim.supervise import remove_tree
from agent.worker.executors.process.spawning import Spawner, interpreter
from agent.worker.interface import Controller, Dependencies, RejectedByExecutor, TemporaryFailure
from agent.worker.overlay_places import overlay_places, refuse_overlays

log = logging.getLogger(__name__)

_TASK_ID = re.compile(r"[a-z0-9]{1,64}\Z")


class ProcessExecutor:
    """Implements `Executor` with processes of this host.

    `state_dir` holds containers and volumes. `addresses` (or the node's ordinal on this machine, 127.77.ORDINAL.0/24) is
    where tasks get addresses from. `isolate` and `bound` set to False do without namespaces and control groups where they
    could be had. `namespaces` leads from a task's id to the file of its network namespace, which somebody else makes before
    the task is started; without it tasks that ask for an overlay are refused.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        hostname: str,
        node_ordinal: int = 0,
        addresses: IPv4Network | None = None,
        labels: dict[str, str] | None = None,
        isolate: bool = True,
        bound: bool = True,
        namespaces: Callable[[str], Path] | None = None,
        clock: Clock = now_ns,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._folder = state_dir / "containers"
        self._volumes = state_dir / "volumes"
        self._hostname = hostname
        self._labels = dict(labels or {})
        self._network = addresses or node_network(node_ordinal)
        self._isolate = isolate
        self._bound = bound
        self._namespaces = namespaces
        self._clock = clock
        self._sleep = sleep
        self._containers: dict[str, Container] = {}
        self._opening = asyncio.Lock()
        self._closed = False
        self._around: Surroundings | None = None
        self._pool: AddressPool | None = None
        self.inventory = Inventory(self._all, self._open, self._forget, clock, sleep)
        """What the containers API shows and does."""

    # -- the protocol

    async def describe(self) -> NodeDescription:
        """The host; its plugins are the log drivers and networks that there are."""
        host = (await self._open()).host
        return self._description(host)

    async def controller(self, task: Task, dependencies: Dependencies) -> Controller:
        """The controller of a task; its container is found by the task's id."""
        around = await self._open()
        if not _TASK_ID.match(task.id):
            raise RejectedByExecutor(f"invalid task id: {task.id!r}")

        async def create() -> Container:
            return self._create(task, around)

        async def forget() -> None:
            await self._forget(task.id)

        async def run(container: Container, argv: tuple[str, ...]) -> ExecProcess:
            return await execute(container, around.spawner, argv)

        return ProcessController(
            find=lambda: self._containers.get(task.id),
            create=create,
            forget=forget,
            execute=run,
            watch=around.watch,
            dependencies=dependencies,
            clock=self._clock,
            sleep=self._sleep,
        )

    async def known_tasks(self) -> list[str]:
        """Tasks with a folder here, whole or not."""
        await self._open()
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self._folder) if _TASK_ID.match(name))
        return []

    async def close(self) -> None:
        """Let go; containers go on. Idempotent."""
        self._closed = True
        async with self._opening:
            around, self._around = self._around, None
        if around is None:
            return
        for container in self._containers.values():
            await container.quiet()
            container.close()
        await around.spawner.close()
        around.watch.close()
        around.parents.remove()
        self._containers.clear()

    # -- inside

    async def _all(self) -> list[Container]:
        """All containers, newest first."""
        await self._open()
        return sorted(self._containers.values(), key=lambda container: container.record.created_at, reverse=True)

    async def _open(self) -> Surroundings:
        async with self._opening:
            if self._closed:
                raise TemporaryFailure("the executor is closed")
            if self._around is None:
                self._around = await self._look_around()
            return self._around

    async def _look_around(self) -> Surroundings:
        if not has_pidfds():
            raise RejectedByExecutor("the process executor needs Linux 5.3 or later (pidfd_open)")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        parents = Parents.of_host() if self._bound else Parents([])
        program_path = program_file()
        spawner = Spawner()
        host = look(self._hostname, parents.controllers, interpreter(), program_path)
        try:
            host = replace(host, no_isolation=await self._probe(spawner, host))
        except BaseException:
            await spawner.close()
            raise
        around = Surroundings(spawner, FolderWatch(), parents, host, self._clock)
        newest = ""
        for name in sorted(os.listdir(self._folder)):
            container = open_container(self._folder / name, around) if _TASK_ID.match(name) else None
            if container is not None:
                self._containers[name] = container
        if self._containers:
            on_loopback = [container.record for container in self._containers.values() if not container.record.network]
            newest = max(on_loopback, key=lambda record: record.created_at).address if on_loopback else ""
        self._pool = AddressPool(self._network, newest)
        return around

    async def _probe(self, spawner: Spawner, host: Host) -> str:
        """Empty when containers can be isolated, else why not."""
        if not self._isolate:
            return "switched off"
        if not host.root:
            return "the agent does not run as root"
        settings: dict[str, object] = {"folder": str(self._folder), "root": sandbox_settings(host, [])}
        answer = await spawner.ask("p", settings)
        try:
            word, _, reason = (await answer.line()).partition(" ")
        finally:
            answer.close()
        if word == "allowed":
            return ""
        log.warning("containers share the host's root and processes: %s", reason)
        return reason or "the spawner was killed"

    def _create(self, task: Task, around: Surroundings) -> Container:
        """Write a container's record. No await in here: an address must not be given out twice."""
        spec = task.spec.container_spec
        if spec is None or task.spec.runtime not in ("", "container"):
            raise RejectedByExecutor(f"unsupported runtime {task.spec.runtime or 'without a container'!r}")
        assert self._pool is not None
        if self._namespaces is None:
            refuse_overlays(task, "its agent does not look after networks")
        elif not around.host.isolated:
            refuse_overlays(task, f"containers have no namespaces here ({around.host.no_isolation})")
        network = str(self._namespaces(task.id)) if self._namespaces is not None else ""
        spec = expand_spec(spec, Expansion.of(task, self._description(around.host)))
        folder = self._folder / task.id
        taken = {container.record.address for container in self._containers.values()}
        now = self._clock()
        plan_container(task, spec, around.host, find_account, "", self._volumes, now)
        try:
            address = "" if overlay_places(task) else self._pool.choose(taken)
            record = plan_container(task, spec, around.host, find_account, address, self._volumes, now, network)
            folder.mkdir(mode=0o700, exist_ok=True)
            write_record(folder, CONTAINER, record)
        except NoFreeAddress as error:
            raise TemporaryFailure(str(error)) from None
        except OSError as error:
            raise TemporaryFailure(f"{folder}: {error.strerror}") from None
        container = Container(folder, record, around)
        self._containers[task.id] = container
        return container

    async def _forget(self, task_id: str) -> None:
        container = self._containers.get(task_id)
        if container is not None:
            await container.remove()
            self._containers.pop(task_id, None)
        elif (self._folder / task_id).exists():
            remove_tree(str(self._folder / task_id))

    def _description(self, host: Host) -> NodeDescription:
        plugins: Sequence[tuple[str, str]] = [
            ("Log", "json-file"),
            ("Log", "local"),
            ("Network", "host"),
            ("Volume", "local"),
        ]
        if self._namespaces is not None and host.isolated:
            plugins = [*plugins, ("Network", "overlay")]
        return NodeDescription(
            hostname=self._hostname,
            platform=Platform(architecture=host.architecture, os="linux"),
            resources=Resources(nano_cpus=host.cpus * 1_000_000_000, memory_bytes=host.memory_bytes),
            engine=EngineDescription(
                engine_version=version(),
                labels={**self._labels, "swarmtui.executor": "process"},
                plugins=[Plugin(type=kind, name=name) for kind, name in plugins],
            ),
        )


def program_file() -> Path:
    """The module that runs the images' programs, by its real path."""
    return Path(os.path.realpath(programs.__file__)).with_name("__main__.py")


def version() -> str:
    """The product's version."""
    try:
        return metadata.version("swarmtui")
    except metadata.PackageNotFoundError:
        return "0.0.0"
