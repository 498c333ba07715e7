"""One engine over HTTP: requests, streams, time-outs, and every failure as one of our errors."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from swarmtui.docker_api.address import EngineAddress, TLSFiles
from swarmtui.docker_api.errors import (
    BadAddress,
    ConnectionFailed,
    EngineError,
    MalformedAnswer,
    NotReached,
    TimedOut,
    api_error,
)

CHUNK = 256 * 1024
"""Bytes that a stream hands over at once, at most."""

Params = Mapping[str, str]
Body = AsyncIterable[bytes]
"""A body that is made while it is sent; it is read once."""


class ByteStream:
    """The body of an answer as it arrives. Valid inside `Transport.stream`."""

    def __init__(self, response: aiohttp.ClientResponse, address: EngineAddress) -> None:
        self._response = response
        self._address = address

    @property
    def content_type(self) -> str:
        """For example application/vnd.docker.raw-stream; "" when the engine did not say."""
        return self._response.headers.get("Content-Type", "")

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers."""
        return self._response.headers

    async def read(self) -> bytes:
        """What has arrived, b"" at the proper end; ConnectionFailed when the stream was cut."""
        try:
            return await self._response.content.read(CHUNK)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise translate(error, self._address) from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk


class Transport:
    """A pool of connections to one engine. `async with` owns it."""

    def __init__(self, address: EngineAddress, *, timeout: float, connect_timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self._connect_timeout = connect_timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Transport:
        # No limit on connections: every followed log and watch holds one for as long as it is shown.
        connector: aiohttp.BaseConnector
        if self.address.socket:
            connector = aiohttp.UnixConnector(self.address.socket, limit=0)
            base = "http://engine"
        else:
            tls = self.address.tls
            context = await asyncio.to_thread(tls_context, tls) if tls else None
            connector = aiohttp.TCPConnector(limit=0, ssl=context if context else True)
            host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
            base = f"{'https' if tls else 'http'}://{host}:{self.address.port}"
        self._session = aiohttp.ClientSession(
            base,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            headers={"User-Agent": "swarmtui"},
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

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
    ) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of a 2xx answer. Raises ApiError for the engine's refusals, ConnectionFailed or TimedOut."""
        limit = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit), self._send(method, path, params, json, headers, body) as response:
                answer = await response.read()
                if response.status >= 300:
                    raise api_error(response.status, error_text(response.status, answer))
                return answer, response.headers
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise translate(error, self.address, limit) from error

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[ByteStream]:
        """An answer without an end of its own. The head must arrive within the time-out, the body may take for ever."""
        response: aiohttp.ClientResponse | None = None
        try:
            try:
                async with asyncio.timeout(self.timeout):
                    response = await self._send(method, path, params, None, headers)
                    if response.status >= 300:
                        raise api_error(response.status, error_text(response.status, await response.read()))
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise translate(error, self.address, self.timeout) from error
            yield ByteStream(response, self.address)
        finally:
            if response is not None:
                response.close()

    def _send(
        self,
        method: str,
        path: str,
        params: Params | None,
        json: object,
        headers: Mapping[str, str] | None,
        body: Body | None = None,
    ) -> Any:
        if self._session is None:
            raise RuntimeError("the client is closed; use it inside `async with`")
        data: bytes | Body | None = body
        sent = dict(headers or {})
        if json is not None:
            data = msgspec.json.encode(json)
            sent["Content-Type"] = "application/json"
        return self._session.request(method, path, params=params, data=data, headers=sent, allow_redirects=False)


def error_text(status: int, body: bytes) -> str:
    """The engine's own words in an error answer; a short form of the body when they are not in Docker's shape."""
    try:
        answer = msgspec.json.decode(body, type=dict[str, object])
        message = answer.get("message") or answer.get("error")
        if isinstance(message, str) and message.strip():
            return message.strip()
    except msgspec.DecodeError:
        pass
    text = body[:500].decode(errors="replace").strip()
    return text or f"the engine answered with HTTP status {status} and no text"


def translate(error: BaseException, address: EngineAddress, limit: float | None = None) -> EngineError:
    """The error of the HTTP library or of the system as one of ours, with what a person can do about it."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        within = f" within {limit:g} s" if limit is not None else " in time"
        return TimedOut(f"no answer from {address}{within}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return NotReached(f"TLS with {address} failed: {error}")
    if isinstance(error.__cause__, aiohttp.ClientConnectionResetError):
        # A kept connection was closed before the request was written: an incomplete request is never carried out.
        return NotReached(f"the connection to {address} was lost")
    code = getattr(error, "errno", None)
    if isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError | PermissionError | ConnectionRefusedError):
        return NotReached(f"cannot connect to {address}: {_connect_reason(code, error)}")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return MalformedAnswer(f"{address} does not speak the Docker Engine API: {error}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return ConnectionFailed(f"the connection to {address} was lost in the middle of an answer")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ConnectionFailed(f"the connection to {address} was lost: {reason}")


def _connect_reason(code: int | None, error: BaseException) -> str:
    if code == errno.ENOENT:
        return "there is no such socket; is the agent (or the Docker Engine) running?"
    if code == errno.ECONNREFUSED:
        return "nothing listens there; is the agent (or the Docker Engine) running?"
    if code == errno.EACCES:
        return "permission denied; you may need to be in the group docker, or root"
    text = getattr(error, "strerror", None)
    return text or str(error) or type(error).__name__


def tls_context(files: TLSFiles) -> ssl.SSLContext:
    """A client context from certificate files; BadAddress names the file that cannot be used. Blocks: reads files."""
    try:
        context = ssl.create_default_context(cafile=str(files.ca) if files.ca else None)
        if not files.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if files.certificate:
            context.load_cert_chain(str(files.certificate), str(files.key) if files.key else None)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (files.ca, files.certificate, files.key) if path)
        raise BadAddress(f"the TLS files cannot be used ({names}): {error}") from None
    return context
