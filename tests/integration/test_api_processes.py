"""Real agents without an engine, as the docker CLI and the Docker SDK see them."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
from collections.abc import AsyncIterator
from typing import Any

import docker
import pytest
from cluster import DOCKER, AgentProcess, Cluster, running_cluster
from docker.types import EndpointSpec, ServiceMode

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which(DOCKER) is None, reason="needs a docker CLI"),
]


@pytest.fixture
async def swarm() -> AsyncIterator[Cluster]:
    """One manager that runs tasks too."""
    async with running_cluster(1) as swarm:
        yield swarm


async def container_of(swarm: Cluster, service: str) -> tuple[AgentProcess, str]:
    """The node and the container id of a service's only task."""
    (task,) = await swarm.until_running(service, 1)
    return swarm.manager, str(task["Status"]["ContainerStatus"]["ContainerID"])


async def run(agent: AgentProcess, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Exit code and both outputs of the docker CLI."""
    process = await asyncio.create_subprocess_exec(
        DOCKER,
        *arguments,
        env={**os.environ, "DOCKER_HOST": agent.host},
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err


async def test_the_cli_works_on_containers_that_are_processes(swarm: Cluster) -> None:
    manager = swarm.manager
    created = await run(manager, "service", "create", "-d", "--name", "web", "swarmtui/whoami")
    assert (created[0], created[2]) == (0, b""), "no warning about digests"
    agent, container = await container_of(swarm, "web")
    assert container[:12] in await agent.docker("ps")
    assert (await agent.docker("inspect", "-f", "{{.State.Status}}", container)).strip() == "running"
    assert "listening" in await agent.docker("logs", container)
    assert "whoami" in await agent.docker("top", container)
    assert container[:12] in await agent.docker("stats", "--no-stream")
    assert "swarmtui/whoami" in await agent.docker("images")
    assert (await agent.docker("inspect", "-f", "{{.Spec.Name}}", "web")).strip() == "web"
    assert "Images: " in await agent.docker("info")
    code, out, err = await run(agent, "exec", container, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (code, out, err) == (3, b"out\n", b"err\n")
    code, out, _ = await run(agent, "exec", "-i", container, "cat", stdin=b"x" * 1_000_000)
    assert (code, len(out)) == (0, 1_000_000)
    code, out, _ = await run(agent, "exec", container, "no-such-program")
    assert (code, b"no-such-program" in out) == (127, True)
    code, _, err = await run(agent, "run", "alpine")
    assert (code, b"this node has no Docker Engine" in err) == (125, True)


async def test_exec_with_a_terminal(swarm: Cluster) -> None:
    await swarm.manager.docker("service", "create", "-d", "--name", "web", "swarmtui/whoami")
    agent, container = await container_of(swarm, "web")
    master, slave = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            DOCKER, "-H", agent.host, "exec", "-it", container, "sh", stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        os.write(master, b"echo $((6*7))x; exit 5\n")
        assert await process.wait() == 5
        seen = b""
        try:
            while chunk := os.read(master, 4096):
                seen += chunk
        except OSError:
            pass  # the end of a terminal
    finally:
        os.close(master)
    assert b"42x" in seen


async def test_a_killed_container_is_replaced(swarm: Cluster) -> None:
    await swarm.manager.docker("service", "create", "-d", "--name", "web", "--restart-delay", "0s", "swarmtui/whoami")
    agent, container = await container_of(swarm, "web")
    await agent.docker("kill", container)
    tasks = await swarm.eventually(
        lambda tasks: [t for t in tasks if t["Status"]["State"] == "running"][:1] if len(tasks) > 1 else None, "/tasks"
    )
    assert any(task["Status"].get("Err") for task in tasks)


async def test_service_logs_of_several_replicas(swarm: Cluster) -> None:
    create = ("service", "create", "-d", "--name", "log", "--replicas", "2", "--env", "RATE=20", "swarmtui/logger")
    await swarm.manager.docker(*create)
    await swarm.until_running("log", 2)
    follow = await asyncio.create_subprocess_exec(
        DOCKER, "-H", swarm.manager.host, "service", "logs", "-f", "-t", "log", stdout=asyncio.subprocess.PIPE
    )
    assert follow.stdout is not None
    seen: set[str] = set()
    async with asyncio.timeout(20):
        while len(seen) < 2:
            line = (await follow.stdout.readline()).decode()
            seen.add(line.split()[1].split("@")[0])
    follow.kill()
    await follow.communicate()
    assert {name.rsplit(".", 1)[0] for name in seen} == {"log.1", "log.2"}
    _, out, err = await run(swarm.manager, "service", "logs", "--tail", "3", "log")
    assert len((out + err).splitlines()) == 6


async def test_the_sdk_drives_it_too(swarm: Cluster) -> None:
    def drive() -> dict[str, Any]:
        client = docker.DockerClient(base_url=swarm.manager.host, version="auto")
        try:
            service = client.services.create(
                "swarmtui/whoami",
                name="sdk",
                labels={"made": "by-sdk"},
                mode=ServiceMode("replicated", replicas=2),
                endpoint_spec=EndpointSpec(mode="vip", ports={18099: (8000, "tcp")}),
            )
            service.reload()
            service.scale(1)
            found = client.services.list(filters={"label": ["made=by-sdk"]})
            return {
                "ping": client.ping(),
                "swarm": client.swarm.attrs["Spec"]["Name"],
                "nodes": [node.attrs["Status"]["State"] for node in client.nodes.list(filters={"role": "manager"})],
                "found": [(s.name, s.attrs["Spec"]["Mode"]["Replicated"]["Replicas"]) for s in found],
                "tasks": bool(service.tasks(filters={"desired-state": "running"})),
                "removed": service.remove(),
            }
        finally:
            client.close()

    assert await asyncio.to_thread(drive) == {
        "ping": True,
        "swarm": "default",
        "nodes": ["ready"],
        "found": [("sdk", 1)],
        "tasks": True,
        "removed": True,
    }
