"""MAC addresses that every host works out for itself, so that none has to be sent."""

from __future__ import annotations

import hashlib
import ipaddress


def mac_of(address: str) -> str:
    """The MAC of whoever has `address` on an overlay: 02:42 and the four bytes of an IPv4 one, as a Docker Engine derives it.

    An IPv6 address has one of its own, by digest: its last bytes repeat from subnet to subnet. A task with addresses of
    both kinds has one interface, so its IPv6 address goes with the MAC of its IPv4 one. ValueError: not an address.
    """
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return _text(b"\x02\x42" + parsed.packed)
    return _text(b"\x06" + hashlib.sha256(parsed.packed).digest()[:5])


def bridge_mac(network_id: str, host: str) -> str:
    """The MAC of a network's bridge on one host: the same when it is made again, so that tasks' ARP caches stay right."""
    return _text(b"\x0a" + hashlib.sha256(f"{network_id} {host}".encode()).digest()[:5])


def _text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)
