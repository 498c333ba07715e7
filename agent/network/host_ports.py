"""Published ports on a host with privileges: the kernel answers on every own address and sends on to the tasks.

A connection to a published port on any address of the host, 127.0.0.1 included, goes to a task on the ingress network with
the host's own address there as the source; from outside, from the host itself, and from its containers.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from agent.network.interface import VirtualService


class HostPorts:
    """The published ports of one host. `bridge` is the ingress network's; `host` is the network namespace's file where
    the host is one (None: the agent's own). Calls may overlap, they wait in turn."""

    def __init__(self, bridge: str, *, host: Path | None = None) -> None:
        self._bridge = bridge
        self._host = host

    async def apply(self, services: frozenset[VirtualService]) -> None:
        """Bring the host to the desired set; `address` of each is "0.0.0.0" for every own address, or one of them.

        Backends are addresses on the ingress network with their target port."""
        raise NotImplementedError

    async def forget(self, backends: Collection[str]) -> int:
        """Delete the connections to backends (addresses) that have gone; see `LbNamespace.forget`."""
        raise NotImplementedError

    async def close(self, *, remove: bool) -> None:
        """Let go; with `remove` the rules go too. Idempotent."""
        raise NotImplementedError
