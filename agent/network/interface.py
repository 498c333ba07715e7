"""The port behind which every balancer stands, and the ways a relayed connection reaches a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Who answers for a virtual service. `address` is an IP address, or in the ingress relay the id of a task."""

    address: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class VirtualService:
    """An address and port, and the backends behind it. `protocol` is tcp, udp or sctp; `mark` a packet mark, 0 for none.

    In the kernel's balancers port 0 is every port (its backends have port 0 too: the port stays), and the protocol "" all
    three.
    """

    address: str
    port: int
    protocol: str
    backends: frozenset[Backend]
    mark: int = 0
    source_nat: bool = False


class Balancer(Protocol):
    """Makes the host forward to backends: the whole desired set in, the smallest change out."""

    async def apply(self, desired: frozenset[VirtualService]) -> None:
        """Bring the host to the desired set. What did not change is not touched, connections that stand go on."""
        ...


class Link(Protocol):
    """One relayed connection to a backend. For udp each chunk is one datagram."""

    async def receive(self) -> bytes:
        """The next bytes; b"" when the other side has no more to send. ConnectionError when it broke."""
        ...

    async def send(self, data: bytes) -> None:
        """Pass bytes on; waits while the other side is slow."""
        ...

    async def end(self) -> None:
        """Nothing more will be sent; receiving goes on (a half-closed connection)."""
        ...

    async def close(self) -> None:
        """Give the connection up, both ways. Idempotent."""
        ...


class Dialer(Protocol):
    """Connects to a backend, wherever it runs."""

    async def __call__(self, backend: Backend, protocol: str) -> Link:
        """A link to the backend; OSError when it cannot be reached."""
        ...
