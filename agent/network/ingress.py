"""Published ports: every node answers on every one of them, wherever the tasks run.

The manager's table names tasks and nodes; a task on this node is dialled directly, one elsewhere through its node's agent
on an authenticated connection. This is the data plane for hosts without privileges.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.network.balancers.userspace import UserspaceBalancer
from agent.network.interface import Backend, Link, VirtualService
from agent.network.links import dial_tcp, dial_udp
from agent.rpc.messages import IngressBackend, IngressTable

LocalAddress = Callable[[str, int, str], tuple[str, int] | None]
"""(task id, port, protocol) to where it answers on this host, None when it does not run here."""

RemoteDial = Callable[[IngressBackend, int, str], Awaitable[Link]]
"""Opens a relay to (backend, port, protocol) through the backend's node; OSError when it cannot be."""


@dataclass
class Ingress:
    """The published ports of a node that is in a swarm. `address` is what the listeners bind."""

    address: str
    local_address: LocalAddress
    remote_dial: RemoteDial
    _known: dict[str, IngressBackend] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.balancer = UserspaceBalancer(self._dial)

    async def apply(self, table: IngressTable) -> None:
        """Take the manager's newest table."""
        self._known = {backend.task_id: backend for service in table.services for backend in service.backends}
        await self.balancer.apply(virtual_services(table, self.address))

    async def close(self) -> None:
        """Stop answering."""
        await self.balancer.close()

    async def _dial(self, backend: Backend, protocol: str) -> Link:
        local = self.local_address(backend.address, backend.port, protocol)
        if local is not None:
            return await (dial_tcp if protocol == "tcp" else dial_udp)(*local)
        known = self._known.get(backend.address)
        if known is None:
            raise ConnectionRefusedError(f"task {backend.address} is not known any more")
        return await self.remote_dial(known, backend.port, protocol)


def virtual_services(table: IngressTable, address: str) -> frozenset[VirtualService]:
    """The manager's table as virtual services that listen on `address`."""
    return frozenset(
        VirtualService(
            address=address,
            port=service.published_port,
            protocol=service.protocol,
            backends=frozenset(Backend(backend.task_id, service.target_port) for backend in service.backends),
            source_nat=True,
        )
        for service in table.services
    )
