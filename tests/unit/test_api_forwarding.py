"""A manager that does not lead: what it answers itself, what the leader answers, whose words count."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from api_broken_links import silence
from api_managers import Link, ManagerBackend, Managers, dial, managers
from api_scripted import ScriptedLogs, service_body

from agent.api.backend import LocalState
from agent.api.call import MAX_BODY
from agent.rpc.messages import LogRecord


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` and `h3` follow."""
    async with managers(tmp_path, 3) as group:
        yield group


async def test_a_write_through_a_follower_is_seen_by_a_read_through_it(group: Managers) -> None:
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert status == 201
    status, shown = await group.clients["h2"].call("GET", "/services/web")
    assert (status, shown["ID"]) == (200, answer["ID"])
    assert group.backends["h1"].callers == []
    assert len(group.backends["h2"].callers) == 1


async def test_refusals_of_the_leader_come_through_as_they_are(group: Managers) -> None:
    client = group.clients["h2"]
    assert (await client.call("POST", "/services/create", service_body()))[0] == 201
    direct = await group.clients["h1"].call("POST", "/services/create", service_body())
    assert direct[0] == 409
    assert await client.call("POST", "/services/create", service_body()) == direct
    assert (await client.call("DELETE", "/services/nosuch"))[1] == {"message": "service nosuch not found"}
    assert (await client.call("POST", "/services/create", b"{", headers={"Content-Type": "text/plain"}))[0] == 400


async def test_an_answer_shows_the_engine_of_the_manager_that_was_asked(group: Managers) -> None:
    async with group.clients["h2"].session.delete("http://d/services/nosuch") as answer:
        assert answer.headers["Api-Version"] == "1.41"
        assert len(answer.headers.getall("Server")) == 1
        assert not [name for name in answer.headers if name.lower().startswith("swarmtui-forward")]


async def test_the_audit_line_is_written_once_at_the_leader_with_who_asked(
    group: Managers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swarmtui.audit")
    await group.clients["h2"].call("POST", "/services/create", service_body())
    lines = [record.message for record in caplog.records if record.name == "swarmtui.audit"]
    assert len(lines) == 1
    node = group.ids["h2"]
    assert f" at h2 ({node}): service web (" in lines[0]
    assert "POST /services/create 201 from uid=0 gid=0 pid=" in lines[0]


async def test_a_client_cannot_speak_for_another(group: Managers, caplog: pytest.LogCaptureFixture) -> None:
    """The headers of managers count only from this process; another one's are its own words."""
    caplog.set_level(logging.INFO, "swarmtui.audit")
    script = (
        "import http.client,socket,sys,json\n"
        "c=http.client.HTTPConnection('d')\n"
        "c.sock=socket.socket(socket.AF_UNIX); c.sock.connect(sys.argv[1])\n"
        "c.request('POST','/services/create',sys.argv[2],{'Content-Type':'application/json',"
        "'Swarmtui-Forward-Caller':'root himself','Swarmtui-Forward-Object':'x'*25,'Swarmtui-Forward-Repeated':'1'})\n"
        "r=c.getresponse(); print(r.status, json.loads(r.read())['ID'])\n"
    )
    for name in ("h1", "h2"):
        command = [
            sys.executable,
            "-c",
            script,
            group.sockets[group.ids[name]],
            json.dumps(service_body(f"web-{name}")),
        ]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
        assert done.stdout.startswith("201 "), done
        assert "x" * 25 not in done.stdout
    assert "root himself" not in caplog.text


async def test_what_only_the_leader_knows(group: Managers) -> None:
    client = group.clients["h2"]
    _, service = await client.call("POST", "/services/create", service_body())
    assert await client.call("GET", "/swarmtui/v1/explain/service/web") == (200, {"service": service["ID"]})
    assert await client.call("GET", "/swarm/unlockkey") == (200, {"UnlockKey": ""})


async def test_a_watch_is_answered_from_the_own_store(group: Managers) -> None:
    async with group.clients["h2"].session.get("http://d/swarmtui/v1/watch") as stream:
        kinds = []
        async with asyncio.timeout(10):
            while "synced" not in kinds:
                kinds.append(json.loads(await stream.content.readline())["kind"])
            await group.clients["h3"].call("POST", "/services/create", service_body())
            told = json.loads(await stream.content.readline())
    assert (told["kind"], told["object"]["Spec"]["Name"]) == ("create", "web")
    assert group.backends["h2"].callers == []


async def test_bodies_are_bounded_and_carried_whole(group: Managers) -> None:
    data = "QUJD" * 160_000
    body = json.dumps({"Name": "big", "Data": data}).encode()
    as_json = {"Content-Type": "application/json"}
    assert (await group.clients["h2"].call("POST", "/configs/create", io.BytesIO(body), headers=as_json))[0] == 201
    assert (await group.clients["h3"].call("GET", "/configs/big"))[1]["Spec"]["Data"] == data
    huge = io.BytesIO(b" " * MAX_BODY + body)
    status, answer = await group.clients["h2"].call("POST", "/configs/create", huge, headers=as_json)
    assert (status, "larger than" in answer["message"]) == (413, True)


async def test_a_body_that_comes_in_chunks(group: Managers) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        raw = json.dumps(service_body()).encode()
        for start in range(0, len(raw), 7):
            yield raw[start : start + 7]

    session = group.clients["h2"].session
    headers = {"Content-Type": "application/json", "Expect": "100-continue"}
    async with session.post("http://d/services/create", data=pieces(), headers=headers) as answer:
        assert answer.status == 201


async def test_a_client_that_goes_away_takes_its_exchange_along(group: Managers) -> None:
    group.backends["h2"].way = silence
    session = group.clients["h2"].session
    asking = asyncio.create_task(session.post("http://d/services/create", json=service_body()))
    async with asyncio.timeout(10):
        while not group.frozen:
            await asyncio.sleep(0)
        far = await asyncio.open_connection(sock=group.frozen.pop())
        await far[0].readuntil(b"\r\n\r\n")
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await far[0].read()
    far[1].close()
    await far[1].wait_closed()


async def test_a_write_whose_client_goes_away_is_made_and_has_its_audit_line(
    group: Managers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "swarmtui.audit")
    group.seats["h1"].cut_off = True
    asking = asyncio.create_task(group.clients["h1"].session.post("http://d/services/create", json=service_body()))
    async with asyncio.timeout(10):
        while not group.seats["h1"].waiting:
            await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await group.clients["h1"].call("GET", "/_ping")
        group.seats["h1"].cut_off = False
        group.seats["h1"].commit()
        while "service web" not in caplog.text:
            await asyncio.sleep(0)


async def follow(group: Managers, name: str, *records: str) -> aiohttp.ClientResponse:
    """Logs of a service, followed through `name`; the first lines are read."""
    await group.clients["h1"].call("POST", "/services/create", service_body())
    logs = group.backends["h1"].logs
    assert isinstance(logs, ScriptedLogs)
    logs.records = [LogRecord("t" * 25, 1, "stdout", text.encode()) for text in records]
    return await group.clients[name].session.get("http://d/v1.42/services/web/logs?follow=1&stdout=1")


@pytest.mark.parametrize("name", ["h1", "h2"])
async def test_a_stream_ends_with_the_leadership(group: Managers, name: str) -> None:
    """It is broken off, not ended: what a client has read is not all that there is."""
    async with asyncio.timeout(10):
        stream = await follow(group, name, "one")
        assert stream.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        assert (await stream.content.readexactly(12))[8:] == b"one\n"
        group.elect("h3")
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.content.read()
    stream.close()


async def test_a_stream_whose_leader_dies_is_broken_off(group: Managers) -> None:
    async def dies(backend: ManagerBackend, caller: str) -> Link:
        reader, writer = await dial(backend, caller)
        links.append(writer)
        return reader, writer

    links: list[asyncio.StreamWriter] = []
    group.backends["h2"].way = dies
    async with asyncio.timeout(10):
        stream = await follow(group, "h2", "one")
        await stream.content.readexactly(12)
        links[0].transport.abort()
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.content.read()
    stream.close()


async def test_a_reader_that_goes_away_ends_the_stream_at_the_leader(group: Managers) -> None:
    logs = group.backends["h1"].logs
    assert isinstance(logs, ScriptedLogs)
    async with asyncio.timeout(10):
        stream = await follow(group, "h2", "one")
        await stream.content.readexactly(12)
        stream.close()
        while not logs.closed:
            await asyncio.sleep(0)


@pytest.mark.parametrize("target", ["/services/create", "/swarm/update?version=1", "/nodes/x/update?version=1"])
async def test_a_worker_refuses_with_the_usual_text(group: Managers, target: str) -> None:
    backend = group.backends["h2"]
    backend.show_group(None)
    backend.store, backend.is_manager, backend.local_state = None, False, LocalState.ACTIVE
    status, answer = await group.clients["h2"].call("POST", target, {})
    assert (status, "Manager is being prepared" in answer["message"]) == (503, True)
    backend.remote_managers = backend.remote_managers[:1]
    status, answer = await group.clients["h2"].call("POST", target, {})
    assert (status, "Worker nodes can't be used" in answer["message"]) == (503, True)
    assert backend.callers == []


async def test_clients_that_go_away_at_any_moment_leave_nothing_behind(group: Managers) -> None:
    """Sixty clients that hang up after so many turns of the loop; connections and exchanges end with them."""
    session = group.clients["h2"].session

    async def ask(number: int) -> None:
        if number % 3 == 0:
            await (await session.post("http://d/secrets/create", json={"Name": f"s{number}", "Data": "QQ=="})).read()
        elif number % 3 == 1:
            await (await session.get("http://d/services/web/logs?follow=1&stdout=1")).read()
        else:
            await (await session.get("http://d/swarmtui/v1/managers")).read()

    await group.clients["h2"].call("POST", "/services/create", service_body())
    asking = [asyncio.create_task(ask(number)) for number in range(60)]
    for turn in range(60):
        asking[(turn * 37) % 60].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*asking, return_exceptions=True)
    state = group.servers["h2"]._state
    async with asyncio.timeout(10):
        while state.metrics.streams or group.servers["h1"]._state.metrics.streams or group.servers["h1"]._state.writes:
            await asyncio.sleep(0.01)
        while group.open_links:
            await asyncio.sleep(0.01)
        assert (await group.clients["h2"].call("POST", "/services/create", service_body("after")))[0] == 201
    _, secrets = await group.clients["h3"].call("GET", "/secrets")
    assert len({secret["Spec"]["Name"] for secret in secrets}) == len(secrets)
