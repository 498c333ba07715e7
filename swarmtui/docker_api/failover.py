"""Requests to whichever manager of a cluster answers.

A request that cannot have been carried out is sent again to the next manager: one that was never sent, or one that only reads.
A change whose answer was lost is not: nobody knows whether it was made, and the error says so to whoever asked for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType

from swarmtui.docker_api.address import EngineAddress
from swarmtui.docker_api.endpoints import Endpoints
from swarmtui.docker_api.errors import ConnectionFailed, NotReached, TimedOut
from swarmtui.docker_api.transport import Body, ByteStream, Params, Transport

_READS = ("GET", "HEAD")


class FailoverTransport:
    """A `Transport` for each address, made when it is first used. `async with` owns them."""

    def __init__(self, endpoints: Endpoints, *, timeout: float, connect_timeout: float) -> None:
        self.endpoints = endpoints
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._transports: dict[EngineAddress, Transport] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._open = False

    async def __aenter__(self) -> FailoverTransport:
        self._open = True
        await self._to(self.endpoints.current)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._transports.clear()
        await self._stack.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: object = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        impatient: bool = False,
    ) -> tuple[bytes, Mapping[str, str]]:
        """As `Transport.request`; with `impatient` a manager that does not answer in time is left as a dead one is."""
        while True:
            address = self.endpoints.current
            transport = await self._to(address)
            try:
                return await transport.request(
                    method, path, params=params, json=json, body=body, headers=headers, timeout=timeout
                )
            except TimedOut:
                if not impatient or not self.endpoints.failed(address):
                    raise
            except ConnectionFailed as error:
                elsewhere = self.endpoints.failed(address)
                # A body that streams can be read only once.
                repeatable = body is None and (isinstance(error, NotReached) or method in _READS)
                if not elsewhere or not repeatable:
                    raise

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[ByteStream]:
        """As `Transport.stream`; only its beginning can move to another manager."""
        async with AsyncExitStack() as stack:
            while True:
                address = self.endpoints.current
                transport = await self._to(address)
                try:
                    stream = await stack.enter_async_context(
                        transport.stream(method, path, params=params, headers=headers)
                    )
                    break
                except ConnectionFailed:
                    if not self.endpoints.failed(address):
                        raise
            yield stream

    async def _to(self, address: EngineAddress) -> Transport:
        if not self._open:
            raise RuntimeError("the client is closed; use it inside `async with`")
        found = self._transports.get(address)
        if found is not None:
            return found
        async with self._opening:
            if address not in self._transports:
                made = Transport(address, timeout=self._timeout, connect_timeout=self._connect_timeout)
                self._transports[address] = await self._stack.enter_async_context(made)
            return self._transports[address]
