"""The recording, replayed request by request against the real server: status, text and JSON have to come out the same.

What the rest of a cluster does (tasks, endpoints, update states, nodes that come) is put into the store right before the
request whose answer shows it; everything else is the front door's own work.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_recording import Recorded, World, log_records, recorded
from api_scripted import Client, ScriptedBackend, ScriptedLogs, served

from agent.api.lookup import the_cluster
from agent.api.routes import RouteKind, find_route
from agent.api.views import swarm_view
from agent.api_types.times import SECOND
from agent.raft.interface import GroupStatus, MemberRole

NOT_COMPARED: dict[str, str] = {
    "Index": "entries of our log are counted otherwise; that a stale one is refused is compared",
    "CreatedAt": "our clock",
    "UpdatedAt": "our clock",
    "LastExecution": "our clock",
    "TrustRoot": "a root of our own",
    "CertIssuerPublicKey": "a root of our own",
    "CertIssuerSubject": "a root of our own",
    "Worker": "a secret",
    "Manager": "a secret",
    "UnlockKey": "a secret",
    "HeartbeatPeriod": "one second where Docker has five, until a person says otherwise",
    "Containers": "what a network's host knows of it: the engine's, not the swarm's",
    "Peers": "what a network's host knows of it: the engine's, not the swarm's",
    "Created": "our clock",
    "EndpointID": "a digest of ours: engines draw theirs by lot",
    "LocalLBIndex": "a number of ours: engines count theirs",
    "RootRotationInProgress": "the nodes that follow a rotation are not played here",
}
"""Members whose values differ on purpose; that they are there, and of the same type, is compared."""

MAY_BE_MISSING = {"Peers", "Services"}
"""Of a network: what its host knows of it."""
CLUSTER, SECOND_NODE = "yxjfebyg48vognh417zb07hc1", "zhombo1kss0hc2kf2yb8ac41v"
OF_ONE_NODE = ("/swarm/init", "/swarm/join", "/swarm/leave", "/swarm/unlock")
OF_THE_ENGINE = ("/_ping", "/version", "/info")
"""Routes that need an engine for the engine's part: without one every key has to be there, with a value of its type."""


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two JSON values are not alike."""
    key = where.rpartition(".")[2]
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = [f"{where}.{name}: missing" for name in theirs.keys() - ours.keys() - MAY_BE_MISSING]
        found += [f"{where}.{name}: should not be there" for name in ours.keys() - theirs.keys()]
        if key in NOT_COMPARED:
            return []
        for name in theirs.keys() & ours.keys():
            found += differences(ours[name], theirs[name], f"{where}.{name}")
        return found
    if key in NOT_COMPARED and (type(ours) is type(theirs) or ours is None):
        return []
    if key == "Labels" and not ours and not theirs:
        return []  # an overlay shows null or {}, by whether this host has used it
    if isinstance(theirs, list) and isinstance(ours, list):
        if len(ours) != len(theirs):
            return [f"{where}: {len(ours)} items instead of {len(theirs)}"]
        return [
            text
            for n, pair in enumerate(zip(ours, theirs, strict=True))
            for text in differences(*pair, f"{where}[{n}]")
        ]
    numbers = isinstance(ours, float) and isinstance(theirs, int)  # 0.0 is Go's 0
    return (
        []
        if ours == theirs and (numbers or type(ours) is type(theirs))
        else [f"{where}: {ours!r} instead of {theirs!r}"]
    )


def missing_keys(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """What an answer lacks that another one has; values are not compared, but a list stays a list."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = [f"{where}.{name}: missing" for name in theirs.keys() - ours.keys()]
        if where.endswith(("Runtimes", "IndexConfigs", "Details")):
            return []
        return found + [
            t for name in theirs.keys() & ours.keys() for t in missing_keys(ours[name], theirs[name], f"{where}.{name}")
        ]
    alike = type(ours) is type(theirs) or ours is None or theirs is None
    return [] if alike else [f"{where}: {ours!r} where the engine has {theirs!r}"]


class Replay:
    """The two nodes of the recording and what is remembered from one request to the next."""

    def __init__(
        self,
        clients: dict[str, Client],
        backends: dict[str, ScriptedBackend],
        requests: list[Recorded],
        follower: Client | None = None,
    ) -> None:
        self._follower = follower
        joined = next(request.seq for request in requests if request.path == "/swarm/join" and request.status == 200)
        self._nodes_after_join = next(r for r in requests if r.seq > joined and r.path == "/nodes" and r.status == 200)
        self._clients = clients
        self._backends = backends
        self._worlds = {name: World(backend, requests) for name, backend in backends.items()}
        self._versions: dict[tuple[str, int], int] = {}
        self.problems: list[str] = []
        self.replayed: Counter[str] = Counter()

    async def one(self, request: Recorded) -> None:
        backend = self._backends[request.node]
        backend.now = int(request.t * SECOND)
        await self._worlds[request.node].show(request)
        if request.path == "/swarm/join" and request.status == 200:
            # The new node reports to the manager before the manager is next asked for its nodes.
            await self._worlds["n1"].show(self._nodes_after_join)
        if isinstance(request.resp_body, dict) and request.status == 201 and "ID" in request.resp_body:
            backend.next_ids = [request.resp_body["ID"]]
        if request.path == "/networks/create" and request.status == 201:
            backend.next_ids = [request.resp_body["Id"]]
        if request.path in ("/swarm/init", "/swarm/join") and request.status == 200:
            # The store numbers its transactions from an id of its own; then come the node's and the cluster's.
            backend.next_ids = ["0" * 25, request.resp_body, CLUSTER] if request.resp_body else [SECOND_NODE]
        if request.path.endswith("/logs"):
            await self._logs(request)
        elif request.path == "/events":
            await self._events(request)
        else:
            await self._plain(request)

    async def _plain(self, request: Recorded) -> None:
        status, answer = await self._client(request).call(
            request.method, self._target(request), self._body(request), headers=self._headers(request)
        )
        if status != request.status:
            self._note(request, [f"status {status} instead of {request.status}: {answer}"])
            return
        theirs = request.resp_body
        if any(len(values) > 1 for values in request.query.get("filters", {}).values()) and request.path != "/networks":
            # What several values of a filter find the engine shows in the order of a Go map, which is none.
            theirs = sorted(theirs, key=lambda shown: shown["ID"])
        if request.path == "/networks" and status == 200:
            theirs = [network for network in theirs if network["Scope"] == "swarm"]
        if request.path in OF_THE_ENGINE and isinstance(theirs, dict):
            self._note(request, missing_keys(answer, theirs))
            self._note(request, differences(answer.get("Swarm"), theirs.get("Swarm"), "Swarm"))
        else:
            self._note(request, differences(answer, theirs))
        if request.path == "/networks/create" and status == 201:
            await self._worlds[request.node].allocate_network(request)
        self._remember(answer, theirs)

    def _client(self, request: Recorded) -> Client:
        if self._follower is None or request.node != "n1" or request.path in OF_ONE_NODE:
            return self._clients[request.node]
        return self._follower

    def _note(self, request: Recorded, found: list[str]) -> None:
        if found:
            self.problems.append(f"#{request.seq} {request.method} {request.raw_target}:\n    " + "\n    ".join(found))

    def _headers(self, request: Recorded) -> dict[str, str]:
        return {name: request.req_headers[name] for name in ("X-Registry-Auth",) if name in request.req_headers}

    def _body(self, request: Recorded) -> Any:
        """The body; the recording has x and y in the place of the token's digest and secret, we need one of ours."""
        if request.path == "/swarm/join" and "xxx" in request.req_body["JoinToken"]:
            store = self._backends["n1"].store
            assert store is not None
            return request.req_body | {"JoinToken": swarm_view(store.view(the_cluster)).join_tokens.worker}
        return request.req_body

    def _target(self, request: Recorded) -> str:
        """The request's target, with our index in the place of the engine's for the same state of the same object."""
        match = re.search(r"version=(\d+)", request.raw_target)
        if match is None:
            return request.raw_target
        named = request.path.split("/")[2] if request.path != "/swarm/update" else "swarm"
        ours = self._versions[named, int(match[1])]
        return request.raw_target.replace(match[0], f"version={ours}")

    def _remember(self, ours: Any, theirs: Any) -> None:
        if isinstance(theirs, list) and isinstance(ours, list):
            for pair in zip(ours, theirs, strict=False):
                self._remember(*pair)
        elif isinstance(theirs, dict) and "Version" in theirs and isinstance(ours, dict) and "Version" in ours:
            if not isinstance(theirs["Version"], dict):
                return
            named = "swarm" if "JoinTokens" in theirs else theirs["ID"]
            self._versions[named, theirs["Version"]["Index"]] = ours["Version"]["Index"]

    async def _logs(self, request: Recorded) -> None:
        logs = self._backends[request.node].logs
        assert isinstance(logs, ScriptedLogs)
        logs.records = list(log_records(request, "rb008m8o2mzvukrh8wnk2ut4a"))
        target = f"http://docker{request.raw_target}"
        async with self._client(request).session.get(target) as answer:
            assert answer.status == 200
            raw = await answer.content.readexactly(len(request.raw))
            if not request.client_closed_stream:
                assert await answer.content.read() == b""
        self._note(request, [] if raw == request.raw else [f"{raw!r} instead of {request.raw!r}"])

    async def _events(self, request: Recorded) -> None:
        """The events of what clients did: which, in which order, with which attributes."""

        def of_clients(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
            by_clients = [
                event for event in events if event["scope"] == "swarm" and event["Type"] in ("secret", "config")
            ]
            return [{name: event[name] for name in event if not name.startswith("time")} for event in by_clients]

        theirs = request.resp_body["_jsonl"]
        target = f"http://docker{request.raw_target}"
        ours = []
        async with self._client(request).session.get(target) as answer:
            assert answer.status == 200
            if "until" in request.query:
                ours = [json.loads(line) async for line in answer.content]
                self._note(request, differences(of_clients(ours), of_clients(theirs)))
                shapes = {json.dumps(_shape(event), sort_keys=True) for event in theirs}
                self._note(request, [f"event {e}" for e in ours if json.dumps(_shape(e), sort_keys=True) not in shapes])


def _shape(event: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(value) if name == "Actor" else type(value).__name__ for name, value in event.items()}


class Beside:
    """A manager that follows the one in `leader`'s place: it has the same state, and its group says who leads."""

    def __init__(self, leader: ScriptedBackend, socket: Path) -> None:
        self.leader = leader
        self.logs = self.explainer = None
        self.exchanges = 0
        self._socket = socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self.leader, name)

    @property
    def group(self) -> GroupStatus | None:
        group = self.leader.group
        return None if group is None else replace(group, member_id="beside", role=MemberRole.FOLLOWER, leading=False)

    async def group_changed(self, seen: GroupStatus | None) -> GroupStatus | None:
        while self.group == seen:
            await self.leader.group_changed(self.leader.group)
        return self.group

    @asynccontextmanager
    async def leader_link(self, caller: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        self.exchanges += 1
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def run(replay: Replay, requests: list[Recorded]) -> None:
    for request in requests:
        match = find_route(request.method, request.path)
        if match.kind in (RouteKind.PASSED, RouteKind.PROCESS):
            replay.replayed["passed to an engine: not replayed here"] += 1
            continue
        replay.replayed[match.kind.value] += 1
        await replay.one(request)
        if len(replay.problems) > 40:
            break


@pytest.mark.timeout(180)
async def test_the_recording_comes_out_the_same_at_a_follower(tmp_path: Path) -> None:
    """What is about the node itself goes to the node of the recording, everything else to a manager that follows it."""
    backends = {"n1": ScriptedBackend(), "n2": ScriptedBackend()}
    beside = Beside(backends["n1"], tmp_path / "1")
    async with (
        served(backends["n1"], tmp_path, "1") as one,
        served(backends["n2"], tmp_path, "2") as two,
        served(beside, tmp_path, "3", ids=backends["n1"].ids) as follower,
    ):
        requests = recorded()
        replay = Replay({"n1": one, "n2": two}, backends, requests, follower)
        await run(replay, requests)
    assert replay.problems == [], "\n".join(replay.problems)
    assert beside.exchanges > 100


@pytest.mark.timeout(180)
async def test_the_recording_comes_out_the_same(tmp_path: Path) -> None:
    backends = {"n1": ScriptedBackend(), "n2": ScriptedBackend()}
    async with served(backends["n1"], tmp_path, "1") as one, served(backends["n2"], tmp_path, "2") as two:
        requests = recorded()
        replay = Replay({"n1": one, "n2": two}, backends, requests)
        await run(replay, requests)
    assert replay.problems == [], "\n".join(replay.problems)
    assert replay.replayed["own"] + replay.replayed["merged"] > 2100
