"""The real docker CLI as a client of a front door."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

DOCKER = shutil.which("docker")


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


async def docker(socket: str, *words: str, home: Path, stdin: bytes = b"") -> Said:
    """Run `docker WORDS` with its own configuration under `home`."""
    process = await start_docker(socket, *words, home=home)
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    return Said(process.returncode or 0, out.decode().strip(), err.decode().strip())


async def start_docker(socket: str, *words: str, home: Path) -> asyncio.subprocess.Process:
    """Start `docker WORDS`."""
    assert DOCKER is not None
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_HOST": f"unix://{socket}"}
    return await asyncio.create_subprocess_exec(
        DOCKER,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
