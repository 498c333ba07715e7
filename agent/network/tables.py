"""What this node knows of its networks: the manager's updates put together, one frozen picture a network."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from types import MappingProxyType

from agent.rpc.messages import NetworkUpdate, OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet

logger = logging.getLogger(__name__)

_NO_SERVICES: Mapping[str, OverlayService] = MappingProxyType({})
_NO_ENDPOINTS: Mapping[str, OverlayEndpoint] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NetworkPicture:
    """One network as the manager last told it. Never changed: another update makes another picture.

    `services` and `endpoints` are by id. A task or an attachment that has a second address of another kind has a second
    endpoint, whose id the manager makes its own.
    """

    id: str
    description: OverlayDescription
    services: Mapping[str, OverlayService] = field(default_factory=lambda: _NO_SERVICES)
    endpoints: Mapping[str, OverlayEndpoint] = field(default_factory=lambda: _NO_ENDPOINTS)

    def subnet_of(self, address: str) -> OverlaySubnet | None:
        """The subnet that an address (without a length) is in; None for one that is not of this network."""
        parsed = ip_address(address)
        for subnet in self.description.subnets:
            if parsed in ip_network(subnet.subnet, strict=False):
                return subnet
        return None

    def with_length(self, address: str) -> str:
        """`address` with the prefix length of its subnet; that of a single host for a stranger."""
        subnet = self.subnet_of(address)
        length = subnet.subnet.partition("/")[2] if subnet is not None else str(ip_address(address).max_prefixlen)
        return f"{address}/{length}"

    def as_update(self) -> NetworkUpdate:
        """The update that would make this picture out of nothing."""
        return NetworkUpdate(
            network_id=self.id,
            complete=True,
            description=self.description,
            services=list(self.services.values()),
            endpoints=list(self.endpoints.values()),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What an update changed. `picture` is None for a network that is gone.

    `described` says that the network itself is another one than before; `services` and `endpoints` are the ids of those
    that came, changed or went.
    """

    network_id: str
    picture: NetworkPicture | None
    described: bool = False
    services: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()

    @property
    def nothing(self) -> bool:
        """Whether all is as before."""
        return self.picture is not None and not (self.described or self.services or self.endpoints)


class NetworkTables:
    """The networks of this node by id. Copies of 1,000 entries cost microseconds, so that readers may keep a picture."""

    def __init__(self, pictures: Iterable[NetworkPicture] = ()) -> None:
        self._pictures = {picture.id: picture for picture in pictures}

    @property
    def networks(self) -> Mapping[str, NetworkPicture]:
        """Every network that is known now, by id."""
        return MappingProxyType(self._pictures)

    def get(self, network_id: str) -> NetworkPicture | None:
        """The picture of a network, None for one that is not known here."""
        return self._pictures.get(network_id)

    def apply(self, update: NetworkUpdate) -> Change:
        """Take an update over. A difference to a network that is not known, and has no description, changes nothing."""
        known = self._pictures.get(update.network_id)
        if update.gone:
            return self.forget(update.network_id)
        if known is None and update.description is None:
            logger.warning("a manager told of changes on network %s, which it never described", update.network_id)
            return Change(update.network_id, None)
        description = update.description or (known.description if known is not None else None)
        assert description is not None
        before_services = known.services if known is not None else _NO_SERVICES
        before_endpoints = known.endpoints if known is not None else _NO_ENDPOINTS
        services = {} if update.complete else dict(before_services)
        endpoints = {} if update.complete else dict(before_endpoints)
        for service_id in update.removed_services:
            services.pop(service_id, None)
        for endpoint_id in update.removed_endpoints:
            endpoints.pop(endpoint_id, None)
        services.update((service.id, service) for service in update.services)
        endpoints.update((endpoint.id, endpoint) for endpoint in update.endpoints)
        picture = NetworkPicture(
            update.network_id, description, MappingProxyType(services), MappingProxyType(endpoints)
        )
        self._pictures[update.network_id] = picture
        named_services: Iterable[str] = [*update.removed_services, *(service.id for service in update.services)]
        named_endpoints: Iterable[str] = [*update.removed_endpoints, *(endpoint.id for endpoint in update.endpoints)]
        if update.complete:
            named_services = before_services.keys() | services.keys()
            named_endpoints = before_endpoints.keys() | endpoints.keys()
        return Change(
            update.network_id,
            picture,
            described=known is None or known.description != description,
            services=frozenset(one for one in named_services if before_services.get(one) != services.get(one)),
            endpoints=frozenset(one for one in named_endpoints if before_endpoints.get(one) != endpoints.get(one)),
        )

    def forget(self, network_id: str) -> Change:
        """The network is not this node's any more."""
        known = self._pictures.pop(network_id, None)
        if known is None:
            return Change(network_id, None)
        return Change(
            network_id,
            None,
            described=True,
            services=frozenset(known.services),
            endpoints=frozenset(known.endpoints),
        )
