"""Borders between overlays on a host: nothing is routed from one to another, and nothing in or out of an internal one.

Bridges put the overlays' subnets into the host's own routes, so a host that forwards would join what is meant to be apart.
What goes from port to port of one bridge is left alone. One nftables table of our own, replaced as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agent.network.balancers.libnftables import Transactions
from agent.network.namespaces import run_in
from agent.network.overlay.interface import bridge_name

TABLE = "swarmtui-borders"

PRIORITY = -5
"""Before the filters of engines and people at 0: what is dropped here stays dropped."""


class Borders:
    """The table in the network namespace `host` (a file; None for the agent's own). It works on without the agent."""

    def __init__(self, host: Path | None = None) -> None:
        self._host = host
        self._applied: dict[str, bool] | None = None
        self._applying = asyncio.Lock()

    async def apply(self, networks: Mapping[str, bool], *, again: bool = False) -> None:
        """Draw the borders of just these networks: id to whether it is internal. OSError when they cannot be drawn."""
        async with self._applying:
            if again or self._applied != dict(networks):
                await self._run(ruleset(networks))
                self._applied = dict(networks)

    async def close(self, *, remove: bool) -> None:
        """With `remove` the table goes, if one was made. Idempotent."""
        async with self._applying:
            if remove and self._applied is not None:
                await self._run(ruleset({}))
            self._applied = None

    async def _run(self, rules: str) -> None:
        def work() -> None:
            transactions = Transactions()
            try:
                transactions.run(rules)
            finally:
                transactions.close()

        await run_in(self._host, work)


def ruleset(networks: Mapping[str, bool]) -> str:
    """The transaction that replaces the table; without networks there is none."""
    removal = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
    if not networks:
        return removal
    internal = [bridge_name(network_id) for network_id, is_internal in sorted(networks.items()) if is_internal]
    every = [bridge_name(network_id) for network_id in sorted(networks)]
    rules = []
    for bridge in internal:
        rules += [f'iifname "{bridge}" oifname != "{bridge}" drop', f'oifname "{bridge}" iifname != "{bridge}" drop']
    # Who calls a published port of its own host is sent on by that host, to whichever network.
    rules.append("ct status dnat accept")
    members = ", ".join(f'"{bridge}"' for bridge in every)
    rules += [f'iifname "{bridge}" oifname != "{bridge}" oifname {{ {members} }} drop' for bridge in every]
    body = "\n".join(f"    {rule}" for rule in rules)
    return (
        f"{removal}table inet {TABLE} {{\n  chain forward {{\n"
        f"    type filter hook forward priority {PRIORITY}; policy accept;\n{body}\n  }}\n}}\n"
    )
