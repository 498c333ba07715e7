"""A program with the agent's command line that speaks just enough of its API to form a cluster, and starts one task.

Tests of the playground's own promises (what starts, what ends, what is left) run with it, so that they fail for the playground's
faults alone. The task is a process that left its parent, as the process executor's tasks have.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from aiohttp import ClientSession, web

TASK = "import os, sys, time; os.fork() and sys.exit(); os.setsid(); print(os.getpid(), flush=True); time.sleep(3600)"


class StandIn:
    """One node: it knows the nodes that said hello, and tells those who watch."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self._settings = settings
        self._nodes: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Condition()

    def application(self) -> web.Application:
        application = web.Application()
        version = "/v1.41"
        application.add_routes(
            [
                web.get("/_ping", self._ping),
                web.post(f"{version}/swarm/init", self._init),
                web.get(f"{version}/swarm", self._swarm),
                web.post(f"{version}/swarm/join", self._join),
                web.get(f"{version}/nodes", self._list),
                web.delete(f"{version}/nodes/{{id}}", self._forget),
                web.post("/hello", self._hello),
                web.get("/swarmtui/v1/watch", self._watch),
            ]
        )
        return application

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="OK", headers={"Api-Version": "1.41"})

    async def _add(self, name: str, *, manager: bool = False) -> None:
        async with self._changed:
            self._nodes[f"id-{name}"] = {
                "ID": f"id-{name}",
                "Description": {"Hostname": name},
                "Status": {"State": "ready"},
                "ManagerStatus": {"Leader": True, "Reachability": "reachable"} if manager else None,
            }
            self._changed.notify_all()

    async def _init(self, request: web.Request) -> web.Response:
        await self._add(self._settings.hostname, manager=True)
        return web.json_response(f"id-{self._settings.hostname}")

    async def _swarm(self, request: web.Request) -> web.Response:
        return web.json_response({"JoinTokens": {"Worker": "token", "Manager": "token"}})

    async def _join(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        async with (
            ClientSession() as session,
            session.post(f"http://{wanted['RemoteAddrs'][0]}/hello", json=self._settings.hostname) as answer,
        ):
            answer.raise_for_status()
        return web.Response()

    async def _hello(self, request: web.Request) -> web.Response:
        await self._add(await request.json())
        return web.Response()

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(list(self._nodes.values()))

    async def _forget(self, request: web.Request) -> web.Response:
        del self._nodes[request.match_info["id"]]
        return web.Response()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async with self._changed:
            while True:
                for node in self._nodes.values():
                    line = {"kind": "update", "table": "nodes", "index": 1, "object": node}
                    await response.write(json.dumps(line).encode() + b"\n")
                await self._changed.wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("data-dir", "socket", "listen", "engine", "hostname"):
        parser.add_argument(f"--{option}", required=True)
    settings = parser.parse_args()
    os.makedirs(settings.data_dir, exist_ok=True)
    with open(os.path.join(settings.data_dir, "task.log"), "w", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-c", TASK], check=True, stdout=log, env={}, stdin=subprocess.DEVNULL)
    runner = web.AppRunner(StandIn(settings).application())
    await runner.setup()
    await web.UnixSite(runner, settings.socket).start()
    host, _, port = settings.listen.rpartition(":")
    await web.TCPSite(runner, host, int(port)).start()
    await asyncio.Event().wait()


asyncio.run(main())
