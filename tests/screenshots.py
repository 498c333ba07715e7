"""Pictures of the running console for the README: `./run screenshots`.

Starts a playground, runs services on it, opens the console headless and takes pictures of what a person would see, as SVG and
PNG in screenshots/. Nothing in them is made up: they show whatever the cluster did.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cairosvg
from textual.pilot import Pilot

from swarmtui.docker_api.client import EngineClient
from swarmtui.playground import forming
from swarmtui.playground.booting import Step
from swarmtui.playground.session import Options, PlaygroundSession
from swarmtui.ui.app import SwarmApp

TARGET = Path(__file__).parents[1] / "screenshots"
SIZE = (128, 30)
FONT = "DejaVu Sans Mono"
PATIENCE = 60.0


def service(
    name: str, image: str, replicas: int, ports: Mapping[int, int] | None = None, env: list[str] | None = None
) -> dict[str, Any]:
    """The spec of a replicated service; `ports` maps published ports to those of the containers."""
    published = [{"PublishedPort": outer, "TargetPort": inner} for outer, inner in (ports or {}).items()]
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": image, "Env": env or []}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Ports": published},
    }


SERVICES = [
    service("whoami", "swarmtui/whoami", 6, {8081: 8000}),
    service("web", "swarmtui/web:1.0", 4, {8080: 80}),
    service("ticker", "swarmtui/logger", 3, env=["RATE=4"]),
]


class Pictures:
    """Takes them."""

    def __init__(self, app: SwarmApp, pilot: Pilot[Any]) -> None:
        self._app = app
        self._pilot = pilot

    async def keys(self, *keys: str) -> None:
        """Press keys and let the screen settle."""
        await self._pilot.press(*keys)
        await self._pilot.pause(0.7)

    async def take(self, name: str) -> None:
        """Write the screen as it is."""
        await self._pilot.pause(0.3)
        svg = self._app.export_screenshot(title="swarmtui")
        (TARGET / f"{name}.svg").write_text(svg)
        # The SVG asks for a font that a browser loads; this converter takes only those that are installed.
        drawn = svg.replace("Fira Code", FONT).encode()
        await asyncio.to_thread(cairosvg.svg2png, bytestring=drawn, write_to=str(TARGET / f"{name}.png"))
        print(f"screenshots/{name}.svg and .png", file=sys.stderr)


async def converged(api: EngineClient) -> bool:
    """Whether every replica runs, on a node that is there."""
    ready = {node.id for node in await api.nodes() if node.status.state == "ready"}
    running = [task for task in await api.tasks() if task.desired_state == task.status.state == "running"]
    wanted = sum(spec["Mode"]["Replicated"]["Replicas"] for spec in SERVICES)
    return len([task for task in running if task.node_id in ready]) == wanted


async def node_down(api: EngineClient) -> bool:
    """Whether a node is held for lost and its tasks run elsewhere."""
    return any(node.status.state == "down" for node in await api.nodes()) and await converged(api)


async def until(condition: Callable[[EngineClient], Any], api: EngineClient) -> None:
    """Ask again and again until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not await condition(api):
            await asyncio.sleep(0.2)


async def photograph(session: PlaygroundSession) -> None:
    """The session of the README, step by step."""
    app = SwarmApp(playground=session)
    async with forming.client(session.instances[0].docker_host) as api, app.run_test(size=SIZE) as pilot:
        pictures = Pictures(app, pilot)
        for spec in SERVICES:
            await api.create_service(spec)
        await until(converged, api)
        await pilot.pause(3)
        await pictures.keys("5")
        await pictures.take("playground")
        await pictures.keys("2", "home")
        await pilot.pause(2)
        await pictures.take("services")
        await pictures.keys("end", "s", "backspace", "9", "enter")
        await pictures.take("scale")
        await pictures.keys("escape", "escape", "question_mark")
        await pictures.take("help")
        await pictures.keys("escape", "3")
        await pictures.take("tasks")
        os.kill(session.instances[2].pid, signal.SIGKILL)
        await until(node_down, api)
        await pictures.keys("1")
        await pictures.take("node-down")
        await pictures.keys("colon", *"theme harbour-light", "enter", "2")
        await pilot.pause(1)
        await pictures.take("light")
        await pictures.keys("colon", *"theme harbour-dark", "enter", "6")
        await pilot.pause(20)
        await pictures.take("pulse")
        os.kill(session.instances[1].pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while type(app.screen).__name__ != "QuorumScreen":
                await pilot.pause(0.2)
        await pictures.take("quorum")


async def main() -> None:
    """Start, photograph, end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="auto", help="kind of instances, as for the playground")
    options = Options(nodes=5, tier=parser.parse_args().tier)

    def progress(name: str, step: Step, seconds: float) -> None:
        if step is Step.READY:
            print(f"{name} ready after {seconds:.1f} s", file=sys.stderr)

    TARGET.mkdir(exist_ok=True)
    async with PlaygroundSession(options, progress=progress) as session:
        await photograph(session)


if __name__ == "__main__":
    asyncio.run(main())
