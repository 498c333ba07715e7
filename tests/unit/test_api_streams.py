"""Answers without an end: watch, events, logs; what they tell, to whom, and what becomes of slow or lost readers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_recording import frames
from api_scripted import Client, ScriptedBackend, ScriptedLogs, init_body, served, service_body

from agent.api import watch as watch_module
from agent.api.backend import LogOptions, LogsMissing
from agent.api.splice import is_gone
from agent.api_types.container import ContainerSpec
from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import Task, TaskSpec, TaskState, TaskStatus
from agent.api_types.times import SECOND
from agent.rpc.messages import LogRecord
from agent.store import watching
from agent.store.store import Store


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a manager."""
    async with served(backend, tmp_path) as client:
        assert (await client.call("POST", "/swarm/init", init_body()))[0] == 200
        yield client


async def lines(stream: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    """The next lines of a stream."""
    async with asyncio.timeout(10):
        return [json.loads(await stream.content.readline()) for _ in range(count)]


async def until(stream: aiohttp.ClientResponse, kind: str) -> list[dict[str, Any]]:
    """Lines up to the first of a kind, that one included."""
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["kind"] != kind:
        seen += await lines(stream, 1)
    return seen


# -- watch


async def test_watch_begins_with_everything_and_goes_on(client: Client) -> None:
    await client.call("POST", "/services/create", service_body())
    async with client.session.get("http://d/swarmtui/v1/watch") as stream:
        assert stream.content_type == "application/x-ndjson"
        first = await until(stream, "synced")
        assert [line["table"] for line in first[:-1]] == ["cluster", "node", "service"]
        assert {line["kind"] for line in first[:-1]} == {"snapshot"}
        await client.call("POST", "/services/create", service_body("api"))
        created = (await lines(stream, 1))[0]
        assert (created["kind"], created["table"], created["object"]["Spec"]["Name"]) == ("create", "service", "api")
        assert created["index"] == first[-1]["index"] + 1 == created["object"]["Version"]["Index"]
        await client.call("DELETE", "/services/api")
        removed = (await lines(stream, 1))[0]
        assert (removed["kind"], removed["object"]["ID"]) == ("remove", created["object"]["ID"])


async def test_watch_resumes_where_it_was_left(client: Client) -> None:
    async with client.session.get("http://d/swarmtui/v1/watch") as stream:
        index = (await until(stream, "synced"))[-1]["index"]
    for name in ("one", "two"):
        await client.call("POST", "/services/create", service_body(name))
    async with client.session.get(f"http://d/swarmtui/v1/watch?since={index}") as stream:
        seen = await lines(stream, 3)
    assert seen[0] == {"kind": "synced", "index": index}
    assert [line["object"]["Spec"]["Name"] for line in seen[1:]] == ["one", "two"]


async def test_watch_that_cannot_resume_says_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    status, answer = await client.call("GET", "/swarmtui/v1/watch?since=999999")
    assert (status, "is not known here" in answer["message"]) == (410, True)
    assert isinstance(answer["message"], str)


async def test_watch_forgets_what_is_long_ago(
    backend: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "HISTORY", 3)
    async with served(backend, tmp_path) as client:
        await client.call("POST", "/swarm/init", init_body())
        for n in range(6):
            await client.call("POST", "/services/create", service_body(f"s{n}"))
        status, answer = await client.call("GET", "/swarmtui/v1/watch?since=1")
    assert (status, "are gone" in answer["message"]) == (410, True)


async def test_a_slow_reader_of_the_watch_is_cut_off(
    client: Client, backend: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its socket and the queue behind it hold is bounded; then the connection ends, and the agent goes on."""
    monkeypatch.setattr(watch_module, "WRITE_PATIENCE", 0.05)
    labels = {f"label-{n}": "x" * 1000 for n in range(100)}
    for n in range(40):
        await backend.put(Service(id=f"{n:025}", spec=ServiceSpec(name=f"s{n}", labels=labels)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, str(tmp_path / "api.sock"))
        await loop.sock_sendall(slow, b"GET /swarmtui/v1/watch HTTP/1.1\r\nHost: d\r\n\r\n")
        async with asyncio.timeout(10):
            while not is_gone(slow):
                await asyncio.sleep(0.01)
    assert (await client.call("GET", "/nodes"))[0] == 200


async def test_a_reader_that_goes_away_is_noticed(client: Client) -> None:
    async def open_streams() -> int:
        text = (await client.call("GET", "/swarmtui/v1/metrics"))[1].decode()
        return int(next(line for line in text.splitlines() if line.startswith("swarmtui_api_open_streams")).split()[1])

    async with client.session.get("http://d/swarmtui/v1/watch") as stream:
        await until(stream, "synced")
        assert await open_streams() == 1
        stream.close()
    async with asyncio.timeout(10):
        while await open_streams():
            await asyncio.sleep(0)


async def test_large_snapshots_come_in_slices(
    client: Client, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "SLICE", 7)
    for n in range(40):
        await backend.put(Service(id=f"{n:025}", spec=ServiceSpec(name=f"s{n}")))
    async with client.session.get("http://d/swarmtui/v1/watch") as stream:
        seen = await until(stream, "synced")
    assert [line["object"]["ID"] for line in seen if line.get("table") == "service"] == [f"{n:025}" for n in range(40)]


# -- events


async def test_events_tell_what_changed(client: Client) -> None:
    async with client.session.get("http://d/events") as stream:
        await client.call("POST", "/services/create", service_body())
        service = (await client.call("GET", "/services/web"))[1]
        changed = service_body(Mode={"Replicated": {"Replicas": 3}})
        changed["TaskTemplate"]["ContainerSpec"]["Image"] = "busybox:2"
        await client.call("POST", f"/services/web/update?version={service['Version']['Index']}", changed)
        node = (await client.call("GET", "/nodes/h1"))[1]
        spec = node["Spec"] | {"Availability": "drain"}
        await client.call("POST", f"/nodes/h1/update?version={node['Version']['Index']}", spec)
        await client.call("DELETE", "/services/web")
        seen = await lines(stream, 4)
    assert seen[0].keys() == {"Type", "Action", "Actor", "scope", "time", "timeNano"}
    assert [(event["Type"], event["Action"]) for event in seen] == [
        ("service", "create"),
        ("service", "update"),
        ("node", "update"),
        ("service", "remove"),
    ]
    assert seen[1]["Actor"]["Attributes"] == {
        "name": "web",
        "replicas.old": "1",
        "replicas.new": "3",
        "image.old": "busybox:latest",
        "image.new": "busybox:2",
    }
    assert seen[2]["Actor"]["Attributes"] == {"name": "h1", "availability.old": "active", "availability.new": "drain"}
    assert all(event["scope"] == "swarm" and event["time"] == event["timeNano"] // SECOND for event in seen)


async def test_events_of_the_past_and_filters(client: Client, backend: ScriptedBackend) -> None:
    start = backend.now
    for name in ("one", "two"):
        await client.call("POST", "/services/create", service_body(name))
    await client.call("DELETE", "/services/one")

    async def past(**filters: list[str]) -> list[tuple[str, str]]:
        query = {"since": f"{start / SECOND:.9f}", "until": str(backend.now // SECOND), "filters": json.dumps(filters)}
        backend.now += SECOND
        async with client.session.get(
            "http://d/events", params=query | {"until": f"{backend.now / SECOND:.9f}"}
        ) as stream:
            return [
                (e["Actor"]["Attributes"]["name"], e["Action"])
                for e in [json.loads(line) async for line in stream.content]
            ]

    assert await past() == [("one", "create"), ("two", "create"), ("one", "remove")]
    assert await past(event=["create"]) == [("one", "create"), ("two", "create")]
    assert await past(service=["two"]) == [("two", "create")]
    assert await past(type=["node"]) == []
    assert await past(scope=["local"]) == []
    assert await past(container=["x"]) == []


async def test_events_end_when_asked_to(client: Client, backend: ScriptedBackend) -> None:
    soon = (backend.now + SECOND // 10) / SECOND
    async with asyncio.timeout(5), client.session.get("http://d/events", params={"until": f"{soon:.9f}"}) as stream:
        await client.call("POST", "/services/create", service_body())
        assert [json.loads(line)["Action"] async for line in stream.content] == ["create"]


async def test_events_of_a_store_that_comes_later(backend: ScriptedBackend, tmp_path: Path) -> None:
    """A stream that was opened before the node became a manager."""
    async with served(backend, tmp_path) as client, client.session.get("http://d/events") as stream:
        await client.call("POST", "/swarm/init", init_body())
        await client.call("POST", "/services/create", service_body())
        names = [(event["Type"], event["Action"]) for event in await lines(stream, 2)]
    assert names == [("node", "create"), ("service", "create")]


# -- logs


def task(task_id: str, *, tty: bool = False) -> Task:
    container = ContainerSpec(image="busybox", tty=tty)
    status = TaskStatus(state=TaskState.RUNNING)
    return Task(
        id=task_id,
        service_id="s" * 25,
        node_id="n" * 25,
        slot=1,
        spec=TaskSpec(container_spec=container),
        status=status,
    )


RECORDS = [
    LogRecord("t" * 25, 1_795_253_143_768_941_641, "stdout", b"line"),
    LogRecord("t" * 25, 1_795_253_143_769_038_491, "stderr", b"\xff err"),
]


async def logs_of(client: Client, target: str) -> tuple[str, bytes]:
    async with client.session.get(f"http://d{target}") as answer:
        assert answer.status == 200
        return answer.headers["Content-Type"], await answer.read()


async def test_logs_in_every_form(client: Client, backend: ScriptedBackend) -> None:
    await backend.put(task("t" * 25))
    logs = backend.logs = ScriptedLogs(RECORDS)
    path = f"/tasks/{'t' * 25}/logs?stdout=1&stderr=1"
    media, raw = await logs_of(client, "/v1.41" + path)
    assert media == "application/vnd.docker.raw-stream"
    assert list(frames(raw)) == [(1, b"line\n"), (2, b"\xff err\n")]
    media, raw = await logs_of(client, "/v1.42" + path + "&timestamps=1&details=1")
    assert media == "application/vnd.docker.multiplexed-stream"
    prefix = f"com.docker.swarm.node.id={'n' * 25},com.docker.swarm.service.id={'s' * 25},com.docker.swarm.task.id={'t' * 25} "
    assert next(frames(raw))[1] == b"2026-11-21T09:25:43.768941641Z " + prefix.encode() + b"line\n"
    await logs_of(client, path + "&since=5.25&until=9&tail=3")
    assert logs.asked[-1] == ("", ("t" * 25,), LogOptions(since=5_250_000_000, until=9 * SECOND, tail=3))
    assert logs.closed == 3


async def test_a_terminal_has_no_frames(client: Client, backend: ScriptedBackend) -> None:
    await backend.put(task("t" * 25, tty=True))
    backend.logs = ScriptedLogs(RECORDS[:1])
    media, raw = await logs_of(client, f"/v1.44/tasks/{'t' * 25}/logs?stdout=1")
    assert (media, raw) == ("application/vnd.docker.raw-stream", b"line\n")


async def test_logs_end_with_what_is_missing(client: Client, backend: ScriptedBackend) -> None:
    await client.call("POST", "/services/create", service_body())
    reasons = ["node a is not available", "task b has not been scheduled"]
    backend.logs = ScriptedLogs([RECORDS[0], *(LogsMissing("b", "a", reason) for reason in reasons)])
    _, raw = await logs_of(client, "/services/web/logs?stdout=1")
    stream, text = list(frames(raw))[-1]
    assert stream == 3
    assert text.decode() == (
        "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be "
        "retrieved for the following reasons: node a is not available, task b has not been scheduled\n"
    )


async def test_following_logs_end_with_their_reader(client: Client, backend: ScriptedBackend) -> None:
    await client.call("POST", "/services/create", service_body())
    logs = backend.logs = ScriptedLogs(RECORDS)
    async with client.session.get("http://d/services/web/logs?stdout=1&follow=1") as stream:
        assert await stream.content.readexactly(13) == b"\x01\0\0\0\0\0\0\x05line\n"
        stream.close()
    async with asyncio.timeout(10):
        while not logs.closed:
            await asyncio.sleep(0)


async def test_without_a_leader_there_are_no_logs(client: Client, backend: ScriptedBackend) -> None:
    await client.call("POST", "/services/create", service_body())
    backend.logs = backend.explainer = None
    for path in ("/services/web/logs?stdout=1", "/swarmtui/v1/explain/service/web"):
        status, answer = await client.call("GET", path)
        assert (status, "does not have a leader" in answer["message"]) == (503, True)


async def test_explain_resolves_names(client: Client, backend: ScriptedBackend) -> None:
    service = (await client.call("POST", "/services/create", service_body()))[1]["ID"]
    await backend.put(task("t" * 25))
    assert await client.call("GET", "/swarmtui/v1/explain/service/web") == (200, {"service": service})
    assert await client.call("GET", "/swarmtui/v1/explain/task/ttt") == (200, {"task": "t" * 25})
    assert (await client.call("GET", "/swarmtui/v1/explain/task/x"))[0] == 404


async def test_reads_share_one_question(
    client: Client, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty readers at once cost the log no more than a few questions, and each sees what was written before it asked."""
    assert isinstance(backend.store, Store)
    asked = 0
    barrier = backend.store.barrier

    async def counted() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.02)
        return await barrier()

    monkeypatch.setattr(backend.store, "barrier", counted)
    answers = await asyncio.gather(*(client.call("GET", "/nodes") for _ in range(60)))
    assert [status for status, _ in answers] == [200] * 60
    assert 1 <= asked <= 10


async def test_a_read_that_cannot_be_fresh_says_so(
    client: Client, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(backend.store, Store)

    async def never() -> int:
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(backend.store, "barrier", never)
    async with client.session.get("http://d/nodes") as answer:
        assert (answer.status, answer.headers.get("Warning", "")[:3]) == (200, "110")
