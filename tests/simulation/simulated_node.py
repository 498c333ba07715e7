"""A simulated host: an agent that holds a session and runs tasks, with random pauses and failures."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from simulated_link import Link
from virtual_time import VirtualLoop

from agent.api_types.common import Platform, Resources
from agent.api_types.node import NodeDescription
from agent.api_types.task import Task, TaskState, TaskStatus
from agent.api_types.times import SECOND, format_time
from agent.network.tables import NetworkTables
from agent.rpc.errors import RpcError
from agent.rpc.messages import (
    Assignments,
    Heartbeat,
    IngressTable,
    Leaving,
    NetworkKeys,
    NetworkUpdate,
    NodeUpdate,
    SessionEnd,
    SessionOpen,
    SessionReady,
    StatusReport,
    TaskReport,
)

SILENT_PERIODS = 3
"""Heartbeat periods without a word of the manager after which the node gives it up."""

Connect = Callable[[Link], bool]
"""Offers a link to whoever leads; False when nobody does."""


@dataclass
class Behaviour:
    """What may go wrong in the tasks of all nodes, changed while the simulation runs."""

    crash_rate: float = 0.0
    """Chance that a running task is picked in a second."""
    slow: float = 1.0
    """Factor of all pauses."""


@dataclass
class Process:
    """A task on a node."""

    task: Task
    status: TaskStatus
    desired: TaskState
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None
    forgotten: bool = False


class SimulatedNode:
    """One host. `power_off` loses everything on it, `restart_agent` only the session."""

    def __init__(
        self, node_id: str, loop: VirtualLoop, rng: random.Random, connect: Connect, behaviour: Behaviour
    ) -> None:
        self.id = node_id
        self.processes: dict[str, Process] = {}
        self.table: IngressTable | None = None
        self.update: NodeUpdate | None = None
        """The newest that it was told of itself."""
        self.secrets: dict[str, bytes] = {}
        self.heartbeat_period: float | None = None
        """Seconds between heartbeats where the host is too slow for what it was told."""
        self.sessions = 0
        """Sessions that it was given so far."""
        self.removed = False
        self.hint = ""
        """The manager that leads, as far as the node was told."""
        self.patience = 5.0
        """Seconds that it waits for the answer of a manager."""
        self.on_table: Callable[[SimulatedNode, IngressTable], None] = lambda node, table: None
        self.answers_since = 0.0
        """Since when the agent runs and the network reaches it."""
        self.link: Link | None = None
        self.networks = NetworkTables()
        self.keys: NetworkKeys | None = None
        self.strangers: list[str] = []
        """Networks that a task of this node uses and that the node was not told of before."""
        self._loop = loop
        self._rng = rng
        self._connect = connect
        self._behaviour = behaviour
        self.lives: list[asyncio.Task[None]] = []
        """The lives of all tasks that ever were here."""
        self._on = True
        self._held = False
        self._powered = asyncio.Event()
        self._powered.set()
        self._heard = 0.0
        self._outbox: dict[str, TaskStatus] = {}
        self._outbox_filled = asyncio.Event()
        self.description = NodeDescription(
            hostname=f"host-{node_id}",
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=8 * SECOND, memory_bytes=16 << 30),
        )

    # -- what happens to the host

    def power_off(self) -> None:
        """kill -9 of everything: the kernel resets the connection, the tasks are gone."""
        self._on = False
        self._powered.clear()
        for process in self.processes.values():
            if process.runner is not None:
                process.runner.cancel()
        self.processes.clear()
        self._outbox.clear()
        if self.link is not None:
            self.link.break_off("the host lost power")

    def power_on(self) -> None:
        if not self._on:
            self.answers_since = self._loop.time()
        self._on = True
        self._powered.set()

    def cut_off(self) -> None:
        """The network loses everything; the host works on."""
        self._held = True
        if self.link is not None:
            self.link.hold()

    def reconnect(self) -> None:
        if self._held:
            self.answers_since = self._loop.time()
        self._held = False
        if self.link is not None:
            self.link.release()

    async def restart_agent(self, pause: float) -> None:
        """An orderly restart: the tasks live on."""
        if self.link is not None and not self.link.broken and not self._held:
            self._leaving = True
            await self._stream.send(Leaving(60 * SECOND))
            self.link.break_off("the agent restarts")
            self._on = False
            self._powered.clear()
            await asyncio.sleep(pause)
            self.power_on()

    @property
    def answers(self) -> bool:
        """Whether the agent runs and the network reaches it."""
        return self._on and not self._held

    @property
    def running(self) -> set[str]:
        """Tasks whose process runs."""
        return {
            task_id
            for task_id, process in self.processes.items()
            if process.status.state in (TaskState.STARTING, TaskState.RUNNING)
        }

    # -- the agent

    async def run(self) -> None:
        while not self.removed:
            await self._powered.wait()
            if self._held:
                await asyncio.sleep(0.2)
                continue
            self.link = Link(self.id, f"10.0.0.{self.id}:5000")
            if not self._connect(self.link):
                self.link = None
                await asyncio.sleep(self._rng.uniform(0.1, 0.5))
                continue
            with contextlib.suppress(RpcError):
                await self._hold_session(self.link)
            self.link.break_off("the session is over")
            self.link = None
            await asyncio.sleep(self._rng.uniform(0.02, 0.05))

    async def _hold_session(self, link: Link) -> None:
        self._stream, manager_end = link.stream()
        self.serve(manager_end, link)
        await self._stream.send(SessionOpen(self.description, f"10.0.0.{self.id}:2377"))
        try:
            async with asyncio.timeout(self.patience):
                first = await self._stream.receive()
        except TimeoutError:
            link.give_up("nobody answers")
            return
        if isinstance(first, SessionEnd):
            self._end(first)
            return
        assert isinstance(first, SessionReady)
        self.sessions += 1
        self._heard = self._loop.time()
        self._told_complete: set[str] = set()
        self._outbox.update({task_id: each.status for task_id, each in self.processes.items()})
        self._outbox_filled.set()
        talk = [
            asyncio.ensure_future(self._beat(first.heartbeat_period / SECOND)),
            asyncio.ensure_future(self._report()),
            asyncio.ensure_future(self._listen()),
            asyncio.ensure_future(self._mind_silence(link, SILENT_PERIODS * first.heartbeat_period / SECOND)),
        ]
        try:
            await asyncio.wait(talk, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in talk:
                each.cancel()
            await asyncio.wait(talk)
            for each in talk:
                if not each.cancelled() and each.exception() is not None and not isinstance(each.exception(), RpcError):
                    raise each.exception()  # type: ignore[misc]

    serve: Callable[..., None]
    """Gives the manager its end of a stream; set by the world."""

    async def _beat(self, period: float) -> None:
        while True:
            await self._stream.send(Heartbeat())
            await asyncio.sleep(self.heartbeat_period or period)

    async def _report(self) -> None:
        while True:
            await self._outbox_filled.wait()
            self._outbox_filled.clear()
            batch, self._outbox = self._outbox, {}
            if batch:
                await self._stream.send(
                    StatusReport([TaskReport(task_id, status) for task_id, status in batch.items()])
                )
            await asyncio.sleep(0.05)

    async def _listen(self) -> None:
        while True:
            message = await self._stream.receive()
            self._heard = self._loop.time()
            match message:
                case Assignments():
                    self._apply(message)
                case IngressTable():
                    self.table = message
                    self.on_table(self, message)
                case NodeUpdate():
                    self.update = message
                case NetworkKeys():
                    self.keys = message
                case NetworkUpdate():
                    if message.description is not None and message.description.encrypted:
                        assert self.keys is not None, "an encrypted network came before its keys"
                    self.networks.apply(message)
                    self._told_complete.add(message.network_id)
                case Heartbeat():
                    pass
                case SessionEnd():
                    self._end(message)
                    return
                case _:
                    raise AssertionError(f"unexpected {message}")

    def _end(self, end: SessionEnd) -> None:
        self.removed = end.removed
        self.hint = "" if end.leader is None else end.leader.node_id

    async def _mind_silence(self, link: Link, patience: float) -> None:
        """A manager that is silent for three periods is given up."""
        while (left := self._heard + patience - self._loop.time()) > 0:
            await asyncio.sleep(left)
        link.give_up("the manager is silent")

    def _apply(self, message: Assignments) -> None:
        if message.complete:
            for network_id in self.networks.networks.keys() - self._told_complete:
                self.networks.forget(network_id)
            named = {task.id for task in message.tasks}
            for task_id in [task_id for task_id in self.processes if task_id not in named]:
                self._forget(task_id)
            self.secrets.clear()
        for secret_id in message.removed_secrets:
            self.secrets.pop(secret_id)
        self.secrets.update({secret.id: secret.spec.data for secret in message.secrets})
        for task_id in message.removed_tasks:
            self._forget(task_id)
        for task in message.tasks:
            process = self.processes.get(task.id)
            if process is None:
                process = self.processes[task.id] = Process(task, task.status, task.desired_state)
                process.runner = asyncio.ensure_future(self._live(process))
                self.lives.append(process.runner)
            process.desired = task.desired_state
            process.changed.set()
            used = [attachment.network.id for attachment in task.networks_attachments]
            if not process.status.state.terminal and not task.status.state.terminal:
                self.strangers += [network_id for network_id in used if self.networks.get(network_id) is None]

    def _forget(self, task_id: str) -> None:
        process = self.processes.get(task_id)
        if process is not None:
            process.forgotten = True
            process.changed.set()

    # -- a task's life

    async def _live(self, process: Process) -> None:
        steps = [
            (TaskState.ACCEPTED, "accepted"),
            (TaskState.PREPARING, "preparing"),
            (TaskState.READY, "prepared"),
            (TaskState.STARTING, "starting"),
            (TaskState.RUNNING, "started"),
        ]
        for state, message in steps:
            while process.status.state.rank < state.rank <= TaskState.RUNNING.rank:
                if self._unwanted(process):
                    break
                if process.desired.rank < state.rank:
                    process.changed.clear()
                    await process.changed.wait()
                    continue
                await self._pause(0.05)
                if state is TaskState.READY and _image(process).startswith("absent"):
                    self._set(process, TaskState.REJECTED, "preparing", "No such image")
                    break
                if not self._unwanted(process) and process.desired.rank >= state.rank:
                    self._set(process, state, message)
        while not process.status.state.terminal and not self._unwanted(process):
            await self._watch(process)
        if not process.status.state.terminal:
            await self._pause(0.3)
            self._set(process, TaskState.SHUTDOWN, "shutdown")
        while not process.forgotten:
            process.changed.clear()
            await process.changed.wait()
        del self.processes[process.task.id]

    async def _watch(self, process: Process) -> None:
        life = 0.5 if _image(process).startswith("bad") else None
        rate = self._behaviour.crash_rate
        process.changed.clear()
        try:
            async with asyncio.timeout(life or (1.0 if rate else 600.0)):
                await process.changed.wait()
        except TimeoutError:
            if life or self._rng.random() < rate:
                self._set(process, TaskState.FAILED, "started", "task: non-zero exit (1)")

    def _unwanted(self, process: Process) -> bool:
        return process.forgotten or process.desired.rank >= TaskState.SHUTDOWN.rank

    def _set(self, process: Process, state: TaskState, message: str, error: str = "") -> None:
        process.status = msgspec.structs.replace(
            process.status, timestamp=format_time(self._loop.clock()), state=state, message=message, err=error
        )
        self._outbox[process.task.id] = process.status
        self._outbox_filled.set()

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(self._rng.expovariate(1 / seconds) * self._behaviour.slow)


def _image(process: Process) -> str:
    """What the task runs: `bad` ends after half a second, `absent` cannot be had, anything else runs well."""
    container = process.task.spec.container_spec
    return "" if container is None else container.image
