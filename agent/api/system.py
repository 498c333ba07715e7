"""`/_ping`, `/version` and `/info`: the engine's own answers with the swarm put in, or complete ones without an engine."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from typing import Any

from aiohttp import web

from agent.api.backend import Backend, LocalState
from agent.api.call import Call, raw_reply, reply
from agent.api.front import AGENT_VERSION, MIN_API_VERSION, swarm_header
from agent.api.host import host_facts
from agent.api.lookup import the_cluster
from agent.api.quorum import quorum_lost
from agent.api.views import cluster_view
from agent.api_types.codec import encode_json
from agent.api_types.errors import Unavailable
from agent.api_types.node import Node, NodeDescription
from agent.api_types.swarm import ClusterInfo
from agent.api_types.times import format_time
from agent.store.transactions import ReadTx
from agent.worker.executors.process.executor import ProcessExecutor
from agent.worker.interface import TemporaryFailure

TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance."
)

STALE_STATE = (
    "WARNING: This manager does not hear a leader: what it shows is the last state that it knows of, and may be stale."
)


async def ping(call: Call) -> web.StreamResponse:
    """`GET` and `HEAD /_ping`. A dead engine does not silence the swarm's routes, so the answer is OK without it."""
    builder = {} if call.state.engine is None else await call.state.front.learn(call.state.engine)
    headers = {
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Content-Type": "text/plain; charset=utf-8",
        "Swarm": swarm_header(call.backend),
        **builder,
    }
    if call.request.method == "HEAD":
        return web.Response(headers=headers | {"Content-Length": "0"})
    return web.Response(body=b"OK", headers=headers)


async def version(call: Call) -> web.StreamResponse:
    """`GET /version`."""
    component = {"Name": "swarmtui-agent", "Version": AGENT_VERSION, "Details": {"Python": platform.python_version()}}
    if call.state.engine is not None:
        try:
            told = await call.state.engine.json("/version")
        except Unavailable:
            pass
        else:
            told["Components"] = [*(told.get("Components") or []), component]
            return reply(told)
    arch = host_facts().go_architecture
    details = {
        "ApiVersion": call.state.front.api_version,
        "Arch": arch,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"none (Python {platform.python_version()})",
        "KernelVersion": platform.release(),
        "MinAPIVersion": MIN_API_VERSION,
        "Os": platform.system().lower(),
    }
    own = {name: value for name, value in details.items() if name != "Experimental"}
    engine = {"Name": "Engine", "Version": f"{AGENT_VERSION}-swarmtui", "Details": details}
    return reply(
        {
            "Platform": {"Name": "swarmtui agent"},
            "Components": [engine, component],
            "Version": f"{AGENT_VERSION}-swarmtui",
            **own,
        }
    )


async def info(call: Call) -> web.StreamResponse:
    """`GET /info`: what the engine says, with our swarm in the place of its own."""
    await _freshen(call)
    swarm = swarm_info(call)
    warned: list[str] = swarm.get("Warnings", [])
    if call.state.engine is not None:
        try:
            told = await call.state.engine.json("/info")
        except Unavailable as error:
            return reply(await _own_info(call, swarm, [*warned, f"WARNING: {error}"]))
        told["Swarm"] = swarm
        # The docker CLI prints the warnings of the whole, not those of the swarm.
        told["Warnings"] = [*(told.get("Warnings") or []), *warned] or told.get("Warnings")
        return raw_reply(encode_json(told) + b"\n")
    return reply(await _own_info(call, swarm, warned))


async def _freshen(call: Call) -> None:
    if call.backend.is_manager and call.backend.store is not None:
        await call.fresh(call.backend.store)


def swarm_info(call: Call) -> dict[str, Any]:
    """The Swarm block (moby api/types/swarm.Info). Cluster and counts are there on managers alone.

    `Error` says which managers are missing while a quorum is; `Warnings` that what is shown may not be the newest.
    """
    backend = call.backend
    managers = [{"NodeID": peer.node_id, "Addr": peer.address} for peer in backend.remote_managers]
    part_of_one = backend.local_state is not LocalState.INACTIVE
    block: dict[str, Any] = {
        "NodeID": backend.node_id if part_of_one else "",
        "NodeAddr": backend.node_address if part_of_one else "",
        "LocalNodeState": backend.local_state.value,
        "ControlAvailable": backend.is_manager,
        "Error": backend.error,
        "RemoteManagers": managers if managers and part_of_one else None,
    }
    if backend.is_manager and backend.store is not None:
        cluster, nodes, manager_count = backend.store.view(_cluster_and_counts)
        block |= {"Nodes": nodes, "Managers": manager_count, "Cluster": cluster}
        warnings = [TWO_MANAGERS] if manager_count == 2 else []
        if call.state.leadership.leaderless:
            block["Error"] = quorum_lost(backend.group, backend.store)
        if call.is_stale:
            warnings.append(STALE_STATE)
        if warnings:
            block["Warnings"] = warnings
    return block


def _cluster_and_counts(tx: ReadTx) -> tuple[ClusterInfo, int, int]:
    nodes = tx.all(Node)
    return cluster_view(the_cluster(tx)), len(nodes), sum(node.manager_status is not None for node in nodes)


async def _own_info(call: Call, swarm: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Every field that `docker info` prints, from what the executor and the kernel say of this host."""
    backend = call.backend
    described = await _described(backend)
    host = host_facts()
    containers, images = await _counts(backend)
    plugins: dict[str, list[str]] = {"Volume": [], "Network": [], "Log": []}
    for plugin in described.engine.plugins:
        plugins.setdefault(plugin.type, []).append(plugin.name)
    revision = {"ID": "", "Expected": ""}
    return {
        "ID": hashlib.sha256(f"{backend.hostname}\0{backend.data_dir}".encode()).hexdigest()[:32],
        "Containers": sum(containers.values()),
        "ContainersRunning": containers["running"],
        "ContainersPaused": 0,
        "ContainersStopped": sum(containers.values()) - containers["running"],
        "Images": images,
        "Driver": "swarmtui-process",
        "DriverStatus": [["Containers", "processes of this host"]],
        "Plugins": {**plugins, "Authorization": None},
        **dict.fromkeys(
            ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"), True
        ),
        **dict.fromkeys(("IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables", "OomKillDisable"), True),
        "KernelMemory": False,
        "KernelMemoryTCP": False,
        "Debug": False,
        "NFd": host.open_files,
        "NGoroutines": 0,
        "SystemTime": format_time(backend.clock()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "CgroupVersion": host.cgroup_version,
        "NEventsListener": len(call.state.metrics.streams),
        "KernelVersion": platform.release(),
        "OperatingSystem": host.operating_system,
        "OSVersion": host.os_version,
        "OSType": platform.system().lower(),
        "Architecture": described.platform.architecture or platform.machine(),
        "IndexServerAddress": "",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
            "InsecureRegistryCIDRs": [],
            "IndexConfigs": {},
            "Mirrors": [],
        },
        "NCPU": described.resources.nano_cpus // 1_000_000_000 or host.cpus,
        "MemTotal": described.resources.memory_bytes or host.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": backend.data_dir,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": backend.hostname,
        "Labels": [f"{key}={value}" for key, value in described.engine.labels.items()],
        "ExperimentalBuild": False,
        "ServerVersion": f"{AGENT_VERSION}-swarmtui",
        "Runtimes": {"process": {"path": "swarmtui-agent"}},
        "DefaultRuntime": "process",
        "Swarm": swarm,
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": revision,
        "RuncCommit": revision,
        "InitCommit": revision,
        "SecurityOptions": [],
        "Warnings": warnings or None,
    }


async def _described(backend: Backend) -> NodeDescription:
    """What the executor says of the host, as far as it can be asked now."""
    try:
        return NodeDescription() if backend.executor is None else await backend.executor.describe()
    except TemporaryFailure:
        return NodeDescription()


async def _counts(backend: Backend) -> tuple[Counter[str], int]:
    """Containers of the process executor by state, and how many images it has."""
    if not isinstance(backend.executor, ProcessExecutor):
        return Counter(), 0
    inventory = backend.executor.inventory
    containers = await inventory.list_containers(all=True)
    return Counter(container["State"] for container in containers), len(await inventory.images())
