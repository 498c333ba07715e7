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
    event_stream,
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
    PASSED = "passed"
    """The host's engine."""


@dataclass(frozen=True, slots=True)
class Route:
    """A row: `{name}` in the pattern is one part of the path."""

    method: str
    pattern: str
    kind: RouteKind
    handler: Handler


OWN, MERGED = RouteKind.OWN, RouteKind.MERGED

ROUTES: tuple[Route, ...] = (
    Route("HEAD", "/_ping", MERGED, system.ping),
    Route("GET", "/_ping", MERGED, system.ping),
    Route("GET", "/version", MERGED, system.version),
    Route("GET", "/info", MERGED, system.info),
    Route("GET", "/events", MERGED, event_stream.stream),
    Route("GET", "/networks", MERGED, networks.list_networks),
    Route("GET", "/networks/{id}", MERGED, networks.inspect),
    Route("POST", "/networks/create", MERGED, networks.create),
    Route("DELETE", "/networks/{id}", MERGED, networks.remove),
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
    parts = path.split("/")
    for route, wanted in _BY_METHOD.get(method, {}).get((parts[1] if len(parts) > 1 else "", len(parts)), ()):
        params = {}
        for part, want in zip(parts, wanted, strict=True):
            if want.startswith("{") and part:
                params[want[1:-1]] = part
            elif part != want:
                break
        else:
            return Match(route.kind, route, path, version, params)
    own = any(path == group or path.startswith(group + "/") for group in OWN_GROUPS)
    return Match(RouteKind.OWN if own else RouteKind.PASSED, None, path, version, {})


_BY_METHOD: dict[str, dict[tuple[str, int], list[tuple[Route, list[str]]]]] = {}
for _route in ROUTES:
    _parts = _route.pattern.split("/")
    _BY_METHOD.setdefault(_route.method, {}).setdefault((_parts[1], len(_parts)), []).append((_route, _parts))
