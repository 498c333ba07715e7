"""One session: a stream that carries heartbeats and statuses up, assignments and published ports down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from agent.api_types.node import NodeDescription
from agent.api_types.times import SECOND
from agent.rpc.connection import Connection
from agent.rpc.errors import ConnectionLost, RpcError
from agent.rpc.messages import (
    Assignments,
    Described,
    Heartbeat,
    IngressTable,
    Leaving,
    ManagerAddress,
    NetworkKeys,
    NetworkUpdate,
    NodeUpdate,
    SessionEnd,
    SessionOpen,
    SessionReady,
    StatusReport,
)
from agent.rpc.stream import Stream
from agent.worker.interface import Redescribing, RejectedByExecutor, TemporaryFailure
from agent.worker.task_runner import Sleep
from agent.worker.worker import Worker

log = logging.getLogger(__name__)

PATIENCE = 3
"""Heartbeat periods without a word from the manager after which it is given up: it is frozen or cut off. By then it calls
the node down, and only a new session tells which tasks are still wanted here."""

TICKS = 4
"""Looks at the manager's silence in a heartbeat period. Looks are counted, not time: a node that was itself frozen, or too
busy to listen, has heard nothing in that time and may blame nobody."""

LEASE = 60 * SECOND
"""How long nothing moves after an orderly stop, in nanoseconds."""

Describe = Callable[[], Awaitable[NodeDescription]]


class SessionRefused(Exception):
    """The manager does not want this session; the text is its reason.

    `removed`: the node is no longer part of the cluster. `leader`: where to go instead. `leaderless`: there is no leader
    and cannot be one before other managers come back.
    """

    def __init__(
        self, reason: str, *, removed: bool = False, leader: ManagerAddress | None = None, leaderless: bool = False
    ) -> None:
        super().__init__(reason)
        self.removed = removed
        self.leader = leader
        self.leaderless = leaderless

    @classmethod
    def of(cls, end: SessionEnd) -> SessionRefused:
        """As a manager put it."""
        return cls(end.reason, removed=end.removed, leader=end.leader, leaderless=end.leaderless)


@dataclass(frozen=True)
class Surface:
    """What the rest of the agent is told of sessions. Each is called on the loop and returns at once or soon."""

    on_ready: Callable[[SessionReady], None] = lambda ready: None
    on_ingress: Callable[[IngressTable], Awaitable[None]] | None = None
    on_lost: Callable[[str], None] = lambda reason: None
    on_update: Callable[[NodeUpdate], None] = lambda update: None
    on_network: Callable[[NetworkUpdate], None] = lambda update: None
    on_keys: Callable[[NetworkKeys], Awaitable[None]] | None = None
    on_assigned: Callable[[], None] = lambda: None
    """After complete assignments: everything that they need was told before."""


@dataclass
class Session:
    """A session that a manager accepted. `run` serves it until it ends, and says why by an exception."""

    stream: Stream
    ready: SessionReady
    worker: Worker
    surface: Surface
    describe: Describe
    described: NodeDescription
    sleep: Sleep = asyncio.sleep
    manager: str = ""
    """The address at which the manager was asked."""
    made_with: int = 0
    """The number of the certificate that the connection was made with."""
    took: float = 0.0
    """Seconds from the first step towards the manager to its consent."""
    _senders: list[asyncio.Task[None]] = field(default_factory=list)
    _silent_ticks: int = 0

    @classmethod
    async def open(
        cls,
        connection: Connection,
        worker: Worker,
        *,
        address: str,
        describe: Describe,
        surface: Surface,
        sleep: Sleep = asyncio.sleep,
        lost: str = "",
    ) -> Session:
        """Introduce the node on a control connection; `lost` as in `SessionOpen`.

        SessionRefused when the peer is no manager that leads, or will not.
        """
        description = await describe()
        stream = await connection.open("session", SessionOpen(description, address, lost))
        try:
            answer = await stream.receive()
        except BaseException:
            stream.fail_now("the node does not ask any more")
            raise
        match answer:
            case SessionReady():
                return cls(stream, answer, worker, surface, describe, description, sleep)
            case SessionEnd():
                raise SessionRefused.of(answer)
            case _:
                raise SessionRefused(f"the manager answered with {type(answer).__name__}")

    async def run(self) -> None:
        """Serve the session. Ends only by an exception: StreamFailed, StreamEnded or SessionRefused."""
        self.worker.resend()
        with one_reason():
            async with asyncio.TaskGroup() as group:
                self._senders += [group.create_task(self._beat()), group.create_task(self._report())]
                group.create_task(self._notice_silence())
                if isinstance(self.worker.executor, Redescribing):
                    self._senders.append(group.create_task(self._redescribe(self.worker.executor)))
                await self._listen()

    async def leave(self, lease: int = LEASE) -> None:
        """Announce an orderly stop, the last message of the session: for `lease` nanoseconds nothing is moved away."""
        for sender in self._senders:
            sender.cancel()
        if self._senders:
            await asyncio.wait(self._senders)
        await self.stream.send(Leaving(lease))
        await self.stream.end()

    async def _beat(self) -> None:
        period = self.ready.heartbeat_period / SECOND
        while True:
            await self.stream.send(Heartbeat())
            await self.sleep(period)

    async def _notice_silence(self) -> None:
        period = self.ready.heartbeat_period / SECOND
        while self._silent_ticks < PATIENCE * TICKS:
            await self.sleep(period / TICKS)
            self._silent_ticks += 1
        raise ConnectionLost(f"the manager said nothing for {PATIENCE} heartbeat periods of {period:g} s")

    async def _report(self) -> None:
        while True:
            batch = await self.worker.outbox.take()
            try:
                await self.stream.send(StatusReport(batch))
            except BaseException:
                self.worker.outbox.give_back(batch)
                raise

    async def _redescribe(self, executor: Redescribing) -> None:
        while True:
            await executor.description_changed()
            try:
                description = await self.describe()
            except (TemporaryFailure, RejectedByExecutor) as failure:
                log.warning("the node cannot be described now: %s", failure)
                continue
            if description != self.described:
                await self.stream.send(Described(description))
                self.described = description

    async def _listen(self) -> None:
        while True:
            message = await self.stream.receive()
            self._silent_ticks = 0
            match message:
                case Heartbeat():
                    pass
                case Assignments(complete=complete):
                    self.worker.apply(message)
                    if complete:
                        self.surface.on_assigned()
                case NetworkUpdate():
                    self.surface.on_network(message)
                case NetworkKeys():
                    if self.surface.on_keys is not None:
                        await self.surface.on_keys(message)
                case IngressTable():
                    if self.surface.on_ingress is not None:
                        await self.surface.on_ingress(message)
                case NodeUpdate(managers=managers):
                    self.worker.remember_managers(managers)
                    self.surface.on_update(message)
                case SessionEnd():
                    raise SessionRefused.of(message)
                case _:
                    log.warning("the manager sent %s, which has no place in a session", type(message).__name__)


@contextlib.contextmanager
def one_reason() -> Iterator[None]:
    """Out of several errors that ended a session together, raise the one that says why: a refusal before a lost stream."""
    try:
        yield
    except BaseExceptionGroup as group:
        ends, others = group.split((RpcError, SessionRefused))
        if others is not None or ends is None:
            raise
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Errors hide from a group of tasks that it was cancelled too.
            raise asyncio.CancelledError from None
        leaves = list(_leaves(ends))
        refusals = [error for error in leaves if isinstance(error, SessionRefused)]
        raise (refusals or leaves)[0] from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
