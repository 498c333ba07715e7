"""The Docker Engine as this executor speaks to it: aiodocker's session, typed errors, JSON decoded by msgspec."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiodocker
import aiohttp
import msgspec

from agent.worker.executors.docker.outcome import is_passing
from agent.worker.interface import TemporaryFailure

T = TypeVar("T")

UNIX = "unix://"
CONNECTION_FAILED = 900
"""The status that aiodocker gives to a connection that could not be made."""

ANSWER_TIMEOUT = 120.0
"""Seconds until a request that should be short counts as unanswered."""

Query = Mapping[str, str | int | bool]


class EngineError(Exception):
    """The engine said no; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineUnavailable(TemporaryFailure):
    """The engine cannot be asked now: it is not there, is restarting, or does not answer."""


class Engine:
    """The engine at `address` (`unix:///path` or `tcp://host:port`). Must be made and closed on one running loop."""

    def __init__(self, address: str) -> None:
        self.address = address
        # No bound on connections: each followed log holds one.
        self._connector: aiohttp.BaseConnector | None = None
        if address.startswith(UNIX):
            self._connector = aiohttp.UnixConnector(address.removeprefix(UNIX), limit=0)
        # With a connector of one's own, aiodocker takes the address for the URL's host, which a socket has none of.
        url = "http://engine" if self._connector is not None else address
        self._client = aiodocker.Docker(url=url, connector=self._connector)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.close()
        if self._connector is not None:
            await self._connector.close()

    async def get(self, path: str, kind: type[T], query: Query | None = None) -> T:
        """GET `path`, its JSON as a `kind`. A question that fails within the engine may be asked again: EngineUnavailable."""
        try:
            return msgspec.json.decode(await self.request("GET", path, query=query), type=kind)
        except EngineError as error:
            if error.status >= 500:
                raise EngineUnavailable(f"the Docker Engine at {self.address} failed: {error.message}") from None
            raise

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> bytes:
        """The body of the answer. EngineError for a refusal, EngineUnavailable when there is no answer."""
        try:
            async with asyncio.timeout(timeout), self.stream(method, path, query=query, body=body) as content:
                return await content.read()
        except TimeoutError:
            raise EngineUnavailable(f"the Docker Engine did not answer {method} /{path} in {timeout:g} s") from None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """An answer that comes bit by bit. Errors as for `request`, also while it is read; leaving closes the connection."""
        response: aiohttp.ClientResponse | None = None
        try:
            data = None if body is None else msgspec.json.encode(body)
            response = await self._client._do_query(path, method, params=_query(query), data=data, headers=headers)
            yield response.content
        except aiodocker.DockerError as error:
            if error.status == CONNECTION_FAILED or is_passing(error.status, error.message):
                raise EngineUnavailable(
                    f"the Docker Engine at {self.address} cannot be reached: {error.message}"
                ) from None
            raise EngineError(error.status, error.message) from None
        except aiohttp.ClientPayloadError:
            raise EngineUnavailable(f"the Docker Engine at {self.address} broke off its answer") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineUnavailable(
                f"the Docker Engine at {self.address} went away: {error or type(error).__name__}"
            ) from None
        finally:
            if response is not None:
                if response.content.is_eof():
                    response.release()
                else:
                    response.close()


def _query(query: Query | None) -> dict[str, Any] | None:
    if query is None:
        return None
    return {name: ("1" if value else "0") if isinstance(value, bool) else value for name, value in query.items()}


def filters(**wanted: list[str]) -> str:
    """The engine's `filters` parameter."""
    return msgspec.json.encode(wanted).decode()


async def lines(answer: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of an answer, of any length (aiohttp's own iterator refuses long ones)."""
    rest = b""
    async for chunk in answer.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest
