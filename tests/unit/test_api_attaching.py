"""Containers that people run on attachable overlays, in front of an engine and an allocator that are played by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from api_broken_links import broken
from api_managers import managers
from api_scripted import Client, ScriptedBackend, init_body, served
from msgspec.structs import replace

from agent.api.attaching import UNKNOWN
from agent.api.attachments import ROUTE, put, remove
from agent.api.forwarding import Handler
from agent.api.own_requests import ask_for
from agent.api_types.errors import NotFound
from agent.api_types.network import Attachment, NetworkAttachment
from agent.api_types.task import Task
from agent.store.transactions import WriteTx
from agent.worker.interface import TemporaryFailure

CONTAINER = "c" * 64


class Engine:
    """The containers and networks of an engine; `removed` are told of as its events."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, Any]] = []
        self.containers: list[str] = []
        self.refusal = ""
        self.removed: asyncio.Queue[str] = asyncio.Queue()
        self.listens = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.endswith("_ping"):
            return web.Response(text="OK", headers={"Api-Version": "1.41"})
        if path == "/events":
            return await self._events(request)
        if path == "/containers/json":
            return web.json_response([{"Id": container} for container in self.containers])
        if request.method == "POST":
            self.bodies.append((path, await request.json()))
            if self.refusal:
                return web.json_response({"message": self.refusal}, status=404)
            if path.endswith("/containers/create"):
                self.containers.append(CONTAINER)
                return web.json_response({"Id": CONTAINER, "Warnings": []}, status=201)
            return web.Response(status=200)
        if path.startswith("/containers/"):
            return web.json_response({"Id": CONTAINER, "Name": "/db"})
        if path == "/networks/ov":
            return web.json_response({"Name": "ov", "Id": "e" * 64, "Labels": {"swarmtui.network": "x"}})
        return web.json_response({"message": f"{path} not found"}, status=404)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        self.listens.set()
        while True:
            container = await self.removed.get()
            self.containers.remove(container)
            await response.write(json.dumps({"Action": "destroy", "id": container}).encode() + b"\n")


class Host:
    """The host's networks and the executor that puts containers on them."""

    def __init__(self) -> None:
        self.on: dict[str, list[str]] = {}
        self.obstacle = ""

    async def attach(self, task: Task) -> list[NetworkAttachment]:
        if self.obstacle:
            raise TemporaryFailure(self.obstacle)
        self.on[task.id] = [address for each in task.networks_attachments for address in each.addresses]
        return task.networks_attachments

    async def detach(self, task: Task) -> None:
        self.on.pop(task.id, None)

    async def activate(self, task: Task) -> None: ...
    async def deactivate(self, task: Task) -> None: ...

    async def place(self, attachment: NetworkAttachment) -> tuple[str, dict[str, Any], list[str]]:
        name = f"{attachment.network.spec.name}.bridge"
        return name, {"IPAMConfig": {"IPv4Address": attachment.addresses[0].partition("/")[0]}}, ["10.0.1.1"]


@asynccontextmanager
async def swarm(folder: Path) -> AsyncIterator[tuple[Client, Engine, Host, ScriptedBackend]]:
    engine, host = Engine(), Host()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine")).start()
    backend = ScriptedBackend(engine_socket=str(folder / "engine"), executor=host)  # type: ignore[arg-type]
    backend.networks = host
    try:
        async with served(backend, folder) as client:
            await client.call("POST", "/swarm/init", init_body())
            allocating = asyncio.create_task(allocate(backend))
            body = {"Name": "ov", "Driver": "overlay", "Attachable": True}
            assert (await client.call("POST", "/networks/create", body))[0] == 201
            yield client, engine, host, backend
            allocating.cancel()
    finally:
        await runner.cleanup()


async def allocate(backend: ScriptedBackend) -> None:
    """Give every attachment what it asks for, else 10.0.1.7; nothing is left for whoever asks for 10.0.1.99."""
    assert backend.store is not None

    def give(attachment: Attachment, tx: WriteTx) -> None:
        stored = tx.get(Attachment, attachment.id)
        if stored is None or any("/" in address for address in stored.addresses) or stored.err:
            return
        asked = stored.addresses[0] if stored.addresses else "10.0.1.7"
        if asked == "10.0.1.99":
            tx.update(replace(stored, err="address 10.0.1.99 is in use"))
        else:
            tx.update(replace(stored, addresses=[f"{asked}/24"]))

    with backend.store.watch(Attachment) as watch:
        async for commit in watch:
            for event in commit.events:
                attachment = event.object
                assert isinstance(attachment, Attachment)
                await backend.store.update(lambda tx, attachment=attachment: give(attachment, tx))  # type: ignore[misc]


def attachments(backend: ScriptedBackend) -> list[Attachment]:
    assert backend.store is not None
    return backend.store.view(lambda tx: tx.all(Attachment))


def run_body(network: str, **endpoint: Any) -> dict[str, Any]:
    """What `docker run --network NETWORK` sends first."""
    return {
        "Image": "busybox",
        "HostConfig": {"NetworkMode": network, "Dns": ["192.0.2.53"]},
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}},
    }


async def test_a_container_gets_its_address_from_the_managers_and_gives_it_back(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (client, engine, host, backend):
        body = run_body("ov", Aliases=["database"])
        status, answer = await client.call("POST", "/v1.41/containers/create?name=db", body)
        assert (status, answer["Id"]) == (201, CONTAINER)
        ((path, sent),) = engine.bodies
        assert path == "/v1.41/containers/create"
        assert sent["HostConfig"] == {"NetworkMode": "ov.bridge", "Dns": ["10.0.1.1", "192.0.2.53"]}
        assert sent["NetworkingConfig"]["EndpointsConfig"] == {
            "ov.bridge": {"Aliases": ["database"], "IPAMConfig": {"IPv4Address": "10.0.1.7"}}
        }
        assert sent["Image"] == "busybox"
        (attachment,) = attachments(backend)
        assert (attachment.container, attachment.name, attachment.aliases) == (CONTAINER, "db", ["database"])
        assert (attachment.node_id, attachment.addresses) == (backend.node_id, ["10.0.1.7/24"])
        assert host.on == {attachment.id: ["10.0.1.7/24"]}
        status, answer = await client.call("DELETE", "/networks/ov")
        assert (status, f"in use by container {CONTAINER}" in answer["message"]) == (400, True)
        assert backend.store is not None
        with backend.store.watch(Attachment) as watch:
            await engine.listens.wait()
            engine.removed.put_nowait(CONTAINER)
            async with asyncio.timeout(10):
                await anext(watch)
        assert attachments(backend) == []
        assert host.on == {}


async def test_an_address_that_is_asked_for(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (client, engine, _, backend):
        wanted = {"IPAMConfig": {"IPv4Address": "10.0.1.50"}}
        assert (await client.call("POST", "/containers/create", run_body("ov", **wanted)))[0] == 201
        assert attachments(backend)[0].addresses == ["10.0.1.50/24"]
        taken = {"IPAMConfig": {"IPv4Address": "10.0.1.99"}}
        status, answer = await client.call("POST", "/containers/create", run_body("ov", **taken))
        assert (status, answer["message"]) == (503, "Could not attach to network ov: address 10.0.1.99 is in use")
        assert len(attachments(backend)) == len(engine.bodies) == 1


async def test_nothing_is_kept_for_a_container_that_is_not_made(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (client, engine, host, backend):
        engine.refusal = "No such image: busybox:latest"
        assert await client.call("POST", "/containers/create", run_body("ov")) == (404, {"message": engine.refusal})
        assert (attachments(backend), host.on) == ([], {})
        host.obstacle = "waiting for network ov: this host has no VXLAN"
        status, answer = await client.call("POST", "/containers/create", run_body("ov"))
        assert (status, host.obstacle in answer["message"]) == (503, True)
        assert attachments(backend) == []
        assert len(engine.bodies) == 1


async def test_networks_for_services_alone(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (client, engine, _, _):
        await client.call("POST", "/networks/create", {"Name": "closed", "Driver": "overlay"})
        assert await client.call("POST", "/containers/create", run_body("closed")) == (
            403,
            {
                "message": "Could not attach to network closed: rpc error: code = PermissionDenied desc = "
                "network closed not manually attachable"
            },
        )
        assert engine.bodies == []


@pytest.mark.parametrize("network", ["default", "bridge", "host", "none", "container:abc", "mine"])
async def test_other_networks_are_the_engines(tmp_path: Path, network: str) -> None:
    async with swarm(tmp_path) as (client, engine, _, backend):
        assert (await client.call("POST", "/containers/create", run_body(network)))[0] == 201
        assert engine.bodies == [("/containers/create", run_body(network))]
        assert attachments(backend) == []


async def test_connect_and_disconnect(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (client, engine, host, backend):
        engine.containers.append(CONTAINER)
        body = {"Container": "db", "EndpointConfig": {"Aliases": ["x"]}}
        assert (await client.call("POST", "/networks/ov/connect", body))[0] == 200
        path, sent = engine.bodies[-1]
        assert path == "/networks/ov.bridge/connect"
        assert sent == {
            "Container": "db",
            "EndpointConfig": {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "10.0.1.7"}},
        }
        (attachment,) = attachments(backend)
        assert (attachment.container, attachment.name) == (CONTAINER, "db")
        assert (await client.call("POST", "/networks/ov/disconnect", {"Container": "db"}))[0] == 200
        assert engine.bodies[-1][0] == "/networks/ov/disconnect"
        assert (attachments(backend), host.on) == ([], {})
        assert (await client.call("POST", "/networks/mine/connect", body))[0] == 200
        assert engine.bodies[-1] == ("/networks/mine/connect", body)


async def test_a_worker_says_that_it_cannot(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (client, engine, _, backend):
        backend.is_manager = False
        status, answer = await client.call("POST", "/containers/create", run_body("ov"))
        assert (status, "only managers can give a container of yours an address" in answer["message"]) == (503, True)
        assert engine.bodies == []


async def test_a_container_that_was_never_made_keeps_no_address(tmp_path: Path) -> None:
    """The agent died between the two: the address goes once the making has taken longer than it ever may."""
    async with swarm(tmp_path) as (client, engine, _, backend):
        await backend.put(
            Attachment(id="a", network_id="x", node_id=backend.node_id, container=UNKNOWN, addresses=["10.0.1.8/24"])
        )
        backend.now += 301 * 1_000_000_000
        assert backend.store is not None
        with backend.store.watch(Attachment) as watch:
            assert (await client.call("POST", "/containers/create", run_body("ov")))[0] == 201
            engine.containers.append("d" * 64)
            await engine.listens.wait()
            engine.removed.put_nowait("d" * 64)
            async with asyncio.timeout(10):
                while any(each.id == "a" for each in attachments(backend)):
                    await anext(watch)
        assert [each.container for each in attachments(backend)] == [CONTAINER]


# -- at a manager that does not lead


@pytest.mark.parametrize("deliver", [False, True])
async def test_a_follower_has_attachments_made_once_and_removed(tmp_path: Path, deliver: bool) -> None:
    async with managers(tmp_path) as group:
        body = {"Name": "ov", "Driver": "overlay", "Attachable": True}
        group.backends["h2"].way = broken(1, deliver=deliver)
        status, made = await group.clients["h2"].call("POST", "/networks/create", body)
        assert status == 201
        asked = Attachment(
            id="a".ljust(25, "0"), network_id=made["Id"], node_id=group.ids["h2"], container=UNKNOWN, name="db"
        )

        async def ask(method: str, path: str, handler: Handler, body: Attachment | None = None) -> None:
            group.backends["h2"].way = broken(1, deliver=deliver)
            state = group.servers["h2"]._state
            await ask_for(state, method, path, handler, caller="a test", object_id=asked.id, body=body)

        await ask("POST", f"{ROUTE}/create", put, asked)
        (found,) = attachments(group.backends["h1"])
        assert (found.id, found.container, found.name) == (asked.id, UNKNOWN, "db")
        await ask("POST", f"{ROUTE}/create", put, replace(asked, container=CONTAINER))
        (found,) = attachments(group.backends["h1"])
        assert found.container == CONTAINER
        with pytest.raises(NotFound, match="node nowhere not found"):
            await ask_for(
                group.servers["h2"]._state,
                "POST",
                f"{ROUTE}/create",
                put,
                caller="a test",
                object_id="b" * 25,
                body=replace(asked, node_id="nowhere"),
            )
        await ask("DELETE", f"{ROUTE}/{asked.id}", remove)
        assert attachments(group.backends["h1"]) == []


@pytest.mark.parametrize("deliver", [False, True])
async def test_a_network_that_lost_its_answer_is_made_and_removed_once(tmp_path: Path, deliver: bool) -> None:
    async with managers(tmp_path) as group:
        client, follower = group.clients["h2"], group.backends["h2"]
        follower.way = broken(2, deliver=deliver)
        status, made = await client.call("POST", "/networks/create", {"Name": "ov", "Driver": "overlay"})
        assert status == 201
        _, listed = await group.clients["h1"].call("GET", "/networks")
        assert [network["Id"] for network in listed] == [made["Id"]]
        follower.way = broken(1, deliver=deliver)
        assert await client.call("DELETE", "/networks/ov") == (204, None)
        assert await client.call("GET", "/networks") == (200, [])
