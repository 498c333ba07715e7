"""The docker CLI at a manager that follows: it notices nothing of the leader behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from api_managers import Managers, managers
from api_scripted import ScriptedLogs
from docker_cli import DOCKER, Said, docker, start_docker

from agent.api.lookup import the_cluster
from agent.api_types.network import Network, NetworkSpec
from agent.api_types.service import Service
from agent.api_types.task import ServiceAnnotations, Task, TaskState, TaskStatus
from agent.rpc.messages import LogRecord

pytestmark = pytest.mark.skipif(DOCKER is None, reason="the docker CLI is not installed")

Run = Callable[..., Awaitable[Said]]


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` follows."""
    async with managers(tmp_path) as group:
        yield group


@pytest.fixture
def cli(group: Managers, tmp_path: Path) -> Run:
    """`docker` at the follower; it has to succeed."""

    async def run(*words: str, stdin: bytes = b"") -> Said:
        said = await docker(group.sockets[group.ids["h2"]], *words, home=tmp_path, stdin=stdin)
        assert said.code == 0, (words, said)
        return said

    return run


async def a_task(group: Managers, service: Service, **status: object) -> Task:
    """A task that runs, as the leader's rooms make it."""
    task = Task(
        id="t".ljust(25, "0"),
        service_id=service.id,
        slot=1,
        node_id=group.ids["h1"],
        spec=service.spec.task_template,
        status=TaskStatus(state=TaskState.RUNNING, timestamp="2026-01-01T00:00:00Z"),
        desired_state=TaskState.RUNNING,
        service_annotations=ServiceAnnotations(name=service.spec.name),
    )
    await group.backends["h1"].put(task)
    return task


def service_of(group: Managers, name: str) -> Service:
    store = group.backends["h2"].store
    assert store is not None
    found = store.view(lambda tx: tx.by_name(Service, name))
    assert found is not None
    return found


async def test_services(group: Managers, cli: Run) -> None:
    await cli("service", "create", "-d", "--name", "web", "--replicas", "2", "busybox")
    assert "web" in (await cli("service", "ls")).out
    await cli("service", "update", "-d", "--label-add", "a=b", "web")
    assert service_of(group, "web").spec.labels == {"a": "b"}
    await cli("service", "scale", "-d", "web=5")
    assert "0/5" in (await cli("service", "ls")).out
    await a_task(group, service_of(group, "web"))
    assert "Running" in (await cli("service", "ps", "web")).out
    assert "Mode" in (await cli("service", "inspect", "--pretty", "web")).out
    await cli("service", "rollback", "-d", "web")
    await cli("service", "rm", "web")
    assert "web" not in (await cli("service", "ls")).out


async def test_logs_come_through_the_leader(group: Managers, cli: Run, tmp_path: Path) -> None:
    await cli("service", "create", "-d", "--name", "web", "busybox")
    task = await a_task(group, service_of(group, "web"))
    logs = group.backends["h1"].logs
    assert isinstance(logs, ScriptedLogs)
    logs.records = [LogRecord(task.id, 1, "stdout", b"hello"), LogRecord(task.id, 2, "stdout", b"world")]
    assert [line.split("| ")[1] for line in (await cli("service", "logs", "web")).out.splitlines()] == [
        "hello",
        "world",
    ]
    following = await start_docker(group.sockets[group.ids["h2"]], "service", "logs", "-f", "web", home=tmp_path)
    assert following.stdout is not None
    async with asyncio.timeout(10):
        assert b"hello" in await following.stdout.readline()
        assert b"world" in await following.stdout.readline()
        closed = logs.closed
        following.terminate()
        await following.communicate()
        while logs.closed == closed:
            await asyncio.sleep(0)


async def test_nodes(group: Managers, cli: Run) -> None:
    rows = (await cli("node", "ls", "--format", "{{.Hostname}} {{.Self}} {{.ManagerStatus}}")).out.splitlines()
    assert sorted(rows) == ["h1 false Leader", "h2 true Reachable"]
    await cli("node", "update", "--label-add", "zone=a", "h1")
    assert json.loads((await cli("node", "inspect", "h1")).out)[0]["Spec"]["Labels"] == {"zone": "a"}
    await cli("node", "update", "--availability", "drain", "h2")
    assert json.loads((await cli("node", "inspect", "self")).out)[0]["Spec"]["Availability"] == "drain"
    await cli("node", "demote", "h2")
    await cli("node", "promote", "h2")


async def test_the_swarm(group: Managers, cli: Run) -> None:
    before = (await cli("swarm", "join-token", "-q", "worker")).out
    after = (await cli("swarm", "join-token", "--rotate", "-q", "worker")).out
    assert after.startswith("SWMTKN-1-")
    assert after != before
    said = await cli("swarm", "update", "--autolock")
    key = (await cli("swarm", "unlock-key", "-q")).out
    assert key.startswith("SWMKEY-1-")
    assert key in said.out
    assert key != (await cli("swarm", "unlock-key", "--rotate", "-q")).out
    store = group.backends["h1"].store
    assert store is not None
    assert store.view(the_cluster).spec.encryption_config.auto_lock_managers
    assert "Is Manager: true" in (await cli("info")).out


async def test_secrets_and_configs(group: Managers, cli: Run) -> None:
    for kind in ("secret", "config"):
        await cli(kind, "create", "-l", "a=b", "one", "-", stdin=b"data")
        assert "one" in (await cli(kind, "ls")).out
        assert json.loads((await cli(kind, "inspect", "one")).out)[0]["Spec"]["Labels"] == {"a": "b"}
        await cli(kind, "rm", "one")
        assert "one" not in (await cli(kind, "ls")).out


async def test_a_stack(group: Managers, cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "stack.yml"
    (tmp_path / "data").write_text("x")
    file.write_text(
        "version: '3.8'\nservices:\n  web:\n    image: busybox\n    networks: [net]\n    configs: [c]\n"
        f"configs:\n  c:\n    file: {tmp_path}/data\nnetworks:\n  net:\n    external: true\n"
    )
    await group.backends["h1"].put(Network(id="n".ljust(25, "0"), spec=NetworkSpec(name="net")))
    await cli("stack", "deploy", "-d", "-c", str(file), "s")
    assert "s_web" in (await cli("stack", "services", "s")).out
    await cli("stack", "rm", "-d", "s")
    assert (await cli("stack", "ls", "--format", "{{.Name}}")).out == ""
