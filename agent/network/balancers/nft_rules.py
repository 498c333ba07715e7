"""Virtual services as nftables commands: pure text, no effect.

A table a family of addresses. Three maps lead to a service's chain: by address, protocol and port; by address and protocol
(a service of every port); by protocol and port on any address of the host. The chain is one rule that takes the backends in
turn. Only the first packet of a connection comes by here; the rest follows its conntrack entry, so that connections outlive
any change of these rules.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.network.interface import Backend, VirtualService

PROTOCOLS = ("tcp", "udp", "sctp")
ANY = ("0.0.0.0", "::")
"""As a service's address: every address of the host's own."""

DESTINATION_PRIORITY = -105
"""Before an engine's own port mappings (-100)."""
SOURCE_PRIORITY = 95
"""Before an engine's own masquerading (100)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The table's name and surroundings. `outward` is the interface that leads to the backends; connections that leave by it
    get its address as their source. `own_host`: the rules serve a host itself, not a balancer's namespace."""

    table: str
    outward: str
    own_host: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """One service in a table and its backends in turn."""

    name: str
    address: str
    port: int
    protocols: tuple[str, ...]
    backends: tuple[Backend, ...]

    @property
    def family(self) -> str:
        """ip or ip6, as nftables calls them."""
        return "ip6" if ":" in self.address else "ip"

    @property
    def elements(self) -> tuple[tuple[str, str], ...]:
        """The map elements that lead to it: (map, key)."""
        if self.address in ANY:
            return tuple(("ports", f"{protocol} . {self.port}") for protocol in self.protocols)
        if self.port == 0:
            return tuple(("addresses", f"{self.address} . {protocol}") for protocol in self.protocols)
        return tuple(("services", f"{self.address} . {protocol} . {self.port}") for protocol in self.protocols)


Chains = Mapping[str, Chain]
"""By name."""


def chains(services: Iterable[VirtualService]) -> dict[str, Chain]:
    """The services that have a backend. ValueError: an address, port or protocol is none, or families are mixed.

    One without a backend gets no chain: its connections then meet the virtual address itself, which refuses them.
    """
    return {chain.name: chain for service in services for chain in _chains_of(service)}


@functools.lru_cache(maxsize=1 << 14)
def _chains_of(service: VirtualService) -> tuple[Chain, ...]:
    """Remembered, as most services of a desired set are those of the set before: 1,000 cost 50 ms anew, 5 ms again."""
    if service.protocol not in ("", *PROTOCOLS):
        raise ValueError(f"{service.protocol!r} is not a protocol that is balanced")
    turn = _turn(service)
    if not turn:
        return ()
    every = PROTOCOLS if service.protocol == "" else (service.protocol,)
    # A port can only be written for one transport at a time; without one they share a chain.
    return tuple(
        _chain(service, protocols, turn)
        for protocols in ([every] if service.port == 0 else [(protocol,) for protocol in every])
    )


def _chain(service: VirtualService, protocols: tuple[str, ...], turn: tuple[Backend, ...]) -> Chain:
    address = ipaddress.ip_address(service.address)
    if service.address in ANY and service.port == 0:
        raise ValueError("a service on every address of the host needs a port")
    name = f"to-{address.exploded.replace(':', '_')}-{'-'.join(protocols)}-{service.port}"
    return Chain(name, str(address), service.port, protocols, turn)


def _turn(service: VirtualService) -> tuple[Backend, ...]:
    version = ipaddress.ip_address(service.address).version
    if not 0 <= service.port < 65536:
        raise ValueError(f"{service.port} is not a port")
    taken = sorted(backend for backend in service.backends if backend.weight > 0)
    for backend in taken:
        if ipaddress.ip_address(backend.address).version != version:
            raise ValueError(f"{backend.address} cannot be a backend of {service.address}: another family")
        if not 0 <= backend.port < 65536 or (backend.port == 0) != (service.port == 0):
            raise ValueError(f"port {backend.port} of a backend does not go with port {service.port}")
    heaviest = max((backend.weight for backend in taken), default=0)
    return tuple(backend for round in range(heaviest) for backend in taken if backend.weight > round)


def families(wanted: Chains) -> set[str]:
    """The families of address that need a table."""
    return {chain.family for chain in wanted.values()}


def rewrite(setting: Setting, wanted: Chains, standing: Iterable[str]) -> str:
    """One transaction that leaves just what is wanted, whatever stood before. `standing` families lose their tables."""
    commands = []
    for family in sorted({*families(wanted), *standing}):
        commands += [f"add table {family} {setting.table}", f"delete table {family} {setting.table}"]
    for family in sorted(families(wanted)):
        commands += _frame(setting, family)
    return "\n".join([*commands, *_difference(setting, {}, wanted)])


def change(setting: Setting, before: Chains, after: Chains) -> str:
    """One transaction from one state to the other; "" where they are the same."""
    gone, come = sorted(families(before) - families(after)), sorted(families(after) - families(before))
    kept = {name: chain for name, chain in before.items() if chain.family not in gone}
    commands = [f"delete table {family} {setting.table}" for family in gone]
    for family in come:
        commands += [f"add table {family} {setting.table}", f"delete table {family} {setting.table}"]
        commands += _frame(setting, family)
    return "\n".join([*commands, *_difference(setting, kept, after)])


def probe(table: str) -> str:
    """A transaction that needs all that the rules need, and leaves nothing."""
    backends = frozenset({Backend("192.0.2.2", 1), Backend("192.0.2.3", 2)})
    services = [VirtualService("192.0.2.1", 1, "tcp", backends), VirtualService("0.0.0.0", 1, "tcp", backends)]
    setting = Setting(table, "lo", own_host=True)
    return "\n".join([rewrite(setting, chains(services), ["ip"]), f"delete table ip {table}"])


def _difference(setting: Setting, before: Chains, after: Chains) -> list[str]:
    commands = []
    for name, chain in before.items():
        if name not in after:
            commands += [
                f"delete element {chain.family} {setting.table} {map_name} {{ {key} }}"
                for map_name, key in chain.elements
            ]
            commands.append(f"delete chain {chain.family} {setting.table} {name}")
    for name, chain in after.items():
        place = f"{chain.family} {setting.table}"
        known = before.get(name)
        if known is chain or known == chain:
            continue
        commands.append(f"add chain {place} {name}" if known is None else f"flush chain {place} {name}")
        commands.append(f"add rule {place} {name} {_translation(chain)}")
        if known is None:
            commands += [
                f"add element {place} {map_name} {{ {key} : goto {name} }}" for map_name, key in chain.elements
            ]
    return commands


def _translation(chain: Chain) -> str:
    backends = chain.backends
    turn = f"numgen inc mod {len(backends)} map"
    if backends[0].port == 0:
        return f"dnat to {turn} {{ {', '.join(f'{i} : {b.address}' for i, b in enumerate(backends))} }}"
    protocol = f"meta l4proto {chain.protocols[0]}"
    if len({backend.port for backend in backends}) == 1:
        targets = ", ".join(f"{i} : {b.address}" for i, b in enumerate(backends))
        return f"{protocol} dnat to {turn} {{ {targets} }} : {backends[0].port}"
    targets = ", ".join(f"{i} : {b.address} . {b.port}" for i, b in enumerate(backends))
    return f"{protocol} dnat {chain.family} addr . port to {turn} {{ {targets} }}"


def _frame(setting: Setting, family: str) -> list[str]:
    place = f"{family} {setting.table}"
    address = "ipv4_addr" if family == "ip" else "ipv6_addr"
    hooks = ("prerouting", "output")
    commands = [
        f"add table {place}",
        f"add map {place} services {{ type {address} . inet_proto . inet_service : verdict ; }}",
        f"add map {place} addresses {{ type {address} . inet_proto : verdict ; }}",
        f"add map {place} ports {{ type inet_proto . inet_service : verdict ; }}",
        *(
            f"add chain {place} {hook} {{ type nat hook {hook} priority {DESTINATION_PRIORITY} ; policy accept ; }}"
            for hook in hooks
        ),
        f"add chain {place} postrouting {{ type nat hook postrouting priority {SOURCE_PRIORITY} ; policy accept ; }}",
    ]
    for hook in hooks:
        commands.append(f"add rule {place} {hook} {family} daddr . meta l4proto . th dport vmap @services")
        if setting.own_host:
            commands.append(f"add rule {place} {hook} fib daddr type local meta l4proto . th dport vmap @ports")
        else:
            commands.append(f"add rule {place} {hook} {family} daddr . meta l4proto vmap @addresses")
    commands.append(f'add rule {place} postrouting oifname "{setting.outward}" ct status dnat masquerade')
    if setting.own_host and family == "ip":
        # Answers to 127.0.0.1 come in by the ingress bridge, which has to let them (route_localnet). Conntrack turns their
        # destination into 127.0.0.1 after this chain; a packet that has it here already was made up by a neighbour.
        commands += [
            f"add chain {place} guard {{ type filter hook prerouting priority -310 ; policy accept ; }}",
            f'add rule {place} guard iifname "{setting.outward}" ip daddr 127.0.0.0/8 drop',
        ]
    return commands
