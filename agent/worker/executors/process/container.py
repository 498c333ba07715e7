"""One container: found again from its folder, started, watched, stopped, removed.

Whatever is cancelled or killed half-way, the folder and the kernel tell the next call what there is: every method begins by
looking. A start that is on its way is never torn: it is finished in the background, and whoever comes next waits for it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from agent.api_types.times import SECOND, Clock
from agent.worker.executors.process import cgroups
from agent.worker.executors.process.cgroups import Bounds, Group, Parents
from agent.worker.executors.process.folder_watch import FolderWatch
from agent.worker.executors.process.health import Check, HealthState
from agent.worker.executors.process.host import Host
from agent.worker.executors.process.launching import contents_of, files_folder, shim_settings
from agent.worker.executors.process.memory_files import remove_files, write_files
from agent.worker.executors.process.processes import Process, marked
from agent.worker.executors.process.records import (
    CONTAINER,
    EXIT,
    GROUPS,
    RUN,
    STOPPING,
    ContainerRecord,
    ExitRecord,
    GroupsRecord,
    Phase,
    RunRecord,
    read_record,
    write_record,
)
from agent.worker.executors.process.shim.supervise import remove_tree
from agent.worker.executors.process.spawning import Spawner
from agent.worker.interface import Dependencies, RejectedByExecutor, TemporaryFailure

KILLED = 128 + signal.SIGKILL
SHIM_KILLED = "the task's shim was killed"
HOST_DOWN = "the host went down"
OUT_OF_MEMORY = "out of memory"
DEFAULT_PIDS = 4096
"""Processes of a container without a bound of its own: a fork bomb must not take the host along."""
PATIENCE = 5.0
"""Seconds for a shim to write down the end of a task that was killed, before it is killed too."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all containers of an executor share."""

    spawner: Spawner
    watch: FolderWatch
    parents: Parents
    host: Host
    clock: Clock


class Container:
    """A container in `folder`. Its record is on disk already."""

    def __init__(self, folder: Path, record: ContainerRecord, around: Surroundings) -> None:
        self.folder = folder
        self.record = record
        self.run: RunRecord | None = None
        self.exit: ExitRecord | None = None
        self.health: HealthState | None = None
        self.removed = False
        self._around = around
        self._shim: Process | None = None
        self._launch: asyncio.Task[None] | None = None
        self._closed = False
        self._settled = False
        self._settling = asyncio.Lock()
        self.look()

    # -- looking

    @property
    def phase(self) -> Phase:
        """Where it is, as last looked at."""
        if self.exit is not None:
            return Phase.EXITED
        return Phase.RUNNING if self.run is not None else Phase.CREATED

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        self.look()
        return self.phase is Phase.RUNNING

    @property
    def groups(self) -> list[Group]:
        """Its control groups; none before it was started."""
        record = read_record(self.folder, GROUPS, GroupsRecord)
        return record.groups if record is not None else []

    @property
    def stopping(self) -> bool:
        """Whether its end is wanted."""
        return (self.folder / STOPPING).exists()

    def look(self) -> None:
        """See what became of it. A shim that is gone without a word was killed, and its container with it."""
        if self.exit is not None or self._closed:
            return
        if self.run is None:
            self.run = read_record(self.folder, RUN, RunRecord)
            if self.run is None and (self.folder / RUN).exists():
                # It was started, and a power cut tore the record: no process of before that lives.
                self.run = RunRecord(0, 0, 0, 0, started_at=self.record.created_at)
            elif self.run is not None:
                self._shim = Process.find(self.run.shim, self.run.shim_start)
        # Looked for after the shim: one that ends now has written it before.
        alive = self._shim is not None and not self._shim.ended
        self.exit = read_record(self.folder, EXIT, ExitRecord)
        if self.exit is None and self.run is not None and not alive:
            reason = HOST_DOWN if self.run.started_at < boot_time(self._around.clock()) else SHIM_KILLED
            self.exit = ExitRecord(KILLED, self._around.clock(), reason)
        if self.exit is not None and self._shim is not None:
            self._shim.close()
            self._shim = None

    def close(self) -> None:
        """Let go of descriptors; the container goes on, but this does not look at it any more. Idempotent."""
        self._closed = True
        if self._shim is not None:
            self._shim.close()
            self._shim = None

    # -- starting

    async def start(self, dependencies: Dependencies) -> None:
        """Start it unless it was started before. RejectedByExecutor when it cannot be, TemporaryFailure when not now."""
        if self._launch is None or self._launch.done():
            self.look()
            if self.phase is Phase.CREATED:
                self._launch = asyncio.create_task(self._launch_shim(dependencies), name=f"launch {self.record.name}")
                # Nobody may be there to hear how it went: whoever asks next looks for himself.
                self._launch.add_done_callback(lambda launch: launch.cancelled() or launch.exception())
        if self.phase is Phase.CREATED and self._launch is not None:
            await asyncio.shield(self._launch)
        self.look()
        if self.exit is not None and self.run is None:
            raise RejectedByExecutor(f"starting container failed: {self.exit.error}: unknown")

    async def quiet(self) -> None:
        """Return when no start is on its way any more, however it went."""
        if self._launch is not None and not self._launch.done():
            await asyncio.wait({self._launch})

    async def _launch_shim(self, dependencies: Dependencies) -> None:
        record, around = self.record, self._around
        contents = contents_of(record, dependencies)
        try:
            make_sources(record)
            if memory := files_folder(record):
                write_files(Path(memory), record.files, contents)
            bounds = Bounds(record.memory_bytes, record.nano_cpus, record.pids or DEFAULT_PIDS)
            groups = around.parents.groups(record.container_id)
            # Written down before they are made, so that none is ever left behind.
            write_record(self.folder, GROUPS, GroupsRecord(groups))
            entries = cgroups.create(groups, bounds)
        except OSError as error:
            raise TemporaryFailure(f"starting container failed: {error}") from None
        settings = shim_settings(record, self.folder, around.host, contents, entries)
        with around.watch.watching(self.folder) as changed:
            # An answer that never comes means that the spawner was killed, before it forked or after; a second request is
            # safe, as a shim that lives holds the lock.
            word, rest = await self._ask(settings) or await self._ask(settings) or ("", "")
            if word == "busy":
                await self._started_by_another(changed)
            elif word == "failed":
                raise TemporaryFailure(f"starting container failed: {rest}")
            elif not word:
                self.look()
                if self.phase is Phase.CREATED:
                    raise TemporaryFailure("starting container failed: the spawner was killed")

    async def _ask(self, settings: dict[str, object]) -> tuple[str, str] | None:
        """What the shim, or the spawner in its place, answers; None for nothing."""
        answer = await self._around.spawner.ask("s", settings)
        try:
            word, _, rest = (await answer.line()).partition(" ")
        finally:
            answer.close()
        return (word, rest) if word else None

    async def _started_by_another(self, changed: asyncio.Event) -> None:
        """An agent that was killed has left a shim on its way: it will run or end."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    changed.clear()
                    self.look()
                    if self.phase is not Phase.CREATED:
                        return
                    await changed.wait()
        except TimeoutError:
            raise TemporaryFailure("starting container failed: another agent is about to start it") from None

    # -- ending

    async def wait(self) -> ExitRecord:
        """Return when it has ended and nothing of it runs any more. TemporaryFailure when it was never started."""
        await self.quiet()
        self.look()
        if self.phase is Phase.CREATED:
            raise TemporaryFailure("the container was not started")
        while self.exit is None:
            if self._shim is None:
                raise TemporaryFailure("the executor is closed")
            await self._shim.gone()
            self.look()
        await self._settle()
        return self.exit

    async def gone(self) -> None:
        """Return when it is over, or never when it was not started: for waiting beside something else."""
        self.look()
        if self._shim is not None:
            await self._shim.gone()
        elif self.phase is Phase.CREATED:
            await asyncio.get_running_loop().create_future()

    def send(self, number: int) -> bool:
        """Send a signal to its first process; False when that is gone."""
        if not self.running or self.run is None:
            return False
        process = Process.find(self.run.task, self.run.task_start)
        if process is None:
            return False
        try:
            return process.send(number)
        finally:
            process.close()

    async def stop(self, number: int, grace: int) -> None:
        """Send a signal, wait `grace` nanoseconds (negative: for ever), then kill. Returns when it is gone."""
        await self.quiet()
        if not self.running:
            await self._settle()
            return
        if self.send(number):
            try:
                async with asyncio.timeout(grace / SECOND if grace >= 0 else None):
                    await self.wait()
                    return
            except TimeoutError:
                self.send(signal.SIGKILL)
        await self._killed()

    async def kill(self) -> None:
        """Kill it at once. Returns when it is gone."""
        await self.quiet()
        self.send(signal.SIGKILL)
        await self._killed()

    async def _killed(self) -> None:
        """Wait for the end of a task whose first process is dead; the shim that does not tell is killed as well."""
        self.look()
        shim = self._shim
        if shim is not None:
            try:
                async with asyncio.timeout(PATIENCE):
                    await shim.gone()
            except TimeoutError:
                shim.send(signal.SIGKILL)
                await shim.gone()
            self.look()
        await self._settle()

    def want_end(self) -> None:
        """Remember that the end that comes is wanted, also for the next agent."""
        try:
            (self.folder / STOPPING).touch()
        except FileNotFoundError:
            return  # it is removed already
        except OSError as error:
            # Without room the next agent calls the end a failure; that must not keep the container from being stopped.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    async def remove(self) -> None:
        """End it and forget it: processes, groups, files. Idempotent."""
        await self.kill()
        await self._release()
        remove_tree(str(self.folder))
        self.removed = True
        self.close()

    async def _settle(self) -> None:
        """After the end: make sure that nothing is left, account for how it ended, let go of what it held."""
        async with self._settling:
            if self.exit is None or self._settled:
                return
            if self.exit.error in (SHIM_KILLED, HOST_DOWN):
                await self._sweep()
            self._account()
            await self._release()
            self._settled = True

    async def _release(self) -> None:
        """Remove what it held outside of its folder. Idempotent."""
        groups = self.groups
        while not cgroups.remove(groups):
            # A killed process leaves its group only when the kernel has taken it apart, and nothing tells when.
            cgroups.kill(groups)
            await asyncio.sleep(0.01)
        if memory := files_folder(self.record):
            remove_files(Path(memory))

    async def _sweep(self) -> None:
        """Kill what a killed shim left behind: members of its group, and processes marked as the task's."""
        while True:
            found = [*cgroups.members(self.groups), *marked(f"TASK_ID={self.record.task_id}")]
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            await asyncio.sleep(0.01)

    def _account(self) -> None:
        """Write down what the shim could not know or could not write."""
        assert self.exit is not None
        found = read_record(self.folder, EXIT, ExitRecord)
        usage = cgroups.usage(self.groups)
        if self.exit.code == KILLED and not self.exit.error and usage.out_of_memory_kills:
            self.exit = ExitRecord(self.exit.code, self.exit.finished_at, OUT_OF_MEMORY)
        if found != self.exit and self.folder.is_dir():
            try:
                write_record(self.folder, EXIT, self.exit)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise

    # -- health

    def begin_health(self) -> HealthState | None:
        """The state of its health check, made at the first call; None without one."""
        check = Check.of(self.record.health)
        if check is not None and self.health is None and self.run is not None:
            self.health = HealthState(check, self.run.started_at)
        return self.health


def open_container(folder: Path, around: Surroundings) -> Container | None:
    """The container of a folder, None where no record was ever written whole."""
    record = read_record(folder, CONTAINER, ContainerRecord)
    return Container(folder, record, around) if record is not None else None


def make_sources(record: ContainerRecord) -> None:
    """Make the volumes that are missing. RejectedByExecutor for a bind mount of what is not there."""
    for mount in record.mounts:
        if mount.kind == "volume":
            os.makedirs(mount.source, exist_ok=True)
        elif mount.kind == "bind" and not os.path.exists(mount.source):
            raise RejectedByExecutor(
                f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
            )


def boot_time(now: int) -> int:
    """When the host was booted, nanoseconds since the epoch."""
    with open("/proc/uptime") as file:
        return now - int(float(file.read().split()[0]) * SECOND)
