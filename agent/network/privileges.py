"""Whether this process may have overlay networks on this host at all."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

_NEEDED = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Links, addresses and rules; network namespaces (include/uapi/linux/capability.h)."""


def obstacle(status: str | None = None) -> str:
    """Why overlays cannot be had here, in words that follow a colon; empty when nothing is in the way.

    `status` is the text of /proc/self/status.
    """
    text = Path("/proc/self/status").read_text() if status is None else status
    effective = next((line.split()[1] for line in text.splitlines() if line.startswith("CapEff:")), "0")
    missing = [name for name, number in _NEEDED.items() if not int(effective, 16) >> number & 1]
    if missing:
        return f"the agent does not run as root (it lacks {' and '.join(missing)})"
    return ""


def address_obstacle(address: str) -> str:
    """Why other hosts cannot send packets to the node at `address` (an IP address); empty when they can."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"{address} is no address"
    if parsed.is_loopback:
        return f"the node's address {address} is on the loopback, where other hosts cannot reach it"
    return ""
