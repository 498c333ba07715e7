"""The addresses of one subnet: which are free, which were used a moment ago, and which comes next.

Addresses are given in order and from the beginning again, so that one that was given back rests as long as possible. It is
not given again for `QUARANTINE`, so that a late packet or an old answer of a name never meets a stranger; only when no other
is left does the one that rested longest come first.
"""

from __future__ import annotations

import heapq
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from agent.api_types.times import SECOND
from agent.manager.allocator.intervals import Intervals

QUARANTINE = 60 * SECOND
"""How long an address rests after its use, in nanoseconds."""

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address


def assignable(subnet: IPNetwork) -> tuple[int, int]:
    """The first and the last address of a subnet that a container may have, as numbers.

    Not the subnet's own (in IPv6: that of any router) and not the broadcast address, but for subnets of one or two.
    """
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    if last - first < 2:
        return first, last
    return first + 1, last - 1 if subnet.version == 4 else last


class AddressPool:
    """One subnet. `within` bounds what is given by itself; an address that somebody names may be anywhere in the subnet."""

    def __init__(self, subnet: IPNetwork, within: IPNetwork | None = None, gateway: IPAddress | None = None) -> None:
        self.subnet = subnet
        self._assignable = Intervals(assignable(subnet))
        if gateway is not None:
            self._assignable.remove(int(gateway), int(gateway))
        first, last = assignable(subnet)
        if within is not None:
            first = max(first, int(within.network_address))
            last = min(last, int(within.broadcast_address))
        self._first, self._last = first, last
        self._cursor = first
        self._free = Intervals(*self._assignable)
        self._resting: dict[int, int] = {}
        """Address -> when it was given back."""
        self._order: list[tuple[int, int]] = []
        """The same as a heap, with leftovers of addresses that were taken or given back again."""

    def take(self, now: int) -> IPAddress | None:
        """The next address; None when every one is in use."""
        self._wake(now)
        number = self._next_free()
        if number is None:
            number = self._longest_resting()
        if number is None:
            return None
        self._free.remove(number, number)
        self._cursor = number + 1
        return self._address(number)

    def reserve(self, address: IPAddress) -> bool:
        """Take this very address; False when it is not free or none that a container may have."""
        number = int(address)
        if address not in self.subnet or (number not in self._free and number not in self._resting):
            return False
        self._free.remove(number, number)
        self._resting.pop(number, None)
        return True

    def release(self, address: IPAddress, at: int) -> None:
        """Give an address back that was in use until `at`."""
        number = int(address)
        if address not in self.subnet or number not in self._assignable or number in self._free:
            return
        self._resting[number] = max(at, self._resting.get(number, at))
        heapq.heappush(self._order, (self._resting[number], number))

    def was_used(self, address: IPAddress, until: int) -> None:
        """Note that a free address was in use until then."""
        if self.reserve(address):
            self.release(address, until)

    def resume(self) -> None:
        """Begin where the fewest have been lately, for a leader that does not know what was given back before it came.

        That is the middle of the longest free stretch: what was used a moment ago lies next to what is still in use.
        """
        stretches = list(self._free.between(self._first, self._last))
        if stretches:
            first, last = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
            self._cursor = first + (last - first) // 2

    def room(self) -> int:
        """How many addresses could be given, the resting ones among them."""
        free = sum(last - first + 1 for first, last in self._free.between(self._first, self._last))
        return free + sum(self._first <= number <= self._last for number in self._resting)

    def has_room(self) -> bool:
        """Whether an address could be given."""
        number = self._free.next(self._first)
        if number is not None and number <= self._last:
            return True
        return any(self._first <= number <= self._last for number in self._resting)

    @property
    def size(self) -> int:
        """How many addresses the pool can give at all."""
        return sum(last - first + 1 for first, last in self._assignable.between(self._first, self._last))

    def _wake(self, now: int) -> None:
        while self._order and self._order[0][0] + QUARANTINE <= now:
            at, number = heapq.heappop(self._order)
            if self._resting.get(number) == at:
                del self._resting[number]
                self._free.add(number, number)

    def _next_free(self) -> int | None:
        for begin in (self._cursor, self._first):
            number = self._free.next(max(begin, self._first))
            if number is not None and number <= self._last:
                return number
        return None

    def _longest_resting(self) -> int | None:
        outside: list[tuple[int, int]] = []
        found = None
        while self._order and found is None:
            at, number = heapq.heappop(self._order)
            if self._resting.get(number) != at:
                continue
            if self._first <= number <= self._last:
                del self._resting[number]
                found = number
            else:
                outside.append((at, number))
        for entry in outside:
            heapq.heappush(self._order, entry)
        return found

    def _address(self, number: int) -> IPAddress:
        # ip_address would take a small IPv6 number for IPv4.
        return IPv4Address(number) if self.subnet.version == 4 else IPv6Address(number)


class NetworkPools:
    """The subnets of one network: who is on it has an IPv4 address, an IPv6 address, or one of each, as they are."""

    def __init__(self, pools: list[AddressPool]) -> None:
        self._pools = pools
        self._families = [
            [pool for pool in pools if pool.subnet.version == version]
            for version in (4, 6)
            if any(pool.subnet.version == version for pool in pools)
        ]

    def take(self, now: int) -> list[str] | None:
        """An address of each family with its prefix length, from the first subnet that has one; None when one has none."""
        if not self.has_room():
            return None
        return [address for family in self._families if (address := _take(family, now)) is not None]

    def take_one(self, now: int) -> str | None:
        """One address with its prefix length, IPv4 where the network has it."""
        return _take(self._families[0], now) if self._families else None

    def reserve(self, address: str) -> str | None:
        """Take this very address (a prefix length is passed over); what it is with its own, None when it cannot be had."""
        wanted, pool = self._find(address)
        if wanted is None or pool is None or not pool.reserve(wanted):
            return None
        return f"{wanted}/{pool.subnet.prefixlen}"

    def release(self, address: str, at: int) -> None:
        """Give an address back that was in use until `at`."""
        wanted, pool = self._find(address)
        if wanted is not None and pool is not None:
            pool.release(wanted, at)

    def was_used(self, address: str, until: int) -> None:
        """Note that a free address was in use until then."""
        wanted, pool = self._find(address)
        if wanted is not None and pool is not None:
            pool.was_used(wanted, until)

    def resume(self) -> None:
        """Begin where the fewest have been lately."""
        for pool in self._pools:
            pool.resume()

    def has_room(self) -> bool:
        """Whether anybody could still come on to the network."""
        return bool(self._families) and all(any(pool.has_room() for pool in family) for family in self._families)

    def room(self) -> int:
        """How many could still come on to the network."""
        return min((sum(pool.room() for pool in family) for family in self._families), default=0)

    def _find(self, address: str) -> tuple[IPAddress | None, AddressPool | None]:
        try:
            wanted = ip_address(address.partition("/")[0])
        except ValueError:
            return None, None
        return wanted, next((pool for pool in self._pools if wanted in pool.subnet), None)


def _take(family: list[AddressPool], now: int) -> str | None:
    for pool in family:
        address = pool.take(now)
        if address is not None:
            return f"{address}/{pool.subnet.prefixlen}"
    return None
