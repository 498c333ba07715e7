"""Keeping a session with the manager that leads, whichever that is: `SessionKeeper` finds it, opens the bulk connection
beside the session, and starts over, for as long as it runs, when it is lost.

A manager that does not lead is asked on a connection that stands (`standing`), and the other managers' stand while a session
does: after the loss of a leader a thousand nodes cost the next one a thousand questions, and handshakes only at leisure.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random as randomness
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from agent.api_types.node import NodeDescription
from agent.api_types.times import SECOND
from agent.rpc.connection import Connection, Handler
from agent.rpc.errors import ConnectionLost, Refused, Removed, RpcError
from agent.rpc.messages import NodeUpdate
from agent.rpc.peer import Purpose
from agent.worker.interface import RejectedByExecutor, TemporaryFailure
from agent.worker.leaderless import Words
from agent.worker.search import ATTEMPT_LIFE, Answer, Search, jittered
from agent.worker.session_stream import PATIENCE, Describe, Session, SessionRefused, Surface, one_reason
from agent.worker.standing import Standing
from agent.worker.task_runner import Sleep, retry_delay
from agent.worker.worker import Worker

__all__ = ["SessionKeeper", "SessionRefused", "Surface"]

log = logging.getLogger(__name__)

LOSS_PAUSE = 0.05
"""Seconds at most from the loss of a session to the search for the next."""

BRIEF_PAUSE, LONGEST_BRIEF_PAUSE = 0.3, 2.0
"""The same after a session that ended within a quarter of a heartbeat period: first, and at most after several in a row."""

Dial = Callable[[str, Purpose, Mapping[str, Handler]], Awaitable[Connection]]
"""Connects to (address, purpose) with the handlers that the other side may call; raises RpcError."""

_ANOTHER_TIME = (RpcError, SessionRefused, TemporaryFailure, RejectedByExecutor, TimeoutError)
"""What an attempt may fail with that another attempt may not."""


@dataclass
class SessionKeeper:
    """Keeps a session with the manager that leads. `run` ends only when the node was removed from the cluster
    (SessionRefused).

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
    _standing: Standing = field(init=False)
    """Its generation is the number of the certificate that connections are made with now."""
    _told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the leader said anything of the managers."""
    _words: Words = field(default_factory=Words)
    _doubt: asyncio.TimerHandle | None = None
    _brief: int = 0
    """Sessions in a row that ended as soon as they were opened."""
    _lost: str = ""
    """The manager (node id) that broke off the last session, or fell silent, without naming another."""
    _hint: str | None = None
    """Where the manager that ended the last session said that the leader is."""
    _renewed: asyncio.Event = field(default_factory=asyncio.Event)
    _successor: tuple[Connection, Session] | None = None

    def __post_init__(self) -> None:
        self._standing = Standing(self._dial_control, self._close, sleep=self.sleep, random=self.random)

    async def run(self) -> None:
        """Find a manager, serve the session, start over when it is lost."""
        await self.worker.restored.wait()
        try:
            while not self._left:
                await self._one_session()
            # The agent stops: whoever runs this cancels it.
            await asyncio.get_running_loop().create_future()
        finally:
            self._words.clear()
            self._consider()
            self._standing.shut("the node ends its sessions")
            if self._successor is not None:
                self._close(self._successor[0], "the node ends its sessions")
            if self._closing:
                await asyncio.wait(self._closing)

    async def leave(self) -> None:
        """Say that the agent stops in order and will be back. No session is opened after that."""
        self._left = True
        session = self._successor[1] if self._successor is not None else self.session
        if session is not None:
            with contextlib.suppress(RpcError):
                await session.leave()

    def dial_anew(self) -> None:
        """The node has another certificate: go on with connections that were made with it.

        The next session is opened before the one that stands ends, so that nobody suspects the node.
        """
        self._standing.let_go("the node has another certificate")
        self._renewed.set()

    async def _one_session(self) -> None:
        connection, session = await self._next()
        begun = asyncio.get_running_loop().time()
        period = session.ready.heartbeat_period / SECOND
        try:
            if self._left:
                # The leader was found too late, and is to know all the same.
                await session.leave()
            else:
                await self._serve(connection, session)
            reason = "the agent stops"
        except SessionRefused as refused:
            if refused.removed:
                raise
            self._note(session.manager, refused)
            self._hint = refused.leader.address if refused.leader is not None else None
            reason = str(refused)
        except RpcError as error:
            self._lost = connection.peer.node_id
            reason = str(error)
        finally:
            self.session = None
            self._close(connection, "the session is over")
        if self._successor is not None:
            return
        log.log(
            logging.INFO if self._left else logging.WARNING, "the session with %s is over: %s", connection.peer, reason
        )
        self.surface.on_lost(reason)
        self._brief = self._brief + 1 if asyncio.get_running_loop().time() - begun < period / 4 else 0
        pause = min(LONGEST_BRIEF_PAUSE, BRIEF_PAUSE * 2 ** (self._brief - 1)) if self._brief else LOSS_PAUSE
        await self.sleep(jittered(self.random, pause))

    async def _next(self) -> tuple[Connection, Session]:
        if self._successor is None:
            return await self._search()
        successor, self._successor = self._successor, None
        return successor

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
        self._words.clear()
        self._consider()
        self.session, self._lost = session, ""
        if session.made_with == self._standing.generation:
            self._renewed.clear()
        self.worker.remember_managers(session.ready.managers)
        self.surface.on_ready(session.ready)
        connection.give_up_after(PATIENCE * session.ready.heartbeat_period / SECOND)
        spread = session.ready.settling / SECOND
        with one_reason():
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_bulk(session.manager, max(2 * session.took, spread)))
                group.create_task(self._standing.keep(partial(self._others, connection, session), self._news, spread))
                group.create_task(self._open_successor(session.manager))
                await session.run()

    async def _keep_bulk(self, address: str, spread: float) -> None:
        """The connection for logs and relays beside a session, opened within `spread` seconds; lost alone, it is opened again.

        Where many nodes come at once, which a session that took long to open says too, their sessions go first.
        """
        await self.sleep(self.random.uniform(0, spread))
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
            await self.sleep(jittered(self.random, retry_delay(attempt)))

    async def _open_successor(self, address: str) -> None:
        """After `dial_anew`: open the next session with the same manager, which ends this one for it."""
        await self._renewed.wait()
        for attempt in itertools.count(1):
            try:
                async with asyncio.timeout(ATTEMPT_LIFE):
                    self._successor = await self._ask(address)
            except _ANOTHER_TIME as error:
                if isinstance(error, SessionRefused) and error.removed:
                    raise
                log.warning("no session with the new certificate at %s: %s", address, error)
            else:
                raise ConnectionLost("the node goes on with its new certificate")
            await self.sleep(jittered(self.random, retry_delay(attempt)))

    # -- finding a manager

    def addresses(self) -> list[str]:
        """Every manager that is known, in a random order so that a herd of nodes spreads; first the one that was named as
        the leader."""
        known = list(dict.fromkeys([*(manager.address for manager in self.worker.managers), *self.seeds]))
        self.random.shuffle(known)
        return list(dict.fromkeys([self._hint, *known])) if self._hint is not None else known

    async def _search(self) -> tuple[Connection, Session]:
        """A session with whichever manager accepts first."""
        told: set[str] = set()

        def judge(address: str, error: Exception) -> tuple[Answer, str | None]:
            if not isinstance(error, _ANOTHER_TIME) or (isinstance(error, SessionRefused) and error.removed):
                raise error
            text = f"{address}: {str(error) or 'no answer in time'}"
            if text not in told:
                told.add(text)
                log.warning("no session with %s", text)
            return self._judge(address, error)

        search: Search[tuple[Connection, Session]] = Search(
            lambda address: self._ask(address, lambda: search.over),
            judge,
            self._discard,
            sleep=self.sleep,
            random=self.random,
        )
        try:
            return await search.run(self.addresses())
        finally:
            self._hint = None

    async def _ask(self, address: str, in_vain: Callable[[], bool] = lambda: False) -> tuple[Connection, Session]:
        """Introduce the node to a manager, on the connection that stands if there is one.

        It goes on standing after a refusal, and when the question is cancelled because it was `in_vain`.
        """
        begun, made_with = asyncio.get_running_loop().time(), self._standing.generation
        connection = self._standing.take(address)
        if connection is None:
            try:
                connection = await self._dial_control(address)
            except Removed as error:
                raise SessionRefused(str(error), removed=True) from error
        try:
            session = await Session.open(
                connection,
                self.worker,
                address=self.address,
                describe=self._describe,
                surface=replace(self.surface, on_update=self._on_update),
                sleep=self.sleep,
                lost=self._lost,
            )
        except BaseException as error:
            if isinstance(error, SessionRefused) or in_vain():
                self._standing.put(address, connection, made_with)
            else:
                self._close(connection, "no session")
            raise
        session.manager, session.made_with = address, made_with
        session.took = asyncio.get_running_loop().time() - begun
        return connection, session

    def _judge(self, address: str, error: Exception) -> tuple[Answer, str | None]:
        """What the failure of an attempt says of the manager, and of where the leader is."""
        if isinstance(error, SessionRefused):
            self._note(address, error)
            return Answer.NOT_NOW, error.leader.address if error.leader is not None else None
        self._words.lost(address)
        self._consider()
        if isinstance(error, Refused):
            return Answer.NO, None
        return Answer.LATE if isinstance(error, TimeoutError) else Answer.NONE, None

    def _discard(self, gained: tuple[Connection, Session]) -> None:
        self._close(gained[0], "another manager was faster")

    async def _dial_control(self, address: str) -> Connection:
        return await self.dial(address, Purpose.CONTROL, self.worker.handlers())

    def _others(self, connection: Connection, session: Session) -> set[str]:
        """The managers beside the one that leads, by whatever address that was found."""
        return {
            manager.address
            for manager in self.worker.managers
            if manager.node_id != connection.peer.node_id and manager.address != session.manager
        }

    def _on_update(self, update: NodeUpdate) -> None:
        self._told.set()
        self.surface.on_update(update)

    async def _news(self) -> None:
        """Wait until the leader said something of the managers."""
        await self._told.wait()
        self._told.clear()

    # -- without a leader

    def _note(self, address: str, refused: SessionRefused) -> None:
        """A manager said whether there is a leader; its word counts for a while."""
        loop = asyncio.get_running_loop()
        self._words.heard(address, leaderless=refused.leaderless, now=loop.time())
        self._consider()

    def _consider(self) -> None:
        """Tell the worker whether tasks that fail are its own affair for now."""
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None
        loop = asyncio.get_running_loop()
        until = self._words.leaderless_until(loop.time())
        if until is not None:
            self._doubt = loop.call_at(until, self._consider)
        self.worker.set_leaderless(until is not None)
