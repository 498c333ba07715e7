"""Subnets and VXLAN identifiers of networks: those that a person gives, and others out of the cluster's pools.

What a person gives is checked as SwarmKit checks it (manager/controlapi/network.go, libnetwork/ipam); beyond that a subnet
may not hold the address of a host, because an overlay's bridge puts its subnet into the host's own routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import msgspec

from agent.api_types.common import Driver
from agent.api_types.network import IPAMConfig, IPAMOptions, Network, NetworkSpec
from agent.api_types.node import Node
from agent.api_types.swarm import Cluster
from agent.manager.allocator.address_pool import AddressPool, IPAddress, IPNetwork, NetworkPools, assignable
from agent.manager.allocator.intervals import Intervals

DEFAULT_POOLS = ("10.0.0.0/8",)
DEFAULT_SUBNET_SIZE = 24

OVERLAY = "overlay"
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
FIRST_VNI, LAST_VNI = 4096, (1 << 24) - 1
"""Those below 4096 are left to the hosts' own VXLANs, as SwarmKit does."""

OVERLAPS = "invalid pool request: Pool overlaps with other one on this address space"


class Unallocatable(Exception):
    """A network that cannot be given what its spec asks for; the text says why, `advice` what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


class InvalidNetwork(ValueError):
    """A spec that is wrong in itself, in SwarmKit's words."""


def driver_of(spec: NetworkSpec) -> str:
    """The driver that the spec names; overlay where it names none."""
    driver = spec.driver_configuration
    return (driver.name if driver is not None else "") or OVERLAY


def is_allocated(network: Network) -> bool:
    """Whether the network has all that it asks for, so that tasks can be put on it."""
    if driver_of(network.spec) != OVERLAY:
        return bool(network.driver_state.name)
    return vni_of(network) is not None and network.ipam_options is not None and bool(network.ipam_options.configs)


def vni_of(network: Network) -> int | None:
    """The VXLAN identifier that the network was given."""
    return _vni(network.driver_state.options.get(VNI_OPTION, ""))


def _vni(text: str) -> int | None:
    first = text.split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() else None


def pools_of(network: Network) -> NetworkPools:
    """The addresses of an allocated network, all of them free."""
    configs = network.ipam_options.configs if network.ipam_options is not None else []
    return NetworkPools(
        [
            AddressPool(
                ip_network(config.subnet),
                ip_network(config.range, strict=False) if config.range else None,
                ip_address(config.gateway) if config.gateway else None,
            )
            for config in configs
        ]
    )


def check_spec(spec: NetworkSpec) -> None:
    """Raise `InvalidNetwork` for subnets, ranges and gateways that mean nothing or do not fit each other."""
    seen: list[IPNetwork] = []
    for config in _asked(spec):
        if not config.subnet:
            if config.range or config.gateway:
                raise InvalidNetwork("ipam configuration: a range or a gateway needs a subnet")
            continue
        subnet = _parse(config)
        other = next((each for each in seen if each.overlaps(subnet)), None)
        if other is not None:
            raise InvalidNetwork(f"{OVERLAPS}: {subnet} and {other} of the same network")
        seen.append(subnet)
    options = spec.driver_configuration.options if spec.driver_configuration is not None else {}
    if VNI_OPTION in options:
        vni = _vni(options[VNI_OPTION])
        if vni is None or not 0 < vni <= LAST_VNI:
            raise InvalidNetwork(f"invalid vxlan id {options[VNI_OPTION]!r}: a number from 1 to {LAST_VNI} is wanted")


def _asked(spec: NetworkSpec) -> Sequence[IPAMConfig]:
    return spec.ipam_options.configs if spec.ipam_options is not None else ()


def _parse(config: IPAMConfig) -> IPNetwork:
    try:
        if "/" not in config.subnet:
            raise ValueError
        subnet = ip_network(config.subnet, strict=False)
    except ValueError:
        raise InvalidNetwork(f"ipam configuration: invalid subnet {config.subnet}") from None
    if config.range:
        try:
            within = ip_network(config.range, strict=False)
        except ValueError:
            raise InvalidNetwork(f"ipam configuration: invalid range {config.range}") from None
        if within.version != subnet.version or within[0] not in subnet or within[-1] not in subnet:
            raise InvalidNetwork(f"ipam configuration: subnet {config.subnet} does not contain range {config.range}")
    if config.gateway:
        try:
            gateway = ip_address(config.gateway)
        except ValueError:
            raise InvalidNetwork(f"ipam configuration: invalid gateway {config.gateway}") from None
        if gateway not in subnet:
            raise InvalidNetwork(
                f"ipam configuration: subnet {config.subnet} does not contain gateway {config.gateway}"
            )
    first, last = assignable(subnet)
    if last - first < 1:
        raise InvalidNetwork(f"ipam configuration: subnet {config.subnet} has no room for a gateway and a container")
    return subnet


@dataclass(frozen=True, slots=True)
class Pool:
    """Where subnets come from when nobody names one: `within`, in pieces of `size` bits of prefix."""

    within: IPNetwork
    size: int


def pools_of_cluster(default_addr_pool: Sequence[str], subnet_size: int) -> list[Pool]:
    """The cluster's pools; `InvalidNetwork` says which one is wrong."""
    size = subnet_size or DEFAULT_SUBNET_SIZE
    pools = []
    for text in default_addr_pool or DEFAULT_POOLS:
        try:
            within = ip_network(text, strict=False)
        except ValueError:
            raise InvalidNetwork(f"invalid address pool {text}") from None
        if not within.prefixlen <= size <= within.max_prefixlen - 2:
            raise InvalidNetwork(f"invalid address pool {text}: it cannot be cut into subnets of /{size}")
        pools.append(Pool(within, size))
    return pools


@dataclass
class Territory:
    """Which subnets and identifiers are taken, by which network, and where the hosts are."""

    pools: Sequence[Pool]
    names: dict[str, str] = field(default_factory=dict)
    subnets: dict[str, list[IPNetwork]] = field(default_factory=dict)
    vnis: dict[int, str] = field(default_factory=dict)
    hosts: Mapping[IPAddress, str] = field(default_factory=dict)
    """Address of a host -> its name."""
    trouble: str = ""
    """What is wrong with the cluster's pools."""
    _vni_of: dict[str, int] = field(default_factory=dict)
    _taken: dict[int, Intervals] = field(default_factory=lambda: {4: Intervals(), 6: Intervals()})
    """All subnets as runs of addresses, for each version of IP."""
    last_vni: int = FIRST_VNI - 1
    last_subnet: dict[int, int] = field(default_factory=dict)
    """For each pool (by its place) the end of the subnet that was given last."""

    def claim(self, network: Network) -> None:
        """Note what an allocated network has. Networks are claimed in the order in which they were made."""
        known = network.id in self.names
        self.forget(network.id)
        if not is_allocated(network) or network.ipam_options is None:
            return
        vni = vni_of(network)
        assert vni is not None
        self.names[network.id] = network.spec.name
        self.vnis[vni] = network.id
        self._vni_of[network.id] = vni
        self.subnets[network.id] = [ip_network(config.subnet) for config in network.ipam_options.configs]
        for subnet in self.subnets[network.id]:
            self._taken[subnet.version].add(*_run(subnet))
        if not known:
            self._go_on_after(network, vni)

    def _go_on_after(self, network: Network, vni: int) -> None:
        """The next network gets what comes after that of this one, as far as nobody named it."""
        if VNI_OPTION not in driver_options(network.spec):
            self.last_vni = vni
        asked = {config.subnet for config in _asked(network.spec)}
        for subnet in self.subnets[network.id]:
            for place, pool in enumerate(self.pools):
                if str(subnet) not in asked and subnet.version == pool.within.version and subnet[0] in pool.within:
                    self.last_subnet[place] = int(subnet.broadcast_address)

    def forget(self, network_id: str) -> None:
        """The network is gone: what it had may be given again, after everything that was not used."""
        self.names.pop(network_id, None)
        for subnet in self.subnets.pop(network_id, ()):
            self._taken[subnet.version].remove(*_run(subnet))
        vni = self._vni_of.pop(network_id, None)
        if vni is not None and self.vnis.get(vni) == network_id:
            del self.vnis[vni]

    def allocate(self, network: Network) -> Network:
        """The network with subnets, gateways and an identifier; `Unallocatable` or `InvalidNetwork` says what is in the way.

        Nothing is noted: `claim` the result.
        """
        spec = network.spec
        if driver_of(spec) != OVERLAY:
            state = Driver(name=driver_of(spec), options=driver_options(spec))
            return msgspec.structs.replace(network, driver_state=state, ipam_options=spec.ipam_options)
        check_spec(spec)
        configs = [self._given(config) for config in _asked(spec) if config.subnet]
        given = [ip_network(config.subnet) for config in configs]
        if not any(subnet.version == 4 for subnet in given):
            configs.insert(0, self._found(given))
        vni = self._vni_for(spec)
        options = dict(sorted({**driver_options(spec), VNI_OPTION: str(vni)}.items()))
        asked = spec.ipam_options
        ipam = Driver(
            name=(asked.driver.name if asked is not None else "") or "default",
            options=asked.driver.options if asked is not None else {},
        )
        return msgspec.structs.replace(
            network,
            driver_state=Driver(name=OVERLAY, options=options),
            ipam_options=IPAMOptions(driver=ipam, configs=configs),
        )

    def _given(self, config: IPAMConfig) -> IPAMConfig:
        subnet = _parse(config)
        taken = self._overlapping(subnet)
        if taken is not None:
            other, name = taken
            raise Unallocatable(
                f"{OVERLAPS}: {subnet} and {other} of network {name}",
                f"Give the network a subnet that does not overlap {other}, or remove network {name}.",
            )
        for address, host in self.hosts.items():
            if address in subnet:
                raise Unallocatable(
                    f"subnet {subnet} holds the address {address} of node {host}, which it would cut off",
                    "Give the network a subnet that no host is in.",
                )
        return IPAMConfig(
            subnet=str(subnet), range=config.range, gateway=config.gateway or _first_gateway(subnet, config.range)
        )

    def _found(self, but: Sequence[IPNetwork]) -> IPAMConfig:
        for place, pool in enumerate(self.pools):
            subnet = self._next_subnet(place, pool, but)
            if subnet is not None:
                return IPAMConfig(subnet=str(subnet), gateway=_first_gateway(subnet, ""))
        listed = ", ".join(f"{pool.within} by /{pool.size}" for pool in self.pools)
        raise Unallocatable(
            self.trouble or f"no subnet is left in the cluster's address pools ({listed})",
            "Remove networks that nobody uses (docker network prune), or give this one a subnet of its own (--subnet).",
        )

    def _next_subnet(self, place: int, pool: Pool, but: Sequence[IPNetwork]) -> IPNetwork | None:
        """The subnet after the one given last that is free, from the beginning again at the end of the pool."""
        first, last = _run(pool.within)
        length = 1 << (pool.within.max_prefixlen - pool.size)
        begin = self.last_subnet.get(place, first - 1) + 1
        for start in (begin, first):
            candidate = first + -(-(start - first) // length) * length
            while candidate + length - 1 <= last:
                end = self._last_taken(pool.within.version, candidate, candidate + length - 1, but)
                if end is None:
                    return type(pool.within)((candidate, pool.size))
                candidate = first + -(-(end + 1 - first) // length) * length
        return None

    def _last_taken(self, version: int, first: int, last: int, but: Sequence[IPNetwork]) -> int | None:
        """The end of something that is in the way between two addresses; None when nothing is."""
        run = self._taken[version].run_within(first, last)
        if run is not None:
            return run[1]
        others = [_run(subnet) for subnet in but if subnet.version == version]
        others += [(int(address), int(address)) for address in self.hosts if address.version == version]
        return next((end for begin, end in others if begin <= last and end >= first), None)

    def _overlapping(self, subnet: IPNetwork) -> tuple[IPNetwork, str] | None:
        if self._taken[subnet.version].run_within(*_run(subnet)) is None:
            return None
        for network_id, subnets in self.subnets.items():
            for other in subnets:
                if other.overlaps(subnet):
                    return other, self.names[network_id]
        return None

    def _vni_for(self, spec: NetworkSpec) -> int:
        given = _vni(driver_options(spec).get(VNI_OPTION, ""))
        if given is not None:
            if given in self.vnis:
                name = self.names[self.vnis[given]]
                raise Unallocatable(
                    f"vxlan id {given} is in use by network {name}", "Give the network another one, or none."
                )
            return given
        for begin in (self.last_vni + 1, FIRST_VNI):
            vni = max(begin, FIRST_VNI)
            while vni in self.vnis:
                vni += 1
            if vni <= LAST_VNI:
                return vni
        raise Unallocatable("every vxlan id is in use", "Remove networks that nobody uses (docker network prune).")


def driver_options(spec: NetworkSpec) -> dict[str, str]:
    """The options that a person gave the network's driver."""
    return spec.driver_configuration.options if spec.driver_configuration is not None else {}


def _run(subnet: IPNetwork) -> tuple[int, int]:
    return int(subnet.network_address), int(subnet.broadcast_address)


def _first_gateway(subnet: IPNetwork, within: str) -> str:
    first, _ = assignable(subnet)
    if within:
        # As libnetwork does: the first address of the range that a container could have.
        first = max(first, int(ip_network(within, strict=False).network_address))
    return str(subnet[first - int(subnet.network_address)])


def hosts_of(nodes: Iterable[Node]) -> dict[IPAddress, str]:
    """Where nodes say that they are, as far as it is an address, and how they are called."""
    found: dict[IPAddress, str] = {}
    for node in nodes:
        try:
            address = ip_address(node.status.addr)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified:
            found[address] = node.description.hostname or node.id
    return found


def territory_of(cluster: Cluster | None, networks: Iterable[Network], nodes: Iterable[Node]) -> Territory:
    """What is taken by `networks`, in the cluster's pools."""
    told: tuple[Sequence[str], int] = ((), 0) if cluster is None else (cluster.default_addr_pool, cluster.subnet_size)
    try:
        territory = Territory(pools_of_cluster(*told))
    except InvalidNetwork as error:
        territory = Territory((), trouble=str(error))
    territory.hosts = hosts_of(nodes)
    for network in sorted(networks, key=lambda each: (each.created_at, vni_of(each) or 0)):
        territory.claim(network)
    return territory


def ingress_network(network_id: str, default_addr_pool: Sequence[str], subnet_size: int, host: str) -> Network:
    """The network of the routing mesh, as every cluster begins with it; not around `host`, where the first manager is."""
    territory = Territory(pools_of_cluster(default_addr_pool, subnet_size))
    try:
        territory.hosts = {ip_address(host): "of the first manager"}
    except ValueError:
        territory.hosts = {}
    spec = NetworkSpec(
        name="ingress", driver_configuration=Driver(), ingress=True, ipam_options=IPAMOptions(), scope="swarm"
    )
    return territory.allocate(Network(id=network_id, spec=spec))
