"""The unix socket: who may use it, what is replaced, what is left alone; and the line in the audit log."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import re
import socket
import stat
from pathlib import Path

import pytest
from api_scripted import ScriptedBackend, init_body, served, service_body

from agent.api.listening import SocketUnusable, open_socket
from agent.api.server import ApiServer


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_it_is_for_the_owner_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listening = open_socket(str(path), grp.getgrgid(os.getgid()).gr_name)
    assert mode_of(path) == 0o660
    listening.sock.close()
    listening.remove()
    assert not path.exists()


async def test_a_group_that_does_not_exist_is_no_hindrance(tmp_path: Path) -> None:
    listening = open_socket(str(tmp_path / "s"), "no-such-group")
    assert mode_of(tmp_path / "s") == 0o660
    listening.sock.close()


async def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.is_socket()
    async with served(ScriptedBackend(), tmp_path) as client:
        assert (await client.call("GET", "/_ping"))[1] == b"OK"
    assert not path.exists()


async def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    async with served(ScriptedBackend(), tmp_path) as client:
        with pytest.raises(SocketUnusable, match=r"another process listens on .*: stop it or choose another --socket"):
            async with ApiServer(ScriptedBackend(), str(tmp_path / "api.sock")):
                pass
        assert (await client.call("GET", "/_ping"))[0] == 200


async def test_a_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SocketUnusable, match="exists and is not a socket"):
        open_socket(str(tmp_path / "s"))
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/tmp/" + "x" * 103, "has 108 bytes, the kernel takes 107: choose a shorter --socket"),
        ("/nonexistent/s", "the folder of the socket /nonexistent/s does not exist"),
    ],
)
async def test_paths_that_cannot_be(path: str, text: str) -> None:
    with pytest.raises(SocketUnusable, match=re.escape(text)):
        open_socket(path)


async def test_another_agents_socket_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = open_socket(str(path))
    path.unlink()
    second = open_socket(str(path))
    first.remove()
    assert path.is_socket()
    for listening in (first, second):
        listening.sock.close()


async def test_accepted_writes_are_audited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swarmtui.audit")
    async with served(ScriptedBackend(), tmp_path) as client:
        await client.call("POST", "/swarm/init", init_body())
        service = (await client.call("POST", "/v1.41/services/create", service_body()))[1]["ID"]
        await client.call("POST", "/services/create", service_body())
        await client.call("GET", "/services")
    told = [record.getMessage() for record in caplog.records if record.name == "swarmtui.audit"]
    who = f"uid={os.getuid()} gid={os.getgid()} pid={os.getpid()}"
    assert told[1:] == [f"POST /services/create 201 from {who}: service web ({service})"]


async def test_stopping_breaks_streams_off_at_once(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    server = ApiServer(backend, str(tmp_path / "s"), group=None)
    async with server:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        before = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - before < 1
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert not (tmp_path / "s").exists()


async def test_the_heads_of_answers(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    async with served(backend, tmp_path) as client:
        async with client.session.head("http://d/_ping") as ping:
            head = ping.headers
        assert (head["Api-Version"], head["Ostype"], head["Docker-Experimental"]) == ("1.41", "linux", "false")
        assert (head["Swarm"], head["Content-Length"]) == ("inactive", "0")
        assert head["Cache-Control"] == "no-cache, no-store, must-revalidate"
        await client.call("POST", "/swarm/init", init_body())
        async with client.session.get("http://d/v1.24/_ping") as ping:
            assert (ping.headers["Swarm"], await ping.text()) == ("active/manager", "OK")
        async with client.session.get("http://d/v7.77/nodes") as nodes:
            assert (nodes.status, nodes.headers["Api-Version"]) == (200, "1.41")
        async with client.session.get("http://d/nodes/nosuch") as refused:
            assert (refused.headers["Api-Version"], refused.content_type) == ("1.41", "application/json")
