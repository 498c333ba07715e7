"""Everything that is not the swarm's goes to the host's own engine, byte for byte where that matters.

Ordinary requests are forwarded with their streams both ways. Requests that may become something else than HTTP (an
`Upgrade` header, attach, exec start) are sent on a connection of their own and spliced: the engine is asked to close the
connection after an answer that is HTTP after all, so nothing of it has to be understood here.
"""

from __future__ import annotations

import re

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from agent.api.engine import HOP_BY_HOP, Engine, end_to_end
from agent.api.splice import TakenOver, splice, take_over

_HIJACKING = re.compile(r"/(?:containers/[^/]+/attach|exec/[^/]+/start)")
MAX_HIJACK_BODY = 1024 * 1024
"""Bytes of JSON that such a request carries at most; what follows it is not HTTP."""


class RelayedResponse(web.StreamResponse):
    """An engine's answer: no header of ours is added to it."""

    async def _prepare_headers(self) -> None:
        given = frozenset(name.lower() for name in self.headers)
        await super()._prepare_headers()
        for name in ("Content-Type", "Date", "Server"):
            if name.lower() not in given:
                self.headers.popall(name, None)


async def pass_to_engine(request: web.BaseRequest, engine: Engine, path: str) -> web.StreamResponse:
    """The engine's answer to a request; `path` is decoded and without the version prefix."""
    await allow_body(request)
    if "Upgrade" in request.headers or (request.method == "POST" and _HIJACKING.fullmatch(path)):
        return await _hijack(request, engine)
    return await _forward(request, engine)


async def allow_body(request: web.BaseRequest) -> None:
    """Tell a client that waits for it (`Expect: 100-continue`) that it may send the body."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= aiohttp.HttpVersion11:
        writer = request._payload_writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0


async def _forward(request: web.BaseRequest, engine: Engine) -> web.StreamResponse:
    headers = [(name, value) for name, value in end_to_end(request.headers) if name.lower() != "expect"]
    body = request.content if request.body_exists else None
    async with engine.request(request.method, request.raw_path, headers=headers, body=body) as answer:
        response = RelayedResponse(
            status=answer.status, reason=answer.reason, headers=CIMultiDict(end_to_end(answer.headers))
        )
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        if "Content-Length" not in answer.headers and not bodiless and request.version >= aiohttp.HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        except aiohttp.ClientPayloadError:
            # The engine broke off in the middle: so does this answer, or the client would take it for complete.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the engine broke off its answer") from None
        await response.write_eof()
        return response


async def _hijack(request: web.BaseRequest, engine: Engine) -> web.StreamResponse:
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MAX_HIJACK_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_HIJACK_BODY, size)
        chunks.append(chunk)
    body = b"".join(chunks)
    upstream = await engine.dial()
    upstream[1].write(_head(request, len(body)) + body)
    await splice(take_over(request), upstream)
    return TakenOver()


def _head(request: web.BaseRequest, length: int) -> bytes:
    """The request's first lines, with the connection meant for this one exchange."""
    upgrade = request.headers.get("Upgrade", "")
    dropped = HOP_BY_HOP | {"content-length", "expect"}
    lines = [f"{request.method} {request.raw_path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() not in dropped]
    lines.append(f"Content-Length: {length}")
    lines.append("Connection: Upgrade, close" if upgrade else "Connection: close")
    if upgrade:
        lines.append(f"Upgrade: {upgrade}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
