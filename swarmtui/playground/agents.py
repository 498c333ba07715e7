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

ENVIRONMENT = {"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1"}
"""Docker's own variable: an image that is on the node is not asked of its registry, which instances cannot reach."""


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
