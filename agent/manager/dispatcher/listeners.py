"""Where a node's own listener is, by its own words and by where it was seen."""

from __future__ import annotations

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})


def host_of(address: str) -> str:
    """The host of `host:port` (brackets of IPv6 taken off); empty for a wildcard."""
    host = address.rpartition(":")[0].strip("[]")
    return "" if host in _WILDCARDS else host


def listener_of(address: str, seen: str) -> str:
    """The listener `address` (`host:port`) that a node names; a wildcard means the host that it was `seen` at."""
    if host_of(address) or not host_of(seen):
        return address
    return f"{seen.rpartition(':')[0]}:{address.rpartition(':')[2]}"
