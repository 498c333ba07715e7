"""What a client asks for with `POST /networks/create`, and what the swarm refuses of it.

Sources: moby daemon/network.go and daemon/cluster/convert/network.go, swarmkit manager/controlapi/network.go. Refused
beyond those, because Docker would answer with an id and then leave the network without addresses for ever: a subnet that
overlaps with that of another network or that has its host's bits set, and reserved (auxiliary) addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from agent.api_types.common import Driver
from agent.api_types.errors import AlreadyExists, ApiError, InvalidArgument, PermissionDenied, Unimplemented
from agent.api_types.fields import ApiObject, nested, omitempty
from agent.api_types.network import IPAMConfig, IPAMOptions, Network, NetworkReference, NetworkSpec
from agent.api_types.validation import validate_name

Subnet = IPv4Network | IPv6Network

OVERLAY = "overlay"
NODE_LOCAL = frozenset({"bridge", "host", "ipvlan", "macvlan"})
"""Drivers of scope swarm whose networks every node makes for itself; addresses come from each node's engine."""
PREDEFINED = frozenset({"bridge", "default", "host", "none"})
"""Names of networks that every engine has."""
PREDEFINED_LABEL = "com.docker.swarm.predefined"
SMALLEST = {4: 29, 6: 125}
"""The longest prefix: gateway, a balancer, a virtual address and a task need an address each."""


class RequestedSubnet(ApiObject, frozen=True):
    """A subnet of a network that a client asks for."""

    subnet: str = omitempty("Subnet", "")
    range: str = omitempty("IPRange", "")
    gateway: str = omitempty("Gateway", "")
    reserved: dict[str, str] = omitempty("AuxiliaryAddresses", {})


class RequestedIPAM(ApiObject, frozen=True):
    """Address management as a client asks for it."""

    driver: str = omitempty("Driver", "")
    options: dict[str, str] = omitempty("Options", {})
    config: list[RequestedSubnet] = omitempty("Config", [])


class NetworkRequest(ApiObject, frozen=True):
    """The body of `POST /networks/create`."""

    name: str = omitempty("Name", "")
    driver: str = omitempty("Driver", "")
    scope: str = omitempty("Scope", "")
    ipv4_enabled: bool | None = omitempty("EnableIPv4", None)
    ipv6_enabled: bool = omitempty("EnableIPv6", False)
    ipam: RequestedIPAM = nested("IPAM", RequestedIPAM)
    internal: bool = omitempty("Internal", False)
    attachable: bool = omitempty("Attachable", False)
    ingress: bool = omitempty("Ingress", False)
    config_only: bool = omitempty("ConfigOnly", False)
    config_from: NetworkReference | None = omitempty("ConfigFrom", None)
    options: dict[str, str] = omitempty("Options", {})
    labels: dict[str, str] = omitempty("Labels", {})

    @property
    def is_of_swarm(self) -> bool:
        """Whether the swarm makes the network, not the host's engine. A configuration alone is always a host's own."""
        if self.config_only:
            return False
        return self.driver.lower() == OVERLAY or self.scope.lower() == "swarm" or self.ingress


def spec_of(request: NetworkRequest) -> NetworkSpec:
    """The spec of a network of scope swarm; an ApiError with Docker's text when it cannot be had."""
    if request.name in PREDEFINED:
        raise PermissionDenied(f"{request.name} is a pre-defined network and cannot be created")
    driver = request.driver.lower() or OVERLAY
    if request.ipv4_enabled is False:
        raise InvalidArgument("IPv4 cannot be disabled in a Swarm scoped network")
    if request.ingress and driver != OVERLAY:
        raise Unimplemented.grpc("only overlay driver is currently supported for ingress network")
    if request.ingress and request.attachable:
        raise InvalidArgument.grpc("ingress network cannot be attachable")
    validate_name(request.name)
    if PREDEFINED_LABEL in request.labels:
        raise PermissionDenied.grpc(
            f"label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
        )
    if driver != OVERLAY and driver not in NODE_LOCAL:
        raise InvalidArgument.grpc(f"error during lookup of plugin {driver}")
    _check_config_from(request, driver)
    return NetworkSpec(
        name=request.name,
        labels=request.labels,
        driver_configuration=Driver(name=driver, options=request.options),
        ipv6_enabled=request.ipv6_enabled,
        internal=request.internal,
        attachable=request.attachable,
        ingress=request.ingress,
        ipam_options=_ipam(request.ipam),
        scope="swarm",
        config_from=_named(request.config_from),
    )


def _named(reference: NetworkReference | None) -> NetworkReference | None:
    return reference if reference is not None and reference.network else None


def _check_config_from(request: NetworkRequest, driver: str) -> None:
    if _named(request.config_from) is None:
        return
    if driver == OVERLAY:
        raise InvalidArgument(
            "an overlay network is the same on every node: it cannot be made of a node's configuration"
        )
    if request.ipam.config or request.options:
        raise PermissionDenied(
            "user specified configurations are not supported if the network depends on a configuration network"
        )


def _ipam(requested: RequestedIPAM) -> IPAMOptions | None:
    name = requested.driver or "default"
    if name != "default":
        raise InvalidArgument.grpc(f"error during lookup of plugin {name}")
    subnets: list[Subnet] = []
    for config in requested.config:
        subnet = _check_subnet(config)
        if any(_overlap(subnet, other) for other in subnets):
            raise _overlapping(subnet, "another subnet of the network")
        subnets.append(subnet)
    if not requested.config and not requested.options:
        return None
    configs = [IPAMConfig(subnet=each.subnet, range=each.range, gateway=each.gateway) for each in requested.config]
    return IPAMOptions(driver=Driver(name=name, options=requested.options), configs=configs)


def _refused(text: str) -> ApiError:
    return InvalidArgument.grpc(f"ipam configuration: {text}")


def _check_subnet(config: RequestedSubnet) -> Subnet:
    if config.reserved:
        raise Unimplemented("auxiliary addresses are not supported for networks of scope swarm")
    try:
        whole = ip_interface(config.subnet)
        if "/" not in config.subnet:
            raise ValueError
    except ValueError:
        raise _refused(f"invalid subnet {config.subnet}") from None
    subnet = whole.network
    if whole.ip != subnet.network_address:
        raise InvalidArgument(f"invalid network config:\ninvalid subnet {config.subnet}: it should be {subnet}")
    if subnet.prefixlen > SMALLEST[subnet.version]:
        raise _refused(f"subnet {subnet} is too small: give one of /{SMALLEST[subnet.version]} or larger")
    if config.range:
        _check_range(config.range, subnet)
    if config.gateway:
        try:
            gateway = ip_address(config.gateway)
        except ValueError:
            raise _refused(f"invalid gateway {config.gateway}") from None
        if gateway not in subnet:
            raise _refused(f"subnet {config.subnet} does not contain gateway {config.gateway}")
        if subnet.version == 4 and gateway in (subnet.network_address, subnet.broadcast_address):
            raise _refused(f"gateway {config.gateway} is not the address of a host in subnet {config.subnet}")
    return subnet


def _check_range(text: str, subnet: Subnet) -> None:
    try:
        if "/" not in text:
            raise ValueError
        address_range = ip_interface(text).network
    except ValueError:
        raise _refused(f"invalid range {text}") from None
    if address_range.version != subnet.version or not (
        subnet.network_address <= address_range.network_address  # type: ignore[operator]
        and address_range.broadcast_address <= subnet.broadcast_address  # type: ignore[operator]
    ):
        raise _refused(f"subnet {subnet} does not contain range {text}")


OF_EVERY_NODE = ("bridge", "host")
"""Networks that every node has by itself and that services may name; in the store they are not."""


def network_of_every_node(name: str) -> Network | None:
    """One of those networks as clients see it at scope swarm: its name is its id, by which services name it."""
    if name not in OF_EVERY_NODE:
        return None
    return Network(id=name, spec=NetworkSpec(name=name, scope="swarm"), driver_state=Driver(name=name))


# -- beside the networks that there are


def check_against(spec: NetworkSpec, networks: Iterable[Network]) -> None:
    """AlreadyExists or PermissionDenied when `spec` cannot be had beside `networks`."""
    wanted = [ip_network(config.subnet) for config in (spec.ipam_options or IPAMOptions()).configs]
    for network in networks:
        if network.spec.name == spec.name:
            raise AlreadyExists(f"network with name {spec.name} already exists")
        if spec.ingress and network.spec.ingress:
            raise AlreadyExists.grpc(f"ingress network ({network.id}) is already present")
        if driver_of(spec) != OVERLAY or driver_of(network.spec) != OVERLAY:
            continue
        for taken in subnets_of(network):
            for subnet in wanted:
                if _overlap(subnet, taken):
                    raise _overlapping(subnet, f"{taken} of network {network.spec.name}")


def driver_of(spec: NetworkSpec) -> str:
    """The driver of a network of scope swarm."""
    return (spec.driver_configuration.name if spec.driver_configuration is not None else "") or OVERLAY


def subnets_of(network: Network) -> Iterator[Subnet]:
    """The subnets that a network has or, before they are allocated, is given."""
    options = network.ipam_options or network.spec.ipam_options
    for config in () if options is None else options.configs:
        if config.subnet:
            yield ip_network(config.subnet, strict=False)


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def _overlapping(subnet: Subnet, what: str) -> ApiError:
    return PermissionDenied(f"Pool overlaps with other one on this address space: {subnet} overlaps with {what}")
