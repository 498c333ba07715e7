"""Images: always asked of their registry first, once at a time each, with what is here as the second best."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from agent.worker.executors.docker.engine import Engine, EngineError, lines

log = logging.getLogger(__name__)

Credentials = Callable[[str], str | None]
"""The value of X-Registry-Auth (base64 of JSON) for an image, None for an anonymous pull."""

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{64}$")


class _ErrorDetail(msgspec.Struct, frozen=True):
    message: str = ""


class _Progress(msgspec.Struct, frozen=True):
    """A line of a pull's answer."""

    error: str = ""
    detail: _ErrorDetail | None = msgspec.field(name="errorDetail", default=None)


_progress = msgspec.json.Decoder(_Progress)


def reference_parts(image: str) -> tuple[str, str]:
    """`fromImage` and `tag` of a pull: a digest stands for the tag, no tag means latest."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return name, digest
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        return image, "latest"
    return name, tag


@dataclass
class Images:
    """The images of an engine. With `prefer_local`, an image that is here is not asked for again."""

    engine: Engine
    credentials: Credentials = lambda image: None
    prefer_local: bool = False
    _pulls: dict[tuple[str, str], asyncio.Task[str]] = field(default_factory=dict)
    _waiting: dict[tuple[str, str], int] = field(default_factory=dict)

    async def have(self, image: str, registry_auth: str = "") -> str:
        """See to the image; `registry_auth` is the value of X-Registry-Auth that came with the service.

        Returns why the registry did not give it, or an empty text; whether it is here all the same shows when the
        container is made. An image named by its content is not asked for when it is here, and one by its id never.
        """
        if _IMAGE_ID.fullmatch(image):
            return ""
        if (self.prefer_local or _DIGEST.search(image)) and await self._is_here(image):
            return ""
        return await self._shared_pull(image, registry_auth or self.credentials(image) or "")

    async def _is_here(self, image: str) -> bool:
        try:
            await self.engine.request("GET", f"images/{quote(image, safe='/:@')}/json")
        except EngineError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _shared_pull(self, image: str, registry_auth: str) -> str:
        """Several tasks that ask for an image at once with the same credentials share one pull, which ends with the
        last of them."""
        asked = (image, registry_auth)
        pull = self._pulls.get(asked)
        if pull is None or pull.done():
            pull = self._pulls[asked] = asyncio.create_task(self._pull(image, registry_auth))
        self._waiting[asked] = self._waiting.get(asked, 0) + 1
        try:
            return await asyncio.shield(pull)
        finally:
            self._waiting[asked] -= 1
            if not self._waiting[asked]:
                del self._waiting[asked]
                self._pulls.pop(asked, None)
                pull.cancel()
                await asyncio.gather(pull, return_exceptions=True)

    async def _pull(self, image: str, registry_auth: str) -> str:
        name, tag = reference_parts(image)
        headers = {"X-Registry-Auth": registry_auth} if registry_auth else None
        try:
            async with self.engine.stream(
                "POST", "images/create", query={"fromImage": name, "tag": tag}, headers=headers
            ) as answer:
                # A pull that fails half-way says so in its answer, under a status of 200.
                async for line in lines(answer):
                    progress = _progress.decode(line)
                    if progress.error:
                        return progress.detail.message if progress.detail is not None else progress.error
        except EngineError as error:
            log.warning("pulling %s failed: %s", image, error)
            return error.message
        return ""
