"""Published ports of services.

Ports that a service names are taken as they are; others come from 30000 to 32767, and a service keeps those it has. An
ingress port belongs to one service in the whole cluster (the API refuses a second one that names it); a host port is the
scheduler's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import Endpoint, EndpointSpec, PortConfig

FIRST_DYNAMIC, LAST_DYNAMIC = 30000, 32767
NO_PORT_LEFT = f"no published port is free between {FIRST_DYNAMIC} and {LAST_DYNAMIC}"

HOST = "host"
IngressPort = tuple[str, int]
"""Protocol and number."""


def is_ingress(port: PortConfig) -> bool:
    """Whether every node publishes the port (the default) or only the task's own."""
    return port.publish_mode != HOST


def allocate_endpoint(service: Service, taken: set[IngressPort]) -> Endpoint | None:
    """The endpoint that the service's spec leads to; None when no port is left for it.

    `taken` are the ingress ports of all other services. A port without a number keeps the one it got before.
    """
    wanted = service.spec.endpoint_spec or EndpointSpec()
    named = {_number(port) for port in wanted.ports if is_ingress(port) and port.published_port}
    before = [port for port in service.endpoint.ports if is_ingress(port)]
    free = _free_ports(taken | named)
    ports = []
    used = set(named)
    for port in wanted.ports:
        if port.published_port or not is_ingress(port):
            ports.append(port)
            continue
        number = _kept(port, before, taken | used) or next(free(port.protocol, used), 0)
        if not number:
            return None
        given = msgspec.structs.replace(port, published_port=number)
        used.add(_number(given))
        ports.append(given)
    return Endpoint(
        spec=wanted, ports=ports, virtual_ips=service.endpoint.virtual_ips if wanted.mode != "dnsrr" else []
    )


class _free_ports:  # noqa: N801 - reads as the function that it is used as
    """Free dynamic ports of a protocol, lowest first."""

    def __init__(self, taken: set[IngressPort]) -> None:
        self._taken = taken

    def __call__(self, protocol: str, used: set[IngressPort]) -> Iterator[int]:
        for number in range(FIRST_DYNAMIC, LAST_DYNAMIC + 1):
            key = (protocol or "tcp", number)
            if key not in self._taken and key not in used:
                yield number


def _kept(port: PortConfig, before: Sequence[PortConfig], taken: set[IngressPort]) -> int:
    for old in before:
        alike = (old.name, old.protocol, old.target_port) == (port.name, port.protocol, port.target_port)
        if alike and FIRST_DYNAMIC <= old.published_port <= LAST_DYNAMIC and _number(old) not in taken:
            return old.published_port
    return 0


def _spec_ports(spec: ServiceSpec) -> Sequence[PortConfig]:
    return () if spec.endpoint_spec is None else spec.endpoint_spec.ports


def _number(port: PortConfig) -> IngressPort:
    return port.protocol or "tcp", port.published_port


def ingress_ports(services: Iterable[Service], but: str = "") -> set[IngressPort]:
    """The ingress ports that services hold, without those of the service `but`."""
    return {
        _number(port)
        for service in services
        if service.id != but
        for port in [*_spec_ports(service.spec), *service.endpoint.ports]
        if is_ingress(port) and port.published_port
    }


def lacks_ports(service: Service) -> bool:
    """Whether the endpoint is not yet what the spec asks for, virtual addresses aside."""
    return service.endpoint.spec != (service.spec.endpoint_spec or EndpointSpec()) or any(
        not port.published_port and is_ingress(port) for port in service.endpoint.ports
    )
