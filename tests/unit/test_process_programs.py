"""The programs of the shipped images: settings, HTTP, and how little they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.worker.executors.images import programs
from agent.worker.executors.images.programs import logger
from agent.worker.executors.images.programs.serving import (
    MAX_HEAD,
    Answer,
    BadRequest,
    Request,
    Server,
    body_length,
    parse_head,
    parse_wait,
)
from agent.worker.executors.images.programs.sites import Page, Place, Web, WhoAmI, choose_port, json_object
from agent.worker.executors.process import shim
from agent.worker.executors.process.spawning import interpreter

MAIN = Path(programs.__file__).with_name("__main__.py")


@contextmanager
def serving(respond: Callable[[Request], Answer]) -> Iterator[tuple[str, int]]:
    server = Server("127.0.0.1", 0, respond, lambda _text: None)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


def respond(request: Request) -> Answer:
    return Answer(f"{request.method} {request.path} {request.query}")


def test_requests_on_one_connection_and_head() -> None:
    with serving(respond) as address:
        connection = HTTPConnection(*address, timeout=10)
        for number in range(3):
            connection.request("GET", f"/{number}?a=b")
            assert connection.getresponse().read() == f"GET /{number} a=b".encode()
        connection.request("HEAD", "/x")
        answer = connection.getresponse()
        assert (answer.read(), answer.headers["Content-Length"]) == (b"", str(len("HEAD /x ")))
        connection.request("POST", "/y", body=b"z" * 100_000)
        assert connection.getresponse().read() == b"POST /y "
        connection.request("DELETE", "/y")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (405, b"Method Not Allowed\n")
        connection.close()


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    with create_connection(address, 10) as sock:
        sock.sendall(data)
        received = b""
        while part := sock.recv(65536):
            received += part
    return received


def test_pipelined_and_http_1_0() -> None:
    with serving(respond) as address:
        both = exchange(address, b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert both.count(b"200 OK") == 2
        assert both.index(b"GET /a") < both.index(b"GET /b")
        assert exchange(address, b"GET /a HTTP/1.0\r\n\r\n").endswith(b"GET /a ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEAD + b"\r\n\r\n", 431),
        (b"x" * (MAX_HEAD + 1), 431),
    ],
)
def test_what_is_no_request_is_told_so_and_the_server_goes_on(data: bytes, status: int) -> None:
    with serving(respond) as address:
        assert exchange(address, data).startswith(f"HTTP/1.1 {status} ".encode())
        assert exchange(address, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=6))
def test_any_bytes_leave_the_server_standing(chunks: list[bytes]) -> None:
    with serving(respond) as address:
        with create_connection(address, 10) as sock:
            for chunk in chunks:
                try:
                    sock.sendall(chunk)
                except (BrokenPipeError, ConnectionResetError):
                    break
        assert exchange(address, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_head_is_parsed_or_refused(head: bytes) -> None:
    with suppress(BadRequest):
        body_length(parse_head(head, "x"))


def test_stopping_answers_what_has_come() -> None:
    with serving(respond) as address:
        idle = create_connection(address, 10)
        waiting = create_connection(address, 10)
        waiting.sendall(b"GET /slow?wait=300ms HTTP/1.1\r\n\r\n")
        exchange(address, b"GET / HTTP/1.0\r\n\r\n")
        # `serving` stops the server here, with one request held back and one connection idle.
    assert waiting.recv(65536).endswith(b"GET /slow wait=300ms")
    assert waiting.recv(10) == b""
    assert idle.recv(10) == b""
    waiting.close()
    idle.close()


def test_waits() -> None:
    found = [parse_wait(text) for text in ("", "2s", "200ms", "3", "x", "-1s", "1e9s", "nan", "inf")]
    assert found == [0, 2, 0.2, 3, 0, 0, 60, 0, 60]


def test_ports() -> None:
    assert choose_port("whoami", [], {}) == 8000
    assert choose_port("web", [], {}) == 80
    assert choose_port("web", [], {"TASK_PORT_SHIFT": "8000"}) == 8080
    assert choose_port("web", [], {"PORT": "9000", "TASK_PORT_SHIFT": "8000"}) == 9000
    assert choose_port("web", ["--port", "81"], {"PORT": "9000", "TASK_PORT_SHIFT": "8000"}) == 8081
    for arguments, environment in ((["--port"], {}), (["--port", "x"], {}), ([], {"PORT": "70000"})):
        with pytest.raises(ValueError, match="is no port"):
            choose_port("web", arguments, environment)


def test_the_pages() -> None:
    place = Place(
        {"TASK_NAME": "web.1.<x>", "TASK_SLOT": "1", "NODE_HOSTNAME": "n", "HOSTNAME": "h", "TASK_ADDRESS": "a"}, 80
    )

    def get(path: str) -> Request:
        return Request("GET", path, "HTTP/1.1", {}, "client")

    whoami = WhoAmI(place)
    facts = json.loads(whoami.respond(get("/api")).body)
    assert facts == {
        "hostname": "h",
        "task": "web.1.<x>",
        "service": "",
        "slot": 1,
        "node": "n",
        "address": "a:80",
        "remote": "client",
        "requests": 1,
        "pid": os.getpid(),
    }
    assert whoami.respond(get("/")).body.startswith(b"I'm h\nTask: web.1.<x>\nSlot: 1\n")
    assert whoami.respond(get("/nosuch")).status == 404
    web = Web(place, "1.1")
    assert web.respond(get("/version")).body == b"1.1\n"
    assert b"web.1.&lt;x&gt;" in web.respond(get("/")).body
    assert b"stand-in for nginx" in Page("nginx").respond(get("/")).body
    assert Page("nginx").respond(get("/x")).status == 404


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers())))
def test_json_is_json(facts: dict[str, str | int]) -> None:
    assert json.loads(json_object(facts)) == facts


@pytest.mark.parametrize(
    "environment",
    [{"RATE": "x"}, {"RATE": "0"}, {"RATE": "-1"}, {"RATE": "nan"}, {"COUNT": "x"}, {"SIZE": "-1"}, {"STREAM": "x"}],
)
def test_settings_of_the_logger_that_are_wrong(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(environment))):
        logger.Settings(environment)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*interpreter(), str(MAIN), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=30,
    )


def test_the_logger_writes_every_line_once() -> None:
    done = run("logger", RATE="max", COUNT="1000", SIZE="50")
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    assert sorted(int(line.split()[1]) for line in lines) == list(range(1, 1001))
    assert {len(line) for line in lines} == {50}
    assert {line.split()[0] for line in done.stderr.splitlines()} == {"WARN", "ERROR"}
    assert run("logger", COUNT="3", RATE="1000", STREAM="both").stderr.count("\n") in (1, 2)


def test_fail() -> None:
    assert run("fail").returncode == 1
    assert run("fail", EXIT_CODE="0").returncode == 0
    assert run("fail", EXIT_CODE="42", AFTER="0.01").returncode == 42
    assert run("fail", EXIT_CODE="x").returncode == 2
    assert run("fail", EXIT_CODE="256").returncode == 2
    assert run("nosuch").returncode == 127


def loaded(code: str) -> set[str]:
    home = str(Path(programs.__file__).parents[5])
    lines = f"import sys; sys.path[0] = {home!r}\n{code}\nprint(*sys.modules)"
    done = subprocess.run([*interpreter(), "-c", lines], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


HEAVY = {
    "socket",
    "selectors",
    "signal",
    "enum",
    "re",
    "json",
    "asyncio",
    "http",
    "logging",
    "typing",
    "collections",
    "msgspec",
}


def test_the_programs_load_next_to_nothing() -> None:
    assert loaded("from agent.worker.executors.images.programs import sites, logger, fail") & HEAVY == set()


def test_the_shim_loads_next_to_nothing() -> None:
    modules = loaded("from agent.worker.executors.process.shim import spawner")
    assert modules & HEAVY == set()
    assert "agent.worker.executors.process.executor" not in modules
    assert Path(shim.__file__).with_name("__main__.py").exists()
    assert sys.version_info >= (3, 11)
