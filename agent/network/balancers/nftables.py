"""Balancing by nftables: each connection's first packet is sent to the next backend in turn, the rest follows it.

All rules are in tables of our own, one for IPv4 and one for IPv6, changed by transactions of what differs. A table that
somebody else took away or cut down is written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from pathlib import Path

from agent.network import conntrack
from agent.network.balancers.libnftables import RulesetRefused, Transactions
from agent.network.balancers.nft_rules import Chains, Setting, chains, change, rewrite
from agent.network.balancers.nft_watch import NftWatch
from agent.network.interface import VirtualService
from agent.network.namespaces import run_in

logger = logging.getLogger(__name__)


class NftablesBalancer:
    """`Balancer` in the network namespace that `namespace` names (None: the agent's own)."""

    def __init__(self, setting: Setting, namespace: Path | None = None) -> None:
        self._setting = setting
        self._namespace = namespace
        self._transactions = Transactions()
        self._changing = asyncio.Lock()
        self._standing: Chains | None = None
        """What the kernel has of ours; None when that is not known."""
        self._wanted: Chains = {}
        self._watch: NftWatch | None = None
        self._stirred = asyncio.Event()
        self._takers: set[int] = set()
        self._minding: asyncio.Task[None] | None = None

    async def apply(self, desired: frozenset[VirtualService]) -> None:
        """Bring the tables to the desired set. The first call writes them anew in one step, whatever an earlier agent left.

        ValueError: a service is not one; RulesetRefused: the kernel has not what it takes. Nothing has changed then.
        """
        wanted = chains(desired)
        async with self._changing:
            await self._listen()
            known = self._standing or {}
            senders = {
                (chain.address, chain.port)
                for name, chain in wanted.items()
                if "udp" in chain.protocols and name not in known
            }
            await self._bring(wanted)
            if senders:
                await run_in(self._namespace, lambda: conntrack.forget_senders(senders))

    async def forget(self, backends: Collection[str], targets: Collection[str] = ()) -> int:
        """Delete the connections to backends that have gone, so that clients are reset; how many there were."""
        return await run_in(self._namespace, lambda: conntrack.forget(backends))

    async def close(self, *, remove: bool) -> None:
        """Stop minding the tables, which work on; with `remove` delete them. Idempotent."""
        if self._minding is not None:
            self._minding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._minding
            self._minding = None
        async with self._changing:
            if self._watch is not None:
                asyncio.get_running_loop().remove_reader(self._watch)
                self._watch.close()
                self._watch = None
            if remove:
                await self._run(rewrite(self._setting, {}, _families()))
                self._standing = None
            await run_in(self._namespace, self._transactions.close)

    async def _bring(self, wanted: Chains) -> None:
        """One transaction to what is wanted. Falls back to writing all anew where the kernel has not what we think."""
        standing = None if self._taken() else self._standing
        # Unknown until the transaction is through: a caller that is cancelled does not see its end.
        self._wanted, self._standing = wanted, None
        if standing is not None:
            try:
                commands = change(self._setting, standing, wanted)
                if commands:
                    await self._run(commands)
            except RulesetRefused as error:
                logger.warning("table %s is not as it was left, writing it anew: %s", self._setting.table, error)
                standing = None
        if standing is None:
            await self._run(rewrite(self._setting, wanted, _families()))
        # All that was heard meanwhile is our own, unless several took something away.
        if len(self._taken()) <= 1:
            self._standing = wanted
        else:
            self._stirred.set()

    async def _run(self, commands: str) -> None:
        await run_in(self._namespace, lambda: self._transactions.run(commands))

    async def _listen(self) -> None:
        """From the first change on, hear of others'."""
        if self._watch is None:
            table = self._setting.table
            self._watch = await run_in(self._namespace, lambda: NftWatch(table))
            asyncio.get_running_loop().add_reader(self._watch, self._hear)
            self._minding = asyncio.create_task(self._mind(), name=f"minding nftables table {table}")

    def _hear(self) -> None:
        if self._watch is not None:
            self._takers |= self._watch.heard()
            if self._takers:
                self._stirred.set()

    def _taken(self) -> set[int]:
        """Who took something from our tables since the last call."""
        self._hear()
        takers, self._takers = self._takers, set()
        return takers

    async def _mind(self) -> None:
        """Write the tables again whenever somebody else took from them."""
        while True:
            await self._stirred.wait()
            async with self._changing:
                self._stirred.clear()
                if not self._takers and self._standing is not None:
                    continue
                logger.warning("table %s was changed by somebody else, writing it anew", self._setting.table)
                self._standing = None
                try:
                    await self._bring(self._wanted)
                except OSError:
                    logger.exception("table %s could not be written", self._setting.table)


def _families() -> list[str]:
    """The families of tables that an earlier agent can have left here."""
    return ["ip", "ip6"] if Path("/proc/net/if_inet6").exists() else ["ip"]
