"""Addresses of tasks on the host's loopback network: 127.77.NODE.TASK. All of 127.0.0.0/8 answers without being set up."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

FIRST_TASK = 2
"""Offset of the first task's address: .0 is the network, .1 is the node itself."""


class NoFreeAddress(Exception):
    """Every address of the node is a task's."""


def node_network(ordinal: int) -> IPv4Network:
    """The addresses of node number `ordinal` (0 to 255) on this machine."""
    if not 0 <= ordinal <= 255:
        raise ValueError(f"node ordinal {ordinal}: 0 to 255")
    return IPv4Network(f"127.77.{ordinal}.0/24")


class AddressPool:
    """Gives out a node's addresses, each as late as possible again: a client may still know the last owner."""

    def __init__(self, network: IPv4Network, last: str = "") -> None:
        """`last` is the address that was given out most recently, empty for none."""
        if network.num_addresses <= FIRST_TASK + 1:
            raise ValueError(f"{network} has no room for tasks")
        self.network = network
        self._last = IPv4Address(last) if last else network[FIRST_TASK - 1]

    def choose(self, taken: Collection[str]) -> str:
        """The next address that is not in `taken`. NoFreeAddress when there is none."""
        room = self.network.num_addresses - FIRST_TASK - 1
        offset = int(self._last) - int(self.network.network_address) - FIRST_TASK
        for step in range(1, room + 1):
            candidate = self.network[FIRST_TASK + (offset + step) % room]
            if str(candidate) not in taken:
                self._last = candidate
                return str(candidate)
        raise NoFreeAddress(f"no address is free in {self.network}: {room} tasks run or wait to be removed")
