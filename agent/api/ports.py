"""Whether a service may publish the ports it asks for, as far as the other services' ports tell.

SwarmKit's rule (controlapi checkPortConflicts): an ingress port belongs to one service on all nodes, so it excludes every
other use; host ports of several services can live together, since the scheduler puts them on different nodes.
"""

from __future__ import annotations

from agent.api_types.errors import InvalidArgument
from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import PortConfig
from agent.store.transactions import ReadTx

_Key = tuple[str, int]


def check_port_conflicts(tx: ReadTx, spec: ServiceSpec, *, service_id: str) -> None:
    """InvalidArgument names the service that holds the port. `service_id` is the service that is updated, or empty."""
    wanted: dict[str, set[_Key]] = {"ingress": set(), "host": set()}
    for port in spec.endpoint_spec.ports if spec.endpoint_spec is not None else ():
        if port.published_port:
            wanted[port.publish_mode].add((port.protocol, port.published_port))
    if not wanted["ingress"] and not wanted["host"]:
        return
    for service in tx.all(Service):
        if service.id == service_id:
            continue
        asked = service.spec.endpoint_spec.ports if service.spec.endpoint_spec is not None else []
        for port in (*asked, *service.endpoint.ports):
            _check(port, service, wanted)


def _check(port: PortConfig, service: Service, wanted: dict[str, set[_Key]]) -> None:
    if not port.published_port:
        return
    key = (port.protocol, port.published_port)
    holder = f"port '{port.published_port}' is already in use by service '{service.spec.name}' ({service.id})"
    if port.publish_mode == "host":
        if key in wanted["ingress"]:
            raise InvalidArgument.grpc(f"{holder} as a host-published port")
    elif key in wanted["ingress"] or key in wanted["host"]:
        raise InvalidArgument.grpc(f"{holder} as an ingress port")
