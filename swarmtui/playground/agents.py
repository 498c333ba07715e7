"""The agent of an instance: its command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from swarmtui.playground.addresses import SWARM_PORT
from swarmtui.playground.instance import Instance
from swarmtui.playground.tier import Tier

SERVICE = "agent"

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "agent")
"""The agent that came with this console, on the same Python."""


def command(instance: Instance, tier: Tier, program: Sequence[str] = PROGRAM) -> list[str]:
    """One agent in the foreground, all of its files in the instance's folder."""
    return [
        *program,
        "--data-dir",
        str(instance.folder / "data"),
        "--socket",
        str(instance.socket),
        "--listen",
        f"{instance.address}:{SWARM_PORT}",
        "--engine",
        instance.engine_host if tier is Tier.ENGINE else "process",
        "--hostname",
        instance.name,
    ]
