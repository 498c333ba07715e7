"""A manager for tests of the group's transport: a listener on the test's loop, the transport on a loop of its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from rpc_cluster import TestCluster

from agent.api_types.node import NodeRole
from agent.pki.identity import NodeIdentity
from agent.rpc.listener import Listener
from agent.rpc.raft_link import Patience
from agent.rpc.raft_transport import RaftTransport

T = TypeVar("T")

PATIENT = Patience(answer=20.0, dial=20.0, first_pause=0.01, longest_pause=0.05, idle=30.0, chunk=20.0)
"""For tests in which nobody is slow but the machine."""
QUICK = replace(PATIENT, answer=0.2)
"""For those in which somebody is."""


class Driver:
    """A loop in a thread. `async with` ends both."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.problems.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, name="driver")

    async def __aenter__(self) -> Driver:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()
        assert not self.problems, self.problems

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """`work` on the driver's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def call(self, function: Callable[[], T]) -> T:
        """`function` on the driver's loop."""

        async def once() -> T:
            return function()

        return await self.run(once())


class Recorder:
    """A receiver whose queues are on the test's loop."""

    def __init__(self) -> None:
        self._main = asyncio.get_running_loop()
        self.messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.lost: asyncio.Queue[str] = asyncio.Queue()
        self.chunks: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.threads: set[str] = set()
        self.take: Callable[[str, bytes], Awaitable[None]] | None = None

    def received(self, member: str, messages: Sequence[bytes]) -> None:
        self.threads.add(threading.current_thread().name)
        for message in messages:
            self._main.call_soon_threadsafe(self.messages.put_nowait, (member, message))

    def unreachable(self, member: str) -> None:
        self.threads.add(threading.current_thread().name)
        self._main.call_soon_threadsafe(self.lost.put_nowait, member)

    async def snapshot_chunk(self, member: str, chunk: bytes) -> None:
        self.threads.add(threading.current_thread().name)
        if self.take is not None:
            await self.take(member, chunk)
        self._main.call_soon_threadsafe(self.chunks.put_nowait, (member, chunk))

    async def expect(self, *messages: bytes) -> None:
        """The next messages are these."""
        assert [(await self.messages.get())[1] for _ in messages] == list(messages)


class Manager:
    """One of them."""

    def __init__(self, identity: NodeIdentity, driver: Driver, patience: Patience) -> None:
        self.identity = identity
        self.driver = driver
        self.receiver = Recorder()
        self.transport = RaftTransport(lambda: self.identity, patience=patience)
        self.address = ""
        self.listener: Listener

    async def send(self, to: Manager, *messages: bytes, address: str = "") -> None:
        await self.driver.call(lambda: self.transport.send(to.identity.node_id, address or to.address, list(messages)))

    async def link_up(self, to: Manager) -> None:
        """A message went through, so that there is a connection."""
        await self.send(to, b"hello")
        await to.receiver.expect(b"hello")


@asynccontextmanager
async def manager(
    cluster: TestCluster, node_id: str, *, patience: Patience = PATIENT, address: str = "127.0.0.1:0", **options: Any
) -> AsyncIterator[Manager]:
    """A running one."""
    async with Driver() as driver:
        this = Manager(cluster.identity(node_id, NodeRole.MANAGER), driver, patience)
        await driver.run(this.transport.start(this.receiver))
        try:
            async with Listener(
                address, lambda: this.identity, handlers={}, on_raft=this.transport.adopt, **options
            ) as listener:
                this.listener = listener
                this.address = listener.address
                yield this
        finally:
            await driver.run(this.transport.close())
