"""The session with a manager: one stream that carries heartbeats and statuses up, assignments and published ports down.

`Session` is one such stream on a connection that stands; `SessionKeeper` finds a manager, opens the bulk connection
beside it, and starts over, for as long as it runs, when either is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random as randomness
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.api_types.node import NodeDescription
from agent.api_types.times import SECOND
from agent.rpc.connection import Connection, Handler
from agent.rpc.errors import ConnectionLost, Refused, RpcError
from agent.rpc.messages import (
    Assignments,
    Described,
    Heartbeat,
    IngressTable,
    Leaving,
    SessionEnd,
    SessionOpen,
    SessionReady,
    StatusReport,
)
from agent.rpc.peer import Purpose
from agent.rpc.stream import Stream
from agent.worker.interface import Redescribing, RejectedByExecutor, TemporaryFailure
from agent.worker.task_runner import Sleep, retry_delay
from agent.worker.worker import Worker

log = logging.getLogger(__name__)

ATTEMPT_PERIOD = 0.5
"""Seconds between two rounds of attempts while nobody answers. Short: a node that was cut off has old copies to stop within
a second of coming back."""

ATTEMPT_LIFE = 5.0
"""Seconds until an attempt that leads nowhere is given up; later ones do not wait for it."""

PATIENCE = 3
"""Heartbeat periods without an acknowledgement after which the connection is given up: by then the manager calls the node
down, and only a new session tells which tasks are still wanted here."""

LEASE = 60 * SECOND
"""How long nothing moves after an orderly stop, in nanoseconds."""

Dial = Callable[[str, Purpose, Mapping[str, Handler]], Awaitable[Connection]]
"""Connects to (address, purpose) with the handlers that the other side may call; raises RpcError."""

Describe = Callable[[], Awaitable[NodeDescription]]


class SessionRefused(Exception):
    """The manager does not want this session; the text is its reason. `removed`: the node is no longer part of the cluster."""

    def __init__(self, reason: str, *, removed: bool) -> None:
        super().__init__(reason)
        self.removed = removed


_ANOTHER_TIME = (RpcError, SessionRefused, TemporaryFailure, RejectedByExecutor, TimeoutError)
"""What an attempt may fail with that another attempt may not."""


@dataclass(frozen=True)
class Surface:
    """What the rest of the agent is told of sessions. Each is called on the loop and returns at once or soon."""

    on_ready: Callable[[SessionReady], None] = lambda ready: None
    on_ingress: Callable[[IngressTable], Awaitable[None]] | None = None
    on_lost: Callable[[str], None] = lambda reason: None


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
    _senders: list[asyncio.Task[None]] = field(default_factory=list)

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
    ) -> Session:
        """Introduce the node on a control connection. SessionRefused when the peer is no manager that leads, or will not."""
        description = await describe()
        stream = await connection.open("session", SessionOpen(description, address))
        answer = await stream.receive()
        match answer:
            case SessionReady():
                return cls(stream, answer, worker, surface, describe, description, sleep)
            case SessionEnd(reason, removed):
                raise SessionRefused(reason, removed=removed)
            case _:
                raise SessionRefused(f"the manager answered with {type(answer).__name__}", removed=False)

    async def run(self) -> None:
        """Serve the session. Ends only by an exception: StreamFailed, StreamEnded or SessionRefused."""
        self.worker.resend()
        with _one_reason():
            async with asyncio.TaskGroup() as group:
                self._senders += [group.create_task(self._beat()), group.create_task(self._report())]
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
            match message:
                case Assignments():
                    self.worker.apply(message)
                case IngressTable():
                    if self.surface.on_ingress is not None:
                        await self.surface.on_ingress(message)
                case SessionEnd(reason, removed):
                    raise SessionRefused(reason, removed=removed)
                case SessionReady(managers=managers):
                    self.worker.remember_managers(managers)
                case _:
                    log.warning("the manager sent %s, which has no place in a session", type(message).__name__)


@dataclass
class _Race:
    """What the attempts of one search for a manager share."""

    opening: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    won: bool = False


@dataclass
class SessionKeeper:
    """Keeps a session with some manager. `run` ends only when the node was removed from the cluster (SessionRefused).

    `seeds` are addresses of managers to begin with; those that sessions name are added and survive a restart. `address`
    is where this node's own listener is reached.
    """

    worker: Worker
    dial: Dial
    describe: Describe
    address: str
    seeds: tuple[str, ...] = ()
    surface: Surface = field(default_factory=Surface)
    sleep: Sleep = asyncio.sleep
    random: randomness.Random = field(default_factory=randomness.Random)
    session: Session | None = None
    """The session that stands now."""
    _left: bool = False
    _described: NodeDescription | None = None
    _closing: set[asyncio.Task[str]] = field(default_factory=set)

    async def run(self) -> None:
        """Find a manager, serve the session, start over when it is lost."""
        await self.worker.restored.wait()
        try:
            while not self._left:
                await self._one_session()
            # The agent stops: whoever runs this cancels it.
            await asyncio.get_running_loop().create_future()
        finally:
            if self._closing:
                await asyncio.wait(self._closing)

    async def leave(self) -> None:
        """Say that the agent stops in order and will be back. No session is opened after that."""
        self._left = True
        if self.session is not None:
            with contextlib.suppress(RpcError):
                await self.session.leave()

    async def _one_session(self) -> None:
        connection, session = await self._connect()
        try:
            await self._serve(connection, session)
        except SessionRefused as refused:
            if refused.removed:
                raise
            reason = str(refused)
        except RpcError as error:
            reason = str(error)
        finally:
            self.session = None
            self._close(connection, "the session is over")
        log.log(
            logging.INFO if self._left else logging.WARNING, "the session with %s is over: %s", connection.peer, reason
        )
        self.surface.on_lost(reason)
        await self.sleep(self._jittered(ATTEMPT_PERIOD / 10))

    def _close(self, connection: Connection, reason: str) -> None:
        """End a connection without waiting for its last words to arrive; `run` waits for them at its end."""
        connection.close(reason)
        closing = asyncio.ensure_future(connection.wait_closed())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _describe(self) -> NodeDescription:
        """The node, as it was while its engine is away: its containers may live on."""
        try:
            self._described = await self.describe()
        except TemporaryFailure:
            if self._described is None:
                raise
        return self._described

    async def _serve(self, connection: Connection, session: Session) -> None:
        log.info("session %s with %s", session.ready.session_id, connection.peer)
        self.session = session
        self.worker.remember_managers(session.ready.managers)
        self.surface.on_ready(session.ready)
        connection.give_up_after(PATIENCE * session.ready.heartbeat_period / SECOND)
        address = connection.peer.address
        with _one_reason():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_bulk(address))
                await session.run()

    async def _keep_bulk(self, address: str) -> None:
        """The connection for logs and relays beside a session; lost alone, it is opened again."""
        attempt = 0
        while True:
            try:
                connection = await self.dial(address, Purpose.BULK, self.worker.handlers())
            except RpcError as error:
                attempt += 1
                log.warning("no bulk connection to %s: %s", address, error)
            else:
                attempt = 1
                async with connection:
                    log.info("the bulk connection to %s ended: %s", address, await connection.wait_closed())
            await self.sleep(self._jittered(retry_delay(attempt)))

    # -- finding a manager

    def addresses(self) -> list[str]:
        """Every manager that is known, in a random order so that a herd of nodes spreads."""
        known = list(dict.fromkeys([*(manager.address for manager in self.worker.managers), *self.seeds]))
        self.random.shuffle(known)
        return known

    async def _connect(self) -> tuple[Connection, Session]:
        """A session with whichever manager accepts first. All are tried at once, again and again."""
        attempts: dict[asyncio.Task[tuple[Connection, Session]], str] = {}
        race = _Race()
        refusals = 0
        told = ""
        try:
            while True:
                busy = {address: sum(other == address for other in attempts.values()) for address in self.addresses()}
                for address, count in busy.items():
                    if count * ATTEMPT_PERIOD < ATTEMPT_LIFE:
                        attempts[asyncio.ensure_future(self._attempt(address, race))] = address
                pause = asyncio.ensure_future(self.sleep(self._jittered(self._pause(refusals))))
                try:
                    while not pause.done():
                        done, _ = await asyncio.wait({pause, *attempts}, return_when=asyncio.FIRST_COMPLETED)
                        for attempt in [attempt for attempt in attempts if attempt in done]:
                            address = attempts[attempt]
                            error = attempt.exception()
                            if error is None:
                                del attempts[attempt]
                                return attempt.result()
                            del attempts[attempt]
                            if isinstance(error, SessionRefused) and error.removed:
                                raise error
                            if not isinstance(error, _ANOTHER_TIME):
                                raise error
                            refusals += isinstance(error, (SessionRefused, Refused))
                            text = f"{address}: {str(error) or 'no answer in time'}"
                            if text != told:
                                told = text
                                log.warning("no session with %s", text)
                finally:
                    pause.cancel()
                    await asyncio.wait({pause})
        finally:
            await self._abandon(attempts)

    async def _attempt(self, address: str, race: _Race) -> tuple[Connection, Session]:
        """Dial and introduce the node. Of several that reach one manager, only one at a time opens a session, and none
        once one is open: a second would end the first."""
        async with asyncio.timeout(ATTEMPT_LIFE):
            connection = await self.dial(address, Purpose.CONTROL, self.worker.handlers())
            try:
                async with race.opening[address]:
                    if race.won:
                        raise ConnectionLost("another attempt was faster")
                    session = await Session.open(
                        connection,
                        self.worker,
                        address=self.address,
                        describe=self._describe,
                        surface=self.surface,
                        sleep=self.sleep,
                    )
                    race.won = True
            except BaseException:
                self._close(connection, "no session")
                raise
            return connection, session

    async def _abandon(self, attempts: Iterable[asyncio.Task[tuple[Connection, Session]]]) -> None:
        """End attempts that are no longer needed; one that came through in the meantime is closed again."""
        pending = set(attempts)
        for attempt in pending:
            attempt.cancel()
        if pending:
            await asyncio.wait(pending)
        for attempt in pending:
            if not attempt.cancelled() and attempt.exception() is None:
                self._close(attempt.result()[0], "another manager was faster")

    @staticmethod
    def _pause(refusals: int) -> float:
        """Unreachable managers are tried at a steady pace; those that answer and refuse, less and less often."""
        return max(ATTEMPT_PERIOD, retry_delay(refusals)) if refusals > 2 else ATTEMPT_PERIOD

    def _jittered(self, seconds: float) -> float:
        return seconds * self.random.uniform(0.5, 1.0)


@contextlib.contextmanager
def _one_reason() -> Iterator[None]:
    """Out of several errors that ended a session together, raise the one that says why: a refusal before a lost stream."""
    try:
        yield
    except BaseExceptionGroup as group:
        ends, others = group.split((RpcError, SessionRefused))
        if others is not None or ends is None:
            raise
        leaves = list(_leaves(ends))
        refusals = [error for error in leaves if isinstance(error, SessionRefused)]
        raise (refusals or leaves)[0] from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
