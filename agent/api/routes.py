"""The table of the front door: which request is the swarm's own, which is merged with the engine's answer, which is passed on.

One row a route. What no row names is passed to the host's engine, or refused with the reason where there is none. Of the
swarm's own a row says which manager answers: the one that is asked, from its own store, or the leader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.api import (
    attaching,
    attachments,
    backups,
    containers,
    event_stream,
    execs,
    explain,
    logs,
    managers,
    metrics,
    network_prune,
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
from agent.api.forwarding import Handler, ObjectOf
from agent.api.lookup import find_config, find_node, find_secret, find_service
from agent.api_types.errors import ApiError
from agent.store.tables import StoreObject
from agent.store.transactions import ReadTx


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


class By(StrEnum):
    """Which manager answers."""

    HERE = "here"
    """The one that is asked: from its own store, or because it is about this node alone."""
    LEADER = "leader"
    """The one that leads; the others send the request on."""
    BOTH = "both"
    """The one that is asked, with the leader's help where only that one can know or change something."""


@dataclass(frozen=True, slots=True)
class Route:
    """A row: `{name}` in the pattern is one part of the path, `{name*}` one or more of them.

    `object_of` names the object that a write makes or removes, before it is sent to the leader (see `attempts`).
    """

    method: str
    pattern: str
    kind: RouteKind
    handler: Handler
    by: By = By.HERE
    object_of: ObjectOf | None = None


OWN, MERGED, PROCESS = RouteKind.OWN, RouteKind.MERGED, RouteKind.PROCESS
LEADER, BOTH = By.LEADER, By.BOTH


def _new_object(call: Call) -> str:
    return call.state.new_id()


def _named_id(call: Call) -> str:
    return call.params["id"]


def _object(find: Callable[[ReadTx, str], StoreObject]) -> ObjectOf:
    """The id of the object that the path names, as far as this manager knows it."""

    def object_of(call: Call) -> str:
        store = call.backend.store
        if store is None:
            return ""
        try:
            return store.view(lambda tx: find(tx, call.params["id"])).id
        except ApiError:
            return ""

    return object_of


ROUTES: tuple[Route, ...] = (
    Route("HEAD", "/_ping", MERGED, system.ping),
    Route("GET", "/_ping", MERGED, system.ping),
    Route("GET", "/version", MERGED, system.version),
    Route("GET", "/info", MERGED, system.info),
    Route("GET", "/events", MERGED, event_stream.stream),
    Route("GET", "/networks", MERGED, networks.list_networks),
    Route("GET", "/networks/{id*}", MERGED, networks.inspect),
    Route("POST", "/networks/create", MERGED, networks.create, BOTH),
    Route("POST", "/networks/prune", MERGED, network_prune.prune, BOTH),
    Route("POST", "/networks/{id*}/connect", MERGED, attaching.connect, BOTH),
    Route("POST", "/networks/{id*}/disconnect", MERGED, attaching.disconnect, BOTH),
    Route("DELETE", "/networks/{id*}", MERGED, networks.remove, BOTH),
    Route("GET", "/swarm", OWN, swarm.inspect),
    Route("POST", "/swarm/init", OWN, swarm.init),
    Route("POST", "/swarm/join", OWN, swarm.join),
    Route("POST", "/swarm/leave", OWN, swarm.leave),
    Route("POST", "/swarm/update", OWN, swarm.update, LEADER),
    Route("GET", "/swarm/unlockkey", OWN, swarm.unlock_key, LEADER),
    Route("POST", "/swarm/unlock", OWN, swarm.unlock),
    Route("GET", "/nodes", OWN, nodes.list_nodes),
    Route("GET", "/nodes/{id}", OWN, nodes.inspect),
    Route("POST", "/nodes/{id}/update", OWN, nodes.update, LEADER),
    Route("DELETE", "/nodes/{id}", OWN, nodes.remove, LEADER, _object(find_node)),
    Route("GET", "/services", OWN, services.list_services),
    Route("POST", "/services/create", OWN, services.create, LEADER, _new_object),
    Route("GET", "/services/{id}", OWN, services.inspect),
    Route("POST", "/services/{id}/update", OWN, services.update, LEADER),
    Route("DELETE", "/services/{id}", OWN, services.remove, LEADER, _object(find_service)),
    Route("GET", "/services/{id}/logs", OWN, logs.of_service, LEADER),
    Route("GET", "/tasks", OWN, tasks.list_tasks),
    Route("GET", "/tasks/{id}", OWN, tasks.inspect),
    Route("GET", "/tasks/{id}/logs", OWN, logs.of_task, LEADER),
    Route("GET", "/secrets", OWN, secrets.SECRETS.list),
    Route("POST", "/secrets/create", OWN, secrets.SECRETS.create, LEADER, _new_object),
    Route("GET", "/secrets/{id}", OWN, secrets.SECRETS.inspect),
    Route("POST", "/secrets/{id}/update", OWN, secrets.SECRETS.update, LEADER),
    Route("DELETE", "/secrets/{id}", OWN, secrets.SECRETS.remove, LEADER, _object(find_secret)),
    Route("GET", "/configs", OWN, secrets.CONFIGS.list),
    Route("POST", "/configs/create", OWN, secrets.CONFIGS.create, LEADER, _new_object),
    Route("GET", "/configs/{id}", OWN, secrets.CONFIGS.inspect),
    Route("POST", "/configs/{id}/update", OWN, secrets.CONFIGS.update, LEADER),
    Route("DELETE", "/configs/{id}", OWN, secrets.CONFIGS.remove, LEADER, _object(find_config)),
    Route("GET", "/swarmtui/v1/watch", OWN, watch.stream),
    Route("GET", "/swarmtui/v1/metrics", OWN, metrics.show),
    Route("GET", "/swarmtui/v1/managers", OWN, managers.show, BOTH),
    Route("GET", "/swarmtui/v1/backup", OWN, backups.save),
    Route("POST", "/swarmtui/v1/restore", OWN, backups.restore),
    Route("GET", "/swarmtui/v1/explain/task/{id}", OWN, explain.task, LEADER),
    Route("GET", "/swarmtui/v1/explain/service/{id}", OWN, explain.service, LEADER),
    Route("GET", "/swarmtui/v1/explain/network/{id}", OWN, explain.network, LEADER),
    Route("POST", "/swarmtui/v1/attachments/create", OWN, attachments.put, LEADER, _new_object),
    Route("DELETE", "/swarmtui/v1/attachments/{id}", OWN, attachments.remove, LEADER, _named_id),
    Route("POST", "/containers/create", MERGED, attaching.create_container, BOTH),
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
