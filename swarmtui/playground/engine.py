"""The private engine of an instance: how it is started, and how images come into it without a registry."""

from __future__ import annotations

from pathlib import Path

from swarmtui.playground.instance import Instance
from swarmtui.playground.instance_init import ENGINE_CONFIGURATION

SERVICE = "engine"


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


def data_folder(instance: Instance) -> Path:
    """Where the engine keeps images and containers."""
    return instance.folder / "engine"
