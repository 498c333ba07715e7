"""What a host is to have of a network, out of the network's picture. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from agent.network.interface import Backend, VirtualService
from agent.network.overlay.interface import OverlayWanted
from agent.network.tables import NetworkPicture
from agent.rpc.messages import OverlayEndpoint


def wanted(picture: NetworkPicture, node_id: str) -> OverlayWanted:
    """The network's links on the node."""
    description = picture.description
    return OverlayWanted(
        id=picture.id,
        vni=description.vni,
        gateways=tuple(picture.with_length(one.gateway) for one in description.subnets if one.gateway),
        endpoints={one.address: one.host for one in picture.endpoints.values() if one.host and one.node_id != node_id},
        mtu=description.mtu,
        encrypted=description.encrypted,
    )


def virtual_services(picture: NetworkPicture) -> frozenset[VirtualService]:
    """Every virtual address with the addresses of the ready tasks behind it, for every port."""
    ready: dict[str, set[Backend]] = {}
    for endpoint in picture.endpoints.values():
        if endpoint.ready and endpoint.service_id:
            ready.setdefault(endpoint.service_id, set()).add(Backend(endpoint.address, 0))
    return frozenset(
        VirtualService(address=service.vip, port=0, protocol="", backends=frozenset(ready.get(service.id, ())))
        for service in picture.services.values()
        if service.vip
    )


def without(picture: NetworkPicture, withdrawn: Collection[str]) -> NetworkPicture:
    """The picture in which these tasks are not ready, whatever managers say."""
    if not any(member_of(one) in withdrawn for one in picture.endpoints.values()):
        return picture
    endpoints = {
        key: msgspec.structs.replace(one, ready=False) if one.ready and member_of(one) in withdrawn else one
        for key, one in picture.endpoints.items()
    }
    return NetworkPicture(picture.id, picture.description, picture.services, endpoints)


def member_of(endpoint: OverlayEndpoint) -> str:
    """The task or attachment that an endpoint is of; a second address of one has its id with something behind it."""
    return endpoint.id.partition(".")[0]


def members(endpoints: Iterable[OverlayEndpoint]) -> set[str]:
    return {member_of(endpoint) for endpoint in endpoints}


def is_ingress(picture: NetworkPicture) -> bool:
    """Whether it is the network of published ports, which has no names and no tasks that see it."""
    return picture.description.ingress
