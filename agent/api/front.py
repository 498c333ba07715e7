"""What the front door says of itself in every answer: API version, engine, operating system."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

from agent.api.backend import Backend, LocalState
from agent.api.engine import Engine
from agent.api_types.errors import Unavailable

API_VERSION = "1.41"
MIN_API_VERSION = "1.24"
"""Of an agent without an engine; with one the engine's own versions are told."""

AGENT_VERSION = importlib.metadata.version("swarmtui")


class Front:
    """The headers of every answer; those of the host's engine once it was heard."""

    def __init__(self) -> None:
        self.api_version = API_VERSION
        self._headers = {
            "Api-Version": API_VERSION,
            "Docker-Experimental": "false",
            "Ostype": platform.system().lower(),
            "Server": f"swarmtui-agent/{AGENT_VERSION} ({platform.system().lower()})",
        }

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers for an answer of our own."""
        return self._headers

    async def learn(self, engine: Engine) -> Mapping[str, str]:
        """Ask the engine who it is; the headers that only its ping has (the builder). Nothing when it does not answer."""
        try:
            told = await engine.headers("/_ping")
        except Unavailable:
            return {}
        for name in self._headers:
            if name in told:
                self._headers[name] = told[name]
        self.api_version = self._headers["Api-Version"]
        return {name: value for name, value in told.items() if name == "Builder-Version"}


def swarm_header(backend: Backend) -> str:
    """The `Swarm` header of a ping, as engines since 23.0 send it."""
    if backend.local_state is LocalState.ACTIVE:
        return "active/manager" if backend.is_manager else "active/worker"
    return backend.local_state.value
