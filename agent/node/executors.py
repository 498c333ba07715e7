"""Which executor an agent uses, from its settings."""

from __future__ import annotations

import hashlib
import os
from ipaddress import IPv4Address, IPv4Network

from agent.network.mac import mac_of
from agent.network.overlay.interface import bridge_name
from agent.network.privileges import obstacle
from agent.network.sandboxes import Sandboxes
from agent.node.networks import sandbox_folder
from agent.node.settings import Settings, SettingsError
from agent.worker.interface import Executor

PREFER_LOCAL = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"
"""Docker's own variable: an image that is on the node is not asked of its registry again."""


_OWN_LOOPBACK = IPv4Network("127.77.0.0/24")


async def make_executor(settings: Settings) -> Executor:
    """The executor; needs a running loop. SettingsError for settings that cannot work."""
    if settings.engine is not None:
        from agent.worker.executors.docker.executor import DockerExecutor
        from agent.worker.executors.docker.networks import Bridging

        return DockerExecutor(
            f"unix://{settings.engine}",
            owner=_owner(settings),
            prefer_local_images=bool(os.environ.get(PREFER_LOCAL)),
            bridging=None if obstacle() else Bridging(bridge_name, mac_of),
        )
    from agent.worker.executors.process.executor import ProcessExecutor

    return ProcessExecutor(
        settings.data_dir,
        hostname=settings.hostname,
        addresses=task_network(settings.task_addresses, settings.listen_host),
        namespaces=None if obstacle() else Sandboxes(sandbox_folder(settings.data_dir)).path,
    )


def task_network(given: str | None, listen_host: str) -> IPv4Network:
    """Where tasks get addresses from: what was given, else the /24 around a loopback listen address, else 127.77.0.0/24,
    which is the node's own where the node has a network namespace of its own."""
    if given is not None:
        try:
            network = IPv4Network(given)
        except ValueError as error:
            raise SettingsError(f"--task-addresses: {error}; give a network such as 127.77.1.0/24") from None
        if not network.is_loopback:
            raise SettingsError(f"--task-addresses: {network} is not part of 127.0.0.0/8")
        return network
    try:
        host = IPv4Address(listen_host)
    except ValueError:
        return _OWN_LOOPBACK
    return IPv4Network((int(host) & ~0xFF, 24)) if host.is_loopback else _OWN_LOOPBACK


def _owner(settings: Settings) -> str:
    """What tells the containers of agents that share an engine apart: the same for a data folder at every start."""
    return hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:12]
