"""A relay in this process, for hosts where neither IPVS nor nftables may be used.

A listener a virtual service; each connection goes to the next backend in turn. A backend that cannot be reached is passed
over before a byte of the client was read, so that the client does not notice; `weight` 0 takes no new connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass, field
from typing import cast

from agent.network.interface import Backend, Dialer, Link, VirtualService
from agent.network.links import StreamLink, splice

logger = logging.getLogger(__name__)

BACKLOG = 1024
UDP_IDLE = 60.0
"""Seconds after which a client's UDP flow is forgotten; the kernel's conntrack takes 30 to 120."""

_Key = tuple[str, int, str]


@dataclass
class _Listener:
    """What listens for one virtual service."""

    service: VirtualService
    backends: list[Backend]
    turn: int = 0
    server: asyncio.Server | None = None
    datagrams: _DatagramServer | None = None
    flows: set[asyncio.Task[None]] = field(default_factory=set)

    def candidates(self) -> list[Backend]:
        """Every backend, the one whose turn it is first."""
        self.turn += 1
        start = self.turn % len(self.backends) if self.backends else 0
        return self.backends[start:] + self.backends[:start]


class UserspaceBalancer:
    """`Balancer` by relaying in this process. `failures` names the ports that could not be had, and why."""

    def __init__(self, dial: Dialer) -> None:
        self._dial = dial
        self._listeners: dict[_Key, _Listener] = {}
        self._applying = asyncio.Lock()
        self.failures: dict[tuple[int, str], str] = {}
        """(port, protocol) to the operating system's reason, for ports that could not be had."""

    async def apply(self, desired: frozenset[VirtualService]) -> None:
        """Bring the listeners to the desired set. A port that cannot be had is logged, kept in `failures` and tried again
        at the next call; connections of a port that is taken away go on until they end."""
        async with self._applying:
            wanted = {(service.address, service.port, service.protocol): service for service in desired}
            for key in [key for key in self._listeners if key not in wanted]:
                _stop(self._listeners.pop(key))
            self.failures = {
                (port, protocol): why
                for (port, protocol), why in self.failures.items()
                if any(key[1:] == (port, protocol) for key in wanted)
            }
            for key, service in wanted.items():
                listener = self._listeners.get(key)
                if listener is None:
                    await self._listen(key, service)
                elif listener.service != service:
                    listener.service = service
                    listener.backends = _in_turn(service)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        async with self._applying:
            for listener in self._listeners.values():
                _stop(listener)
                for flow in listener.flows:
                    flow.cancel()
                await asyncio.gather(*listener.flows, return_exceptions=True)
                if listener.datagrams is not None:
                    await listener.datagrams.lost.wait()
            self._listeners.clear()

    async def _listen(self, key: _Key, service: VirtualService) -> None:
        listener = _Listener(service, _in_turn(service))
        try:
            if service.protocol == "tcp":
                listener.server = await asyncio.start_server(
                    lambda reader, writer: self._accept(listener, reader, writer),
                    service.address,
                    service.port,
                    backlog=BACKLOG,
                    reuse_address=True,
                )
            elif service.protocol == "udp":
                loop = asyncio.get_running_loop()
                _, listener.datagrams = await loop.create_datagram_endpoint(
                    lambda: _DatagramServer(self, listener), local_addr=(service.address, service.port)
                )
            else:
                raise OSError(f"the userspace relay does not carry {service.protocol}")
        except OSError as error:
            why = error.strerror or str(error)
            if self.failures.get((service.port, service.protocol)) != why:
                logger.error("published port %d/%s cannot be had: %s", service.port, service.protocol, why)
            self.failures[service.port, service.protocol] = why
            return
        self.failures.pop((service.port, service.protocol), None)
        self._listeners[key] = listener

    async def _accept(self, listener: _Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        listener.flows.add(task)
        client = StreamLink(reader, writer)
        try:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            backend = await self.connect(listener)
            if backend is None:
                client.abort()
                return
            await splice(client, backend)
        finally:
            listener.flows.discard(task)
            with contextlib.suppress(OSError):
                await client.close()

    async def connect(self, listener: _Listener) -> Link | None:
        """A link to the backend whose turn it is, or to the next that can be reached; None when none can."""
        for backend in listener.candidates():
            try:
                return await self._dial(backend, listener.service.protocol)
            except OSError as error:
                logger.debug("%s:%d cannot be reached: %s", backend.address, backend.port, error)
        return None


class _DatagramServer(asyncio.DatagramProtocol):
    """UDP: a flow a client address, to one backend while it lasts."""

    def __init__(self, balancer: UserspaceBalancer, listener: _Listener) -> None:
        self._balancer = balancer
        self._listener = listener
        self._flows: dict[tuple[str | object, int], asyncio.Queue[bytes]] = {}
        self.transport: asyncio.DatagramTransport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's transport does not inherit from DatagramTransport before Python 3.12.
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        queue = self._flows.get(addr)
        if queue is None:
            queue = self._flows[addr] = asyncio.Queue(64)
            flow = asyncio.create_task(self._flow(addr, queue))
            self._listener.flows.add(flow)
            flow.add_done_callback(self._listener.flows.discard)
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error for a client that is gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def _flow(self, client: tuple[str | object, int], queue: asyncio.Queue[bytes]) -> None:
        try:
            link = await self._balancer.connect(self._listener)
            if link is None:
                return
            back = asyncio.create_task(self._answer(client, link))
            try:
                while True:
                    async with asyncio.timeout(UDP_IDLE):
                        data = await queue.get()
                    await link.send(data)
            except (TimeoutError, OSError):
                return
            finally:
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                await link.close()
        finally:
            self._flows.pop(client, None)

    async def _answer(self, client: tuple[str | object, int], link: Link) -> None:
        while data := await link.receive():
            if self.transport is not None and not self.transport.is_closing():
                self.transport.sendto(data, client)


def _in_turn(service: VirtualService) -> list[Backend]:
    """The backends that take connections, in an order that is the same on every node."""
    return sorted(backend for backend in service.backends if backend.weight > 0)


def _stop(listener: _Listener) -> None:
    if listener.server is not None:
        listener.server.close()
    if listener.datagrams is not None and listener.datagrams.transport is not None:
        listener.datagrams.transport.close()
