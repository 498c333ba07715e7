"""What may be asked from which address: a picture of the names on this host's networks.

Both classes are values that are never changed: a server that is given a new `Names` answers a query wholly from the old one
or wholly from the new one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from agent.network.dns.wire import REMEMBERED, Record, Type, reversed_address, wire_name
from agent.rpc.messages import OverlayDescription, OverlayEndpoint, OverlayService

VIRTUAL_TTL = 30
"""Seconds for which a virtual address may be remembered: it stays while its service is."""

TASK_TTL = 0
"""A task's address is not to be remembered: it leaves the names before it stops. (Docker says 600 for both.)"""

ByType = Mapping[int, tuple[Record, ...]]
"""A name's records by their type."""

Member = tuple[str, ...]
"""What an endpoint is known by on all networks: its id, and its name together with its node."""

_ARPA = b"\x04arpa\0"

_SOURCES_KEPT = 4096
"""Sources whose networks are remembered in one picture; a host has fewer tasks than that."""


@dataclass(frozen=True, slots=True)
class NetworkNames:
    """One network's names in wire format to their records by type; a name may be known and have none just now."""

    id: str
    name: str
    suffix: bytes | None
    """The network's own name in wire format: `web.mynet` is `web` on that network and on no other."""
    records: Mapping[bytes, ByType]
    called: Mapping[str, str]
    """Address to the name that its PTR tells, without the network's."""
    members: Mapping[str, Member]
    """Address to who has it, whether ready or not: one that is about to start asks, too."""
    present: frozenset[str]
    """What all members are known by."""
    subnets: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    internal: bool = False
    """Nothing leaves it, questions included: names would carry out data (CVE-2024-29018 of the Docker Engine)."""

    @classmethod
    def build(
        cls,
        network_id: str,
        description: OverlayDescription,
        services: Iterable[OverlayService],
        endpoints: Iterable[OverlayEndpoint],
    ) -> NetworkNames:
        """The names of one network. The ingress network has none, as in Docker; who is on it is known all the same.

        A service's name and aliases stand for its virtual address, or for its ready tasks' addresses without one;
        `tasks.NAME` always for the latter. An endpoint's name and aliases stand for its address while it is ready. Where
        a service answers for a name already, its own tasks' aliases of that name add nothing. Addresses are as `ipaddress`
        writes them. 3 ms for 1,000 endpoints when most of them were named before.
        """
        endpoints = list(endpoints)
        members = {endpoint.address: _known_by(endpoint) for endpoint in endpoints}
        builder = _Builder()
        if not description.ingress:
            builder.add_services(services, endpoints)
            builder.add_endpoints(endpoints)
        return cls(
            id=network_id,
            name=description.name,
            suffix=wire_name(description.name),
            records=MappingProxyType({name: _by_type(found) for name, found in builder.records.items()}),
            called=MappingProxyType(builder.called),
            members=MappingProxyType(members),
            present=frozenset(known for member in members.values() for known in member),
            internal=description.internal,
            subnets=tuple(ipaddress.ip_network(subnet.subnet, strict=False) for subnet in description.subnets),
        )

    def find(self, name: bytes) -> ByType | None:
        """The records of a name, with or without the network's name behind it; None when it is unknown here."""
        found = self.records.get(name)
        if found is None and name.endswith(_ARPA):
            return self._find_reverse(name)
        if found is not None or self.suffix is None:
            return found
        position = 0
        while length := name[position]:
            position += 1 + length
            if name[position:] == self.suffix:
                return self.records.get(name[:position] + b"\0")
        return None

    def _find_reverse(self, name: bytes) -> ByType | None:
        """The PTR record of an address that somebody is called by: NAME.NETWORK, as Docker has them."""
        called = self.called.get(reversed_address(name) or "")
        if called is None:
            return None
        target = wire_name(f"{called}.{self.name}") or wire_name(called)
        return {Type.PTR: (Record(Type.PTR, TASK_TTL, target),)} if target is not None else None

    def covers(self, address: str) -> bool:
        """Whether an address is in one of the network's subnets."""
        parsed = ipaddress.ip_address(address)
        return any(parsed.version == subnet.version and parsed in subnet for subnet in self.subnets)


@dataclass(frozen=True, slots=True)
class Names:
    """The names on all networks of this host. Slices are replaced by making another picture, which shares the rest."""

    networks: Mapping[str, NetworkNames] = field(default_factory=lambda: MappingProxyType({}))
    _seen: dict[str, tuple[NetworkNames, ...]] = field(default_factory=dict, compare=False, repr=False)

    def with_network(self, network: NetworkNames) -> Names:
        """The picture with this network's names instead of what it had of them."""
        return Names(MappingProxyType({**self.networks, network.id: network}))

    def without_network(self, network_id: str) -> Names:
        """The picture without a network; one that it has not is no error."""
        return Names(MappingProxyType({key: value for key, value in self.networks.items() if key != network_id}))

    def seen_from(self, source: str) -> tuple[NetworkNames, ...]:
        """The networks that whoever has the address `source` is on: empty for a stranger.

        A task on several networks sees them all, whichever address it asks from. An address that no endpoint has, but
        that lies in a network's subnet, sees that network: the host itself, or a task whose start overtook the news of it.
        """
        found = self._seen.get(source)
        if found is None:
            found = self._look_up(source)
            if len(self._seen) < _SOURCES_KEPT:
                self._seen[source] = found
        return found

    def _look_up(self, source: str) -> tuple[NetworkNames, ...]:
        networks = self.networks.values()
        asker = {known for network in networks for known in network.members.get(source, ())}
        return tuple(network for network in networks if not asker.isdisjoint(network.present) or network.covers(source))


class _Builder:
    """Collects a network's records by name, each address once a name."""

    def __init__(self) -> None:
        self.records: dict[bytes, dict[Record, None]] = {}
        self._claims: dict[bytes, set[str]] = {}
        self.called: dict[str, str] = {}

    def add_services(self, services: Iterable[OverlayService], endpoints: Iterable[OverlayEndpoint]) -> None:
        """Names, aliases and `tasks.` names of the services."""
        ready: dict[str, list[Record]] = {}
        for endpoint in endpoints:
            if endpoint.ready and endpoint.service_id:
                ready.setdefault(endpoint.service_id, []).append(address_record(endpoint.address, TASK_TTL))
        for service in services:
            tasks = ready.get(service.id, [])
            stands_for = [address_record(service.vip, VIRTUAL_TTL)] if service.vip else tasks
            for name in (service.name, *service.aliases):
                self._add(name, stands_for, service.id)
            self._add(f"tasks.{service.name}", tasks, service.id)
            if service.vip:
                self.called[service.vip] = service.name

    def add_endpoints(self, endpoints: Iterable[OverlayEndpoint]) -> None:
        """Names and aliases of tasks and containers. A balancer has no name."""
        for endpoint in endpoints:
            if not endpoint.name:
                continue
            found = [address_record(endpoint.address, TASK_TTL)] if endpoint.ready else []
            for name in (endpoint.name, *endpoint.aliases):
                wire = wire_name(name)
                if wire is None or (endpoint.service_id and endpoint.service_id in self._claims.get(wire, ())):
                    continue
                self._add(name, found)
            if endpoint.ready:
                self.called[endpoint.address] = endpoint.name

    def _add(self, name: str, found: Iterable[Record], service_id: str = "") -> None:
        wire = wire_name(name)
        if wire is None:
            return
        self.records.setdefault(wire, {}).update(dict.fromkeys(found))
        if service_id:
            self._claims.setdefault(wire, set()).add(service_id)


@lru_cache(REMEMBERED)
def address_record(address: str, ttl: int) -> Record:
    """An A or AAAA record. ValueError: not an address."""
    parsed = ipaddress.ip_address(address)
    return Record(Type.A if parsed.version == 4 else Type.AAAA, ttl, parsed.packed)


def _known_by(endpoint: OverlayEndpoint) -> Member:
    # A container that a person runs has another id on each network, and so has a second address; a balancer has no name.
    return (endpoint.id, f"{endpoint.node_id}/{endpoint.name}") if endpoint.name else (endpoint.id,)


def _by_type(records: Mapping[Record, None]) -> ByType:
    if len(records) == 1:
        (record,) = records
        return {record.type: (record,)}
    kinds = {record.type for record in records}
    return {kind: tuple(record for record in records if record.type == kind) for kind in kinds}


def covered(name: bytes, networks: Iterable[NetworkNames]) -> bool:
    """Whether `name` asks for the PTR of an address on one of these networks: nobody else can know it."""
    address = reversed_address(name)
    return address is not None and any(network.covers(address) for network in networks)
