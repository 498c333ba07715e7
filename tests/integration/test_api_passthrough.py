"""The unmodified docker CLI on the agent's socket, for everything that is the host engine's own business."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from cluster import DOCKER, AgentProcess, eventually
from engine import IMAGE, PrivateEngine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which(DOCKER) is None, reason="needs a docker CLI"),
]


@pytest.fixture
async def agent(engine: PrivateEngine) -> AsyncIterator[AgentProcess]:
    """An agent in front of the session's engine, in no swarm."""
    folder = Path(tempfile.mkdtemp(prefix="st-pass-"))
    address = f"127.{random.randrange(80, 250)}.99.1"
    agent = AgentProcess("front", folder, address, engine=f"unix://{engine.socket}")
    agent.start()
    try:
        await agent.ready()
        yield agent
    finally:
        agent.kill(signal.SIGTERM)
        shutil.rmtree(folder)


async def run(agent: AgentProcess, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Exit code and both outputs of the docker CLI."""
    process = await asyncio.create_subprocess_exec(
        DOCKER,
        *arguments,
        env={**os.environ, "DOCKER_HOST": agent.host, "DOCKER_BUILDKIT": "0"},
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err


async def sleeper(agent: AgentProcess, script: str = "sleep 1000") -> str:
    """A container that stays."""
    return (await agent.docker("run", "-d", "--init", "--network", "none", IMAGE, "sh", "-c", script)).strip()


async def test_run_keeps_outputs_apart_and_tells_the_exit_code(agent: AgentProcess) -> None:
    script = "echo out; echo err >&2; exit 7"
    code, out, err = await run(agent, "run", "--rm", "--network", "none", IMAGE, "sh", "-c", script)
    assert (code, out, err.splitlines()[0]) == (7, b"out\n", b"err")


async def test_exec_passes_a_large_input_and_its_end(agent: AgentProcess) -> None:
    container = await sleeper(agent)
    data = random.Random(1).randbytes(3_000_000)
    code, out, _ = await run(agent, "exec", "-i", container, "md5sum", stdin=data)
    assert code == 0
    assert out.split()[0].decode() == hashlib.md5(data).hexdigest()
    code, out, _ = await run(agent, "exec", "-i", container, "sh", "-c", "cat; echo after; exit 3", stdin=b"before ")
    assert (code, out) == (3, b"before after\n")


async def test_exec_with_a_terminal(agent: AgentProcess) -> None:
    container = await sleeper(agent)
    master, slave = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            DOCKER, "-H", agent.host, "exec", "-it", container, "sh", stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        os.write(master, b"tty; echo $((6*7))x; exit 5\n")
        assert await process.wait() == 5
        seen = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(master, 4096):
                seen += chunk
    finally:
        os.close(master)
    assert b"/dev/pts/0" in seen
    assert b"42x" in seen


async def test_attach_sees_what_is_typed_come_back(agent: AgentProcess) -> None:
    container = (
        await agent.docker("create", "-i", "--network", "none", IMAGE, "sh", "-c", "read x; echo got $x")
    ).strip()
    code, out, _ = await run(agent, "start", "-ai", container, stdin=b"hello\n")
    assert (code, out) == (0, b"got hello\n")


async def test_copy_both_ways(agent: AgentProcess, tmp_path: Path) -> None:
    container = await sleeper(agent)
    source, back = tmp_path / "a.bin", tmp_path / "b.bin"
    source.write_bytes(random.Random(2).randbytes(5_000_000))
    await agent.docker("cp", str(source), f"{container}:/tmp/a.bin")
    await agent.docker("cp", f"{container}:/tmp/a.bin", str(back))
    assert source.read_bytes() == back.read_bytes()


async def test_save_and_load(agent: AgentProcess, tmp_path: Path) -> None:
    await agent.docker("tag", IMAGE, "saved:1")
    await agent.docker("save", "-o", str(tmp_path / "image.tar"), "saved:1")
    await agent.docker("rmi", "saved:1")
    assert "saved:1" in await agent.docker("load", "-i", str(tmp_path / "image.tar"))


async def test_build_streams_a_context_and_its_progress(agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY data /data\nRUN [ -s /data ] && echo here it is\n")
    (tmp_path / "data").write_bytes(b"x" * 2_000_000)
    code, out, err = await run(agent, "build", "--network", "none", "-t", "built:1", str(tmp_path))
    assert code == 0, err.decode()
    assert b"here it is\n" in out


async def test_logs_follow_until_the_end(agent: AgentProcess) -> None:
    container = await sleeper(agent, "for i in 1 2 3; do echo line $i; sleep 0.3; done")
    code, out, _ = await run(agent, "logs", "-f", container)
    assert (code, out) == (0, b"line 1\nline 2\nline 3\n")


async def test_stats_and_top(agent: AgentProcess) -> None:
    container = await sleeper(agent)
    assert container[:12] in await agent.docker("stats", "--no-stream", container)
    assert "sleep 1000" in await agent.docker("top", container)


async def test_events_come_while_they_happen(agent: AgentProcess) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(agent.socket))) as session,
        session.get("http://d/v1.41/events", params={"filters": json.dumps({"type": ["container"]})}) as stream,
    ):
        container = await sleeper(agent)
        seen = []
        async for line in stream.content:
            event = json.loads(line)
            if event["id"] == container:
                seen.append(event["Action"])
                if seen[-1] == "start":
                    break
    assert seen == ["create", "start"]


async def test_info_and_version_are_the_engines_with_our_part(agent: AgentProcess, engine: PrivateEngine) -> None:
    theirs = json.loads(engine.call("GET", "/info"))
    ours = (await agent.api("GET", "/v1.41/info"))[1]
    assert ours["ID"] == theirs["ID"]
    assert ours.keys() == theirs.keys()
    versions = (await agent.api("GET", "/version"))[1]
    assert versions["ApiVersion"] == json.loads(engine.call("GET", "/version"))["ApiVersion"]
    assert versions["Components"][-1]["Name"] == "swarmtui-agent"
    await agent.api("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": agent.address})
    swarm = (await agent.api("GET", "/info"))[1]["Swarm"]
    assert (swarm["LocalNodeState"], swarm["ControlAvailable"], swarm["Nodes"]) == ("active", True, 1)
    assert json.loads(engine.call("GET", "/info"))["Swarm"]["LocalNodeState"] == "inactive"


async def test_errors_are_the_engines(agent: AgentProcess) -> None:
    assert (await agent.api("GET", "/v1.41/containers/nosuch/json"))[0] == 404
    code, _, err = await run(agent, "exec", "nosuch", "true")
    assert (code, err) == (1, b"Error response from daemon: No such container: nosuch\n")


async def test_a_refused_exec_leaves_the_connection_to_the_swarm(agent: AgentProcess) -> None:
    """What is asked after it on the same connection must not reach the engine, which is in no swarm."""
    reader, writer = await asyncio.open_unix_connection(str(agent.socket))
    body = b'{"Detach":false,"Tty":false}'
    head = "POST /v1.41/exec/nosuch/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n".encode())
    writer.write(b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + body)
    writer.write(b"GET /v1.41/swarm HTTP/1.1\r\nHost: d\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"Connection: close" in answer
    assert b"swarm manager" not in answer
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_dead_engine_is_said_and_the_swarm_goes_on(agent: AgentProcess, engine: PrivateEngine) -> None:
    await agent.api("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": agent.address})
    await eventually(agent, lambda nodes: nodes[0]["Status"]["State"] == "ready", "/nodes", 10)
    engine.stop(kill=True)
    try:
        code, _, err = await run(agent, "ps")
        assert code == 1
        assert b"Cannot connect to the Docker Engine of this host at unix://" in err
        assert b"Is it running?" in err
        assert (await agent.api("GET", "/nodes"))[0] == 200
        assert "front" in await agent.docker("node", "ls")
        code, out, err = await run(agent, "info")
        assert (code, b"Is Manager: true" in out) == (0, True)
        assert b"WARNING: Cannot connect to the Docker Engine" in err
    finally:
        engine.start()
    assert (await run(agent, "ps"))[0] == 0
