"""Agents as real processes on loopback addresses, for tests that need a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[2]
DOCKER = shutil.which("docker") or "docker"


@dataclass
class AgentProcess:
    """One agent. `api` asks it over its socket; `docker` runs the real CLI against it."""

    name: str
    folder: Path
    address: str
    process: subprocess.Popen[bytes] | None = None
    engine: str = "process"
    within: tuple[str, ...] = ()
    """What to start the agent with: a network namespace, say."""

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.within,
                    sys.executable,
                    "-m",
                    "agent",
                    "--data-dir",
                    str(self.folder / "data"),
                    "--socket",
                    str(self.socket),
                    "--listen",
                    f"{self.address}:2377",
                    "--engine",
                    self.engine,
                    "--hostname",
                    self.name,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the agent alone; its tasks live on."""
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(30)

    def kill_tasks(self) -> None:
        """Kill every process that works in this agent's data folder or at its addresses: what a power cut takes along."""
        network = self.address.rsplit(".", 1)[0]
        for mark in (str(self.folder), f"TASK_ADDRESS={network}."):
            for pid in pids_naming(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text(errors="replace")

    async def ready(self) -> None:
        """Wait until the API answers."""
        async with asyncio.timeout(30):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.log
                with contextlib.suppress(OSError, aiohttp.ClientError):
                    if (await self.api("GET", "/_ping"))[0] == 200:
                        return
                await asyncio.sleep(0.02)

    async def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and parsed answer of one request."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, f"http://agent{path}", json=body) as response,
        ):
            data = await response.read()
            with contextlib.suppress(ValueError):
                return response.status, json.loads(data)
            return response.status, data.decode()

    async def docker(self, *arguments: str, check: bool = True, stdin: bytes | None = None) -> str:
        """The real CLI's standard output; its standard error is part of the failure."""
        process = await asyncio.create_subprocess_exec(
            DOCKER,
            *arguments,
            env={**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.folder / "cli")},
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        if check:
            assert process.returncode == 0, f"docker {' '.join(arguments)}: {err.decode()}{out.decode()}"
            return out.decode()
        return out.decode() + err.decode()


def pids_naming(text: str) -> list[int]:
    """Processes whose command line or environment names `text`, this one left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if text.encode() in entry.joinpath("cmdline").read_bytes() + entry.joinpath("environ").read_bytes():
                    found.append(int(entry.name))
    return found


@dataclass
class Cluster:
    """Agents that form a swarm. `manager` is the first one, which is always a manager and leads at first."""

    folder: Path
    nodes: list[AgentProcess] = field(default_factory=list)
    base: int = field(default_factory=lambda: random.randrange(80, 250))

    @property
    def manager(self) -> AgentProcess:
        return self.nodes[0]

    def add(self) -> AgentProcess:
        """One more agent, not started."""
        number = len(self.nodes) + 1
        node = AgentProcess(f"node{number}", self.folder / f"n{number}", f"127.{self.base}.{number}.1")
        self.nodes.append(node)
        return node

    async def form(self, count: int, managers: int = 1) -> None:
        """Start `count` agents and make them a swarm whose first `managers` are managers."""
        added = [self.add() for _ in range(count)]
        for node in added:
            node.start()
        await asyncio.gather(*(node.ready() for node in added))
        status, answer = await self.manager.api(
            "POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": self.manager.address}
        )
        assert status == 200, answer
        tokens = (await self.manager.api("GET", "/swarm"))[1]["JoinTokens"]
        for number, node in enumerate(added[1:], 1):
            await self.join(node, tokens["Manager" if number < managers else "Worker"])
        await self.eventually(lambda nodes: [n["Status"]["State"] for n in nodes] == ["ready"] * count, "/nodes")

    async def join(self, node: AgentProcess, token: str, at: AgentProcess | None = None) -> None:
        """Let a node that runs join at a manager."""
        status, answer = await node.api(
            "POST",
            "/swarm/join",
            {
                "ListenAddr": "0.0.0.0:2377",
                "RemoteAddrs": [f"{(at or self.manager).address}:2377"],
                "JoinToken": token,
            },
        )
        assert status == 200, f"{answer}\n{node.log[-3000:]}"

    async def token(self, role: str) -> str:
        """The join token of a role: Manager or Worker."""
        return str((await self.manager.api("GET", "/swarm"))[1]["JoinTokens"][role])

    async def leader(self, among: Sequence[AgentProcess] | None = None, within: float = 10.0) -> AgentProcess:
        """The manager that leads, as every one of those that are asked says."""
        asked = list(among or self.nodes)
        deadline = time.monotonic() + within
        while True:
            said: set[str] = set()
            for node in asked:
                listed = (await node.api("GET", "/nodes"))[1]
                if isinstance(listed, list):
                    leading = [n for n in listed if (n.get("ManagerStatus") or {}).get("Leader")]
                    said |= {n["Description"]["Hostname"] for n in leading} or {""}
            found = [node for node in asked if {node.name} == said]
            if found:
                return found[0]
            assert time.monotonic() < deadline, f"no leader: {said}\n" + "\n".join(n.log[-2000:] for n in asked)
            await asyncio.sleep(0.05)

    async def until_managers(self, count: int, at: AgentProcess | None = None, within: float = 15.0) -> None:
        """Wait until a manager lists so many managers, all of them reachable and one of them leading."""

        def complete(nodes: Any) -> bool:
            found = [node["ManagerStatus"] for node in nodes if node.get("ManagerStatus")]
            return (
                len(found) == count
                and all(status["Reachability"] == "reachable" for status in found)
                and sum(bool(status.get("Leader")) for status in found) == 1
            )

        await eventually(
            at or self.manager, lambda nodes: isinstance(nodes, list) and complete(nodes), "/nodes", within
        )

    async def eventually(self, wanted: Callable[[Any], object], path: str, within: float = 20.0) -> Any:
        """What the manager answers at `path` once it is as `wanted`; the last answer is part of the failure."""
        return await eventually(self.manager, wanted, path, within)

    async def tasks(self, service: str, *, running: bool = True) -> list[dict[str, Any]]:
        """Tasks of a service; with `running` those that are wanted and run."""
        filters = json.dumps({"service": [service]})
        found = (await self.manager.api("GET", f"/tasks?filters={filters}"))[1]
        return [
            task
            for task in found
            if not running or (task["DesiredState"] == "running" and task["Status"]["State"] == "running")
        ]

    async def until_running(self, service: str, count: int, within: float = 20.0) -> list[dict[str, Any]]:
        """Wait until `count` wanted tasks run; returns them."""
        deadline = time.monotonic() + within
        while True:
            running = await self.tasks(service)
            if len(running) == count:
                return running
            if time.monotonic() > deadline:
                every = await self.tasks(service, running=False)
                states = [(t["DesiredState"], t["Status"]["State"], t["Status"].get("Err")) for t in every]
                raise AssertionError(f"{len(running)} of {count} tasks of {service} run: {states}\n{self.manager.log}")
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Kill everything that was started."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait()
            node.kill_tasks()


async def eventually(agent: AgentProcess, wanted: Callable[[Any], object], path: str, within: float = 20.0) -> Any:
    """Ask until the answer is as wanted."""
    deadline = time.monotonic() + within
    while True:
        answer = (await agent.api("GET", path))[1]
        if wanted(answer):
            return answer
        assert time.monotonic() < deadline, f"{path} is still {json.dumps(answer)[:4000]}\n{agent.log[-3000:]}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running_cluster(count: int, managers: int = 1) -> AsyncIterator[Cluster]:
    """A swarm of `count` agents, the first `managers` of them managers, gone afterwards."""
    # A unix socket's path may have 107 bytes: not under pytest's long folders.
    folder = Path(tempfile.mkdtemp(prefix="swt-"))
    cluster = Cluster(folder)
    try:
        await cluster.form(count, managers)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def http_get(address: str, port: int, path: str = "/") -> str:
    """The body of a GET over a connection of its own."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
        session.get(f"http://{address}:{port}{path}", headers={"Connection": "close"}) as response,
    ):
        return await response.text()


def names(tasks: Sequence[dict[str, Any]]) -> set[str]:
    return {task["ID"] for task in tasks}
