"""A cluster in memory behind the client's methods: the console's screens run on it as on a real one.

Objects are the API's JSON, decoded by the client's own types, so that model, operations and logs are the real ones.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from swarmtui.docker_api.address import EngineAddress, socket_address
from swarmtui.docker_api.answers import Created
from swarmtui.docker_api.errors import ApiError, ConnectionFailed, NotFound, OutOfSequence
from swarmtui.docker_api.managers import Managers, read_managers
from swarmtui.docker_api.types import Info, Node, Service, Task
from swarmtui.docker_api.watch import TABLES, WatchLine
from swarmtui.playground.session import PlaygroundError

START = 1_800_000_000
"""The fake's time of day, seconds since 1970."""


def stamp(seconds: float) -> str:
    """A moment `seconds` after START as the API writes it."""
    moment = datetime.fromtimestamp(START + seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def identity(kind: str, number: int) -> str:
    return f"{kind}{number:0{25 - len(kind)}d}"


class FakeCluster:
    """Tables of JSON objects; every write is heard by the watches."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {table: {} for table in TABLES}
        self.index = 10
        self.watches: list[asyncio.Queue[list[WatchLine] | Exception]] = []
        self.logs: dict[str, list[tuple[float, str]]] = {}
        self.log_waiters: list[asyncio.Queue[tuple[str, float, str]]] = []
        self.lost = ""
        self.converges = True
        self.managers: dict[str, Any] | None = None
        """What `/swarmtui/v1/managers` answers; None: there is no such route."""
        self.explanations: dict[str, Any] = {}
        self._tasks_made = 0

    # Writing

    def put(self, table: str, thing: dict[str, Any]) -> None:
        self.index += 1
        kind = "update" if thing["ID"] in self.tables[table] else "create"
        thing = {**thing, "Version": {"Index": self.index}}
        self.tables[table][thing["ID"]] = thing
        self._tell(kind, table, thing)

    def drop(self, table: str, key: str) -> None:
        self.index += 1
        self._tell("remove", table, self.tables[table].pop(key))

    def _tell(self, kind: str, table: str, thing: dict[str, Any]) -> None:
        line = WatchLine(kind, table, self.index, msgspec.convert(thing, TABLES[table]))
        for watch in self.watches:
            watch.put_nowait([line])

    def cut(self, text: str) -> None:
        """The connection is lost, and further attempts fail with the same text."""
        self.lost = text
        for watch in self.watches:
            watch.put_nowait(ConnectionFailed(text))

    def add_node(self, number: int, *, role: str = "worker", leader: bool = False, state: str = "ready") -> str:
        key = identity("node", number)
        node: dict[str, Any] = {
            "ID": key,
            "CreatedAt": stamp(-86400 * 9),
            "Spec": {"Role": role, "Availability": "active", "Labels": {"zone": "ab"[number % 2]}},
            "Description": {
                "Hostname": f"node{number}",
                "Platform": {"Architecture": "x86_64", "OS": "linux"},
                "Resources": {"NanoCPUs": 4_000_000_000, "MemoryBytes": 8 * 1024**3},
                "Engine": {"EngineVersion": "28.2.2"},
            },
            "Status": {"State": state, "Addr": f"192.168.0.{10 + number}"},
        }
        if role == "manager":
            node["ManagerStatus"] = {
                "Leader": leader,
                "Reachability": "reachable",
                "Addr": f"192.168.0.{10 + number}:2377",
            }
        self.put("nodes", node)
        return key

    def add_service(
        self, number: int, name: str, replicas: int, image: str, *, port: int = 0, age: float = 3 * 86400, **tasks: Any
    ) -> str:
        key = identity("service", number)
        ports = (
            [{"Protocol": "tcp", "TargetPort": 8000, "PublishedPort": port, "PublishMode": "ingress"}] if port else []
        )
        self.put(
            "services",
            {
                "ID": key,
                "CreatedAt": stamp(-age),
                "UpdatedAt": stamp(-age),
                "Spec": {
                    "Name": name,
                    "Labels": {"team": "shop"},
                    "TaskTemplate": {"ContainerSpec": {"Image": image}, "ForceUpdate": 0},
                    "Mode": {"Replicated": {"Replicas": replicas}},
                    "EndpointSpec": {"Ports": ports},
                    "UpdateConfig": {"Parallelism": 1, "Monitor": 1_000_000},
                },
                "Endpoint": {"Spec": {"Ports": ports}, "Ports": ports},
            },
        )
        for slot in range(1, replicas + 1):
            self.add_task(key, slot, age=age, **tasks)
        return key

    def add_task(
        self, service: str, slot: int, *, state: str = "running", desired: str = "running", node: int | None = None,
        error: str = "", age: float = 3600, exit_code: int = 0,
    ) -> str:  # fmt: skip
        self._tasks_made += 1
        key = identity("task", self._tasks_made)
        spec = self.tables["services"][service]["Spec"]["TaskTemplate"]
        hosts = sorted(self.tables["nodes"])
        where = hosts[(slot if node is None else node - 1) % len(hosts)] if state not in ("new", "pending") else ""
        self.put(
            "tasks",
            {
                "ID": key,
                "CreatedAt": stamp(-age),
                "ServiceID": service,
                "Slot": slot,
                "NodeID": where,
                "Spec": copy.deepcopy(spec),
                "DesiredState": desired,
                "Status": {
                    "State": state,
                    "Timestamp": stamp(-age),
                    "Err": error,
                    "ContainerStatus": {"ContainerID": "c" * 12, "PID": 1, "ExitCode": exit_code},
                },
            },
        )
        return key

    def set_task(self, key: str, state: str, *, error: str = "", desired: str | None = None) -> None:
        task = copy.deepcopy(self.tables["tasks"][key])
        task["Status"] |= {"State": state, "Err": error}
        if desired is not None:
            task["DesiredState"] = desired
        self.put("tasks", task)

    def log(self, task: str, seconds: float, text: str) -> None:
        self.logs.setdefault(task, []).append((seconds, text))
        for waiter in self.log_waiters:
            waiter.put_nowait((task, seconds, text))

    def live_tasks(self, service: str) -> list[dict[str, Any]]:
        found = [
            t for t in self.tables["tasks"].values() if t["ServiceID"] == service and t["DesiredState"] == "running"
        ]
        return sorted(found, key=lambda task: task["Slot"])


class FakeStream:
    """A log's body: records framed and escaped as an engine does."""

    content_type = "application/vnd.docker.multiplexed-stream"

    def __init__(self, cluster: FakeCluster, tasks: set[str], service: str, follow: bool) -> None:
        self._cluster = cluster
        self._tasks = tasks
        self._service = service
        self._follow = follow
        self._queue: asyncio.Queue[tuple[str, float, str]] = asyncio.Queue()
        past = [(seconds, task, text) for task in tasks for seconds, text in cluster.logs.get(task, [])]
        for seconds, task, text in sorted(past):
            self._queue.put_nowait((task, seconds, text))
        cluster.log_waiters.append(self._queue)

    async def read(self) -> bytes:
        if not self._follow and self._queue.empty():
            return b""
        task, seconds, text = await self._queue.get()
        if task not in self._tasks:
            return await self.read()
        thing = self._cluster.tables["tasks"][task]
        details = (
            f"com.docker.swarm.node.id={thing['NodeID']},com.docker.swarm.service.id={thing['ServiceID']},"
            f"com.docker.swarm.task.id={task}"
        )
        payload = f"{stamp(seconds)} {details} {text}\n".encode(errors="surrogateescape")
        return b"\x01\0\0\0" + len(payload).to_bytes(4, "big") + payload


class FakeClient:
    """What the console calls of `EngineClient`."""

    others = 0
    stale = False
    address: EngineAddress = socket_address("/run/swarmtui/docker.sock")

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.calls: list[str] = []
        self.node = "node1"

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.calls.append("closed")

    def _there(self) -> None:
        if self.cluster.lost:
            raise ConnectionFailed(self.cluster.lost)

    async def ping(self) -> float:
        self._there()
        return 0.004

    async def info(self) -> Info:
        self._there()
        return msgspec.convert(
            {
                "Name": self.node,
                "Swarm": {
                    "NodeID": identity("node", 1),
                    "LocalNodeState": "active",
                    "ControlAvailable": True,
                    "Cluster": {"ID": "cluster", "Spec": {"Name": "default"}},
                },
            },
            Info,
        )

    async def extended(self) -> bool:
        return True

    def forget(self) -> None:
        pass

    def move_on(self) -> None:
        pass

    def served(self) -> None:
        pass

    async def managers(self) -> Managers:
        self._there()
        if self.cluster.managers is None:
            raise NotFound("page not found")
        return read_managers(self.cluster.managers)

    async def watch(self, since: int | None = None) -> AsyncIterator[list[WatchLine]]:
        self._there()
        queue: asyncio.Queue[list[WatchLine] | Exception] = asyncio.Queue()
        self.cluster.watches.append(queue)
        try:
            picture = [
                WatchLine("snapshot", table, 0, msgspec.convert(thing, TABLES[table]))
                for table, things in self.cluster.tables.items()
                for thing in things.values()
            ]
            yield [*([] if since is not None else picture), WatchLine("synced", "", self.cluster.index, None)]
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.cluster.watches.remove(queue)

    def _find(self, table: str, name: str) -> dict[str, Any]:
        self._there()
        for key, thing in self.cluster.tables[table].items():
            spec = thing.get("Spec", {})
            if name in (key, spec.get("Name"), thing.get("Description", {}).get("Hostname")):
                return copy.deepcopy(thing)
        raise NotFound(f"{table[:-1]} {name} not found")

    async def raw_service(self, service: str) -> dict[str, Any]:
        return self._find("services", service)

    async def raw_node(self, node: str) -> dict[str, Any]:
        return self._find("nodes", node)

    async def raw_task(self, task: str) -> dict[str, Any]:
        return self._find("tasks", task)

    async def raw_network(self, network: str) -> dict[str, Any]:
        return self._find("networks", network)

    async def service(self, service: str) -> Service:
        return msgspec.convert(self._find("services", service), Service)

    async def task(self, task: str) -> Task:
        return msgspec.convert(self._find("tasks", task), Task)

    async def tasks(self, filters: Any = None) -> list[Task]:
        self._there()
        wanted = filters or {}
        return [
            msgspec.convert(task, Task)
            for task in self.cluster.tables["tasks"].values()
            if task["ServiceID"] in wanted.get("service", [task["ServiceID"]])
            and task["NodeID"] in wanted.get("node", [task["NodeID"]])
        ]

    async def nodes(self, filters: Any = None) -> list[Node]:
        self._there()
        return [msgspec.convert(node, Node) for node in self.cluster.tables["nodes"].values()]

    async def create_service(self, spec: dict[str, Any]) -> Created:
        cluster = self.cluster
        key = identity("service", 900 + len(cluster.tables["services"]))
        cluster.put("services", {"ID": key, "CreatedAt": stamp(0), "UpdatedAt": stamp(0), "Spec": spec})
        self._reconcile(key)
        return Created(key)

    async def update_service(
        self, service_id: str, version: int, spec: dict[str, Any], *, rollback: bool = False
    ) -> tuple[str, ...]:
        self._there()
        found = self.cluster.tables["services"][service_id]
        if found["Version"]["Index"] != version:
            raise OutOfSequence("rpc error: code = Unknown desc = update out of sequence")
        self.calls.append(f"update {spec['Name']}")
        self.cluster.put("services", {**found, "Spec": copy.deepcopy(spec), "UpdatedAt": stamp(0)})
        self._reconcile(service_id)
        return ()

    def _reconcile(self, service: str) -> None:
        """As an orchestrator would: slots up to the number, the rest stopped; new tasks run at once, or wait."""
        cluster = self.cluster
        spec = cluster.tables["services"][service]["Spec"]
        wanted = spec["Mode"]["Replicated"]["Replicas"]
        live = {task["Slot"]: task for task in cluster.live_tasks(service)}
        for slot in range(1, wanted + 1):
            if slot not in live or live[slot]["Spec"]["ForceUpdate"] != spec["TaskTemplate"]["ForceUpdate"]:
                if slot in live:
                    cluster.set_task(live[slot]["ID"], "shutdown", desired="shutdown")
                cluster.add_task(service, slot, state="running" if cluster.converges else "preparing", age=0)
        for slot, task in live.items():
            if slot > wanted:
                cluster.set_task(task["ID"], "shutdown", desired="shutdown")

    async def remove_service(self, service: str) -> None:
        key = self._find("services", service)["ID"]
        for task in [t for t in self.cluster.tables["tasks"].values() if t["ServiceID"] == key]:
            self.cluster.drop("tasks", task["ID"])
        self.cluster.drop("services", key)
        self.calls.append("remove")

    async def update_node(self, node_id: str, version: int, spec: dict[str, Any]) -> None:
        found = self.cluster.tables["nodes"][node_id]
        if found["Version"]["Index"] != version:
            raise OutOfSequence("rpc error: code = Unknown desc = update out of sequence")
        self.calls.append(f"node {spec['Availability']}")
        self.cluster.put("nodes", {**found, "Spec": spec})
        if spec["Availability"] == "drain":
            for task in [t for t in self.cluster.tables["tasks"].values() if t["NodeID"] == node_id]:
                self.cluster.set_task(task["ID"], "shutdown", desired="shutdown")

    async def init_swarm(self, request: dict[str, Any]) -> str:
        assert request["ForceNewCluster"]
        self.calls.append(f"init {request['AdvertiseAddr']}")
        return identity("node", 1)

    async def leave_swarm(self, force: bool = False) -> None:
        self.calls.append("leave by force" if force else "leave")

    async def explain_task(self, task_id: str) -> Any:
        return self._explained(task_id)

    async def explain_service(self, service_id: str) -> Any:
        return self._explained(service_id)

    async def explain_network(self, network_id: str) -> Any:
        return self._explained(network_id)

    def _explained(self, key: str) -> Any:
        if key not in self.cluster.explanations:
            raise NotFound("page not found")
        found = self.cluster.explanations[key]
        if isinstance(found, ApiError):
            raise found
        return found

    @asynccontextmanager
    async def service_logs(self, service: str, query: Any) -> AsyncIterator[FakeStream]:
        key = self._find("services", service)["ID"]
        tasks = {task["ID"] for task in self.cluster.tables["tasks"].values() if task["ServiceID"] == key}
        yield FakeStream(self.cluster, tasks, key, query.follow)

    @asynccontextmanager
    async def task_logs(self, task: str, query: Any) -> AsyncIterator[FakeStream]:
        self._find("tasks", task)
        yield FakeStream(self.cluster, {task}, "", query.follow)


class FakeInstance:
    """An instance of a playground."""

    def __init__(self, number: int, role: str) -> None:
        self.name = f"node{number}"
        self.role = role
        self.address = f"127.77.{number}.1"
        self.docker_host = f"unix:///run/playground/{self.name}/docker.sock"
        self.pid = 1000 + number
        self.agent_pid = 2000 + number
        self.state = "running"


class FakeTier:
    tier = "loopback"
    reason = "no namespaces: not root"


class FakePlayground:
    """A playground's session of five instances."""

    limit = 6
    tier = FakeTier()

    def __init__(self) -> None:
        self.instances = [FakeInstance(number, "manager" if number <= 3 else "worker") for number in range(1, 6)]
        self.expires_at = datetime.fromtimestamp(START + 3 * 3600 + 57 * 60 + 42, UTC)
        self.callbacks: list[Any] = []
        self.problem = ""

    def subscribe(self, callback: Any) -> Any:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def tell(self) -> None:
        for callback in list(self.callbacks):
            callback(object())

    async def add(self) -> object:
        if self.problem:
            raise PlaygroundError(self.problem)
        self.instances.append(FakeInstance(len(self.instances) + 1, "worker"))
        self.tell()
        return self.instances[-1]

    async def remove(self, name: str) -> None:
        if self.problem:
            raise PlaygroundError(self.problem)
        self.instances = [one for one in self.instances if one.name != name]
        self.tell()

    def _become(self, name: str, state: str) -> None:
        if self.problem:
            raise PlaygroundError(self.problem)
        next(one for one in self.instances if one.name == name).state = state
        self.tell()

    async def cut_power(self, name: str) -> None:
        self._become(name, "stopped")

    async def start(self, name: str) -> None:
        self._become(name, "running")

    async def freeze(self, name: str) -> None:
        self._become(name, "frozen")

    async def thaw(self, name: str) -> None:
        self._become(name, "running")

    def extend(self, by: timedelta) -> None:
        self.expires_at += by
        self.tell()


def shop() -> FakeCluster:
    """Five nodes, one of them down, and services in every state."""
    cluster = FakeCluster()
    for number in range(1, 6):
        cluster.add_node(number, role="manager" if number <= 3 else "worker", leader=number == 1)
    web = cluster.add_service(1, "web", 6, "web:1.4", port=8081)
    cluster.add_service(2, "api", 4, "api:2.0")
    worker = cluster.add_service(3, "worker", 2, "job:7", age=7200)
    text = "no suitable node (insufficient memory on 2 nodes; scheduling constraints not satisfied on 3 nodes)"
    cluster.add_task(worker, 3, state="pending", error=text, age=300)
    spec = cluster.tables["services"][worker]
    spec["Spec"]["Mode"]["Replicated"]["Replicas"] = 3
    cluster.put("services", spec)
    pay = cluster.add_service(4, "pay", 1, "pay:3", age=600)
    cluster.add_task(
        pay, 1, state="failed", desired="shutdown", error="task: non-zero exit (137)", age=900, exit_code=137
    )
    shopping = cluster.add_service(5, "shop", 1, "shop:5", port=8090, age=12)
    cluster.add_task(shopping, 2, state="preparing", age=3)
    spec = cluster.tables["services"][shopping]
    spec["Spec"]["Mode"]["Replicated"]["Replicas"] = 2
    cluster.put("services", spec)
    replicas = [task["ID"] for task in cluster.live_tasks(web)]
    for n in range(40):
        cluster.log(replicas[n % 6], -40 + n, f"GET /api/cart/{n} 200 {n * 7 % 23}ms")
    cluster.log(replicas[2], 0.24, "POST /api/pay 502 upstream timed out")
    return cluster
