"""Published ports on a host with privileges: the kernel answers on every own address and sends on to the tasks.

A connection to a published port on any address of the host, 127.0.0.1 included, goes to a task on the ingress network with
the host's own address there as the source; from outside, from the host itself, and from its containers. A task on the
ingress network that calls its own host may be sent to itself: with br_netfilter that happens within the bridge, whose port
has to be in hairpin mode for it (else the connection is tried again after a second, with the next task).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from agent.network.balancers.choice import TABLE, nftables_lacks
from agent.network.balancers.nft_rules import Setting
from agent.network.balancers.nftables import NftablesBalancer
from agent.network.interface import VirtualService
from agent.network.namespaces import run_in

logger = logging.getLogger(__name__)

USER_CHAIN = "DOCKER-USER"
"""A Docker Engine that filters by iptables leaves this chain to others, before its own verdicts; it drops what is forwarded
to a bridge from outside, and between bridges."""


class HostPorts:
    """The published ports of one host. `bridge` is the ingress network's; `host` is the network namespace's file where
    the host is one (None: the agent's own). Calls may overlap, they wait in turn."""

    def __init__(self, bridge: str, *, host: Path | None = None) -> None:
        self._bridge = bridge
        self._host = host
        self._balancer = NftablesBalancer(Setting(TABLE, bridge, own_host=True), host)
        self._changing = asyncio.Lock()
        self._passed = False

    async def lacks(self) -> str | None:
        """Why this host cannot do it (no nftables, no right to it); None when it can. The userspace relay is for those."""
        return await nftables_lacks(self._host)

    async def apply(self, services: frozenset[VirtualService]) -> None:
        """Bring the host to the desired set; `address` of each is "0.0.0.0" for every own address, or one of them.

        Backends are addresses on the ingress network with their target port. OSError says what could not be had.
        """
        async with self._changing:
            if services:
                await run_in(self._host, self._open)
                if not self._passed:
                    await run_in(self._host, self._let_through)
                    self._passed = True
            await self._balancer.apply(services)

    async def mend(self) -> None:
        """Look after what others may have reset: for when an engine was restarted, a firewall reloaded or the bridge was made
        anew. The rules themselves come back without this."""
        async with self._changing:
            await run_in(self._host, self._open)
            await run_in(self._host, self._let_through)

    async def forget(self, backends: Collection[str]) -> int:
        """Delete the connections to backends (addresses) that have gone; see `LbNamespace.forget`."""
        return await self._balancer.forget(backends)

    async def close(self, *, remove: bool) -> None:
        """Let go; with `remove` the rules go too. Idempotent."""
        async with self._changing:
            await self._balancer.close(remove=remove)
            if remove:
                await run_in(self._host, self._shut)

    def _open(self) -> None:
        """Let packets pass from link to link, and answers to 127.0.0.1 in by the ingress bridge."""
        _set("net/ipv4/ip_forward")
        # What neighbours on that bridge make up for 127.0.0.0/8 is dropped by the table's guard.
        _set(f"net/ipv4/conf/{self._bridge}/route_localnet")

    def _let_through(self) -> None:
        """Ask the engine's firewall to let our connections pass, if there is one."""
        if not _chain_exists():
            return
        for rule in self._rules():
            if _iptables("-C", USER_CHAIN, *rule) is not None:
                refused = _iptables("-I", USER_CHAIN, *rule)
                if refused is not None:
                    logger.error("published ports may not be reached from outside: %s", refused)

    def _shut(self) -> None:
        if _chain_exists():
            for rule in self._rules():
                while _iptables("-D", USER_CHAIN, *rule) is None:
                    pass
        self._passed = False

    def _rules(self) -> list[list[str]]:
        ours = ["-m", "conntrack", "--ctstate", "DNAT"]
        accept = ["-m", "comment", "--comment", "swarmtui", "-j", "ACCEPT"]
        return [["-o", self._bridge, *ours, *accept], ["-i", self._bridge, *ours, "--ctdir", "REPLY", *accept]]


def _set(name: str) -> None:
    file = Path("/proc/sys") / name
    if file.read_text().strip() != "1":
        logger.info("setting %s to 1", name)
        file.write_text("1")


def _chain_exists() -> bool:
    return shutil.which("iptables") is not None and _iptables("-n", "-L", USER_CHAIN) is None


def _iptables(*arguments: str) -> str | None:
    """Run it; None when it worked, else what it said."""
    done = subprocess.run(["iptables", "-w", "5", *arguments], capture_output=True, text=True, timeout=30, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"
