"""A cluster's certificates for tests of the node-to-node connection: roots, identities, moved clocks, a listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.api_types.node import NodeRole
from agent.api_types.swarm import DAY
from agent.api_types.times import SECOND, Clock, now_ns
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import RootCA
from agent.pki.tokens import join_token, make_secret, role_of_secret
from agent.rpc.client import dial
from agent.rpc.connection import Connection, Handler
from agent.rpc.listener import Limits, Listener
from agent.rpc.messages import Heartbeat, JoinAnswer, JoinOpen, LogRecord, ManagerAddress, Message
from agent.rpc.peer import Peer, Purpose
from agent.rpc.stream import Stream

HOUR = 3600 * SECOND
MINUTE = 60 * SECOND


def moved(by: int) -> Clock:
    """A clock that is `by` nanoseconds ahead."""
    return lambda: now_ns() + by


@dataclass
class TestCluster:
    """A root and what it signs."""

    __test__ = False
    cluster_id: str = "cluster1"
    root: RootCA = field(default_factory=lambda: RootCA.create(now_ns))
    worker_secret: str = field(default_factory=make_secret)
    manager_secret: str = field(default_factory=make_secret)

    def identity(
        self, node_id: str, role: NodeRole = NodeRole.WORKER, *, clock: Clock = now_ns, expiry: int = 90 * DAY
    ) -> NodeIdentity:
        key = NodeKey.create()
        certificate = self.root.sign(
            key.request(), node_id, role, cluster_id=self.cluster_id, clock=clock, expiry=expiry
        )
        return NodeIdentity.from_pem(certificate, key.pem, self.root.cert_pem)

    @property
    def token(self) -> str:
        return join_token(self.root.digest, self.worker_secret)

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """A JoinService without a store."""
        role = role_of_secret(request.secret, worker_secret=self.worker_secret, manager_secret=self.manager_secret)
        certificate = self.root.sign(request.request, "joined1", role, cluster_id=self.cluster_id, clock=now_ns)
        managers = [ManagerAddress(node_id="manager1", address="127.0.0.1:2377")]
        return JoinAnswer(
            node_id="joined1",
            role=role,
            cluster_id=self.cluster_id,
            certificate=certificate,
            root=self.root.cert_pem,
            managers=managers,
        )


def record(data: bytes) -> LogRecord:
    """A message of any size."""
    return LogRecord(task_id="t", timestamp=1, stream="stdout", data=data)


async def echo(stream: Stream, opening: Message, connection: Connection) -> None:
    """Answers the opening message, then every other, until the other side ends."""
    await stream.send(opening)
    while True:
        await stream.send(await stream.receive())


@asynccontextmanager
async def listening(
    cluster: TestCluster, handlers: Mapping[str, Handler] | None = None, **options: Any
) -> AsyncIterator[Listener]:
    """A manager's listener on a free port."""
    identity = options.pop("identity", None) or cluster.identity("manager1", NodeRole.MANAGER)
    provider = identity if callable(identity) else lambda: identity
    async with Listener("127.0.0.1:0", provider, handlers=handlers or {"echo": echo}, **options) as listener:
        yield listener


@asynccontextmanager
async def connected(
    cluster: TestCluster, handlers: Mapping[str, Handler] | None = None, **options: Any
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of one connection: the worker's that dialled and the manager's."""
    accepted: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    dialled_handlers = options.pop("dialled_handlers", None)
    async with (
        listening(cluster, handlers, on_connection=accepted.set_result, **options) as listener,
        await dial(
            listener.address, cluster.identity("worker1"), purpose=Purpose.CONTROL, handlers=dialled_handlers
        ) as connection,
    ):
        yield connection, await accepted


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds; the test's time-out bounds it."""
    while not condition():
        await asyncio.sleep(0)


__all__ = [
    "HOUR",
    "MINUTE",
    "Awaitable",
    "Heartbeat",
    "Limits",
    "TestCluster",
    "connected",
    "echo",
    "listening",
    "moved",
    "record",
    "until",
]
