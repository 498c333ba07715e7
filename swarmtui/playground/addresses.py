"""Which addresses and names a session uses; pure decisions on what the host already has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

SWARM_PORT = 2377
LAST_NUMBER = 200
"""Instances are numbered 1 to this in one session; a number is never used twice, as a new machine is a new machine."""

_FIRST_HOST = 10
_LOOPBACK_NETWORKS = 77
_LOOPBACK_NODES = 254
_OFFSET_STEP = 50

CANDIDATES: tuple[IPv4Network, ...] = (
    *(IPv4Network((int(IPv4Address("192.168.210.0")) + (n << 8), 24)) for n in range(40)),
    *(IPv4Network((int(IPv4Address("10.210.0.0")) + (n << 8), 24)) for n in range(256)),
)
"""Subnets for the private bridge, in order of preference: none that a home router uses, none that an engine takes for its
own bridges (172.17 to 172.31, 192.168 from below) or a swarm for its overlays (10.0 upwards)."""

_ROUTE = re.compile(r"^(?:\w+ )?(\d+\.\d+\.\d+\.\d+(?:/\d+)?)\b")


class NoFreeSubnet(Exception):
    """Every candidate overlaps with a route of this host."""


@dataclass(frozen=True, slots=True)
class Addressing:
    """Addresses of one session's instances. `subnet` is None where they are loopback addresses."""

    subnet: IPv4Network | None
    offset: int = 0
    """Added to the number in loopback addresses, so that sessions side by side do not meet."""

    def instance(self, number: int) -> IPv4Address:
        """Address of instance `number`, from 1 on: .11 for the first, or 127.77.1.1."""
        if not 1 <= number <= LAST_NUMBER:
            raise ValueError(f"instance {number}: numbers go from 1 to {LAST_NUMBER}")
        if self.subnet is None:
            return IPv4Address(f"127.{_LOOPBACK_NETWORKS}.{(number + self.offset - 1) % _LOOPBACK_NODES + 1}.1")
        return self.subnet[_FIRST_HOST + number]

    @property
    def host(self) -> IPv4Address | None:
        """The host's own address on the bridge."""
        return self.subnet[1] if self.subnet else None


def choose_subnet(taken: Iterable[IPv4Network], candidates: Sequence[IPv4Network] = CANDIDATES) -> IPv4Network:
    """The first candidate that overlaps with none that is taken. A default route takes nothing."""
    busy = [network for network in taken if network.prefixlen > 0]
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in busy):
            return candidate
    raise NoFreeSubnet(
        f"no free subnet for the playground: all of {candidates[0]} to {candidates[-1]} overlap with routes of this host "
        "(see `ip route`); `--tier loopback` needs none"
    )


def choose_offset(taken: Callable[[int], bool]) -> int:
    """The first offset that no other loopback session uses; 0 when all are, and binding the address will say so."""
    return next((offset for offset in range(0, _LOOPBACK_NODES, _OFFSET_STEP) if not taken(offset)), 0)


def parse_routes(listing: str) -> list[IPv4Network]:
    """Networks in the output of `ip -4 route show table all`, with their host routes; the default route is left out.

    Loopback is no network that a candidate could meet, so it needs no care.
    """
    networks = []
    for line in listing.splitlines():
        found = _ROUTE.match(line.strip())
        if found:
            networks.append(IPv4Network(found.group(1), strict=False))
    return networks


def instance_name(number: int) -> str:
    """`node1` and so on."""
    return f"node{number}"


def host_link(session: str) -> str:
    """Name of the host's link to the bridge; 15 bytes are what the kernel takes."""
    return f"swarm-{session}"


def hosts_file(addressing: Addressing, numbers: Iterable[int]) -> str:
    """/etc/hosts of an instance: every instance by its name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    lines += [f"{addressing.instance(number)} {instance_name(number)}" for number in numbers]
    return "\n".join(lines) + "\n"
