"""Brings port 53 of bridges' addresses to the ports that this process may have.

A host's own resolver may hold port 53 of every address, so the servers listen on other ports, and nftables redirects what
arrives for 53. One table of our own, replaced as a whole in one transaction: nothing of anybody else's is touched.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from types import TracebackType
from typing import Self

TABLE = "swarmtui-dns"

PRIORITY = -105
"""Before the engine's own destination NAT at -100."""

DNS_PORT = 53


class RedirectFailed(Exception):
    """nft refused: what it said, for people."""


class Redirects:
    """`async with Redirects() as redirects: await redirects.apply({"10.0.1.1": 35353})`; gone when the context ends.

    What an agent that was killed has left is replaced by the first `apply`. `namespace` is the path of a network namespace
    to work in, "" for the process's own; agents that share one need a `table` each.
    """

    def __init__(self, namespace: str = "", *, table: str = TABLE) -> None:
        self._namespace = namespace
        self._table = table
        self._applied: dict[str, int] | None = None
        self._applying = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def apply(self, ports: Mapping[str, int], *, again: bool = False) -> None:
        """Redirect port 53 of exactly these addresses, UDP and TCP, each to its port at the same address.

        With `again` the table is made even if nothing changed: another program may have flushed all rules.
        RedirectFailed when nft is missing or refuses; nothing is changed then.
        """
        async with self._applying:
            if again or self._applied != dict(ports):
                await self._run(ruleset(self._table, ports) if ports else removal(self._table))
                self._applied = dict(ports)

    async def close(self) -> None:
        """Take the table away, if one was made. Idempotent."""
        async with self._applying:
            if self._applied:
                await self._run(removal(self._table))
            self._applied = None

    async def _run(self, rules: str) -> None:
        command = ["nft", "-f", "-"]
        if self._namespace:
            command = ["nsenter", f"--net={self._namespace}", *command]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise RedirectFailed(
                f"port 53 cannot be redirected: {command[0]} does not run ({error}); install nftables"
            ) from error
        _, said = await process.communicate(rules.encode())
        if process.returncode:
            raise RedirectFailed(f"port 53 cannot be redirected: nft said: {said.decode(errors='replace').strip()}")


def removal(table: str) -> str:
    """The transaction that takes the table away, whether it is there or not."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def ruleset(table: str, ports: Mapping[str, int]) -> str:
    """The transaction that makes the table anew. ValueError: not an address."""
    lines = [removal(table) + f"table inet {table} {{"]
    rules = []
    for family, version in (("ip", 4), ("ip6", 6)):
        entries = [
            f"{address} : {address} . {port}"
            for address, port in sorted(ports.items())
            if ipaddress.ip_address(address).version == version
        ]
        if not entries:
            continue
        kind = "ipv4_addr" if version == 4 else "ipv6_addr"
        lines.append(f"  map servers{version} {{\n    type {kind} : {kind} . inet_service")
        lines.append(f"    elements = {{ {', '.join(entries)} }}\n  }}")
        rules += [
            f"    {protocol} dport {DNS_PORT} dnat {family} to {family} daddr map @servers{version}"
            for protocol in ("udp", "tcp")
        ]
    lines.append(f"  chain names {{\n    type nat hook prerouting priority {PRIORITY}; policy accept;")
    lines += [*rules, "  }", "}\n"]
    return "\n".join(lines)
