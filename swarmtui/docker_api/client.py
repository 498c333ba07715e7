"""The Docker Engine API's swarm part, typed, plus our agents' extensions under `/swarmtui/v1/`.

Lists and single objects come typed; `raw_*` gives the whole JSON object, which updates must be made on so that no field
that we do not know is lost. Works with a real Docker Engine from API 1.24 and with our agents.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from swarmtui.docker_api.address import EngineAddress
from swarmtui.docker_api.answers import (
    Created,
    Filters,
    Json,
    decode,
    filter_params,
    flag,
    malformed,
    negotiate,
    parse,
    segment,
    warnings,
)
from swarmtui.docker_api.endpoints import Endpoints, Others
from swarmtui.docker_api.engine_types import EngineVersion, Event, Image, Swarm
from swarmtui.docker_api.errors import ApiError, ConnectionFailed, MalformedAnswer
from swarmtui.docker_api.extensions import AgentExtensions
from swarmtui.docker_api.failover import FailoverTransport
from swarmtui.docker_api.lines import LineSplitter
from swarmtui.docker_api.log_query import LogQuery
from swarmtui.docker_api.times import time_parameter
from swarmtui.docker_api.transport import ByteStream, Params
from swarmtui.docker_api.types import Config, Info, Network, Node, Secret, Service, Task

T = TypeVar("T")

_SLICE = 500
"""Objects that are decoded before the loop gets its turn: 500 tasks take about 5 ms."""
_IMPATIENT = 1.5
"""Seconds in which a manager must answer a ping, or take a connection, when others could be asked instead."""
_OWN = ("/info", "/version", "/images/json")
"""What an engine says of itself."""
_STALE = "110"
"""The warning's code for an answer that may not be the newest (RFC 7234, 5.5.1)."""


class EngineClient(AgentExtensions):
    """A client of one engine, or of the managers of one cluster; `async with` owns its connections.

    Safe to use from many tasks of one loop at once.
    """

    def __init__(
        self, address: EngineAddress, *, timeout: float = 10.0, connect_timeout: float = 5.0, others: Others = tuple
    ) -> None:
        """`timeout` seconds for an answer (for the head of one, where it is a stream); `others`: further managers."""
        self._endpoints = Endpoints(address, others)
        if self._endpoints.several:
            connect_timeout = min(connect_timeout, _IMPATIENT)
        self._transport = FailoverTransport(self._endpoints, timeout=timeout, connect_timeout=connect_timeout)
        self.stale = False
        """Whether the last answer about the cluster was marked as perhaps not the newest."""
        self._prefix: str | None = None
        self._negotiating = asyncio.Lock()
        self._extended: bool | None = None

    async def __aenter__(self) -> EngineClient:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    # Which engine

    @property
    def address(self) -> EngineAddress:
        """The engine that is asked now."""
        return self._endpoints.current

    @property
    def others(self) -> int:
        """How many other managers are known."""
        return len(self._endpoints.known) - 1

    def move_on(self) -> None:
        """The engine that is asked now does not serve: ask the next one."""
        self._endpoints.failed(self._endpoints.current)
        self.forget()

    def served(self) -> None:
        """The engine that is asked now serves."""
        self._endpoints.served()

    # The engine itself

    async def ping(self) -> float:
        """Seconds that a round trip took. Negotiates the version on the way; leaves a manager that does not answer."""
        start = time.perf_counter()
        several = self._endpoints.several
        _, headers = await self._transport.request(
            "GET", "/_ping", timeout=_IMPATIENT if several else None, impatient=several
        )
        took = time.perf_counter() - start
        self._prefix = negotiate(headers.get("Api-Version", ""), self.address)
        return took

    async def version(self) -> EngineVersion:
        """The engine's versions."""
        return await self._one("/version", EngineVersion)

    async def info(self) -> Info:
        """What the engine says of itself and of its place in a swarm."""
        return await self._one("/info", Info)

    async def raw(self, path: str, params: Params | None = None) -> Any:
        """Any GET, parsed: for describe and raw views. `path` without the version: `/nodes/ID`."""
        body = await self._get(path, params)
        return parse(body, self.address)

    async def raw_list(self, path: str, filters: Filters | None = None, params: Params | None = None) -> list[Json]:
        """Any list, parsed, filtered by the engine."""
        answer = await self.raw(path, {**filter_params(filters), **(params or {})})
        if answer is not None and not isinstance(answer, list):
            raise MalformedAnswer(f"{self.address} answered {path} with {answer!r} instead of a list")
        return answer or []

    async def extended(self) -> bool:
        """True for our agents: `/swarmtui/v1/` is there. Asked once; `forget` asks again."""
        if self._extended is None:
            try:
                await self._transport.request("GET", "/swarmtui/v1/metrics")
                self._extended = True
            except ConnectionFailed:
                raise
            except ApiError as error:
                # An agent that is in no swarm answers 503 here, but it is ours; a real engine says 404 (or 400 for a
                # path it takes for a version).
                self._extended = error.status not in (400, 404, 501)
        return self._extended

    def forget(self) -> None:
        """After a reconnect another engine may answer: negotiate and ask for extensions again."""
        self._prefix = None
        self._extended = None

    async def images(self) -> list[Image]:
        """The engine's local images."""
        return await self._many("/images/json", Image)

    # The swarm

    async def swarm(self) -> Swarm:
        """The swarm, with its join tokens."""
        return await self._one("/swarm", Swarm)

    async def raw_swarm(self) -> Json:
        """The swarm as JSON."""
        return await self._raw_object("/swarm")

    async def init_swarm(self, request: Json) -> str:
        """Start a swarm on this node; its node id."""
        answer = await self._post("/swarm/init", json=request, timeout=60)
        if not isinstance(answer, str):
            raise MalformedAnswer(f"{self.address} answered swarm init with {answer!r} instead of a node id")
        return answer

    async def join_swarm(self, request: Json) -> None:
        """Let this node join a swarm."""
        await self._post("/swarm/join", json=request, timeout=60)

    async def leave_swarm(self, force: bool = False) -> None:
        """Let this node leave its swarm."""
        await self._post("/swarm/leave", params={"force": "1"} if force else None, timeout=60)

    async def update_swarm(
        self,
        version: int,
        spec: Json,
        *,
        rotate_worker: bool = False,
        rotate_manager: bool = False,
        rotate_unlock_key: bool = False,
    ) -> None:
        """Change the swarm's settings or rotate its join tokens or its unlock key."""
        params = {
            "version": str(version),
            "rotateWorkerToken": flag(rotate_worker),
            "rotateManagerToken": flag(rotate_manager),
            "rotateManagerUnlockKey": flag(rotate_unlock_key),
        }
        await self._post("/swarm/update", params=params, json=spec)

    async def unlock_key(self) -> str:
        """The key that a locked manager asks for; "" while managers are not locked."""
        answer = await self._raw_object("/swarm/unlockkey")
        return str(answer.get("UnlockKey") or "")

    async def unlock_swarm(self, key: str) -> None:
        """Unlock this manager."""
        await self._post("/swarm/unlock", json={"UnlockKey": key}, timeout=60)

    # Nodes

    async def nodes(self, filters: Filters | None = None) -> list[Node]:
        """The nodes of the swarm."""
        return await self._many("/nodes", Node, filters)

    async def node(self, node: str) -> Node:
        """One node, by id, name or the beginning of its id."""
        return await self._one(f"/nodes/{segment(node)}", Node)

    async def raw_node(self, node: str) -> Json:
        """One node as JSON."""
        return await self._raw_object(f"/nodes/{segment(node)}")

    async def update_node(self, node_id: str, version: int, spec: Json) -> None:
        """Replace a node's spec; OutOfSequence when it changed since `version`."""
        await self._post(f"/nodes/{segment(node_id)}/update", params={"version": str(version)}, json=spec)

    async def remove_node(self, node: str, force: bool = False) -> None:
        """Forget a node that is down, or with `force` any worker."""
        await self._delete(f"/nodes/{segment(node)}", {"force": "1"} if force else None)

    # Services

    async def services(self, filters: Filters | None = None, *, status: bool = False) -> list[Service]:
        """The services; with `status` each has its counts of tasks."""
        return await self._many("/services", Service, filters, {"status": "true"} if status else None)

    async def service(self, service: str) -> Service:
        """One service, by id, name or the beginning of its id."""
        return await self._one(f"/services/{segment(service)}", Service, {"insertDefaults": "false"})

    async def raw_service(self, service: str, *, defaults: bool = False) -> Json:
        """One service as JSON, with the defaults filled in on request; only without them may it be sent back."""
        return await self._raw_object(f"/services/{segment(service)}", {"insertDefaults": flag(defaults)})

    async def create_service(self, spec: Json) -> Created:
        """Create a service."""
        answer = await self._post("/services/create", json=spec)
        if not isinstance(answer, dict) or not isinstance(answer.get("ID"), str):
            raise MalformedAnswer(f"{self.address} answered the create with {answer!r} instead of an id")
        return Created(answer["ID"], warnings(answer))

    async def update_service(
        self, service_id: str, version: int, spec: Json, *, rollback: bool = False
    ) -> tuple[str, ...]:
        """Replace a service's spec (or go back to the previous one); its warnings."""
        params = {"version": str(version)}
        if rollback:
            params["rollback"] = "previous"
        else:
            params["registryAuthFrom"] = "spec"
        return warnings(await self._post(f"/services/{segment(service_id)}/update", params=params, json=spec))

    async def remove_service(self, service: str) -> None:
        """Remove a service and its tasks."""
        await self._delete(f"/services/{segment(service)}")

    # Tasks, networks, secrets, configs

    async def tasks(self, filters: Filters | None = None) -> list[Task]:
        """The tasks, history included."""
        return await self._many("/tasks", Task, filters)

    async def task(self, task: str) -> Task:
        """One task."""
        return await self._one(f"/tasks/{segment(task)}", Task)

    async def raw_task(self, task: str) -> Json:
        """One task as JSON."""
        return await self._raw_object(f"/tasks/{segment(task)}")

    async def networks(self, filters: Filters | None = None) -> list[Network]:
        """The networks, local ones too unless filtered by scope."""
        return await self._many("/networks", Network, filters)

    async def swarm_networks(self) -> list[Network]:
        """The networks of scope swarm."""
        return await self.networks({"scope": ["swarm"]})

    async def network(self, network: str) -> Network:
        """One network of scope swarm, by id or name."""
        return await self._one(f"/networks/{segment(network)}", Network, {"scope": "swarm"})

    async def raw_network(self, network: str, *, verbose: bool = False) -> Json:
        """One network as JSON, by id or name; `verbose`: with the services and tasks on it."""
        params = {"verbose": "true"} if verbose else None
        return await self._raw_object(f"/networks/{segment(network)}", params)

    async def create_network(self, request: Json) -> Created:
        """Create a network."""
        answer = await self._post("/networks/create", json=request)
        if not isinstance(answer, dict) or not isinstance(answer.get("Id"), str):
            raise MalformedAnswer(f"{self.address} answered the create with {answer!r} instead of an id")
        return Created(answer["Id"], (answer["Warning"],) if answer.get("Warning") else ())

    async def remove_network(self, network: str) -> None:
        """Remove a network that nothing uses."""
        await self._delete(f"/networks/{segment(network)}")

    async def secrets(self, filters: Filters | None = None) -> list[Secret]:
        """The secrets, without data."""
        return await self._many("/secrets", Secret, filters)

    async def configs(self, filters: Filters | None = None) -> list[Config]:
        """The configs."""
        return await self._many("/configs", Config, filters)

    # Streams

    async def events(self, *, since: int = 0, until: int = 0, filters: Filters | None = None) -> AsyncIterator[Event]:
        """The engine's and the cluster's events; nanoseconds since the epoch. Ends only when `until` is given."""
        async for line in self.raw_events(since=since, until=until, filters=filters):
            yield decode(line, Event, self.address)

    async def raw_events(
        self, *, since: int = 0, until: int = 0, filters: Filters | None = None
    ) -> AsyncIterator[bytes]:
        """The events as the engine writes them, a JSON object each."""
        params = filter_params(filters)
        for name, moment in (("since", since), ("until", until)):
            if moment:
                params[name] = time_parameter(moment)
        async with self._transport.stream("GET", await self._path("/events"), params=params) as stream:
            splitter = LineSplitter()
            async for chunk in stream:
                for line in splitter.feed(chunk):
                    yield line
            if splitter.unfinished.strip():
                yield splitter.unfinished

    @asynccontextmanager
    async def service_logs(self, service: str, query: LogQuery) -> AsyncIterator[ByteStream]:
        """The log of a service's tasks: frames (`FrameDecoder`), or bare bytes when it has a terminal."""
        path = await self._path(f"/services/{segment(service)}/logs")
        async with self._transport.stream("GET", path, params=query.params()) as stream:
            yield stream

    @asynccontextmanager
    async def task_logs(self, task: str, query: LogQuery) -> AsyncIterator[ByteStream]:
        """The log of one task."""
        path = await self._path(f"/tasks/{segment(task)}/logs")
        async with self._transport.stream("GET", path, params=query.params()) as stream:
            yield stream

    # Below the routes

    async def _path(self, path: str) -> str:
        if self._prefix is None:
            async with self._negotiating:
                if self._prefix is None:
                    await self.ping()
        return f"{self._prefix}{path}"

    async def _get(self, path: str, params: Params | None = None, *, versioned: bool = True) -> bytes:
        full = await self._path(path) if versioned else path
        answer, headers = await self._transport.request("GET", full, params=params)
        if path not in _OWN:
            self.stale = headers.get("Warning", "").startswith(_STALE)
        return answer

    async def _post(
        self, path: str, *, params: Params | None = None, json: object = None, timeout: float | None = None
    ) -> Any:
        full = await self._path(path)
        body, _ = await self._transport.request("POST", full, params=params, json=json, timeout=timeout)
        return parse(body, self.address) if body.strip() else None

    async def _delete(self, path: str, params: Params | None = None) -> None:
        await self._transport.request("DELETE", await self._path(path), params=params)

    async def _one(self, path: str, kind: type[T], params: Params | None = None) -> T:
        answer: T = decode(await self._get(path, params), kind, self.address)
        return answer

    async def _many(
        self, path: str, kind: type[T], filters: Filters | None = None, params: Params | None = None
    ) -> list[T]:
        body = await self._get(path, {**filter_params(filters), **(params or {})})
        pieces = decode(body, list[msgspec.Raw] | None, self.address) or []
        objects: list[T] = []
        decoder = msgspec.json.Decoder(kind)
        try:
            for start in range(0, len(pieces), _SLICE):
                if start:
                    await asyncio.sleep(0)
                objects += [decoder.decode(piece) for piece in pieces[start : start + _SLICE]]
        except msgspec.DecodeError as error:
            raise malformed(body, error, self.address) from None
        return objects

    async def _raw_object(self, path: str, params: Params | None = None, *, versioned: bool = True) -> Json:
        answer = parse(await self._get(path, params, versioned=versioned), self.address)
        if not isinstance(answer, dict):
            raise MalformedAnswer(f"{self.address} answered {path} with {answer!r} instead of an object")
        return answer
