"""The clipboard of the desktop, beside the terminal's own (OSC 52), which many terminals refuse or do not know."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence

SECONDS = 2.0
"""A clipboard program that takes longer is given up."""


def program(environment: Mapping[str, str] | None = None) -> Sequence[str] | None:
    """The command that takes the clipboard's text on standard input; None where there is no desktop or no such program."""
    environment = os.environ if environment is None else environment
    path = environment.get("PATH")
    candidates: list[Sequence[str]] = [["pbcopy"]]
    if environment.get("WAYLAND_DISPLAY"):
        candidates.append(["wl-copy"])
    if environment.get("DISPLAY"):
        candidates += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    return next((command for command in candidates if shutil.which(command[0], path=path)), None)


async def copy(text: str, command: Sequence[str]) -> bool:
    """Hands the text over; False when the program failed or hangs (it is ended then)."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(SECONDS):
            await process.communicate(text.encode(errors="replace"))
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        if process.returncode is None:
            process.kill()
        await process.wait()
        return False
    return process.returncode == 0
