"""An engine for the console's tests: the swarm part of the API over a unix socket, with a state that converges at once.

It answers in the recorded shapes. What a real cluster does between a change and its convergence a test does itself, by
`put` and `drop`, or by replacing `orchestrate`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from swarmtui.docker_api.address import EngineAddress, socket_address

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TIME = "2026-11-21T09:25:01.5Z"


def make_node(node_id: str, hostname: str, **more: Any) -> Json:
    """A ready worker, or what `more` says: state, availability, role, leader, labels."""
    node: Json = {
        "ID": node_id,
        "Version": {"Index": 1},
        "CreatedAt": TIME,
        "UpdatedAt": TIME,
        "Spec": {
            "Labels": more.get("labels", {}),
            "Role": more.get("role", "worker"),
            "Availability": more.get("availability", "active"),
        },
        "Description": {
            "Hostname": hostname,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1 << 33},
            "Engine": {"EngineVersion": "20.10.24"},
        },
        "Status": {"State": more.get("state", "ready"), "Addr": "10.0.0.1"},
    }
    if node["Spec"]["Role"] == "manager":
        node["ManagerStatus"] = {
            "Leader": more.get("leader", False),
            "Reachability": "reachable",
            "Addr": "10.0.0.1:2377",
        }
    return node


def make_task(task_id: str, service_id: str, slot: int, node_id: str = "n1", **more: Any) -> Json:
    """A running task, or what `more` says: state, desired, err, spec, timestamp, spec_version."""
    return {
        "ID": task_id,
        "Version": {"Index": more.get("version", 1)},
        "CreatedAt": more.get("created", TIME),
        "UpdatedAt": TIME,
        "Labels": {},
        "Spec": more.get("spec", {"ContainerSpec": {"Image": "web:1"}, "ForceUpdate": 0}),
        "ServiceID": service_id,
        "Slot": slot,
        "NodeID": node_id,
        "Status": {
            "Timestamp": more.get("timestamp", TIME),
            "State": more.get("state", "running"),
            "Message": "started",
            "Err": more.get("err", ""),
            "PortStatus": {},
        },
        "DesiredState": more.get("desired", "running"),
        **({"SpecVersion": {"Index": more["spec_version"]}} if "spec_version" in more else {}),
    }


def make_service(service_id: str, name: str, replicas: int | None = 1, **more: Any) -> Json:
    """A replicated service, or what `more` says: mode, image, update_status, spec_version, labels."""
    mode = more.get("mode") or {"Replicated": {"Replicas": replicas}}
    return {
        "ID": service_id,
        "Version": {"Index": more.get("version", 1)},
        "CreatedAt": TIME,
        "UpdatedAt": TIME,
        "Spec": {
            "Name": name,
            "Labels": more.get("labels", {}),
            "TaskTemplate": {"ContainerSpec": {"Image": more.get("image", "web:1")}, "ForceUpdate": 0},
            "Mode": mode,
            "EndpointSpec": {"Mode": "vip"},
        },
        "Endpoint": {"Spec": {}},
        **({"UpdateStatus": more["update_status"]} if "update_status" in more else {}),
        **({"SpecVersion": {"Index": more["spec_version"]}} if "spec_version" in more else {}),
    }


class FakeEngine:
    """`agent` False: a real Docker, without `/swarmtui/v1/`."""

    def __init__(self, *, agent: bool = True, manager: bool = True) -> None:
        self.agent = agent
        self.manager = manager
        self.index = 10
        self.cluster_id = "cluster1"
        self.tables: dict[str, dict[str, Json]] = {
            name: {} for name in ("nodes", "services", "tasks", "networks", "secrets", "configs")
        }
        self.requests: list[tuple[str, str, Json | None]] = []
        """Method, path with query, body."""
        self.overrides: dict[tuple[str, str], Handler] = {}
        """Answers to `(METHOD, path)` instead of the usual one."""
        self.raw: dict[tuple[str, str], Handler] = {}
        """The same for bodies that are no JSON."""
        self.log_chunks: dict[str, list[bytes]] = {}
        """What a service's (or task's) log is made of."""
        self.orchestrate: Callable[[Json], None] = self.converge
        self.forgotten_before = 0
        """Watches cannot resume from indexes below."""
        self.watchers: list[asyncio.Queue[bytes | None]] = []
        self.listeners: list[asyncio.Queue[bytes | None]] = []
        self.watch_opened = asyncio.Event()
        self.runner: web.AppRunner | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="fe-", dir="/tmp"))
        self.put("nodes", make_node("n1", "node1", role="manager", leader=True))
        self.put("nodes", make_node("n2", "node2"))

    @property
    def address(self) -> EngineAddress:
        return socket_address(str(self.folder / "s.sock"))

    # State

    def put(self, table: str, thing: Json) -> Json:
        self.index += 1
        known = thing["ID"] in self.tables[table]
        thing["Version"] = {"Index": self.index}
        self.tables[table][thing["ID"]] = thing
        self._tell("update" if known else "create", table, thing)
        return thing

    def drop(self, table: str, key: str) -> None:
        self.index += 1
        self._tell("remove", table, self.tables[table].pop(key))

    def converge(self, service: Json) -> None:
        """Running, up-to-date tasks in every wanted slot, none elsewhere."""
        mode = service["Spec"]["Mode"]
        nodes = [node["ID"] for node in self.tables["nodes"].values() if node["Spec"]["Availability"] == "active"]
        template = service["Spec"]["TaskTemplate"]
        mine = [task for task in self.tables["tasks"].values() if task["ServiceID"] == service["ID"]]
        wanted = {(0, node) for node in nodes} if "Global" in mode else set()
        if "Replicated" in mode:
            replicas = mode["Replicated"].get("Replicas", 1)
            wanted = {(slot, nodes[slot % len(nodes)]) for slot in range(1, replicas + 1)}
        for task in mine:
            if (task["Slot"], task["NodeID"]) not in wanted or task["Spec"] != template:
                self.drop("tasks", task["ID"])
        held = {(task["Slot"], task["NodeID"]) for task in self.tables["tasks"].values()
                if task["ServiceID"] == service["ID"]}  # fmt: skip
        for slot, node in sorted(wanted - held):
            task_id = f"t{self.index}x{slot}{node}"
            self.put("tasks", make_task(task_id, service["ID"], slot, node, spec=copy.deepcopy(template)))

    def _tell(self, kind: str, table: str, thing: Json) -> None:
        line = {"kind": kind, "table": table, "index": self.index, "object": thing}
        for queue in self.watchers:
            queue.put_nowait(json.dumps(line).encode() + b"\n")
        event = {"Type": table[:-1], "Action": kind, "Actor": {"ID": thing["ID"]}, "scope": "swarm", "timeNano": 1}
        for queue in self.listeners:
            if table != "tasks":
                queue.put_nowait(json.dumps(event).encode() + b"\n")

    def cut_streams(self) -> None:
        """End every watch and events stream, as an engine that goes away does."""
        for queue in (*self.watchers, *self.listeners):
            queue.put_nowait(None)

    # Server

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.UnixSite(self.runner, str(self.folder / "s.sock")).start()

    async def stop(self) -> None:
        self.cut_streams()
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    def clean(self) -> None:
        shutil.rmtree(self.folder)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/v1."):
            path = "/" + path.split("/", 2)[2]
        raw = self.raw.get((request.method, path))
        if raw is not None:
            return await raw(request)
        text = await request.text()
        body = json.loads(text) if text else None
        query = f"?{request.query_string}" if request.query_string else ""
        self.requests.append((request.method, path + query, body))
        override = self.overrides.get((request.method, path))
        if override is not None:
            return await override(request)
        if path == "/_ping":
            return web.Response(text="OK", headers={"Api-Version": "1.41"})
        if path == "/version":
            return web.json_response({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        if path == "/info":
            return web.json_response({"Name": "vm", "Swarm": self._swarm_info()})
        if path.startswith("/swarmtui/"):
            return await self._extension(request, path)
        if not self.manager:
            return problem(
                503, "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."
            )
        if path == "/events":
            return await self._stream(request, self.listeners)
        if path.endswith("/logs"):
            return await self._logs(request, path.split("/")[2])
        return self._table_route(request, path, body)

    def _swarm_info(self) -> Json:
        if not self.manager:
            managers = [{"NodeID": "n1", "Addr": "10.0.0.1:2377"}]
            return {"LocalNodeState": "active", "ControlAvailable": False, "RemoteManagers": managers}
        cluster = {"ID": self.cluster_id, "Spec": {"Name": "default"}}
        return {"NodeID": "n1", "LocalNodeState": "active", "ControlAvailable": True, "Cluster": cluster}

    async def _extension(self, request: web.Request, path: str) -> web.StreamResponse:
        if not self.agent:
            return problem(404, "page not found")
        if path.endswith("/metrics"):
            return web.Response(text="up 1\n")
        if "/explain/" in path:
            return web.json_response({"summary": "no suitable node"})
        since = request.query.get("since")
        if since is not None and int(since) < self.forgotten_before:
            return problem(410, f"index {since} is forgotten")
        lines: list[bytes] = []
        if since is None:
            for table, held in self.tables.items():
                for thing in held.values():
                    line = {"kind": "snapshot", "table": table, "index": self.index, "object": thing}
                    lines.append(json.dumps(line).encode())
        lines.append(json.dumps({"kind": "synced", "index": self.index if since is None else int(since)}).encode())
        return await self._stream(request, self.watchers, b"\n".join(lines) + b"\n")

    async def _stream(
        self, request: web.Request, queues: list[asyncio.Queue[bytes | None]], head: bytes = b""
    ) -> web.StreamResponse:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        queues.append(queue)
        try:
            response = web.StreamResponse()
            await response.prepare(request)
            if head:
                await response.write(head)
            self.watch_opened.set()
            while (line := await queue.get()) is not None:
                await response.write(line)
            if request.transport is not None:
                request.transport.abort()
            return response
        finally:
            queues.remove(queue)

    async def _logs(self, request: web.Request, key: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.docker.raw-stream"})
        await response.prepare(request)
        for chunk in self.log_chunks.get(key, []):
            await response.write(chunk)
        return response

    def _table_route(self, request: web.Request, path: str, body: Json | None) -> web.Response:
        parts = path.strip("/").split("/")
        table = parts[0]
        if path == "/swarm" and request.method == "GET":
            tokens = {"Worker": "SWMTKN-1-aaa-w", "Manager": "SWMTKN-1-aaa-m"}
            return web.json_response({"ID": "c", "Version": {"Index": 3}, "Spec": {}, "JoinTokens": tokens})
        if path == "/swarm/init":
            return web.json_response("n1")
        if table == "swarm":
            return web.Response(text="")
        if table not in self.tables:
            return problem(404, "page not found")
        if request.method == "GET" and len(parts) == 1:
            return web.json_response(self._filtered(table, request.query.get("filters")))
        if parts[1:] == ["create"]:
            return self._create(table, body or {})
        found = self._find(table, parts[1])
        if found is None:
            return problem(404, f"{table[:-1]} {parts[1]} not found")
        if request.method == "GET":
            return web.json_response(found)
        if request.method == "DELETE":
            return self._remove(table, found)
        return self._update(table, found, request, body or {})

    def _filtered(self, table: str, filters: str | None) -> list[Json]:
        wanted = json.loads(filters) if filters else {}
        found = list(self.tables[table].values())
        for key, values in wanted.items():
            if key == "service":
                found = [each for each in found if each["ServiceID"] in values]
            elif key == "node":
                found = [each for each in found if each["NodeID"] in values]
            elif key == "name":
                found = [each for each in found if any(each["Spec"]["Name"].startswith(v) for v in values)]
            elif key == "desired-state":
                found = [each for each in found if each["DesiredState"] in values]
            elif key == "_up-to-date":
                found = [each for each in found if self._current(each)]
        return found

    def _current(self, task: Json) -> bool:
        service = self.tables["services"].get(task["ServiceID"])
        return service is not None and service["Spec"]["TaskTemplate"] == task["Spec"]

    def _find(self, table: str, key: str) -> Json | None:
        for thing in self.tables[table].values():
            names = (thing["ID"], thing.get("Spec", {}).get("Name"), thing.get("Description", {}).get("Hostname"))
            if key in names:
                return thing
        return None

    def _create(self, table: str, body: Json) -> web.Response:
        if any(each["Spec"].get("Name") == body.get("Name") for each in self.tables[table].values()):
            text = f"name conflicts with an existing object: {table[:-1]} {body.get('Name')} already exists"
            return problem(409, f"rpc error: code = AlreadyExists desc = {text}")
        thing: Json = {"ID": f"{table[:1]}{self.index + 1}", "CreatedAt": TIME, "UpdatedAt": TIME, "Spec": body}
        self.put(table, thing)
        if table == "services":
            thing["Spec"].setdefault("Mode", {"Replicated": {}})
            self.orchestrate(thing)
        return web.json_response({"ID": thing["ID"], "Warnings": None}, status=201)

    def _update(self, table: str, found: Json, request: web.Request, body: Json) -> web.Response:
        if int(request.query.get("version", "0")) != found["Version"]["Index"]:
            return problem(500, "rpc error: code = Unknown desc = update out of sequence")
        changed = copy.deepcopy(found)
        if table == "services":
            rollback = request.query.get("rollback") == "previous"
            changed["PreviousSpec"], changed["Spec"] = found["Spec"], found["PreviousSpec"] if rollback else body
        else:
            changed["Spec"] = body
        if table == "nodes":
            # What a group of managers does some time later, done at once.
            if body.get("Role") != "manager":
                changed.pop("ManagerStatus", None)
            elif "ManagerStatus" not in changed:
                changed["ManagerStatus"] = {"Reachability": "reachable", "Addr": "10.0.0.2:2377"}
        self.put(table, changed)
        if table == "services":
            self.orchestrate(changed)
        return web.json_response({"Warnings": None})

    def _remove(self, table: str, found: Json) -> web.Response:
        if table == "services":
            for task in list(self.tables["tasks"].values()):
                if task["ServiceID"] == found["ID"]:
                    self.drop("tasks", task["ID"])
        self.drop(table, found["ID"])
        return web.Response(text="")


def problem(status: int, message: str) -> web.Response:
    """An error in Docker's shape."""
    return web.json_response({"message": message}, status=status)


def frame(stream: int, text: bytes) -> bytes:
    """A frame of a log stream."""
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


def log_frame(
    timestamp: str, task: str, text: bytes, *, node: str = "n1", service: str = "s1", stream: int = 1
) -> bytes:
    """A log record with time and details, as `timestamps=1&details=1` gives it."""
    prefix = "com.docker.swarm"
    details = f"{prefix}.node.id={node},{prefix}.service.id={service},{prefix}.task.id={task}"
    return frame(stream, f"{timestamp} {details} ".encode() + text)


@contextlib.asynccontextmanager
async def running(engine: FakeEngine) -> AsyncIterator[FakeEngine]:
    """The engine on the test's own loop."""
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
        engine.clean()


@contextlib.contextmanager
def in_a_thread(engine: FakeEngine) -> Iterator[FakeEngine]:
    """The engine on a loop of its own, for tests that run commands which bring their own loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(engine.start(), loop).result(10)
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        engine.clean()
