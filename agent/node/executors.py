"""Which executor an agent uses, from its settings."""

from __future__ import annotations

import hashlib
import os

from agent.node.settings import Settings
from agent.worker.interface import Executor

PREFER_LOCAL = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"
"""Docker's own variable: an image that is on the node is not asked of its registry again."""


async def make_executor(settings: Settings) -> Executor:
    """The executor; needs a running loop. SettingsError for settings that cannot work."""
    if settings.engine is not None:
        from agent.worker.executors.docker.executor import DockerExecutor

        return DockerExecutor(
            f"unix://{settings.engine}",
            owner=_owner(settings),
            prefer_local_images=bool(os.environ.get(PREFER_LOCAL)),
        )
    raise NotImplementedError


def _owner(settings: Settings) -> str:
    """What tells the containers of agents that share an engine apart: the same for a data folder at every start."""
    return hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:12]
