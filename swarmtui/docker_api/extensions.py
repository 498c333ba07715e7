"""Our agents' extensions of the API, under `/swarmtui/v1/`: the watch, the managers' group, explanations, backups.

A real Docker Engine has none of them; each call raises NotFound there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from swarmtui.docker_api.address import EngineAddress
from swarmtui.docker_api.answers import Json, parse, segment
from swarmtui.docker_api.errors import ConnectionFailed, MalformedAnswer
from swarmtui.docker_api.failover import FailoverTransport
from swarmtui.docker_api.lines import LineSplitter
from swarmtui.docker_api.managers import Managers, read_managers
from swarmtui.docker_api.transport import Body, ByteStream, Params
from swarmtui.docker_api.watch import WatchLine, decode_watch_line

_SLICE = 500
"""Lines that are decoded before the loop gets its turn: 500 tasks take about 5 ms."""
_LONG = 600.0
"""Seconds that a restore may take until it is answered."""


class AgentExtensions:
    """The part of `EngineClient` that only our agents answer."""

    _transport: FailoverTransport

    @property
    def address(self) -> EngineAddress:
        """The engine that is asked now."""
        raise NotImplementedError

    async def _raw_object(self, path: str, params: Params | None = None, *, versioned: bool = True) -> Json:
        raise NotImplementedError

    async def watch(self, since: int | None = None) -> AsyncIterator[list[WatchLine]]:
        """Every change of the cluster's objects, in batches as they arrive; Gone when `since` is no longer held.

        Without `since` it begins with the whole picture and a `synced` line. ConnectionFailed when it ends: a watch
        has no end of its own.
        """
        params = None if since is None else {"since": str(since)}
        async with self._transport.stream("GET", "/swarmtui/v1/watch", params=params) as stream:
            splitter = LineSplitter()
            async for chunk in stream:
                lines = splitter.feed(chunk)
                for start in range(0, len(lines), _SLICE):
                    if start:
                        await asyncio.sleep(0)
                    batch = [decode_watch_line(line) for line in lines[start : start + _SLICE]]
                    yield [line for line in batch if line is not None]
        raise ConnectionFailed(f"{self.address} ended the watch")

    async def managers(self) -> Managers:
        """The managers' group, as the manager that is asked sees it (our agents only)."""
        try:
            return read_managers(await self._raw_object("/swarmtui/v1/managers", versioned=False))
        except (msgspec.ValidationError, AttributeError, TypeError) as error:
            raise MalformedAnswer(
                f"{self.address} sent an answer about its managers that cannot be read: {error}"
            ) from None

    @asynccontextmanager
    async def backup(self) -> AsyncIterator[ByteStream]:
        """The whole state of the cluster (our agents only). It holds every secret: nothing but an encrypted copy may stay."""
        async with self._transport.stream("GET", "/swarmtui/v1/backup") as stream:
            yield stream

    async def restore(self, backup: Body, params: Params | None = None) -> str:
        """Begin the cluster of a backup again with this engine's node as its only manager; the node's id."""
        answer, _ = await self._transport.request(
            "POST",
            "/swarmtui/v1/restore",
            params=params,
            body=backup,
            headers={"Content-Type": "application/octet-stream"},
            timeout=_LONG,
        )
        found = parse(answer, self.address) if answer.strip() else ""
        return str(found.get("NodeID") or found.get("ID") or "") if isinstance(found, dict) else str(found)

    async def explain_task(self, task_id: str) -> Json:
        """Why a task is where it is (our agents only)."""
        return await self._raw_object(f"/swarmtui/v1/explain/task/{segment(task_id)}", versioned=False)

    async def explain_service(self, service_id: str) -> Json:
        """Why a service is not whole (our agents only)."""
        return await self._raw_object(f"/swarmtui/v1/explain/service/{segment(service_id)}", versioned=False)

    async def explain_network(self, network_id: str) -> Json:
        """Why tasks or services have no address on a network (our agents only)."""
        return await self._raw_object(f"/swarmtui/v1/explain/network/{segment(network_id)}", versioned=False)
