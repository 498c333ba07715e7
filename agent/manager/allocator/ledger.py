"""Who holds which address: what is in the store, kept so that the next free address is found at once.

Everything in it follows from the store; it is filled anew by each leader and follows the commits from there on. What the
allocator gives is noted before it is committed, so that nothing is given twice meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from agent.api_types.network import Network
from agent.manager.allocator.address_pool import NetworkPools
from agent.manager.allocator.subnets import OVERLAY, driver_of, is_allocated, pools_of

log = logging.getLogger(__name__)

Holder = tuple[type, str]
"""Kind and id of the task, service or attachment that has an address."""

Held = tuple[str, str]
"""Network id and address with prefix length."""


class Ledger:
    """The pools of all networks, and who holds what of them."""

    def __init__(self) -> None:
        self._open: dict[str, Network] = {}
        self._pools: dict[str, NetworkPools] = {}
        """Of the open networks those that somebody asked for: most of many networks are quiet."""
        self._resuming: set[str] = set()
        self._holdings: dict[Holder, frozenset[Held]] = {}
        self._holders: dict[str, dict[str, set[Holder]]] = {}
        """Network id -> address -> who holds it."""
        self.freed: set[str] = set()
        """Networks with addresses that were given back since somebody last looked."""

    def open(self, network: Network) -> None:
        """Make an allocated network's addresses available; nothing happens when they are."""
        if driver_of(network.spec) != OVERLAY or not is_allocated(network):
            return
        before = self._open.get(network.id)
        self._open[network.id] = network
        if before is None or before.ipam_options != network.ipam_options:
            self._pools.pop(network.id, None)
            self.freed.add(network.id)

    def _pools_of(self, network_id: str) -> NetworkPools | None:
        pools = self._pools.get(network_id)
        network = self._open.get(network_id)
        if pools is None and network is not None:
            pools = self._pools[network_id] = pools_of(network)
            for address in self._holders.get(network_id, ()):
                pools.reserve(address)
            if network_id in self._resuming:
                self._resuming.discard(network_id)
                pools.resume()
        return pools

    def close(self, network_id: str) -> None:
        """Forget a network and all that was given on it."""
        self._open.pop(network_id, None)
        self._resuming.discard(network_id)
        self._pools.pop(network_id, None)

    def is_open(self, network_id: str) -> bool:
        """Whether addresses of the network can be given at all."""
        return network_id in self._open

    def room(self, network_id: str) -> int:
        """How many could still come on to the network; 0 for one that is not open."""
        pools = self._pools_of(network_id)
        return 0 if pools is None else pools.room()

    def has_room(self, network_id: str) -> bool:
        """Whether anybody could still come on to the network."""
        pools = self._pools_of(network_id)
        return pools is not None and pools.has_room()

    def in_use(self) -> set[str]:
        """Networks on which somebody has an address."""
        return set(self._holders)

    def of(self, holder: Holder) -> frozenset[Held]:
        """What somebody holds."""
        return self._holdings.get(holder, frozenset())

    def settle(self, holder: Holder, held: Iterable[Held], at: int) -> None:
        """Somebody holds exactly `held` from now on; what else it held is free since `at`."""
        now = frozenset(held)
        before = self._holdings.get(holder, frozenset())
        if now == before:
            return
        for each in now - before:
            self._note(holder, each)
        for each in before - now:
            self._drop(holder, each, at)
        if now:
            self._holdings[holder] = now
        else:
            del self._holdings[holder]

    def _note(self, holder: Holder, held: Held) -> None:
        network_id, address = held
        holders = self._holders.setdefault(network_id, {}).setdefault(address, set())
        if holders:
            log.error("%s %s has %s of network %s, which is in use", holder[0].__name__, holder[1], address, network_id)
        elif network_id in self._pools:
            self._pools[network_id].reserve(address)
        holders.add(holder)

    def _drop(self, holder: Holder, held: Held, at: int) -> None:
        network_id, address = held
        addresses = self._holders[network_id]
        addresses[address].discard(holder)
        if addresses[address]:
            return
        # The pool is made before, so that it knows until when the address was used.
        pools = self._pools_of(network_id)
        del addresses[address]
        if not addresses:
            del self._holders[network_id]
        if pools is not None:
            pools.release(address, at)
            self.freed.add(network_id)

    def give(self, holder: Holder, network_id: str, now: int) -> list[str] | None:
        """Addresses on a network, one of each family; None when it has none left."""
        pools = self._pools_of(network_id)
        taken = None if pools is None else pools.take(now)
        return None if taken is None else self._given(holder, network_id, taken)

    def give_one(self, holder: Holder, network_id: str, now: int, asked: str = "") -> str | None:
        """One address on a network, `asked` if it is given; None when there is none, or when that one is not free."""
        pools = self._pools_of(network_id)
        if pools is None:
            return None
        address = pools.reserve(asked) if asked else pools.take_one(now)
        return None if address is None else self._given(holder, network_id, [address])[0]

    def _given(self, holder: Holder, network_id: str, addresses: list[str]) -> list[str]:
        held = {(network_id, address) for address in addresses}
        self._holdings[holder] = self.of(holder) | held
        for address in addresses:
            self._holders.setdefault(network_id, {}).setdefault(address, set()).add(holder)
        return addresses

    def was_used(self, held: Held, until: int) -> None:
        """Note that an address, free now, was in use until then."""
        network_id, address = held
        pools = self._pools_of(network_id)
        if pools is not None and address not in self._holders.get(network_id, ()):
            pools.was_used(address, until)

    def resume(self, network_id: str) -> None:
        """Begin where the fewest addresses have been lately (`AddressPool.resume`)."""
        if network_id in self._pools:
            self._pools[network_id].resume()
        else:
            self._resuming.add(network_id)
