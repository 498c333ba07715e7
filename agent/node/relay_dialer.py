"""Reaches a port of a task on another node, through that node's agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from agent.network.interface import Link
from agent.pki.identity import NodeIdentity
from agent.rpc.client import dial
from agent.rpc.connection import Connection
from agent.rpc.errors import RpcError, StreamEnded
from agent.rpc.messages import IngressBackend, RelayOpen, RelayReady
from agent.rpc.peer import Purpose
from agent.rpc.stream import Stream
from agent.worker.relay import Datagrams, frame_datagram

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT = 3.0
"""Seconds until a node that does not answer is passed over: it may be frozen or cut off."""

STREAMS_A_CONNECTION = 500
"""Relays that share a connection before another one is dialled."""


class RelayDialer:
    """Opens relays; keeps the connections to other nodes and shares them."""

    def __init__(self, identity: Callable[[], NodeIdentity], source: str | None = None) -> None:
        """`source` is the local address of the connections, None for the kernel's choice."""
        self._identity = identity
        self._source = source
        self._connections: dict[str, list[Connection]] = {}
        self._dialling: dict[str, asyncio.Lock] = {}
        self._retired: list[Connection] = []
        """Connections that were made with an older certificate: no relay is begun on them any more."""

    async def __call__(self, backend: IngressBackend, port: int, protocol: str) -> Link:
        """A link to `port` of the task; OSError when its node or the task cannot be reached."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                connection = await self._connection(backend)
                stream = await connection.open("relay", RelayOpen(backend.task_id, port, protocol))
                try:
                    answer = await stream.receive()
                except asyncio.CancelledError:
                    await stream.fail("not waited for")
                    raise
        except TimeoutError:
            # The connection may hang for minutes before TCP gives it up; the next relay dials anew.
            for connection in self._connections.pop(backend.node_address, []):
                connection.close("it did not answer in time")
            raise
        except RpcError as error:
            raise ConnectionRefusedError(str(error)) from None
        if not isinstance(answer, RelayReady) or answer.error:
            await stream.fail("not used")
            raise ConnectionRefusedError(answer.error if isinstance(answer, RelayReady) else "not a relay")
        match protocol:
            case "tcp":
                return _StreamLink(stream)
            case "udp":
                return _DatagramLink(stream)
            case _:
                raise ConnectionRefusedError(f"{protocol} is not relayed")

    def dial_anew(self) -> None:
        """This node has another certificate: what stands goes on, what is new is dialled with it."""
        self._retired += [connection for group in self._connections.values() for connection in group]
        self._connections.clear()
        self._end_retired()

    def _end_retired(self) -> None:
        for connection in self._retired:
            if not connection.stream_count:
                connection.close("the node has another certificate")
        self._retired = [connection for connection in self._retired if not connection.closed]

    async def close(self) -> None:
        """Close every connection; relays that stand break."""
        connections = [connection for group in self._connections.values() for connection in group] + self._retired
        self._connections.clear()
        await asyncio.gather(*(connection.shut("the node stops") for connection in connections))

    async def _connection(self, backend: IngressBackend) -> Connection:
        address = backend.node_address
        self._end_retired()
        async with self._dialling.setdefault(address, asyncio.Lock()):
            open_ones = [connection for connection in self._connections.get(address, []) if not connection.closed]
            for connection in open_ones:
                if connection.stream_count < STREAMS_A_CONNECTION:
                    self._connections[address] = open_ones
                    return connection
            made = await dial(
                address,
                self._identity(),
                purpose=Purpose.RELAY,
                expect_node=backend.node_id,
                source=self._source,
                timeout=ANSWER_TIMEOUT,
            )
            self._connections[address] = [*open_ones, made]
            return made


class _StreamLink:
    """A `Link` over a stream of bytes to another node."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._ended = self._over = False

    async def receive(self) -> bytes:
        try:
            data = await self._stream.receive_bytes()
        except StreamEnded:
            data = b""
        except RpcError as error:
            raise ConnectionResetError(str(error)) from None
        self._over = not data
        return data

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send_bytes(data)
        except RpcError as error:
            raise ConnectionResetError(str(error)) from None

    async def end(self) -> None:
        if not self._ended:
            self._ended = True
            try:
                await self._stream.end()
            except RpcError as error:
                raise ConnectionResetError(str(error)) from None

    async def close(self) -> None:
        if not (self._ended and self._over):
            await self._stream.fail("the client is gone")


class _DatagramLink(_StreamLink):
    """A `Link` whose chunks are datagrams, framed in a stream of bytes."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._datagrams = Datagrams()
        self._whole: list[bytes] = []

    async def receive(self) -> bytes:
        while not self._whole:
            data = await super().receive()
            if not data:
                return b""
            self._whole = self._datagrams.feed(data)
        return self._whole.pop(0)

    async def send(self, data: bytes) -> None:
        await super().send(frame_datagram(data))
