"""The host's own Docker Engine, as the front door reaches it: ordinary requests, streams, and connections of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from agent.api_types.errors import Unavailable

CONNECT_PATIENCE = 5.0
PING_PATIENCE = 2.0
"""Seconds; an engine that hangs must not keep the swarm's routes from answering."""
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that are between two neighbours and never handed on (RFC 9110, 7.6.1)."""

_NO_EXTRA_HEADERS = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
"""What the HTTP client would add by itself; the engine shall see what the client sent."""


def end_to_end(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    """The headers that are meant for the other end."""
    named = {token.strip().lower() for value in headers.getall("Connection", []) for token in value.split(",")}
    dropped = HOP_BY_HOP | named
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]


class Engine:
    """A Docker Engine behind a unix socket. Every request has a connection of its own, so a restarted engine is met anew."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the client; streams that still run are broken off."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: aiohttp.StreamReader | bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The engine's answer to a request, to be read as it comes; Unavailable when there is none."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self.socket, force_close=True, limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_PATIENCE),
                auto_decompress=False,
                skip_auto_headers=_NO_EXTRA_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        # The target is sent as the client wrote it: re-quoting would change names that hold a slash or a percent sign.
        url = URL(f"http://docker{target}", encoded=True)
        try:
            response = await self._session.request(method, url, headers=list(headers), data=body, allow_redirects=False)
        except (aiohttp.ClientConnectionError, aiohttp.ClientResponseError, TimeoutError) as error:
            raise self.unreachable(error) from error
        try:
            yield response
        finally:
            response.close()

    async def json(self, target: str) -> dict[str, Any]:
        """The JSON object that the engine answers to a GET; Unavailable when it does not answer one."""
        async with self.request("GET", target) as response:
            body = await response.read()
            try:
                answer = msgspec.json.decode(body, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise self.unreachable(error) from error
            if response.status != 200:
                raise Unavailable(
                    f"the Docker Engine at unix://{self.socket} answered: {answer.get('message', answer)}"
                )
            return answer

    async def headers(self, target: str) -> Mapping[str, str]:
        """The headers of the engine's answer to a GET; Unavailable when it takes longer than a ping may."""
        try:
            async with asyncio.timeout(PING_PATIENCE), self.request("GET", target) as response:
                return dict(end_to_end(response.headers))
        except TimeoutError as error:
            raise self.unreachable(error) from error

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of one's own, for one that is taken over."""
        try:
            async with asyncio.timeout(CONNECT_PATIENCE):
                return await asyncio.open_unix_connection(self.socket)
        except (OSError, TimeoutError) as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: Exception) -> Unavailable:
        """Why the engine did not answer, for people."""
        cause: BaseException = getattr(error, "os_error", None) or error
        if isinstance(cause, OSError) and cause.errno is not None:
            reason = os.strerror(cause.errno)
        else:
            reason = str(cause) or type(cause).__name__
        return Unavailable(
            f"Cannot connect to the Docker Engine of this host at unix://{self.socket}: {reason}. Is it running? "
            "The swarm's own routes go on without it."
        )
