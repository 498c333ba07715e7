"""Clients that break off, send rubbish, come in crowds: the agent goes on and keeps nothing of them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_scripted import Client, ScriptedBackend, init_body, served, service_body
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api_types.service import Service


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a manager."""
    async with served(backend, tmp_path) as client:
        assert (await client.call("POST", "/swarm/init", init_body()))[0] == 200
        yield client


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settle(count: int) -> None:
    """Until no more descriptors are open than there were."""
    async with asyncio.timeout(15):
        while descriptors() > count:
            await asyncio.sleep(0.01)


PIECES = st.sampled_from(
    [
        b"GET /nodes HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /v1.41/services?status=true HTTP/1.1\r\nHost: d\r\n\r\n",
        b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\n",
        b"POST /services/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"GET /swarmtui/v1/watch HTTP/1.1\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Expect: 100-continue\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"HEAD /_ping HTTP/1.0\r\n\r\n",
        b"\r\n",
        b"{}",
    ]
)
RUBBISH = st.lists(PIECES | st.binary(max_size=40), max_size=6).map(b"".join)


async def test_any_bytes_at_all(client: Client, tmp_path: Path) -> None:
    sent: list[bytes] = []

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(RUBBISH)
    def collect(data: bytes) -> None:
        sent.append(data)

    collect()
    before = descriptors()
    for data in sent:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        writer.write(data)
        writer.write_eof()
        try:
            async with asyncio.timeout(10):
                # A watch goes on for as long as somebody may be listening.
                answer = await reader.read() if b"/watch" not in data else await reader.read(64)
        except ConnectionError:
            answer = b""
        assert answer[:9] in (b"", b"HTTP/1.1 ", b"HTTP/1.0 "), (data, answer)
        writer.transport.abort()
    await settle(before)
    assert (await client.call("GET", "/nodes"))[0] == 200


async def test_a_crowd_that_breaks_off_anywhere(client: Client, backend: ScriptedBackend, tmp_path: Path) -> None:
    """Three hundred clients at once, most of which are lost in the middle of something."""
    before = descriptors()
    rng = random.Random(7)
    body = b'{"Name": "x%d", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}'

    async def one(number: int) -> None:
        data = body % number
        requests = [
            b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data),
            b"GET /swarmtui/v1/watch HTTP/1.1\r\nHost: d\r\n\r\n",
            b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n",
            b"GET /services?status=true HTTP/1.1\r\nHost: d\r\n\r\n",
        ]
        request = rng.choice(requests)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        writer.write(request[: rng.randrange(1, len(request) + 1)])
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() / 50)
        writer.transport.abort()
        del reader

    await asyncio.gather(*(one(number) for number in range(300)))
    await settle(before + 1)
    assert (await client.call("POST", "/services/create", service_body("after")))[0] == 201
    assert backend.store is not None
    names = [service.spec.name for service in backend.store.view(lambda tx: tx.all(Service))]
    assert len(names) == len(set(names)), "a change that was cut off is made once or not at all"


async def test_a_pipeline_is_answered_in_order(client: Client, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
    paths = ["/nodes", "/services/nosuch", "/_ping", "/tasks"] * 10
    writer.write(b"".join(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode() for path in paths))
    writer.write_eof()
    async with asyncio.timeout(10):
        answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"404", b"200", b"200"] * 10
    writer.close()
    await writer.wait_closed()


async def test_writers_of_one_object_do_not_lose_changes(client: Client) -> None:
    """Twenty clients change one service from the same version: one is taken, the others are told to read again."""
    await client.call("POST", "/services/create", service_body())
    version = (await client.call("GET", "/services/web"))[1]["Version"]["Index"]
    told = await asyncio.gather(
        *(
            client.call("POST", f"/services/web/update?version={version}", service_body(Labels={"n": str(n)}))
            for n in range(20)
        )
    )
    assert sorted(status for status, _ in told) == [200] + [500] * 19
    assert {answer["message"] for status, answer in told if status == 500} == {
        "rpc error: code = Unknown desc = update out of sequence"
    }


async def test_twenty_of_one_name(client: Client) -> None:
    told = await asyncio.gather(*(client.call("POST", "/services/create", service_body()) for _ in range(20)))
    assert sorted(status for status, _ in told) == [201] + [409] * 19
