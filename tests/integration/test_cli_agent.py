"""The console's lower rooms and its command line on real agents: the README's session without a docker CLI, live."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from cluster import ROOT, AgentProcess, Cluster, http_get, running_cluster

from swarmtui.docker_api.address import parse_address
from swarmtui.docker_api.client import EngineClient
from swarmtui.logs.records import LogEvent, LogLine, LogNotice, LogOptions, NoticeKind
from swarmtui.logs.session import LogSession
from swarmtui.model.cluster import ClusterModel
from swarmtui.model.query import Difference, tasks_of
from swarmtui.model.rows import ServiceRow, TaskRow
from swarmtui.model.summary import ClusterSummary, ConnectionState
from swarmtui.operations.base import Progress
from swarmtui.operations.history import OperationHistory
from swarmtui.operations.nodes import DrainNode
from swarmtui.operations.service_life import CreateService
from swarmtui.operations.services import RestartService, ScaleService
from swarmtui.operations.waiting import Timing

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = Timing(verify=0.0)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def swarm() -> AsyncIterator[Cluster]:
    async with running_cluster(3) as cluster:
        yield cluster


async def sw(node: AgentProcess, *arguments: str, status: int = 0) -> str:
    """Standard output of `swarmtui`; its standard error when it is to fail."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from swarmtui.cli import main; main()", "-H", node.host, *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == status, f"swarmtui {' '.join(arguments)}: {err.decode()}{out.decode()}"
    return (err if status else out).decode()


class View:
    """What a console shows: a running model with a view of all tasks."""

    def __init__(self, model: ClusterModel) -> None:
        self.model = model
        self.rows: dict[str, TaskRow] = {}
        self.news = asyncio.Event()
        model.subscribe(tasks_of(), self.take)
        model.subscribe_summary(lambda _: self.news.set())

    def take(self, difference: Difference[TaskRow]) -> None:
        for row in (*difference.added, *difference.changed):
            self.rows[row.id] = row
        for key in difference.removed:
            del self.rows[key]
        self.news.set()

    def running(self, service: str) -> list[TaskRow]:
        return [row for row in self.rows.values() if row.service == service and row.state == "running" and row.current]

    async def until(self, holds: Callable[[ClusterSummary], object], within: float = 20.0) -> ClusterSummary:
        try:
            async with asyncio.timeout(within):
                while not holds(self.model.summary):
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"still {self.model.summary} {self.rows}") from None
        return self.model.summary


@contextlib.asynccontextmanager
async def view_of(node: AgentProcess) -> AsyncIterator[tuple[EngineClient, View]]:
    async with EngineClient(parse_address(node.host)) as client:
        model = ClusterModel(client)
        view = View(model)
        feeding = asyncio.create_task(model.run())
        try:
            await view.until(lambda s: s.connection.state is ConnectionState.WATCHING)
            yield client, view
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding


def nothing(progress: Progress) -> None:
    """Nobody looks."""


async def gone(swarm: Cluster) -> None:
    await swarm.eventually(lambda tasks: tasks == [], "/tasks")


async def test_the_readmes_session_without_a_docker_cli(swarm: Cluster) -> None:
    manager, port = swarm.manager, 18091
    nodes = (await sw(manager, "node", "ls")).splitlines()
    assert len(nodes) == 4
    assert re.search(r"\* +node1 +Ready +Active +Leader", "\n".join(nodes))
    out = await sw(
        manager, "service", "create", "--name", "whoami", "--replicas", "4", "--publish", f"{port}:8000",
        "--update-monitor", "200ms", "--update-parallelism", "0", "swarmtui/whoami",
    )  # fmt: skip
    assert "4 out of 4 tasks" in out
    assert out.splitlines()[-1].endswith("done")
    assert len(re.findall("listening on", await sw(manager, "service", "logs", "whoami"))) == 4
    for node in swarm.nodes:
        answers = Counter([json.loads(await http_get(node.address, port, "/api"))["task"] for _ in range(8)])
        assert sorted(answers.values()) == [2] * 4
    assert re.search(
        r"whoami +replicated +4/4 +swarmtui/whoami\S* +\*:18091->8000/tcp", await sw(manager, "service", "ls")
    )
    listing = await sw(manager, "service", "ps", "whoami")
    assert len(re.findall(r"whoami\.\d +swarmtui/whoami.* Running +Running", listing)) == 4
    await sw(manager, "service", "scale", "-q", "whoami=6")
    await swarm.until_running("whoami", 6)
    updated = await sw(manager, "service", "update", "--force", "whoami")
    assert updated.splitlines()[-1].endswith("done")
    assert json.loads(await sw(manager, "service", "inspect", "whoami"))[0]["UpdateStatus"]["State"] == "completed"
    assert len((await sw(manager, "task", "ls", "-q")).splitlines()) >= 12
    events = await sw(manager, "events", "--since", "10m", "--until", "0s", "--filter", "type=service")
    assert "service create" in events
    assert await sw(manager, "service", "rm", "whoami") == "whoami\n"
    await gone(swarm)


async def test_refusals_have_their_text_and_status(swarm: Cluster) -> None:
    manager, worker = swarm.manager, swarm.nodes[1]
    assert "This node is not a swarm manager" in await sw(worker, "service", "ls", status=1)
    assert await sw(manager, "service", "inspect", "nosuch", status=1) == "Error: no such service: nosuch\n"
    text = await sw(manager, "service", "create", "--constraint", "bad", "swarmtui/whoami", status=1)
    assert (
        text
        == "Error response from daemon: rpc error: code = Unknown desc = constraint expected one operator from ==, !=\n"
    )
    text = await sw(manager, "service", "create", "--name", "Bad_Näme", "swarmtui/whoami", status=1)
    assert "name must be valid as a DNS name component" in text
    assert "is not down and can't be removed" in await sw(manager, "node", "rm", "node2", status=1)


async def test_what_cannot_be_placed_is_explained_while_it_is_waited_for(swarm: Cluster) -> None:
    async with view_of(swarm.manager) as (client, view):
        spec = {
            "Name": "nowhere",
            "TaskTemplate": {
                "ContainerSpec": {"Image": "swarmtui/whoami:latest"},
                "Placement": {"Constraints": ["node.labels.no==yes"]},
            },
        }
        said = asyncio.Event()
        reports: list[Progress] = []

        def report(progress: Progress) -> None:
            reports.append(progress)
            if progress.errors:
                said.set()

        operation = CreateService(client, spec, timing=AT_ONCE)
        waiting = asyncio.create_task(operation.run(report))
        async with asyncio.timeout(20):
            await said.wait()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert "scheduling constraints not satisfied on 3 nodes" in reports[-1].errors[0]
        await view.until(lambda s: s.services == 1 and view.rows)
        await view.until(lambda s: next(iter(view.rows.values())).error)
        await view.until(lambda s: s.services_healthy == 0)
        assert (await client.explain_service(operation.service_id)) != {}
        inverse = operation.inverse()
        assert inverse is not None
        await inverse.run(nothing)
        await view.until(lambda s: s.services == 0 and not view.rows)


async def test_a_change_is_seen_live_and_can_be_undone(swarm: Cluster) -> None:
    async with view_of(swarm.manager) as (client, view):
        history = OperationHistory()
        create = CreateService(
            client,
            {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "swarmtui/whoami:latest"}},
             "Mode": {"Replicated": {"Replicas": 3}}, "EndpointSpec": {"Mode": "vip"},
             "UpdateConfig": {"Parallelism": 0, "Monitor": 100_000_000}},
            timing=AT_ONCE,
        )  # fmt: skip
        await history.run(create, nothing)
        await view.until(lambda s: s.tasks_running == 3 and len(view.running("web")) == 3)
        await history.run(ScaleService(client, "web", 5, timing=AT_ONCE), nothing)
        await view.until(lambda s: len(view.running("web")) == 5)
        before = {row.id for row in view.running("web")}
        await history.run(RestartService(client, "web", timing=AT_ONCE), nothing)
        await view.until(lambda s: len(view.running("web")) == 5)
        assert not before & {row.id for row in view.running("web")}
        assert all(row.up_to_date for row in view.running("web"))
        undo = history.undo()
        assert undo is not None
        assert undo.title == "scale web 5 → 3"
        await history.run(undo, nothing)
        await view.until(lambda s: len(view.running("web")) == 3)

        drain = DrainNode(client, "node2", timing=AT_ONCE)
        await history.run(drain, nothing)
        await view.until(lambda s: len(view.running("web")) == 3)
        assert not [row for row in view.running("web") if row.node == "node2"]
        undo = history.undo()
        assert undo is not None
        assert undo.title == "activate node2"
        await history.run(undo, nothing)

        row = next(row for row in view.model._service_rows.rows.values())
        assert isinstance(row, ServiceRow)
        assert (row.replicas, row.state) == ("3/3", "running")
        inverse = create.inverse()
        assert inverse is not None
        await inverse.run(nothing)
        await view.until(lambda s: not view.rows)


def numbers(events: list[LogEvent]) -> dict[str, list[str]]:
    """Each replica's lines."""
    found: dict[str, list[str]] = {}
    for event in events:
        if isinstance(event, LogLine):
            found.setdefault(event.task_id, []).append(event.text)
    return found


async def test_a_followed_log_survives_the_managers_restart(swarm: Cluster) -> None:
    manager = swarm.manager
    await sw(
        manager, "service", "create", "-d", "--name", "chat", "--replicas", "3", "-e", "RATE=50",
        "-e", "STREAM=stdout", "swarmtui/logger",
    )  # fmt: skip
    await swarm.until_running("chat", 3)
    events: list[LogEvent] = []
    async with (
        EngineClient(parse_address(manager.host)) as client,
        asyncio.timeout(50),
        LogSession(client, services=["chat"], options=LogOptions(follow=True)) as session,
    ):
        restarted, after = False, 0
        async for batch in session.batches():
            events += batch
            if not restarted and len(events) > 100:
                restarted = True
                manager.kill()
                manager.start()
            if any(isinstance(event, LogNotice) and event.kind is NoticeKind.RECONNECTED for event in events):
                after += sum(isinstance(event, LogLine) for event in batch)
            if after > 300:
                break
    await manager.ready()
    kinds = [event.kind for event in events if isinstance(event, LogNotice)]
    assert NoticeKind.RECONNECTING in kinds
    for lines in numbers(events).values():
        counted = [int(match.group()) for line in lines if (match := re.search(r"\d+", line))]
        assert counted == list(range(counted[0], counted[0] + len(counted))), "no gap, no duplicate, in order"
    assert len(numbers(events)) == 3
    await swarm.eventually(lambda nodes: [n["Status"]["State"] for n in nodes] == ["ready"] * 3, "/nodes")
    await sw(manager, "service", "rm", "chat")
    await gone(swarm)


async def test_the_picture_survives_the_managers_restart_and_shows_a_lost_node(swarm: Cluster) -> None:
    manager, victim = swarm.manager, swarm.nodes[2]
    await sw(manager, "service", "create", "-d", "--name", "web", "--replicas", "3", "swarmtui/whoami")
    await swarm.until_running("web", 3)
    async with view_of(manager) as (_, view):
        await view.until(lambda s: len(view.running("web")) == 3)
        manager.kill()
        lost = await view.until(lambda s: s.connection.state is ConnectionState.RECONNECTING)
        assert lost.connection.error
        assert lost.nodes == 3
        assert len(view.rows) >= 3
        manager.start()
        await view.until(lambda s: s.connection.state is ConnectionState.WATCHING)
        await view.until(lambda s: s.nodes_ready == 3 and s.tasks_running == 3)

        victim.kill()
        victim.kill_tasks()
        await view.until(lambda s: s.nodes_ready == 2)
        await view.until(lambda s: s.tasks_running == 3 and all(row.node != "node3" for row in view.running("web")))
        victim.start()
        await view.until(lambda s: s.nodes_ready == 3)
    await sw(manager, "service", "rm", "web")
    await gone(swarm)
