"""This node's part in one swarm, while the agent runs: the listener, the manager's rooms on a manager, the worker.

Start: listener, log and store, what the leader does, worker, session. Stop: the other way round, so that nobody is told
something by a room that its neighbour has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from agent.api_types.node import Node, NodeDescription, NodeRole
from agent.api_types.times import Clock
from agent.manager.manager import Manager
from agent.network.ingress import Ingress
from agent.node.addresses import own_source
from agent.node.founding import Founding
from agent.node.record import SwarmRecord
from agent.node.relay_dialer import RelayDialer
from agent.pki.identity import NodeIdentity
from agent.pki.sealing import Sealing
from agent.raft.single import SingleMember
from agent.rpc.addresses import split_address
from agent.rpc.client import dial
from agent.rpc.connection import Connection, Handler, only
from agent.rpc.listener import Listener
from agent.rpc.messages import ManagerAddress
from agent.rpc.peer import Peer, Purpose
from agent.store.store import Store
from agent.worker.interface import Executor
from agent.worker.session import SessionKeeper, SessionRefused, Surface
from agent.worker.worker import Worker

logger = logging.getLogger(__name__)

Describe = Callable[[], Awaitable[NodeDescription]]


class Membership:
    """One node in one swarm. `async with` starts it; leaving the block stops it, containers go on.

    `folder` holds certificates/, raft/ and worker/. `founding` is the first state of a new cluster, given once. `ended`
    is done when the membership is over although nobody here asked for it; its result says why.
    """

    def __init__(
        self,
        folder: Path,
        record: SwarmRecord,
        identity: NodeIdentity,
        executor: Executor,
        describe: Describe,
        clock: Clock,
        *,
        founding: Founding | None = None,
    ) -> None:
        self.record = record
        self.identity = identity
        self.store: Store | None = None
        self.manager: Manager | None = None
        self.removed = False
        """Whether `ended` means that the cluster removed this node."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._folder = folder
        self._founding = founding
        self._describe = describe
        self._clock = clock
        self._stack = AsyncExitStack()
        self._handlers: dict[str, Handler] = {}
        self.worker = Worker(executor, state_dir=folder / "worker", clock=clock)
        self._relays = RelayDialer(lambda: self.identity, own_source(record.listen))
        self.ingress = Ingress(split_address(record.listen)[0], self.worker.address, self._relays)
        self._keeper = SessionKeeper(
            self.worker,
            self._dial,
            self._described,
            record.advertise,
            seeds=tuple(dict.fromkeys([*record.managers, *self._own_address()])),
            surface=Surface(on_ingress=self.ingress.apply),
        )

    @property
    def managers(self) -> list[ManagerAddress]:
        """The managers that this node knows of."""
        if self.identity.role is NodeRole.MANAGER:
            return [ManagerAddress(self.identity.node_id, self.record.advertise)]
        return self.worker.managers or [ManagerAddress("", address) for address in self.record.managers]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            listener = Listener(
                self.record.listen,
                lambda: self.identity,
                handlers=self._handlers,
                accept=self._accept,
                on_connection=self._on_connection,
                clock=self._clock,
            )
            await stack.enter_async_context(listener)
            if self.identity.role is NodeRole.MANAGER:
                await self._start_manager(stack, listener)
            stack.push_async_callback(self._relays.close)
            stack.push_async_callback(self.ingress.close)
            self._handlers["relay"] = self.worker.handlers()["relay"]
            await self._run_in_background(stack, self.worker.run(), "worker")
            await self._run_in_background(stack, self._keeper.run(), "session")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if not self.ended.done():
            self.ended.cancel()

    async def announce_stop(self) -> None:
        """Tell the manager that the agent will be back: nothing moves away from this node for a minute."""
        await self._keeper.leave()

    async def clear(self) -> None:
        """Stop and remove every task, because the node leaves the swarm for good."""
        await self.worker.clear()

    # -- manager

    async def _start_manager(self, stack: AsyncExitStack, listener: Listener) -> None:
        store = Store(clock=self._clock)
        sealing = await asyncio.to_thread(Sealing.load_or_create, self._folder / "certificates")
        member = SingleMember(self._folder / "raft", store, sealing, self.identity.node_id)
        store.connect(await stack.enter_async_context(member))
        if self._founding is not None:
            await store.update(self._founding.write)
        else:
            await self._note_own_address(store)
        manager = Manager(store, clock=self._clock)
        self._handlers.update(manager.dispatcher.handlers())
        listener.join = manager.membership
        self.store, self.manager = store, manager
        await self._run_in_background(stack, manager.run(), "manager")

    async def _note_own_address(self, store: Store) -> None:
        """After a restart the node may be reached elsewhere."""
        node = store.view(lambda tx: tx.get(Node, self.identity.node_id))
        if node is None or node.manager_status is None or node.manager_status.addr == self.record.advertise:
            return
        changed = msgspec.structs.replace(
            node, manager_status=msgspec.structs.replace(node.manager_status, addr=self.record.advertise)
        )
        await store.update(lambda tx: tx.update(changed) and None)

    def _accept(self, peer: Peer) -> str | None:
        """Whether a peer with a good certificate is still part of the cluster; the text says why not."""
        return self.manager.dispatcher.accept(peer) if self.manager is not None else None

    def _on_connection(self, connection: Connection) -> None:
        if self.manager is not None:
            self.manager.dispatcher.on_connection(connection)

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

    # -- running

    async def _run_in_background(self, stack: AsyncExitStack, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda done: self._on_end(name, done))
        stack.push_async_callback(_cancel, task)

    def _on_end(self, name: str, task: asyncio.Future[None]) -> None:
        """A room ended that should not: the membership is over, and says why."""
        if task.cancelled() or self.ended.done():
            return
        error = task.exception()
        if isinstance(error, SessionRefused):
            self.removed = error.removed
        elif error is not None:
            logger.error("the %s ended", name, exc_info=error)
        self.ended.set_result(f"the {name} ended: {_reason(error)}")


def _reason(error: BaseException | None) -> str:
    """The innermost first error of a group, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return "nobody asked for it" if error is None else str(error) or type(error).__name__


async def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
