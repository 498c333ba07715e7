"""The way from any manager to the leader: exchanges with its API, and the joins that reach a follower."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.api_types.errors import Unavailable
from agent.api_types.node import NodeRole
from agent.api_types.times import Clock
from agent.manager.group import is_leaderless
from agent.node.carrying import as_streams
from agent.pki.identity import NodeIdentity
from agent.raft.interface import GroupStatus
from agent.rpc.client import dial
from agent.rpc.connection import Connection
from agent.rpc.errors import RpcError, Unreachable
from agent.rpc.messages import ApiOpen, ApiReady, Message
from agent.rpc.peer import Purpose
from agent.rpc.stream import Stream

logger = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds that an exchange waits for a leader: several elections."""

GRACE = 0.25
"""Seconds that a former leader has to finish its answers once another one leads."""

LAST_ANSWERS = 60.0
"""Seconds that exchanges on a connection with an old certificate may still take."""

ATTEMPT_PAUSE = 0.05
"""Seconds until a leader that could not be reached is tried again; often it is one that just died."""


class Group(Protocol):
    """What the link follows; a `RaftMember` is one."""

    @property
    def status(self) -> GroupStatus:
        """The newest status."""
        ...

    async def status_changed(self, seen: GroupStatus) -> GroupStatus:
        """Wait for another one."""
        ...


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads in which term, and where its listener is."""

    term: int
    node_id: str
    address: str


def leadership_of(status: GroupStatus) -> Leadership | None:
    """The leader as this member knows it; None without one, and while this member itself is not ready to lead."""
    if not status.leader or (status.leader == status.member_id and not status.leading):
        return None
    address = next((member.address for member in status.members if member.id == status.leader), "")
    return Leadership(status.term, status.leader, address)


class LeaderLink:
    """`run` follows the group; `exchange` and `ask` use one connection to whoever leads."""

    def __init__(
        self,
        group: Group,
        identity: Callable[[], NodeIdentity],
        own_socket: Path,
        refusal: Callable[[GroupStatus], Unavailable],
        *,
        source: str | None,
        clock: Clock,
        monotonic: Clock = time.monotonic_ns,
    ) -> None:
        """`refusal` makes the error for a group without a leader; `own_socket` is where the own API answers."""
        self._group = group
        self._identity = identity
        self._own_socket = own_socket
        self._refusal = refusal
        self._source = source
        self._clock = clock
        self._monotonic = monotonic
        self._known: Leadership | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection: Connection | None = None
        self._presented: NodeIdentity | None = None
        self._dialling = asyncio.Lock()
        self._made: set[Connection] = set()

    async def run(self) -> None:
        """Follow the group until cancelled: exchanges with a leader that is none any more are broken off."""
        status = self._group.status
        try:
            while True:
                self._take(leadership_of(status))
                status = await self._group.status_changed(status)
        finally:
            await asyncio.gather(*(connection.shut("the manager stops") for connection in self._made))

    @property
    def leader(self) -> Leadership | None:
        """Who leads, as far as this manager knows."""
        return leadership_of(self._group.status)

    async def until_leader(self, patience: float = PATIENCE) -> Leadership:
        """Who leads; waits for an election. Unavailable when none comes of it, at once when none came for long."""
        try:
            async with asyncio.timeout(patience):
                while (found := self.leader) is None:
                    if is_leaderless(self._group.status, self._monotonic()):
                        raise self._refusal(self._group.status)
                    await asyncio.shield(self._changed)
                return found
        except TimeoutError:
            raise self._refusal(self._group.status) from None

    @asynccontextmanager
    async def exchange(self, caller: str) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        """See `Backend.leader_link`."""
        async with contextlib.AsyncExitStack() as stack:
            yield await self._begin(caller, stack)

    async def ask(self, method: str, question: Message) -> Message:
        """One question to the leader and its answer. Unavailable while there is no leader, RpcError when it was lost."""
        leader = await self.until_leader()
        async with await (await self._reach(leader)).open(method, question) as stream:
            return await stream.receive()

    # -- one exchange

    async def _begin(self, caller: str, stack: contextlib.AsyncExitStack) -> tuple[StreamReader, StreamWriter]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        why = ""
        while True:
            try:
                leader = await self.until_leader(deadline - loop.time())
            except Unavailable as error:
                raise Unavailable(f"{error} ({why})") from None if why else error
            try:
                if leader.node_id == self._group.status.member_id:
                    return await stack.enter_async_context(_own(self._own_socket))
                stream = await self._open(leader, caller)
                return await stack.enter_async_context(as_streams(stream))
            except (RpcError, OSError, TimeoutError) as error:
                # Nothing of the request was sent: another attempt is safe.
                said, why = why, str(error) or "the leader did not answer in time"
                if why != said:
                    logger.info("no exchange with the leader %s yet: %s", leader.node_id, why)
            if loop.time() >= deadline:
                raise Unavailable(f"the leader ({leader.address}) cannot be reached from this manager: {why}")
            await asyncio.sleep(ATTEMPT_PAUSE)

    async def _open(self, leader: Leadership, caller: str) -> Stream:
        async with asyncio.timeout(PATIENCE):
            connection = await self._reach(leader)
            stream = await connection.open("api", ApiOpen(leader.term, caller))
            try:
                answer = await stream.receive()
            except BaseException:
                stream.fail_now("not waited for")
                raise
        if not isinstance(answer, ApiReady) or answer.error:
            stream.fail_now("not used")
            raise ConnectionRefusedError(answer.error if isinstance(answer, ApiReady) else "not an answer")
        return stream

    async def _reach(self, leader: Leadership) -> Connection:
        """The connection to the leader, made when there is none. Fails as soon as another one leads."""
        async with self._dialling:
            identity = self._identity()
            usable = self._connection
            if usable is not None and not usable.closed and usable.peer.node_id == leader.node_id:
                if self._presented is identity:
                    return usable
                self._let_go("this node has a new certificate", LAST_ANSWERS)
            made = await self._dial(leader, identity)
            self._made.add(made)
            self._connection, self._presented = made, identity
            return made

    async def _dial(self, leader: Leadership, identity: NodeIdentity) -> Connection:
        """Dial; given up as soon as another one leads, for a dead host answers nothing for long."""
        dialling: asyncio.Future[Connection] = asyncio.ensure_future(
            dial(
                leader.address,
                identity,
                purpose=Purpose.API,
                expect_node=leader.node_id,
                expect_role=NodeRole.MANAGER,
                source=self._source,
                clock=self._clock,
                timeout=PATIENCE,
            )
        )
        try:
            while not dialling.done():
                if leader != self.leader:
                    raise Unreachable("another manager leads now")
                either: list[asyncio.Future[Any]] = [dialling, self._changed]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return dialling.result()
        finally:
            if not dialling.done():
                dialling.cancel()
                await asyncio.gather(dialling, return_exceptions=True)

    # -- following

    def _take(self, leader: Leadership | None) -> None:
        if leader == self._known:
            return
        self._known = leader
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)
        if leader is None:
            asyncio.get_running_loop().call_later(PATIENCE, self._give_up_unless_led)
        elif self._connection is not None and self._connection.peer.node_id != leader.node_id:
            self._let_go("another manager leads now", GRACE)

    def _give_up_unless_led(self) -> None:
        if self._known is None:
            self._let_go("the managers have no leader", 0)

    def _let_go(self, reason: str, grace: float) -> None:
        """Begin no more exchanges on the connection that there is, and end it after `grace` seconds."""
        connection, self._connection = self._connection, None
        self._made = {made for made in self._made if not made.closed}
        if connection is not None:
            asyncio.get_running_loop().call_later(grace, connection.close, reason)


@asynccontextmanager
async def _own(path: Path) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """This manager leads by now: its own API answers."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
