"""The table of the front door: which request is the swarm's own, which is merged with the engine's answer, which is passed on.

One row a route. What no row names is passed to the host's engine, or refused with the reason where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from agent.api import (
    containers,
    event_stream,
    execs,
    explain,
    logs,
    metrics,
    networks,
    nodes,
    secrets,
    services,
    swarm,
    system,
    tasks,
    watch,
)
from agent.api.call import Call

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class RouteKind(StrEnum):
    """Who answers."""

    OWN = "own"
    """The swarm, from its store."""
    MERGED = "merged"
    """The host's engine and the swarm together; the swarm alone where there is no engine."""
    PROCESS = "process"
    """The host's engine; where there is none, the agent for the processes that it runs."""
    PASSED = "passed"
    """The host's engine."""


@dataclass(frozen=True, slots=True)
class Route:
    """A row: `{name}` in the pattern is one part of the path, `{name*}` one or more of them."""

    method: str
    pattern: str
    kind: RouteKind
    handler: Handler


OWN, MERGED, PROCESS = RouteKind.OWN, RouteKind.MERGED, RouteKind.PROCESS

ROUTES: tuple[Route, ...] = (
    Route("HEAD", "/_ping", MERGED, system.ping),
    Route("GET", "/_ping", MERGED, system.ping),
    Route("GET", "/version", MERGED, system.version),
    Route("GET", "/info", MERGED, system.info),
    Route("GET", "/events", MERGED, event_stream.stream),
    Route("GET", "/networks", MERGED, networks.list_networks),
    Route("GET", "/networks/{id*}", MERGED, networks.inspect),
    Route("POST", "/networks/create", MERGED, networks.create),
    Route("DELETE", "/networks/{id*}", MERGED, networks.remove),
    Route("GET", "/swarm", OWN, swarm.inspect),
    Route("POST", "/swarm/init", OWN, swarm.init),
    Route("POST", "/swarm/join", OWN, swarm.join),
    Route("POST", "/swarm/leave", OWN, swarm.leave),
    Route("POST", "/swarm/update", OWN, swarm.update),
    Route("GET", "/swarm/unlockkey", OWN, swarm.unlock_key),
    Route("POST", "/swarm/unlock", OWN, swarm.unlock),
    Route("GET", "/nodes", OWN, nodes.list_nodes),
    Route("GET", "/nodes/{id}", OWN, nodes.inspect),
    Route("POST", "/nodes/{id}/update", OWN, nodes.update),
    Route("DELETE", "/nodes/{id}", OWN, nodes.remove),
    Route("GET", "/services", OWN, services.list_services),
    Route("POST", "/services/create", OWN, services.create),
    Route("GET", "/services/{id}", OWN, services.inspect),
    Route("POST", "/services/{id}/update", OWN, services.update),
    Route("DELETE", "/services/{id}", OWN, services.remove),
    Route("GET", "/services/{id}/logs", OWN, logs.of_service),
    Route("GET", "/tasks", OWN, tasks.list_tasks),
    Route("GET", "/tasks/{id}", OWN, tasks.inspect),
    Route("GET", "/tasks/{id}/logs", OWN, logs.of_task),
    Route("GET", "/secrets", OWN, secrets.list_secrets),
    Route("POST", "/secrets/create", OWN, secrets.create_secret),
    Route("GET", "/secrets/{id}", OWN, secrets.inspect_secret),
    Route("POST", "/secrets/{id}/update", OWN, secrets.update_secret),
    Route("DELETE", "/secrets/{id}", OWN, secrets.remove_secret),
    Route("GET", "/configs", OWN, secrets.list_configs),
    Route("POST", "/configs/create", OWN, secrets.create_config),
    Route("GET", "/configs/{id}", OWN, secrets.inspect_config),
    Route("POST", "/configs/{id}/update", OWN, secrets.update_config),
    Route("DELETE", "/configs/{id}", OWN, secrets.remove_config),
    Route("GET", "/swarmtui/v1/watch", OWN, watch.stream),
    Route("GET", "/swarmtui/v1/metrics", OWN, metrics.show),
    Route("GET", "/swarmtui/v1/explain/task/{id}", OWN, explain.task),
    Route("GET", "/swarmtui/v1/explain/service/{id}", OWN, explain.service),
    Route("GET", "/containers/json", PROCESS, containers.list_containers),
    Route("GET", "/containers/{id*}/json", PROCESS, containers.inspect),
    Route("GET", "/containers/{id}/logs", PROCESS, containers.logs),
    Route("GET", "/containers/{id}/top", PROCESS, containers.top),
    Route("GET", "/containers/{id}/stats", PROCESS, containers.stats),
    Route("POST", "/containers/{id}/stop", PROCESS, containers.stop),
    Route("POST", "/containers/{id}/kill", PROCESS, containers.kill),
    Route("POST", "/containers/{id}/wait", PROCESS, containers.wait),
    Route("DELETE", "/containers/{id}", PROCESS, containers.remove),
    Route("POST", "/containers/{id}/exec", PROCESS, execs.create),
    Route("POST", "/exec/{id}/start", PROCESS, execs.start),
    Route("GET", "/exec/{id}/json", PROCESS, execs.inspect),
    Route("POST", "/exec/{id}/resize", PROCESS, execs.resize),
    Route("GET", "/images/json", PROCESS, containers.list_images),
    Route("GET", "/images/{name*}/json", PROCESS, containers.inspect_image),
    Route("GET", "/distribution/{name*}/json", PROCESS, containers.inspect_distribution),
    Route("GET", "/plugins/{name*}/json", PROCESS, containers.inspect_plugin),
    Route("GET", "/volumes/{name*}", PROCESS, containers.inspect_volume),
)

OWN_GROUPS = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/swarmtui")
"""Whatever begins with one of these is never passed to an engine, which would answer for a swarm of its own."""

_VERSION = re.compile(r"/v([0-9]+(?:\.[0-9]+)*)(?=/|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Match:
    """Where a request goes; `route` is None for what the table does not name."""

    kind: RouteKind
    route: Route | None
    path: str
    version: tuple[int, ...] | None
    params: Mapping[str, str]


def split_version(path: str) -> tuple[tuple[int, ...] | None, str]:
    """`/v1.41/services` as version (1, 41) and `/services`; any version is taken, and none."""
    match = _VERSION.match(path)
    if match is None:
        return None, path
    return tuple(int(part) for part in match[1].split(".") if len(part) < 6), path[match.end() :] or "/"


def find_route(method: str, full_path: str) -> Match:
    """The row for a request; `full_path` is decoded, with or without a version prefix."""
    version, path = split_version(full_path)
    group = path.partition("/")[2].partition("/")[0]
    for route, pattern in _BY_GROUP.get((method, group), ()):
        match = pattern.fullmatch(path)
        if match is not None:
            return Match(route.kind, route, path, version, match.groupdict())
    own = any(path == prefix or path.startswith(prefix + "/") for prefix in OWN_GROUPS)
    return Match(RouteKind.OWN if own else RouteKind.PASSED, None, path, version, {})


def _compile(pattern: str) -> re.Pattern[str]:
    expression = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", pattern)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", expression), re.DOTALL)


_BY_GROUP: dict[tuple[str, str], list[tuple[Route, re.Pattern[str]]]] = {}
for _route in ROUTES:
    _group = _route.pattern.split("/")[1]
    _BY_GROUP.setdefault((_route.method, _group), []).append((_route, _compile(_route.pattern)))
