"""The recorded traffic of a docker CLI with a real engine, and the cluster behind it as far as its answers show it."""

from __future__ import annotations

import base64
import gzip
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from api_scripted import ScriptedBackend
from msgspec.structs import replace

from agent.api.tasks import is_up_to_date
from agent.api_types.codec import from_builtins
from agent.api_types.common import Driver
from agent.api_types.network import IPAMConfig, IPAMOptions, Network, NetworkSpec
from agent.api_types.node import Node
from agent.api_types.service import Endpoint, JobStatus, Service, UpdateStatus
from agent.api_types.swarm import Cluster
from agent.api_types.task import ServiceAnnotations, Task
from agent.api_types.times import parse_time
from agent.rpc.messages import LogRecord, ManagerAddress
from agent.store.transactions import WriteTx

RECORDING = Path(__file__).parent.parent / "recordings" / "docker-cli-28.2.2-against-engine-20.10.jsonl.gz"


class Recorded(msgspec.Struct):
    """One request and its answer. `resp_body` is JSON, `{"_b64"}` or `{"_text"}` for bytes, `{"_jsonl"}` for a stream."""

    seq: int
    node: str
    cmd_id: int
    t: float
    method: str
    raw_target: str
    path: str
    status: int
    query: dict[str, Any] = {}
    req_headers: dict[str, str] = {}
    req_body: Any = None
    resp_body: Any = None
    client_closed_stream: bool = False

    @property
    def raw(self) -> bytes:
        """The answer's bytes, for a stream."""
        if "_b64" in self.resp_body:
            return base64.b64decode(self.resp_body["_b64"])
        return str(self.resp_body["_text"]).encode("latin-1")


def recorded() -> list[Recorded]:
    """All requests, in order."""
    with gzip.open(RECORDING, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [msgspec.convert(row, Recorded) for row in rows if row["type"] == "http"]


def frames(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Stream number and payload of every complete frame."""
    while len(raw) >= 8:
        stream, length = struct.unpack(">BxxxI", raw[:8])
        yield stream, raw[8 : 8 + length]
        raw = raw[8 + length :]


_DETAILS = re.compile(
    rb"com\.docker\.swarm\.node\.id=\w+,com\.docker\.swarm\.service\.id=\w+,com\.docker\.swarm\.task\.id=(\w+) "
)


def log_records(request: Recorded, task_id: str) -> list[LogRecord]:
    """The lines that the cluster must have given the front door for this answer."""
    records = []
    for stream, payload in frames(request.raw):
        time = 0
        if "timestamps" in request.query:
            text, _, payload = payload.partition(b" ")
            time = parse_time(text.decode())
        if "details" in request.query:
            match = _DETAILS.match(payload)
            assert match is not None
            assert match[1].decode() == task_id
            payload = payload[match.end() :]
        records.append(LogRecord(task_id, time, {1: "stdout", 2: "stderr"}[stream], payload.removesuffix(b"\n")))
    return records


class World:
    """Plays the orchestrator, the nodes and the allocator: makes the store show what the recorded answer shows of them."""

    def __init__(self, backend: ScriptedBackend, requests: list[Recorded]) -> None:
        self._backend = backend
        self._requests = requests

    async def show(self, request: Recorded) -> None:
        """Before a read: what other parts of the cluster have done until then."""
        if request.path == "/info" and request.resp_body["Swarm"]["LocalNodeState"] == "active":
            told = request.resp_body["Swarm"]
            managers = [ManagerAddress(peer["NodeID"], peer["Addr"]) for peer in told["RemoteManagers"]]
            self._backend.node_address, self._backend.remote_managers = told["NodeAddr"], managers
        if request.method != "GET" or request.status != 200 or self._backend.store is None:
            return
        body = request.resp_body
        listed = body if isinstance(body, list) else [body]
        group = request.path.split("/")[1]
        if group == "tasks" and "_b64" not in body and "_text" not in body:
            await self._show_tasks(request, listed)
        elif group == "nodes":
            for shown in listed:
                await self._show_node(shown)
        elif group == "services" and "ID" in (listed or [{}])[0]:
            for shown in listed:
                await self._show_service(shown)
                await self._show_counts(request, shown)
        elif group == "networks":
            await self._show_networks([shown for shown in listed if shown["Scope"] == "swarm"])
        elif group == "swarm" and request.path == "/swarm":
            await self._show_rotation(body["Spec"]["CAConfig"].get("ForceRotate", 0))
        elif group == "info" and "Cluster" in body["Swarm"]:
            await self._show_rotation(body["Swarm"]["Cluster"]["Spec"]["CAConfig"].get("ForceRotate", 0))

    async def _change(self, change: Any) -> None:
        assert self._backend.store is not None
        await self._backend.store.update(change)

    async def _show_tasks(self, request: Recorded, listed: list[Any]) -> None:
        shown = {task["ID"]: from_builtins(task, Task) for task in listed}
        filters = request.query.get("filters", {})
        whole = not (filters.keys() - {"service", "_up-to-date"}) if filters else False

        def change(tx: WriteTx) -> None:
            for stored in tx.all(Task) if whole else ():
                if stored.id in shown or stored.service_id not in filters["service"]:
                    continue
                # The reaper took it; one that is only out of date stays, and must not be listed.
                if "_up-to-date" not in filters or is_up_to_date(tx, stored):
                    tx.delete(Task, stored.id)
            for task in shown.values():
                service = tx.get(Service, task.service_id)
                if service is not None:
                    annotations = ServiceAnnotations(name=service.spec.name, labels=service.spec.labels)
                    task = _with_credentials(replace(task, service_annotations=annotations), service)
                _put(tx, task)

        await self._change(change)
        if not whole and isinstance(request.resp_body, list):
            await self._forget_others(filters, shown)

    async def _forget_others(self, filters: dict[str, Any], shown: dict[str, Task]) -> None:
        def change(tx: WriteTx) -> None:
            for stored in tx.all(Task):
                named = stored.node_id in filters.get("node", ()) or "label" in filters
                state = not filters.get("desired-state") or stored.desired_state in filters["desired-state"]
                service = "service" not in filters or stored.service_id in filters["service"]
                if stored.id not in shown and state and (named or "node" not in filters) and service:
                    tx.delete(Task, stored.id)

        await self._change(change)

    async def _show_node(self, shown: dict[str, Any]) -> None:
        node = from_builtins(shown, Node)

        def change(tx: WriteTx) -> None:
            stored = tx.get(Node, node.id)
            if stored is None:
                tx.create(node)
                return
            changed = replace(
                stored,
                description=node.description,
                status=node.status,
                manager_status=node.manager_status,
                spec=replace(stored.spec, role=node.spec.role),
            )
            if changed != stored:
                tx.update(changed)

        await self._change(change)

    async def _show_service(self, shown: dict[str, Any]) -> None:
        def change(tx: WriteTx) -> None:
            stored = tx.get(Service, shown["ID"])
            if stored is None:
                return
            changed = replace(
                stored,
                endpoint=from_builtins(shown["Endpoint"], Endpoint),
                update_status=_optional(shown.get("UpdateStatus"), UpdateStatus),
                job_status=_optional(shown.get("JobStatus"), JobStatus),
            )
            if changed != stored:
                tx.update(changed)

        await self._change(change)

    async def _show_counts(self, request: Recorded, shown: dict[str, Any]) -> None:
        """Tasks that a count knows of before any list has shown them: they are in the next list."""
        counts = shown.get("ServiceStatus")
        store = self._backend.store
        assert store is not None
        tasks = store.view(lambda tx: tx.find(Task, "service", shown["ID"]))
        if counts is None or counts["RunningTasks"] == sum(task.status.state == "running" for task in tasks):
            return
        for later in self._requests:
            if later.seq > request.seq and later.path == "/tasks" and later.resp_body and _asks_for(later, shown["ID"]):
                await self._show_tasks(later, later.resp_body)
                return

    async def _show_networks(self, shown: list[dict[str, Any]]) -> None:
        def change(tx: WriteTx) -> None:
            for network in shown:
                if tx.get(Network, network["Id"]) is None:
                    tx.create(_network(network))

        await self._change(change)

    async def allocate_network(self, created: Recorded) -> None:
        """What the allocator adds to a network that a request made, as it is listed afterwards."""
        for later in self._requests:
            if later.seq < created.seq or not later.path.startswith("/networks") or later.status != 200:
                continue
            listed = later.resp_body if isinstance(later.resp_body, list) else [later.resp_body]
            for network in listed:
                if network.get("Id") == created.resp_body["Id"]:
                    await self._allocate(_network(network))
                    return

    async def _allocate(self, shown: Network) -> None:
        def change(tx: WriteTx) -> None:
            stored = tx.get(Network, shown.id)
            assert stored is not None
            tx.update(replace(stored, driver_state=shown.driver_state, ipam_options=shown.ipam_options))

        await self._change(change)

    async def _show_rotation(self, rotations: int) -> None:
        def change(tx: WriteTx) -> None:
            (cluster,) = tx.all(Cluster)
            if cluster.spec.ca_config.force_rotate != rotations:
                authority = replace(cluster.spec.ca_config, force_rotate=rotations)
                tx.update(replace(cluster, spec=replace(cluster.spec, ca_config=authority)))

        await self._change(change)


def _asks_for(request: Recorded, service_id: str) -> bool:
    filters = request.query.get("filters", {})
    if "label" in filters:
        return any(task["ServiceID"] == service_id for task in request.resp_body)
    return filters.keys() == {"service"} and filters["service"].keys() == {service_id}


def _with_credentials(task: Task, service: Service) -> Task:
    """A task of the service's own template has its registry credentials too, which no answer shows."""
    container, wanted = task.spec.container_spec, service.spec.task_template.container_spec
    if container is None or wanted is None:
        return task
    return replace(task, spec=replace(task.spec, container_spec=replace(container, pull_options=wanted.pull_options)))


def _put(tx: WriteTx, task: Task) -> None:
    stored = tx.get(Task, task.id)
    if stored is None:
        tx.create(task)
    elif replace(task, version=stored.version, created_at="", updated_at="") != replace(
        stored, created_at="", updated_at=""
    ):
        tx.update(replace(task, version=stored.version))


def _optional(value: Any, kind: type) -> Any:
    return None if value is None else from_builtins(value, kind)


def _network(shown: dict[str, Any]) -> Network:
    configs = [IPAMConfig(subnet=config["Subnet"], gateway=config["Gateway"]) for config in shown["IPAM"]["Config"]]
    return Network(
        id=shown["Id"],
        spec=NetworkSpec(
            name=shown["Name"],
            labels=shown["Labels"] or {},
            attachable=shown["Attachable"],
            internal=shown["Internal"],
            ingress=shown["Ingress"],
            ipv6_enabled=shown["EnableIPv6"],
        ),
        driver_state=Driver(name=shown["Driver"], options=shown["Options"]),
        ipam_options=IPAMOptions(driver=Driver(name=shown["IPAM"]["Driver"]), configs=configs),
    )
