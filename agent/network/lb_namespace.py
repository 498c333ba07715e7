"""Where an overlay network's virtual addresses live on a host: a network namespace of their own.

`lb-<10 of the network's id>` hangs on the network's bridge by a veth pair. In it are the balancer's own address, each
virtual address as a host route (/32, /128), and a balancer. A task that calls a virtual address finds it on its own host;
the balancer sends the connection on to a backend with its own address as the source, so that the answers come back through
it and a backend may call itself. The virtual addresses are the same on every host and are never told to other hosts.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from agent.network.interface import VirtualService

NAMESPACES = Path("/run/netns")
"""Where `ip netns` looks."""


class LbNamespace:
    """One network's balancer on this host. Nothing is made before the first `apply`; calls may overlap, they wait in turn.

    `network_id` names the namespace and the veth's end on the bridge (`lb-` and its first ten characters); `bridge` is the
    network's bridge. `folder` holds the namespace's file: hosts that share a machine need one each, in a mount namespace
    that outlives the agent. `host` is the namespace that the bridge is in, None for the agent's own.
    """

    def __init__(
        self, network_id: str, bridge: str, *, mtu: int = 1450, folder: Path = NAMESPACES, host: Path | None = None
    ) -> None:
        self.name = f"lb-{network_id[:10]}"
        self.path = folder / self.name
        self._network_id = network_id
        self._bridge = bridge
        self._mtu = mtu
        self._host = host

    async def apply(self, address: str, vips: Collection[str], services: frozenset[VirtualService]) -> None:
        """Bring all to what is wanted, by the smallest change. What stands of an earlier agent is adopted as it is.

        `address` is the balancer's own with its prefix length ("10.0.1.3/24"), `vips` are without one. A service with port 0
        takes every port, with protocol "" tcp, udp and sctp; its backends have port 0 then. Call it again, with the same
        arguments too, when the bridge was made anew: it is also what mends. OSError says what could not be had.
        """
        raise NotImplementedError

    async def forget(self, backends: Collection[str]) -> int:
        """Delete the connections to backends (addresses) that have gone, so that their clients are reset instead of left
        hanging. For after the drain, when `apply` has taken the backends out. The number of connections that ended."""
        raise NotImplementedError

    async def close(self, *, remove: bool) -> None:
        """Let go; with `remove` namespace, links and rules go, else all of it works on without the agent. Idempotent."""
        raise NotImplementedError


async def remove_leftovers(keep: Collection[str], folder: Path = NAMESPACES, host: Path | None = None) -> list[str]:
    """Remove what an earlier agent of this host made for networks whose ids are not in `keep`; the ids of those."""
    raise NotImplementedError
