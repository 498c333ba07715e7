"""Which balancer a kernel can carry, found out by trying in the very namespace that it is for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from agent.network.balancers.libnftables import Transactions
from agent.network.balancers.nft_rules import Setting, probe
from agent.network.balancers.nftables import NftablesBalancer
from agent.network.interface import Balancer
from agent.network.namespaces import run_in

TABLE = "swarmtui"


class KernelBalancer(Balancer, Protocol):
    """A balancer whose connections the kernel carries, with or without this process."""

    async def forget(self, backends: Collection[str], targets: Collection[str] = ()) -> int:
        """End the connections to backends that have gone; `targets` are the addresses that clients call."""
        ...

    async def close(self, *, remove: bool) -> None:
        """Stop minding; with `remove` take away what was set up. Idempotent."""
        ...


async def balancer_in(namespace: Path, outward: str) -> KernelBalancer:
    """The best that the kernel has for virtual addresses: IPVS, else nftables. `namespace` is a balancer's own, `outward` the
    interface in it that leads to the backends. OSError says what each of them lacks.
    """
    no_ipvs = await ipvs_lacks(namespace)
    if no_ipvs is None:
        # pyroute2 takes 0.2 s to import: only hosts with IPVS pay for it.
        from agent.network.balancers.ipvs import IpvsBalancer

        return IpvsBalancer(namespace, outward)
    no_nftables = await nftables_lacks(namespace)
    if no_nftables is None:
        return NftablesBalancer(Setting(TABLE, outward), namespace)
    raise OSError(f"this kernel cannot balance virtual addresses: {no_ipvs}; {no_nftables}")


async def ipvs_lacks(namespace: Path) -> str | None:
    """Why IPVS cannot be used there, None when it can. Rules of iptables in the namespace are gone afterwards."""

    def work() -> str | None:
        if not ipvs_loaded():
            return "this kernel has no IPVS (ip_vs)"
        from agent.network.balancers import ipvs

        return ipvs.lacks()

    return await run_in(namespace, work)


def ipvs_loaded() -> bool:
    """Whether the kernel has IPVS in the thread's namespace; the module is asked for once."""
    entry = Path("/proc/thread-self/net/ip_vs")
    if not entry.exists() and shutil.which("modprobe") is not None:
        subprocess.run(["modprobe", "-q", "ip_vs"], capture_output=True, timeout=30, check=False)
    return entry.exists()


async def nftables_lacks(namespace: Path | None) -> str | None:
    """Why nftables cannot be used there, None when it can: the rules that are needed are made and taken back."""

    def work() -> str | None:
        transactions = Transactions()
        try:
            transactions.run(probe(f"{TABLE}-probe"))
        except OSError as error:
            return str(error)
        finally:
            transactions.close()
        return None

    return await run_in(namespace, work)
