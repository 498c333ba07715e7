"""What a manager runs beside its worker: the store, its member of the group, and, while it leads, the leader's rooms."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.api.quorum import quorum_lost
from agent.api_types.errors import InvalidArgument, Unavailable
from agent.api_types.node import NodeRole
from agent.api_types.swarm import Cluster
from agent.api_types.times import Clock
from agent.manager.group import elsewhere
from agent.manager.manager import Manager
from agent.manager.membership import Membership
from agent.node.addresses import own_source
from agent.node.api_exchange import ApiExchange
from agent.node.cluster_following import each_cluster
from agent.node.keys import KeyFollower, NodeKeys
from agent.node.leader_link import LeaderLink
from agent.node.reception import Reception
from agent.node.record import SwarmRecord
from agent.node.relay_guard import RemovedNodes, objection_of_follower
from agent.node.supervision import Supervision
from agent.raft.interface import GroupStatus, NotLeader, OutcomeUnknown
from agent.raft.member import SNAPSHOT_INTERVAL, ProposalRefused, RaftMember
from agent.rpc.connection import Connection, Handler, only
from agent.rpc.errors import RpcError
from agent.rpc.listener import Listener
from agent.rpc.messages import DepartAnswer, DepartOpen, Message, SessionOpen
from agent.rpc.peer import Peer
from agent.rpc.raft_transport import RaftTransport
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.transactions import WriteTx

logger = logging.getLogger(__name__)

LEADER_PAUSE = 0.5
"""Seconds until a leader whose rooms ended begins them anew, if it still leads by then."""

ELECTION_PATIENCE = 1.5
"""Seconds that a node which wants a session waits here for an election to end, rather than to ask again."""

HANDOVER = 2.0
"""Seconds that a leader which stops gives another manager to take over."""

REFUSAL_PATIENCE = 3.0
"""Seconds that a leader's refusal to let a manager go is not taken for its last word."""

DEPARTURE_PAUSE = 0.1
"""Seconds between two attempts to leave the group."""

_BY_LEADER = ("session", "renew", "depart", "join")
"""What only the leader answers."""

Write = Callable[[WriteTx], object]


class ManagerPart:
    """`async with` starts it; leaving stops it, the group goes on without.

    `first` is written before anything else by the first leadership of this part: the first state of a new cluster, or what
    has to change in one that begins again with this manager alone. `written` is told once it is.
    """

    def __init__(
        self,
        folder: Path,
        record: SwarmRecord,
        keys: NodeKeys,
        listener: Listener,
        own_socket: Path,
        clock: Clock,
        *,
        founding: bool = False,
        first: Write | None = None,
        on_failure: Callable[[str, BaseException | None], None],
        on_expelled: Callable[[str], None],
    ) -> None:
        self.store = Store(clock=clock)
        self.manager: Manager | None = None
        """The leader's rooms, while this manager leads."""
        self.first_written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._folder = folder
        self._record = record
        self._keys = keys
        self._listener = listener
        self._own_socket = own_socket
        self._clock = clock
        self._founding = founding
        self._first = first
        self._on_failure = on_failure
        self._on_expelled = on_expelled
        self._knows_cluster = False
        self._stack = AsyncExitStack()
        self.member: RaftMember
        self.link: LeaderLink

    @property
    def node_id(self) -> str:
        """This manager."""
        return self._keys.identity.node_id

    @property
    def status(self) -> GroupStatus:
        """The group as this member sees it."""
        return self.member.status

    @property
    def knows_cluster(self) -> bool:
        """Whether the store shows the cluster: a manager that has just joined knows nothing before the leader tells it."""
        self._knows_cluster = self._knows_cluster or bool(self.store.view(lambda tx: tx.all(Cluster)))
        return self._knows_cluster

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Last of all: clients that watch a store whose log has ended would wait for ever.
            stack.callback(self.store.close)
            sealing = await asyncio.to_thread(self._keys.sealing)
            source = own_source(self._record.listen)
            transport = RaftTransport(lambda: self._keys.identity, source=source, clock=self._clock)
            self.member = RaftMember(
                self._folder / "raft",
                self.store,
                sealing,
                self.node_id,
                transport,
                address=self._record.advertise,
                founding=self._founding,
            )
            self.store.connect(await stack.enter_async_context(self.member))
            self.link = LeaderLink(
                self.member,
                lambda: self._keys.identity,
                self._own_socket,
                lambda status: Unavailable(quorum_lost(status, self.store)),
                source=source,
                clock=self._clock,
            )
            supervision = await stack.enter_async_context(Supervision(self._on_failure))
            supervision.run(self.link.run(), "way to the leader")
            supervision.run(KeyFollower(self.store, self._keys).run(), "unlock key")
            supervision.run(self._follow_settings(), "settings of the group")
            removed = RemovedNodes(self.store, lambda: self._listener.connections, lambda: self.manager is not None)
            supervision.run(removed.run(), "removed nodes")
            supervision.run(self._follow(), "manager")
            self.member.expelled.add_done_callback(self._expelled)
            self.member.broken.add_done_callback(self._broken)
            self._listener.on_raft = transport.adopt
            self._listener.join = Reception(self.node_id, self.link, self._admission)
            stack.callback(self._leave_listener)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _leave_listener(self) -> None:
        self._listener.on_raft = None
        self._listener.join = None

    def _expelled(self, done: asyncio.Future[str]) -> None:
        if not done.cancelled():
            self._on_expelled(done.result())

    def _broken(self, done: asyncio.Future[str]) -> None:
        if not done.cancelled():
            self._on_failure("group of managers", RuntimeError(done.result()))

    async def _follow_settings(self) -> None:
        async with aclosing(each_cluster(self.store)) as clusters:
            async for cluster in clusters:
                self.member.snapshot_interval = cluster.spec.raft.snapshot_interval or SNAPSHOT_INTERVAL

    # -- leadership

    async def _follow(self) -> None:
        """Run the leader's rooms for as long as this member leads: fresh ones for every term."""
        status = self.member.status
        while True:
            if status.leading:
                await self._lead(status)
                status = self.member.status
            else:
                status = await self.member.status_changed(status)

    async def _lead(self, status: GroupStatus) -> None:
        term = status.term
        logger.info("this manager leads the cluster in term %d", term)
        rooms = asyncio.ensure_future(self._run_rooms())
        try:
            while status.leading and status.term == term and not rooms.done():
                change = asyncio.ensure_future(self.member.status_changed(status))
                try:
                    await asyncio.wait({rooms, change}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
                status = self.member.status
        finally:
            self.manager = None
            rooms.cancel()
            await asyncio.wait({rooms})
        if not rooms.cancelled():
            error = rooms.exception()
            if not _means_lost(error):
                raise error or RuntimeError("the leader's rooms ended")
            if status.leading and status.term == term:
                # Nothing was lost but a proposal that the disk did not take.
                logger.warning("the leader's rooms ended (%s) and begin anew", error)
                await asyncio.sleep(LEADER_PAUSE)
        if not (status.leading and status.term == term):
            logger.info("this manager no longer leads the cluster in term %d", term)

    async def _run_rooms(self) -> None:
        if self._first is not None:
            await self.store.update(self._first)
            self._first = None
        if not self.first_written.done():
            self.first_written.set_result(None)
        manager = Manager(self.store, group=self.member, clock=self._clock)
        for connection in self._listener.connections:
            manager.dispatcher.on_connection(connection)
        self.manager = manager
        await manager.run()

    async def hand_over(self) -> bool:
        """Let another manager lead, if this one does and there is one; whether one took over. HANDOVER seconds at most."""
        status = self.member.status
        heirs = [each for each in status.members if each.voter and each.active and each.id != status.member_id]
        if not status.leading or not heirs:
            return False
        try:
            async with asyncio.timeout(HANDOVER):
                await self.member.transfer_leadership()
        except (TimeoutError, NotLeader, ProposalRefused) as error:
            logger.warning("nobody took the leadership over: %s", str(error) or "no answer in time")
            return False
        logger.info("another manager leads now")
        return True

    async def depart(self) -> None:
        """Have the leader take this manager out of the group, before it leaves for good.

        Tried again for as long as leaders are lost over it, and while a new leader may not have heard of everybody yet;
        Unavailable says why it cannot be.
        """
        refusable = asyncio.get_running_loop().time() + REFUSAL_PATIENCE
        while True:
            await self.hand_over()
            try:
                answer = await self.link.ask("depart", DepartOpen())
            except RpcError as error:
                reason = str(error)
            else:
                if not isinstance(answer, DepartAnswer):
                    raise Unavailable("the leader gave no answer")
                if not answer.error:
                    return
                if asyncio.get_running_loop().time() >= refusable:
                    raise Unavailable(answer.error)
                reason = answer.error
            logger.info("the leader has not taken this manager out of the group yet: %s", reason)
            await asyncio.sleep(DEPARTURE_PAUSE)

    # -- what others call

    def _admission(self) -> Membership | None:
        return self.manager.membership if self.manager is not None else None

    def handlers(self) -> Mapping[str, Handler]:
        """What other nodes may call on a manager."""
        return {
            **{method: self._by_leader(method) for method in _BY_LEADER},
            "session": self._session,
            "api": only(NodeRole.MANAGER, ApiExchange(lambda: self.member.status, self._own_socket)),
        }

    def accept(self, peer: Peer) -> str | None:
        """Whether a peer with a good certificate is still part of the cluster; the text says why not."""
        return self.manager.dispatcher.accept(peer) if self.manager is not None else None

    def objection(self, peer: Peer) -> str | None:
        """Why a peer with a good certificate is not taken for a node of the cluster, as far as this manager knows."""
        if self.manager is not None:
            return self.manager.dispatcher.accept(peer)
        # One that has been told nothing yet knows nobody.
        return objection_of_follower(self.store, peer) if self.knows_cluster else None

    def on_connection(self, connection: Connection) -> None:
        """The listener has an authenticated connection."""
        if self.manager is not None:
            self.manager.dispatcher.on_connection(connection)

    def _by_leader(self, method: str) -> Handler:
        async def answer(stream: Stream, opening: Message, connection: Connection) -> None:
            if self.manager is None and self.member.status.leader == self.node_id:
                with suppress(TimeoutError):
                    await self._until_led()
            manager = self.manager
            if manager is None:
                raise Unavailable("this manager does not lead the cluster")
            await manager.handlers()[method](stream, opening, connection)

        return answer

    async def _session(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """A node looks for the leader: here it is, or there, or nobody knows."""
        if not isinstance(opening, SessionOpen):
            raise InvalidArgument(f"a session is opened with SessionOpen, not {type(opening).__name__}")
        if self.manager is None:
            with suppress(TimeoutError):
                await self._until_led(opening.lost)
        manager = self.manager
        if manager is None:
            await stream.send(elsewhere(self.member.status, time.monotonic_ns()))
        else:
            await manager.handlers()["session"](stream, opening, connection)

    async def _until_led(self, lost: str = "") -> None:
        """Wait for an election that is under way, or about to be when the leader is `lost`; not for one that cannot be won."""
        status = self.member.status
        if elsewhere(status, time.monotonic_ns()).leaderless:
            return
        async with asyncio.timeout(ELECTION_PATIENCE):
            while self.manager is None and status.leader in ("", status.member_id, lost):
                status = await self.member.status_changed(status)


def _means_lost(error: BaseException | None) -> bool:
    """Whether everything that ended the leader's rooms is a lost leadership."""
    if isinstance(error, BaseExceptionGroup):
        return all(_means_lost(inner) for inner in error.exceptions)
    return isinstance(error, NotLeader | OutcomeUnknown)
