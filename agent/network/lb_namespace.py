"""Where an overlay network's virtual addresses live on a host: a network namespace of their own.

`lb-<10 of the network's id>` hangs on the network's bridge by a veth pair. In it are the balancer's own address, each
virtual address as a host route (/32, /128), and a balancer. A task that calls a virtual address finds it on its own host;
the balancer sends the connection on to a backend with its own address as the source, so that the answers come back through
it and a backend may call itself. The virtual addresses are the same on every host and are never told to other hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from pathlib import Path

from agent.network import lb_links, namespaces
from agent.network.balancers.choice import KernelBalancer, balancer_in
from agent.network.interface import VirtualService

NAMESPACES = Path("/run/netns")
"""Where `ip netns` looks."""

SETTINGS = {
    "net/ipv4/ip_forward": "1",
    # Connections leave by the link that they came in by: no redirect to the backend, which knows nothing of them.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # Virtual addresses are answered for, whatever the host's own habit is.
    "net/ipv4/conf/all/arp_ignore": "0",
    "net/ipv4/conf/default/arp_ignore": "0",
    "net/ipv6/conf/all/forwarding": "1",
}
"""Under /proc/sys, in the namespace. A new namespace has the host's own values."""


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
        self._balancer: KernelBalancer | None = None
        self._changing = asyncio.Lock()
        self._vips: frozenset[str] = frozenset()

    async def apply(self, address: str, vips: Collection[str], services: frozenset[VirtualService]) -> None:
        """Bring all to what is wanted, by the smallest change. What stands of an earlier agent is adopted as it is.

        `address` is the balancer's own with its prefix length ("10.0.1.3/24"), `vips` are without one. A service with port 0
        takes every port, with protocol "" tcp, udp and sctp; its backends have port 0 then. Call it again, with the same
        arguments too, when the bridge was made anew: it is also what mends. OSError says what could not be had.
        """
        wanted = lb_links.Wanted(self.name, self._network_id, self._bridge, self._mtu, address, frozenset(vips))
        async with self._changing:
            if not namespaces.stands(self.path):
                await self._begin()
            await namespaces.run_in(self.path, _tune)
            await namespaces.run_in(None, lambda: lb_links.bring(wanted, self.path, self._host))
            self._vips |= wanted.vips
            if self._balancer is None:
                self._balancer = await balancer_in(self.path, lb_links.INNER)
            await self._balancer.apply(services)
            self._vips = wanted.vips

    async def forget(self, backends: Collection[str]) -> int:
        """Delete the connections to backends (addresses) that have gone, so that their clients are reset instead of left
        hanging. For after the drain, when `apply` has taken the backends out. The number of connections that ended."""
        async with self._changing:
            if self._balancer is None or not namespaces.stands(self.path):
                return 0
            return await self._balancer.forget(backends, self._vips)

    async def close(self, *, remove: bool) -> None:
        """Let go; with `remove` namespace, links and rules go, else all of it works on without the agent. Idempotent."""
        async with self._changing:
            await self._drop_balancer()
            if remove:
                await _remove(self.name, self.path, self._host)

    async def _begin(self) -> None:
        """A namespace, where there is none, or only the file of one that went with a restart of the host."""
        await self._drop_balancer()
        self.path.unlink(missing_ok=True)
        await namespaces.run_in(None, lambda: namespaces.make(self.path))

    async def _drop_balancer(self) -> None:
        if self._balancer is not None:
            await self._balancer.close(remove=False)
            self._balancer = None


async def remove_leftovers(keep: Collection[str], folder: Path = NAMESPACES, host: Path | None = None) -> list[str]:
    """Remove what an earlier agent of this host made for networks whose ids are not in `keep`; the ids of those."""
    found = await namespaces.run_in(None, lambda: lb_links.leftovers(host))
    gone = {name: network_id for name, network_id in found.items() if network_id not in keep}
    for name in gone:
        await _remove(name, folder / name, host)
    return list(gone.values())


async def _remove(name: str, path: Path, host: Path | None) -> None:
    """Links and namespace; whoever still holds the namespace keeps one without links."""

    def work() -> None:
        lb_links.unlink(name, host)
        namespaces.remove(path)

    await namespaces.run_in(None, work)


def _tune() -> None:
    """Set what differs. OSError names the file: /proc/sys is read-only in some containers."""
    for name, value in SETTINGS.items():
        file = Path("/proc/sys") / name
        # Without IPv6 there is no such file.
        with contextlib.suppress(FileNotFoundError):
            if file.read_text().strip() != value:
                file.write_text(value)
