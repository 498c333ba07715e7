"""Which address a node listens on and which it tells the others, from what a person gave.

Rules and texts are those of moby's daemon/cluster/listen_addr.go; the recorded traffic shows the ones that its CLI meets.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

import psutil

from agent.api_types.errors import InvalidArgument
from agent.rpc.addresses import join_address, split_address

WILDCARDS = frozenset({"", "0.0.0.0", "::"})


def interfaces() -> dict[str, list[str]]:
    """IPv4 addresses of this host by interface, the loopback ones left out."""
    found: dict[str, list[str]] = {}
    for name, addresses in psutil.net_if_addrs().items():
        usable = [
            entry.address
            for entry in addresses
            if entry.family is socket.AF_INET and not ipaddress.ip_address(entry.address).is_loopback
        ]
        if usable:
            found[name] = usable
    return found


def resolve_listen(given: str, default_host: str, default_port: int) -> tuple[str, int]:
    """Where to bind: the request's `ListenAddr`, or what `--listen` said when the request names a wildcard."""
    host, port = _split(given, default_port, "ListenAddr") if given else ("", default_port)
    if host in WILDCARDS:
        return default_host, default_port
    return host, port


def resolve_advertise(
    given: str, listen_host: str, listen_port: int, host_interfaces: Mapping[str, list[str]], own: str = "eth0"
) -> str:
    """`address:port` that other nodes reach this one at.

    `given` is the request's `AdvertiseAddr`: an address or an interface's name, with or without a port; empty takes the
    listen address, or the only address of the host. On a host with several and no word which, fails with Docker's text,
    naming them. `own` is a name that always means the listen address, as `eth0` does in an instance of the playground.
    """
    if given:
        host, port = _split(given, listen_port, "AdvertiseAddr")
        if _is_address(host):
            if host in WILDCARDS:
                raise InvalidArgument(
                    "advertise address must be a non-zero IP address or network interface (with optional port number)"
                )
            return join_address(host, port)
        if host in host_interfaces:
            addresses = host_interfaces[host]
            if len(addresses) > 1 and listen_host in addresses:
                addresses = [listen_host]
            if len(addresses) > 1:
                raise InvalidArgument(
                    f"interface {host} has more than one IPv4 address ({' and '.join(addresses[:2])})"
                )
            return join_address(addresses[0], port)
        if host == own and listen_host not in WILDCARDS:
            return join_address(listen_host, port)
        raise InvalidArgument(
            "advertise address must be a non-zero IP address or network interface (with optional port number)"
        )
    if listen_host not in WILDCARDS:
        return join_address(listen_host, listen_port)
    candidates = [(name, address) for name, addresses in host_interfaces.items() for address in addresses]
    if len(candidates) == 1:
        return join_address(candidates[0][1], listen_port)
    if not candidates:
        raise InvalidArgument("could not find the system's IP address - specify one with --advertise-addr")
    if len({name for name, _ in candidates}) > 1:
        (first, address), (second, other) = _two_interfaces(candidates)
        raise InvalidArgument(
            "could not choose an IP address to advertise since this system has multiple addresses on different "
            f"interfaces ({address} on {first} and {other} on {second}) - specify one with --advertise-addr"
        )
    name, address = candidates[0]
    raise InvalidArgument(
        "could not choose an IP address to advertise since this system has multiple addresses on interface "
        f"{name} ({address} and {candidates[1][1]}) - specify one with --advertise-addr"
    )


def own_source(listen: str) -> str | None:
    """The local address that connections to other nodes come from: the one listened on, None for a wildcard."""
    host, _ = split_address(listen)
    return None if host in WILDCARDS else host


def _two_interfaces(candidates: list[tuple[str, str]]) -> tuple[tuple[str, str], tuple[str, str]]:
    first = candidates[0]
    return first, next(candidate for candidate in candidates if candidate[0] != first[0])


def _split(given: str, default_port: int, field: str) -> tuple[str, int]:
    try:
        return split_address(given) if ":" in given else (given, default_port)
    except ValueError:
        raise InvalidArgument(
            f'invalid {field} "{given}": must be an address or interface, with an optional port'
        ) from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
