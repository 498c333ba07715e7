"""The node's one TLS listener: lets in who may come in, and says why to those who may not."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agent.api_types.node import NodeRole
from agent.api_types.times import Clock, now_ns
from agent.pki.identity import NodeIdentity
from agent.rpc.addresses import socket_address, split_address
from agent.rpc.admission import JoinService, joining_handlers
from agent.rpc.channel import Channel, attach_socket
from agent.rpc.connection import MAX_STREAMS, Connection, Handler
from agent.rpc.errors import ListenFailed, Refused, RpcError, Unreachable, kernel_words
from agent.rpc.frames import FrameType
from agent.rpc.greeting import Removal, greet_as_server
from agent.rpc.handover import Handover
from agent.rpc.pace import Pace
from agent.rpc.peer import Peer, Purpose
from agent.rpc.protocols import SPOKEN, Protocols
from agent.rpc.stream import MAX_MESSAGE, MAX_MESSAGE_OF_STRANGER
from agent.rpc.tls import server_context

__all__ = ["JoinService", "Limits", "Listener"]

logger = logging.getLogger("agent.rpc")

_BACKLOG = 1024
_ACCEPT_AT_ONCE = 16
_ACCEPT_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers may use up. Times in seconds."""

    strangers: int = 512
    """Connections that have not shown a good certificate (yet); more wait in the kernel's queue."""
    patience: float = 4.0
    """While that many are there, one that took longer than this by itself makes room for the next."""
    handshake: float = 10.0
    """From the TCP connection to the hello."""
    joining: float = 30.0
    """The whole life of a connection without a certificate."""


class Listener:
    """`async with Listener("0.0.0.0:2377", lambda: identity, handlers={...}) as listener:`

    `identity` is asked for each new handshake, so a renewed certificate is used at once. `handlers` is looked up live.
    `join` may be None (a worker: `join` and `ca` are answered with a text) and may be set later. `accept` may refuse an
    authenticated peer that was removed from the cluster, with a text that reaches it (`Removed`). `on_connection` is told
    of every authenticated connection before its first message is handled. `on_raft` takes over the connections that
    managers made for the group's own messages, as soon as they are known (`RaftTransport.adopt`); without it they are
    refused. It may be set later.
    Leaving the `async with` closes all connections but those.
    """

    def __init__(
        self,
        address: str,
        identity: Callable[[], NodeIdentity],
        *,
        handlers: Mapping[str, Handler],
        join: JoinService | None = None,
        accept: Callable[[Peer], str | None] | None = None,
        on_connection: Callable[[Connection], None] | None = None,
        on_raft: Callable[[Handover], None] | None = None,
        clock: Clock = now_ns,
        spoken: Protocols = SPOKEN,
        limits: Limits | None = None,
    ) -> None:
        self.join = join
        """Who admits new nodes; None while this node is no manager."""
        self.on_raft = on_raft
        """Who takes connections of other managers' groups; None while this node is no member of one."""
        self._wanted = split_address(address)
        self._identity = identity
        self._handlers = handlers
        self._accept_peer = accept
        self._on_connection = on_connection
        self._clock = clock
        self._spoken = spoken
        self._limits = limits or Limits()
        self._socket: socket.socket | None = None
        self._reading = False
        self._retry: asyncio.TimerHandle | None = None
        self._pace = Pace()
        self._strangers: dict[Channel, float] = {}
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`host:port` that is bound."""
        if self._socket is None:
            raise RuntimeError("the listener is not open")
        return socket_address(self._socket.getsockname())

    @property
    def connections(self) -> frozenset[Connection]:
        """Authenticated connections that are open."""
        return frozenset(self._connections)

    @property
    def strangers(self) -> int:
        """Connections without a good certificate (yet)."""
        return len(self._strangers)

    async def __aenter__(self) -> Self:
        host, port = self._wanted
        try:
            info = (
                await asyncio.get_running_loop().getaddrinfo(
                    host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            )[0]
            self._socket = socket.create_server(
                info[4][:2],
                family=info[0],
                backlog=_BACKLOG,
                dualstack_ipv6=info[0] == socket.AF_INET6 and host in ("", "::"),
            )
        except OSError as error:
            raise ListenFailed(
                f"cannot listen on {host}:{port}: {kernel_words(error)} "
                "(is another agent, or Docker's own swarm, running on this host?)"
            ) from None
        self._socket.setblocking(False)
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for task in self._tasks:
            task.cancel()
        # Each task closes its own connection.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- accepting

    def _listen(self) -> None:
        if self._socket is not None and not self._reading:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._socket, self._acceptable)

    def _pause(self) -> None:
        if self._socket is not None and self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._socket)

    def _acceptable(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            if self._socket is None or not self._room():
                return
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of file descriptors or memory: what is there goes on, and the queue waits a moment.
                logger.error("cannot accept connections: %s", kernel_words(error))
                self._try_again(_ACCEPT_PAUSE)
                return
            self._start(accepted)

    def _room(self) -> bool:
        """Whether one more stranger may come in; if not, it is tried again as soon as that can change."""
        if len(self._strangers) < self._limits.strangers:
            return True
        now = asyncio.get_running_loop().time()

        def age_of(channel: Channel) -> float:
            """How long it has taken by itself: for what it waits for us, it is not to blame."""
            return now - self._strangers[channel] - channel.held_up

        # Those who get through the TLS handshake cost an attacker more: they go last.
        oldest = max(self._strangers, key=lambda channel: (not channel.established, age_of(channel)))
        age = age_of(oldest)
        if age >= self._limits.patience:
            oldest.abort(Unreachable(f"gave way to others: {len(self._strangers)} strangers are connected"))
            self._strangers.pop(oldest, None)
            return True
        self._try_again(self._limits.patience - age)
        return False

    def _try_again(self, seconds: float) -> None:
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(seconds, self._listen)

    def _start(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            identity = self._identity()
            channel = Channel(server_context(identity), server_side=True, pace=self._pace)
        except BaseException:
            accepted.close()
            raise
        self._strangers[channel] = loop.time()
        task = loop.create_task(self._serve(accepted, channel, identity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step has closed nothing.
        task.add_done_callback(lambda _: accepted.close())

    def _left(self, channel: Channel) -> None:
        """`channel` is no stranger any more, or gone."""
        if self._strangers.pop(channel, None) is not None:
            self._listen()

    # -- one connection

    async def _serve(self, accepted: socket.socket, channel: Channel, identity: NodeIdentity) -> None:
        """The life of one connection. Whatever happens here, the listener goes on."""
        try:
            greeting = await self._greet(accepted, channel, identity)
            if greeting is None:
                return
            peer, purpose = greeting
            if purpose is Purpose.RAFT:
                await self._hand_over(channel, peer, identity)
            else:
                await self._keep(self._connection(channel, peer, purpose, identity), channel)
        except (RpcError, TimeoutError) as error:
            logger.warning("lost %s while it was handed over: %s", channel.address, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            # A mistake of ours (or of a callback) in one connection must not end the others; the trace says where.
            logger.exception("serving %s failed", channel.address)
        finally:
            if not channel.detached:
                channel.abort(Unreachable("the listener is done with it"))
            self._left(channel)

    async def _greet(
        self, accepted: socket.socket, channel: Channel, identity: NodeIdentity
    ) -> tuple[Peer, Purpose] | None:
        """Handshake and hello; None (and a line in the log) when the other side is not let in."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.handshake):
                await attach_socket(loop, accepted, channel)
                await channel.handshake()
                return await greet_as_server(
                    channel,
                    identity,
                    clock=self._clock,
                    accept=self._objection,
                    spoken=self._spoken,
                    turn=self._pace.turn,
                )
        except TimeoutError:
            text = f"no hello within {self._limits.handshake:g} s"
            logger.warning("refused %s: %s", channel.address, text)
            channel.end(Unreachable(f"{channel.address}: {text}"), FrameType.REFUSE, text)
            await channel.wait_closed()
            return None
        except Refused as error:
            logger.warning("refused %s", error)
            await channel.wait_closed()
            return None
        except RpcError as error:
            logger.warning("lost %s", error)
            await channel.wait_closed()
            return None
        except OSError as error:
            logger.warning("lost %s before its handshake: %s", channel.address, error)
            return None

    def _objection(self, peer: Peer, purpose: Purpose) -> str | Removal | None:
        """Why an authenticated peer is not let in, or None."""
        if purpose is Purpose.RAFT:
            node_id = self._identity().node_id
            if peer.role is not NodeRole.MANAGER:
                return f"node {peer.node_id} is a {peer.role}, and only managers talk to the group of managers"
            if self.on_raft is None:
                return f"node {node_id} is no member of the group of managers (or not yet)"
            if peer.node_id == node_id:
                return f"node {node_id} was reached by itself: one of its addresses is wrong, or it was copied"
        text = self._accept_peer(peer) if self._accept_peer is not None else None
        return None if text is None else Removal(text)

    async def _hand_over(self, channel: Channel, peer: Peer, identity: NodeIdentity) -> None:
        """Give the connection away; nothing of it stays on this loop."""
        async with asyncio.timeout(self._limits.handshake):
            connected = await channel.detach()
        handover = Handover(channel, connected, peer, identity.node_id)
        if self.on_raft is None:
            handover.close()
        else:
            self.on_raft(handover)

    def _connection(self, channel: Channel, peer: Peer, purpose: Purpose, identity: NodeIdentity) -> Connection:
        handlers = self._handlers if peer.role else joining_handlers(self._identity, lambda: self.join)
        return Connection(
            channel,
            peer,
            purpose,
            local_id=identity.node_id,
            dialled=False,
            handlers=handlers,
            max_streams=MAX_STREAMS if peer.role else 1,
            max_message=MAX_MESSAGE if peer.role else MAX_MESSAGE_OF_STRANGER,
        )

    async def _keep(self, connection: Connection, channel: Channel) -> None:
        """Serve an open connection to its end."""
        known = connection.peer.role is not None
        try:
            if known:
                self._left(channel)
                self._connections.add(connection)
                logger.debug("connected: %r", connection)
                if self._on_connection is not None:
                    self._on_connection(connection)
                connection.begin()
                reason = await connection.wait_closed()
                logger.debug("disconnected: %r: %s", connection, reason)
                await connection.settle()
            else:
                connection.begin()
                try:
                    async with asyncio.timeout(self._limits.joining):
                        await connection.wait_closed()
                except TimeoutError:
                    logger.warning("closed %s: not done within %g s", connection.peer, self._limits.joining)
        finally:
            self._connections.discard(connection)
            await connection.shut("the node stops listening" if self._socket is None else "time is up")
