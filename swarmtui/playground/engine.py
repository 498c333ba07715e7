"""The private engine of an instance: how it is started, and how images come into it without a registry."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from swarmtui.playground.instance import Instance
from swarmtui.playground.instance_init import ENGINE_CONFIGURATION

SERVICE = "engine"

EXPORT: tuple[str, ...] = (sys.executable, "-m", "agent.worker.executors.images.export")
"""Writes the images that ship with the product as one archive for `docker load`, given its path."""

_LONGEST_LOAD = 60.0


class EngineFailed(Exception):
    """An engine did not start, or did not take the images; the text says why."""


def command(instance: Instance) -> list[str]:
    """The engine's command line. It starts a containerd of its own, which ends with it.

    Its state lies in the instance's own /run, its data in the instance's folder. Published ports are the agent's, so it needs no
    proxy processes.
    """
    return [
        "dockerd",
        "--config-file",
        ENGINE_CONFIGURATION,
        "--host",
        instance.engine_host,
        "--data-root",
        str(instance.folder / "engine"),
        "--exec-root",
        "/run/docker",
        "--pidfile",
        "/run/docker.pid",
        "--userland-proxy=false",
        "--log-level",
        "warn",
    ]


async def export_images(archive: Path, environment: Mapping[str, str]) -> Path:
    """Write the images that ship with the product to `archive`, made of this machine's Python. Raises EngineFailed."""
    process = await asyncio.create_subprocess_exec(
        *EXPORT,
        str(archive),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _output, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise EngineFailed(f"the images that ship with swarmtui cannot be made here: {''.join(last)}")
    return archive


async def load_images(instance: Instance, archive: Path) -> None:
    """Give an instance's engine the images of an archive. Raises EngineFailed with the engine's own words."""
    content = io.BytesIO(await asyncio.to_thread(archive.read_bytes))
    connector = aiohttp.UnixConnector(str(instance.engine_socket))
    timeout = aiohttp.ClientTimeout(total=_LONGEST_LOAD)
    headers = {"Content-Type": "application/x-tar"}
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post("http://engine/images/load", params={"quiet": "1"}, data=content, headers=headers) as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EngineFailed(f"the engine of {instance.name} did not take the images: {error or 'no answer'}") from error
    failure = load_failure(answer.status, text)
    if failure:
        raise EngineFailed(f"the engine of {instance.name} did not take the images: {failure}")


def load_failure(status: int, text: str) -> str:
    """What went wrong in a load, "" for nothing: a status, or under status 200 an error among the lines of progress."""
    if status != 200:
        return text.strip() or f"status {status}"
    for line in text.splitlines():
        report = json.loads(line) if line.startswith("{") else {}
        if "error" in report:
            return str(report["error"])
    return ""
