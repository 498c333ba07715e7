"""An image registry (distribution API v2, read only, with a password when asked) for tests of pulls."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from engine import root_filesystem

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Registry:
    """Serves one image under any name that `tags` holds. `password` empty lets everyone in."""

    port: int = 0
    password: str = ""
    tags: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    broken: bool = False
    blob_asked: asyncio.Event = field(default_factory=asyncio.Event)
    blobs_open: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear it to hold every layer back."""

    def __post_init__(self) -> None:
        self.blobs_open.set()
        # No engine has this layer yet: what is in the last block of a tar is not read.
        layer = root_filesystem() + secrets.token_bytes(512)
        packed = gzip.compress(layer, compresslevel=1, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"from": "registry"}},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        self._blobs = {_digest(packed): packed, _digest(config): config}
        self._manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": _digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(packed),
                        "digest": _digest(packed),
                    }
                ],
            }
        ).encode()

    @property
    def digest(self) -> str:
        """What the image is named by its content."""
        return _digest(self._manifest)

    @property
    def credentials(self) -> str:
        """The value of X-Registry-Auth that this registry accepts."""
        account = {"username": "someone", "password": self.password, "serveraddress": f"127.0.0.1:{self.port}"}
        return base64.urlsafe_b64encode(json.dumps(account).encode()).decode()

    def image(self, name: str) -> str:
        """The full name of an image here."""
        return f"127.0.0.1:{self.port}/{name}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Every request."""
        self.requests.append(f"{request.method} {request.path}")
        if self.broken:
            return web.Response(status=500, text="the registry is broken")
        if self.password:
            wanted = "Basic " + base64.b64encode(f"someone:{self.password}".encode()).decode()
            if request.headers.get("Authorization") != wanted:
                return web.json_response(
                    {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                    status=401,
                    headers={"WWW-Authenticate": 'Basic realm="test"'},
                )
        parts = request.path.strip("/").split("/")
        if parts == ["v2"]:
            return web.json_response({})
        kind, reference = parts[-2], parts[-1]
        name = "/".join(parts[1:-2])
        if kind == "blobs" and reference in self._blobs:
            self.blob_asked.set()
            await self.blobs_open.wait()
            return web.Response(body=self._blobs[reference], headers={"Docker-Content-Digest": reference})
        if kind == "manifests" and (f"{name}:{reference}" in self.tags or reference == self.digest):
            return web.Response(
                body=self._manifest, content_type=_MANIFEST, headers={"Docker-Content-Digest": self.digest}
            )
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)


@asynccontextmanager
async def registry(*tags: str, password: str = "") -> AsyncIterator[Registry]:
    """A registry on this host's loopback, where the engine needs no TLS."""
    served = Registry(password=password, tags=set(tags))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.port = runner.addresses[0][1]
        yield served
    finally:
        await runner.cleanup()
