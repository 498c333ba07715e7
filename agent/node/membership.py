"""This node's part in one swarm, while the agent runs: the listener, the worker and its session, a manager's part beside.

Start: listener, the manager's part, worker, session. Stop: the other way round, so that nobody is told something by a room
that its neighbour has left. The manager's part comes and goes with the role in the certificate; the rest stays, and so do
the containers.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from agent.api_types.errors import Unavailable
from agent.api_types.node import NodeDescription, NodeRole
from agent.api_types.times import Clock
from agent.network.ingress import Ingress
from agent.node.addresses import own_source
from agent.node.certificates import CertificateKeeper
from agent.node.keys import NodeKeys
from agent.node.manager_part import ManagerPart, Write
from agent.node.networks import NodeNetworks
from agent.node.record import SwarmRecord
from agent.node.relay_dialer import RelayDialer
from agent.node.relay_guard import guarded
from agent.node.supervision import Supervision, reason_of
from agent.pki.identity import NodeIdentity, NodeKey
from agent.rpc.addresses import split_address
from agent.rpc.client import dial
from agent.rpc.connection import Connection, Handler, only
from agent.rpc.errors import Unreachable
from agent.rpc.listener import Listener
from agent.rpc.messages import ManagerAddress, RenewAnswer, RenewOpen, SessionReady
from agent.rpc.peer import Peer, Purpose
from agent.worker.interface import Executor
from agent.worker.session import SessionKeeper, SessionRefused, Surface
from agent.worker.worker import Worker

logger = logging.getLogger(__name__)

SESSION_PATIENCE = 2.0
"""Seconds that a leader which stops waits for its own session with the next one."""

Describe = Callable[[], Awaitable[NodeDescription]]


class Membership:
    """One node in one swarm. `async with` starts it; leaving the block stops it, containers go on.

    `folder` holds certificates/, raft/ and worker/. `first` is what the leader writes before anything else, `founding` says
    that it is the first state of a new group. `on_part` is called when the manager's part came or went. `ended` is done
    when the membership is over although nobody here asked for it; its result says why.
    """

    def __init__(
        self,
        folder: Path,
        record: SwarmRecord,
        keys: NodeKeys,
        executor: Executor,
        describe: Describe,
        clock: Clock,
        *,
        own_socket: Path,
        data_dir: Path,
        on_part: Callable[[], None],
        founding: bool = False,
        first: Write | None = None,
    ) -> None:
        self.record = record
        self.keys = keys
        self.part: ManagerPart | None = None
        """The manager's part, while this node is a manager."""
        self.removed = False
        """Whether `ended` means that the cluster removed this node."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.networks = NodeNetworks(record.node_id, split_address(record.advertise)[0], folder, data_dir, executor)
        self.worker = Worker(executor, self.networks, state_dir=folder / "worker", clock=clock)
        self._folder = folder
        self._describe = describe
        self._clock = clock
        self._own_socket = own_socket
        self._on_part = on_part
        self._founding = founding
        self._first = first
        self._stack = AsyncExitStack()
        self._part_stack = AsyncExitStack()
        self._handlers: dict[str, Handler] = {}
        self._listener: Listener
        self._new_part = asyncio.Event()
        self._expelled = False
        self._session_ready = asyncio.Event()
        self._handed_over = self._leaving = False
        self._relays = RelayDialer(lambda: self.identity, own_source(record.listen))
        self.ingress = Ingress(split_address(record.listen)[0], self.worker.address, self._relays)
        self._certificates = CertificateKeeper(
            keys.identity, self._renew, keys.save, on_identity=self._on_identity, on_role=self._on_role, clock=clock
        )
        self._keeper = SessionKeeper(
            self.worker,
            self._dial,
            self._described,
            record.advertise,
            seeds=tuple(dict.fromkeys([*record.managers, *self._own_address()])),
            surface=Surface(
                on_ready=self._on_ready,
                on_update=self._certificates.update,
                on_ingress=self.ingress.apply,
                on_network=self.networks.on_network,
                on_keys=self.networks.on_keys,
                on_assigned=self.networks.on_assigned,
            ),
        )

    @property
    def identity(self) -> NodeIdentity:
        """The node's newest certificate and key."""
        return self.keys.identity

    @property
    def managers(self) -> list[ManagerAddress]:
        """The managers that this node knows of."""
        part = self.part
        if part is not None:
            known = [ManagerAddress(each.id, each.address) for each in part.status.members if each.voter]
            return known or [ManagerAddress(self.identity.node_id, self.record.advertise)]
        return self.worker.managers or [ManagerAddress("", address) for address in self.record.managers]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._listener = await stack.enter_async_context(
                Listener(
                    self.record.listen,
                    lambda: self.identity,
                    handlers=self._handlers,
                    accept=self._accept,
                    on_connection=self._on_connection,
                    clock=self._clock,
                )
            )
            stack.push_async_callback(self._stop_part)
            if self.identity.role is NodeRole.MANAGER:
                await self._start_part()
            else:
                await self._wipe_group()
            stack.push_async_callback(self._relays.close)
            stack.push_async_callback(self.ingress.close)
            await stack.enter_async_context(self.networks)
            self._handlers["relay"] = guarded(self.worker.handlers()["relay"], self._objection)
            rooms = await stack.enter_async_context(Supervision(self._on_end))
            rooms.run(self._follow_role(), "change of role")
            rooms.run(self.worker.run(), "worker")
            rooms.run(self._certificates.run(), "certificate")
            rooms.run(self._keeper.run(), "session")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if not self.ended.done():
            self.ended.cancel()

    async def hand_over(self) -> None:
        """If this manager leads, let another one."""
        self._session_ready.clear()
        if self.part is not None and await self.part.hand_over():
            self._handed_over = True

    async def stop_in_order(self) -> None:
        """The agent will be back: another manager leads meanwhile, and nothing moves away from this node for a minute."""
        await self.hand_over()
        if self._handed_over:
            # The word of leave is for the new leader.
            try:
                async with asyncio.timeout(SESSION_PATIENCE):
                    await self._session_ready.wait()
            except TimeoutError:
                logger.warning("no session with the new leader in time: it will miss this node for a while")
        await self._keeper.leave()

    async def depart(self) -> None:
        """Have the leader take this manager out of the group, because the node leaves the swarm for good.

        Unavailable says why it cannot. What it says of this node's role until then changes nothing here any more.
        """
        self._leaving = True
        if self.part is not None:
            await self.part.depart()

    async def until_first_written(self) -> None:
        """Wait until `first` is; Unavailable when the membership ended before."""
        if self.part is None:
            raise Unavailable("this node is no manager")
        waits: list[asyncio.Future[Any]] = [self.part.first_written, self.ended]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not self.part.first_written.done():
            raise Unavailable(self.ended.result())

    async def clear(self) -> None:
        """Stop and remove every task, because the node leaves the swarm for good."""
        await self.worker.clear()
        await self.networks.clear()

    # -- the manager's part

    async def _start_part(self) -> None:
        async with AsyncExitStack() as stack:
            part = ManagerPart(
                self._folder,
                self.record,
                self.keys,
                self._listener,
                self._own_socket,
                self._clock,
                founding=self._founding,
                first=self._first,
                on_failure=self._on_end,
                on_expelled=self._on_expelled,
            )
            self._founding, self._first = False, None
            await stack.enter_async_context(part)
            handlers = part.handlers()
            self._handlers.update(handlers)
            stack.callback(self._remove_handlers, handlers)
            self.part = part
            self._part_stack = stack.pop_all()
        self._on_part()

    async def _stop_part(self) -> None:
        self.part = None
        self._on_part()
        stack, self._part_stack = self._part_stack, AsyncExitStack()
        await stack.aclose()

    def _remove_handlers(self, handlers: Mapping[str, Handler]) -> None:
        for method in handlers:
            self._handlers.pop(method, None)

    async def _follow_role(self) -> None:
        """Begin and end the manager's part as the role in the certificate changes. Containers notice nothing."""
        while True:
            await self._new_part.wait()
            self._new_part.clear()
            if self._leaving:
                continue
            is_manager = self.identity.role is NodeRole.MANAGER
            if self.part is not None and (self._expelled or not is_manager):
                logger.info("this node is no longer part of the group of managers")
                await self._stop_part()
            if self.part is None:
                await self._wipe_group()
                self._expelled = False
                if is_manager:
                    logger.info("this node takes part in the group of managers as soon as the leader adds it")
                    await self._start_part()

    async def _wipe_group(self) -> None:
        """Forget the managers' log: what it says is old by the time this node is a manager again."""
        await asyncio.to_thread(shutil.rmtree, self._folder / "raft", ignore_errors=True)
        if self.identity.role is NodeRole.WORKER:
            await asyncio.to_thread(self.keys.forget_state)

    def _on_expelled(self, reason: str) -> None:
        logger.warning("this manager is no longer part of the group: %s", reason)
        self._expelled = True
        self._new_part.set()

    def _accept(self, peer: Peer) -> str | None:
        return self.part.accept(peer) if self.part is not None else None

    def _objection(self, peer: Peer) -> str | None:
        """What is against a relay for the peer; a worker knows no other node and so has nothing."""
        return self.part.objection(peer) if self.part is not None else None

    def _on_connection(self, connection: Connection) -> None:
        if self.part is not None:
            self.part.on_connection(connection)

    # -- worker

    def _own_address(self) -> list[str]:
        return [self.record.advertise] if self.identity.role is NodeRole.MANAGER else []

    async def _dial(self, address: str, purpose: Purpose, handlers: Mapping[str, Handler]) -> Connection:
        answering = {**handlers, "logs": only(NodeRole.MANAGER, handlers["logs"])} if "logs" in handlers else handlers
        return await dial(
            address,
            self.identity,
            purpose=purpose,
            handlers=answering,
            expect_role=NodeRole.MANAGER,
            source=own_source(self.record.listen),
            clock=self._clock,
        )

    async def _described(self) -> NodeDescription:
        return msgspec.structs.replace(await self._describe(), tls_info=self.identity.tls_info())

    def _on_ready(self, ready: SessionReady) -> None:
        self._session_ready.set()
        self.networks.on_session()

    # -- certificate

    async def _renew(self, key: NodeKey) -> NodeIdentity:
        """Ask the leader, which this node has a session with, for a certificate."""
        session = self._keeper.session
        if session is None:
            raise Unreachable("there is no session with the leader")
        connection = await self._dial(session.manager, Purpose.CONTROL, {})
        async with connection, await connection.open("renew", RenewOpen(key.request())) as stream:
            answer = await stream.receive()
        if not isinstance(answer, RenewAnswer):
            raise ValueError(f"a {type(answer).__name__} where a certificate was expected")
        return NodeIdentity.from_pem(answer.certificate, key.pem, answer.roots)

    def _on_identity(self, identity: NodeIdentity) -> None:
        """Another certificate, or other roots: every connection is made anew with it."""
        logger.info("this node has a new certificate, of a %s", identity.role)
        self._keeper.dial_anew()
        self._relays.dial_anew()

    def _on_role(self, identity: NodeIdentity) -> None:
        self._new_part.set()

    # -- running

    def _on_end(self, name: str, error: BaseException | None) -> None:
        """A room ended that should not: the membership is over, and says why."""
        if self.ended.done():
            return
        if isinstance(error, SessionRefused):
            self.removed = error.removed
        elif error is not None:
            logger.error("the %s ended", name, exc_info=error)
        self.ended.set_result(f"the {name} ended: {reason_of(error)}")
