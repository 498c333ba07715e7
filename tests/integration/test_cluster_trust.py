"""Who gets in, and where secrets are not: tokens, foreign clusters, files, logs, process lists."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import stat
from pathlib import Path

from cluster import AgentProcess, Cluster, pids_naming, running_cluster


def files_holding(folder: Path, secret: str) -> list[Path]:
    """Files under `folder` with the secret in them, as text or as its parts in any encoding the agent uses."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes()
    ]


async def join(node: AgentProcess, token: str, address: str) -> str:
    status, answer = await node.api(
        "POST",
        "/swarm/join",
        {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": [f"{address}:2377"], "JoinToken": token},
    )
    return "" if status == 200 else str(answer["message"])


async def newcomer(swarm: Cluster) -> AgentProcess:
    node = swarm.add()
    node.start()
    await node.ready()
    return node


async def test_no_secret_in_files_logs_and_process_lists() -> None:
    async with running_cluster(2) as swarm:
        tokens = (await swarm.manager.api("GET", "/swarm"))[1]["JoinTokens"]
        secrets = [token.rsplit("-", 1)[1] for token in tokens.values()]
        assert all(len(secret) == 25 for secret in secrets)
        status, _ = await swarm.manager.api("POST", "/swarm/update?version=0", {})
        assert status != 200
        for secret in secrets:
            assert files_holding(swarm.folder, secret) == []
            assert pids_naming(secret) == []
        # The authority's key is in the store alone, which is sealed; the node's own key is in one file for root.
        keys = files_holding(swarm.folder, "PRIVATE KEY")
        assert {path.name for path in keys} == {"identity.json"}
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys)
        assert stat.S_IMODE(swarm.manager.socket.stat().st_mode) == 0o660


async def test_only_who_has_the_token_gets_in() -> None:
    async with running_cluster(1) as swarm, running_cluster(1) as other:
        node = await newcomer(swarm)
        token = (await swarm.manager.api("GET", "/swarm"))[1]["JoinTokens"]["Worker"]
        foreign = (await other.manager.api("GET", "/swarm"))[1]["JoinTokens"]["Worker"]
        changed = token[:-1] + ("0" if token[-1] != "0" else "1")
        assert await join(node, "SWMTKN-1-bad", swarm.manager.address) == "invalid join token"
        assert "invalid join token" in await join(node, changed, swarm.manager.address)
        assert await join(node, foreign, swarm.manager.address) != ""
        assert "token" in swarm.manager.log, "the manager tells its operator too"
        assert not (node.folder / "data" / "swarm" / "swarm.json").exists()
        assert (await swarm.manager.api("GET", "/nodes"))[1][0]["Description"]["Hostname"] == "node1"
        assert await join(node, token, swarm.manager.address) == ""
        manager = (await swarm.manager.api("GET", "/swarm"))[1]["JoinTokens"]["Manager"]
        second = await newcomer(swarm)
        assert await join(second, manager, swarm.manager.address) == ""
        assert (await second.api("GET", "/info"))[1]["Swarm"]["ControlAvailable"], "the other token makes a manager"


async def test_a_removed_node_is_told_and_forgets_the_swarm() -> None:
    async with running_cluster(2) as swarm:
        worker = swarm.nodes[1]
        node_id = (await worker.api("GET", "/info"))[1]["Swarm"]["NodeID"]
        status, answer = await swarm.manager.api("DELETE", f"/nodes/{node_id}")
        assert status == 400, answer
        assert "is not down and can't be removed" in answer["message"]
        status, _ = await swarm.manager.api("DELETE", f"/nodes/{node_id}?force=1")
        assert status == 200
        async with asyncio.timeout(10):
            while (await worker.api("GET", "/info"))[1]["Swarm"]["LocalNodeState"] != "inactive":
                await asyncio.sleep(0.05)
        assert not (worker.folder / "data" / "swarm").exists()
        token = (await swarm.manager.api("GET", "/swarm"))[1]["JoinTokens"]["Worker"]
        assert await join(worker, token, swarm.manager.address) == "", "it may come back as a new node"


async def test_the_listener_goes_on_after_strangers() -> None:
    async with running_cluster(2) as swarm:
        address = swarm.manager.address
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        for greeting in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 5000, b"\x16\x03\x01" + b"\xff" * 600, b""):
            reader, writer = await asyncio.open_connection(address, 2377)
            writer.write(greeting)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.5):
                    await reader.read()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        reader, writer = await asyncio.open_connection(address, 2377, ssl=context)
        writer.write(b"\xff" * 10_000)
        with contextlib.suppress(OSError):
            async with asyncio.timeout(5):
                await reader.read()
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        nodes = (await swarm.manager.api("GET", "/nodes"))[1]
        assert [node["Status"]["State"] for node in nodes] == ["ready", "ready"]


async def test_an_init_that_was_killed_leaves_nothing_to_the_next_one() -> None:
    async with running_cluster(1) as swarm:
        node = swarm.manager
        first = (await node.api("GET", "/swarm"))[1]["ID"]
        node.kill()
        # The record is the last file that an init writes.
        (node.folder / "data" / "swarm" / "swarm.json").unlink()
        node.start()
        await node.ready()
        assert (await node.api("GET", "/info"))[1]["Swarm"]["LocalNodeState"] == "inactive"
        status, answer = await node.api("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"})
        assert status == 200, answer
        assert (await node.api("GET", "/swarm"))[1]["ID"] != first
        assert [each["ID"] for each in (await node.api("GET", "/nodes"))[1]] == [answer]
