"""Which balancer a kernel can carry, found out by trying in the very namespace that it is for."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from agent.network.balancers.libnftables import Transactions
from agent.network.balancers.nft_rules import Setting, probe
from agent.network.balancers.nftables import NftablesBalancer
from agent.network.interface import Balancer
from agent.network.namespaces import run_in

logger = logging.getLogger(__name__)

TABLE = "swarmtui"


class KernelBalancer(Balancer, Protocol):
    """A balancer whose connections the kernel carries, with or without this process."""

    async def forget(self, backends: Collection[str], targets: Collection[str] = ()) -> int:
        """End the connections to backends that have gone; `targets` are the addresses that clients call."""
        ...

    async def close(self, *, remove: bool) -> None:
        """Stop minding; with `remove` take away what was set up. Idempotent."""
        ...


async def balancer_in(namespace: Path | None, outward: str) -> KernelBalancer:
    """The best that the kernel has for virtual addresses; `outward` is the interface that leads to the backends.

    OSError says what each of them lacks.
    """
    reason = await nftables_lacks(namespace)
    if reason is None:
        return NftablesBalancer(Setting(TABLE, outward), namespace)
    raise OSError(f"this kernel cannot balance virtual addresses: {reason}")


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
