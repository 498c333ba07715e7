"""A manager that does not lead: what it answers itself, what the leader answers, and what becomes of a lost leader."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from api_managers import Link, ManagerBackend, Managers, dial, managers
from api_scripted import ScriptedLogs, service_body

from agent.api import forwarding
from agent.api.backend import LocalState
from agent.api.call import MAX_BODY
from agent.api_types.errors import Unavailable
from agent.api_types.secret import Secret
from agent.api_types.service import Service
from agent.raft.interface import NotLeader
from agent.rpc.errors import Unreachable
from agent.rpc.messages import LogRecord
from agent.store.store import Store

Way = Callable[[ManagerBackend, str], Awaitable[Link]]


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Managers]:
    """`h1` leads, `h2` and `h3` follow."""
    async with managers(tmp_path, 3) as group:
        yield group


def store_of(group: Managers, name: str) -> Store:
    store = group.backends[name].store
    assert store is not None
    return store


def names(group: Managers, at: str) -> list[str]:
    """The services that a manager's store shows."""
    return sorted(service.spec.name for service in store_of(group, at).view(lambda tx: tx.all(Service)))


# -- ways to the leader that go wrong


def refused(times: int) -> Way:
    """Nobody answers the first few times."""
    left = [times]

    async def way(backend: ManagerBackend, caller: str) -> Link:
        if left[0]:
            left[0] -= 1
            raise Unreachable("connection refused")
        return await dial(backend, caller)

    return way


def broken(times: int, *, deliver: bool, keep: int = 0) -> Way:
    """The first few exchanges break: after the leader did what was asked (`deliver`) or before it heard of it.

    Only `keep` bytes of the answer come through.
    """
    left = [times]

    async def way(backend: ManagerBackend, caller: str) -> Link:
        if not left[0]:
            return await dial(backend, caller)
        left[0] -= 1

        near, far = socket.socketpair()
        backend.managers.tasks.append(asyncio.create_task(_middle(backend, far, caller, deliver, keep)))
        return await asyncio.open_connection(sock=near)

    return way


async def _middle(backend: ManagerBackend, end: socket.socket, caller: str, deliver: bool, keep: int) -> None:
    reader, writer = await asyncio.open_connection(sock=end)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    request = head + await reader.readexactly(int(length.split(b":")[1]))
    if deliver:
        leader_reader, leader_writer = await dial(backend, caller)
        leader_writer.write(request)
        answer = await leader_reader.read()
        leader_writer.close()
        await leader_writer.wait_closed()
        writer.write(answer[:keep])
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def silence(backend: ManagerBackend, caller: str) -> Link:
    """A leader that is frozen: it takes everything and says nothing."""
    near, far = socket.socketpair()
    far.setblocking(False)
    backend.managers.frozen.append(far)
    return await asyncio.open_connection(sock=near)


async def received(group: Managers) -> None:
    """A frozen leader has a request before it."""
    while not group.frozen:
        await asyncio.sleep(0)
    await asyncio.get_running_loop().sock_recv(group.frozen[0], 1)


# -- as it should be


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


# -- a leader that is lost


async def test_a_leader_that_cannot_be_reached_is_tried_again(group: Managers) -> None:
    group.backends["h2"].way = refused(3)
    assert (await group.clients["h2"].call("POST", "/services/create", service_body()))[0] == 201
    assert names(group, "h3") == ["web"]


async def test_a_leader_that_stays_out_of_reach_is_named_as_the_reason(
    group: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE", 0.2)
    group.backends["h2"].way = refused(1000)
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert (status, answer["message"]) == (503, "the leader of the swarm cannot be reached: connection refused")


@pytest.mark.parametrize("deliver", [False, True])
@pytest.mark.parametrize("keep", [0, 40, 200])
async def test_a_create_that_lost_its_answer_is_made_once(group: Managers, deliver: bool, keep: int) -> None:
    group.backends["h2"].way = broken(2, deliver=deliver, keep=keep)
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert status == 201
    found = store_of(group, "h1").view(lambda tx: tx.all(Service))
    assert [service.id for service in found] == [answer["ID"]]


@pytest.mark.parametrize("kind", ["secrets", "configs"])
async def test_a_secret_that_lost_its_answer_is_made_once(group: Managers, kind: str) -> None:
    group.backends["h2"].way = broken(1, deliver=True)
    status, answer = await group.clients["h2"].call("POST", f"/{kind}/create", {"Name": "one", "Data": "QQ=="})
    assert status == 201
    _, listed = await group.clients["h1"].call("GET", f"/{kind}")
    assert [item["ID"] for item in listed] == [answer["ID"]]


@pytest.mark.parametrize("deliver", [False, True])
async def test_an_update_that_lost_its_answer_is_made_once(group: Managers, deliver: bool) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    _, service = await client.call("GET", "/services/web")
    version = service["Version"]["Index"]
    group.backends["h2"].way = broken(1, deliver=deliver)
    body = service_body(Labels={"a": "b"})
    status, _ = await client.call("POST", f"/services/web/update?version={version}", body)
    assert status == 200
    _, after = await client.call("GET", "/services/web")
    assert after["Spec"]["Labels"] == {"a": "b"}
    assert after["PreviousSpec"]["Labels"] == {}
    assert (await client.call("POST", f"/services/web/update?version={version}", body))[0] == 500


async def test_a_rollback_that_lost_its_answer_is_made_once(group: Managers) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    for label in ("1", "2"):
        _, service = await client.call("GET", "/services/web")
        target = f"/services/web/update?version={service['Version']['Index']}"
        assert (await client.call("POST", target, service_body(Labels={"n": label})))[0] == 200
    _, service = await client.call("GET", "/services/web")
    group.backends["h2"].way = broken(1, deliver=True)
    target = f"/services/web/update?version={service['Version']['Index']}&rollback=previous"
    assert (await client.call("POST", target, service["Spec"]))[0] == 200
    _, service = await client.call("GET", "/services/web")
    assert service["Spec"]["Labels"] == {"n": "1"}


async def test_nobody_claims_a_change_that_a_third_write_may_have_covered(group: Managers) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    _, service = await client.call("GET", "/services/web")
    version = service["Version"]["Index"]
    deliver = broken(1, deliver=True)

    async def covered(backend: ManagerBackend, caller: str) -> Link:
        if len(backend.callers) > 2:
            _, seen = await group.clients["h1"].call("GET", "/services/web")
            newer = f"/services/web/update?version={seen['Version']['Index']}"
            assert (await group.clients["h1"].call("POST", newer, service_body(Labels={"by": "another"})))[0] == 200
        return await deliver(backend, caller)

    group.backends["h2"].way = covered
    status, answer = await client.call(
        "POST", f"/services/web/update?version={version}", service_body(Labels={"a": "b"})
    )
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


@pytest.mark.parametrize("deliver", [False, True])
@pytest.mark.parametrize("what", ["services", "secrets", "configs"])
async def test_a_removal_that_lost_its_answer_is_made_once(group: Managers, deliver: bool, what: str) -> None:
    client = group.clients["h2"]
    body = service_body("one") if what == "services" else {"Name": "one", "Data": "QQ=="}
    await client.call("POST", f"/{what}/create", body)
    group.backends["h2"].way = broken(1, deliver=deliver)
    assert (await client.call("DELETE", f"/{what}/one"))[0] in (200, 204)
    assert (await client.call("GET", f"/{what}"))[1] == []
    assert (await client.call("DELETE", f"/{what}/one"))[0] == 404


async def test_a_repeated_removal_never_takes_a_later_object_of_that_name(group: Managers) -> None:
    client = group.clients["h2"]
    await client.call("POST", "/services/create", service_body())
    deliver = broken(1, deliver=True)

    async def made_anew(backend: ManagerBackend, caller: str) -> Link:
        if len(backend.callers) > 2:
            assert (await group.clients["h1"].call("POST", "/services/create", service_body()))[0] == 201
        return await deliver(backend, caller)

    group.backends["h2"].way = made_anew
    status, _ = await client.call("DELETE", "/services/web")
    assert status == 503
    assert names(group, "h1") == ["web"]


async def test_settings_and_nodes_that_lost_their_answers(group: Managers) -> None:
    client = group.clients["h2"]
    _, swarm = await client.call("GET", "/swarm")
    spec = swarm["Spec"] | {"Orchestration": {"TaskHistoryRetentionLimit": 7}}
    group.backends["h2"].way = broken(1, deliver=True)
    assert (await client.call("POST", f"/swarm/update?version={swarm['Version']['Index']}", spec))[0] == 200
    _, node = await client.call("GET", f"/nodes/{group.ids['h3']}")
    group.backends["h2"].way = broken(1, deliver=True)
    target = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
    assert (await client.call("POST", target, node["Spec"] | {"Labels": {"a": "b"}}))[0] == 200
    assert (await client.call("GET", f"/nodes/{node['ID']}"))[1]["Spec"]["Labels"] == {"a": "b"}


async def test_a_rotated_token_is_never_taken_for_granted(group: Managers) -> None:
    """Who lost the answer cannot know whether the new token is this request's: it is told so."""
    client = group.clients["h2"]
    _, swarm = await client.call("GET", "/swarm")
    group.backends["h2"].way = broken(1, deliver=True)
    target = f"/swarm/update?version={swarm['Version']['Index']}&rotateWorkerToken=true"
    status, answer = await client.call("POST", target, swarm["Spec"])
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


async def test_a_frozen_leader_is_left_as_soon_as_another_one_leads(group: Managers) -> None:
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        while not group.backends["h2"].callers:
            await asyncio.sleep(0)
    group.backends["h2"].way = None
    began = time.monotonic()
    group.elect("h3")
    async with asyncio.timeout(5):
        status, _ = await asking
    assert (status, names(group, "h3")) == (201, ["web"])
    assert time.monotonic() - began < 1.0
    assert "sent again" not in str(group.backends["h3"].callers)


async def test_a_leader_that_loses_its_place_while_it_writes_hands_the_write_on(group: Managers) -> None:
    """The client's own manager led; the entry was under way when it lost: it is made once, at the next leader."""
    group.seats["h1"].cut_off = True
    asking = asyncio.create_task(group.clients["h1"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        while not group.seats["h1"].waiting:
            await asyncio.sleep(0)
        group.seats["h1"].cut_off = False
        group.elect("h2")
        status, answer = await asking
    assert status == 201
    assert [service.id for service in store_of(group, "h2").view(lambda tx: tx.all(Service))] == [answer["ID"]]


async def test_a_write_waits_for_the_election(group: Managers) -> None:
    for name in group.names:
        group.tell(name, "")
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert not done
    group.elect("h2")
    async with asyncio.timeout(5):
        assert (await asking)[0] == 201
    assert group.backends["h2"].callers == []


async def test_a_write_waits_until_the_new_leader_is_ready(group: Managers) -> None:
    group.term += 1
    group.tell("h2", "h2", leading=False)
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    done, _ = await asyncio.wait({asking}, timeout=0.1)
    assert not done
    group.elect("h2")
    async with asyncio.timeout(5):
        assert (await asking)[0] == 201


async def test_a_request_that_was_sent_on_is_never_sent_further(group: Managers) -> None:
    """Two managers that each take the other for the leader must not play ball with a request."""
    group.term += 1
    group.tell("h2", "h3")
    group.tell("h3", "h2")
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        while len(group.backends["h2"].callers) < 3:
            await asyncio.sleep(0)
        assert group.backends["h3"].callers == []
        group.elect("h1")
        assert (await asking)[0] == 201
    assert names(group, "h1") == ["web"]


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


# -- streams


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


# -- without a quorum


async def test_reads_are_answered_at_once_and_marked_when_a_quorum_is_missing(group: Managers) -> None:
    await group.clients["h2"].call("POST", "/services/create", service_body())
    group.lose_quorum(since=5)
    for target in ("/services", "/nodes", "/tasks", "/swarm", "/services/web", "/networks", "/secrets"):
        began = time.monotonic()
        async with group.clients["h2"].session.get(f"http://d{target}") as answer:
            await answer.read()
            assert (answer.status, answer.headers["Warning"][:4]) == (200, "110 "), target
        assert time.monotonic() - began < 0.2, target


async def test_reads_during_an_election_wait_a_moment_and_are_marked(group: Managers) -> None:
    group.lose_quorum()
    began = time.monotonic()
    async with group.clients["h2"].session.get("http://d/services") as answer:
        assert "Warning" in answer.headers
    assert 0.1 < time.monotonic() - began < 0.4


async def test_writes_fail_at_once_and_say_who_is_missing_and_what_to_do(group: Managers) -> None:
    group.lose_quorum(since=5)
    for method, target in (("POST", "/services/create"), ("DELETE", "/services/web"), ("GET", "/swarm/unlockkey")):
        began = time.monotonic()
        status, answer = await group.clients["h2"].call(method, target, service_body() if method == "POST" else None)
        assert time.monotonic() - began < 0.2
        assert status == 503
        assert "The swarm does not have a leader" in answer["message"]
        assert "h1 (10.0.0.1:2377), h3 (10.0.0.3:2377)" in answer["message"]
        assert "docker swarm init --force-new-cluster" in answer["message"]


async def test_a_write_under_way_when_the_quorum_goes_is_told_that_nobody_knows(group: Managers) -> None:
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        await received(group)
        group.lose_quorum(since=5)
        status, answer = await asking
    assert status == 503
    assert "may have been made or not" in answer["message"]
    assert "--force-new-cluster" in answer["message"]


async def test_a_leader_that_refuses_for_now_does_not_hide_an_unknown_outcome(group: Managers) -> None:
    """The first attempt may have been taken; that the second found nobody says nothing of it."""
    first = broken(1, deliver=True)

    async def way(backend: ManagerBackend, caller: str) -> Link:
        if len(backend.callers) == 1:
            return await first(backend, caller)
        raise Unavailable("nobody leads")

    group.backends["h2"].way = way
    status, answer = await group.clients["h2"].call("POST", "/services/create", service_body())
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


# -- nodes that are no managers


async def test_reads_that_nobody_waits_for_any_more_end_quietly(
    group: Managers, caplog: pytest.LogCaptureFixture
) -> None:
    """The question behind a read goes on when its reader has its stale answer; that it fails then is no news."""
    asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def barrier() -> int:
        return await asyncio.shield(asked)

    store_of(group, "h2").barrier = barrier  # type: ignore[method-assign]
    async with group.clients["h2"].session.get("http://d/services") as answer:
        assert "Warning" in answer.headers
    asked.set_exception(NotLeader())
    async with group.clients["h2"].session.get("http://d/services") as answer:
        assert "Warning" in answer.headers
    gc.collect()
    assert "never retrieved" not in caplog.text


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


async def test_a_manager_that_becomes_a_worker_meanwhile(group: Managers) -> None:
    group.backends["h2"].way = silence
    asking = asyncio.create_task(group.clients["h2"].call("POST", "/services/create", service_body()))
    async with asyncio.timeout(10):
        await received(group)
        backend = group.backends["h2"]
        backend.store, backend.is_manager = None, False
        backend.show_group(None)
        status, answer = await asking
    assert (status, "may have been made or not" in answer["message"]) == (503, True)


async def test_many_writes_while_the_leader_changes_are_each_made_once(group: Managers) -> None:
    """Forty clients at all managers, and a leader that is another one every few turns."""

    async def create(number: int) -> tuple[int, Any]:
        client = group.clients[group.names[number % 3]]
        return await client.call("POST", "/secrets/create", {"Name": f"s{number}", "Data": "QQ=="})

    async def unrest() -> None:
        while True:
            for name in ("h2", "h3", "h1"):
                await asyncio.sleep(0.02)
                group.elect(name)

    restless = asyncio.create_task(unrest())
    async with asyncio.timeout(40):
        answers = await asyncio.gather(*[create(number) for number in range(40)])
    restless.cancel()
    found = store_of(group, "h1").view(lambda tx: tx.all(Secret))
    assert [status for status, _ in answers] == [201] * 40
    assert sorted(answer["ID"] for _, answer in answers) == sorted(secret.id for secret in found)


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
