"""What a host's networks are made of, as `agent.network.host` needs it: one seam for each part that a test replaces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

from agent.network.interface import VirtualService
from agent.network.overlay.interface import OverlayWanted
from agent.rpc.messages import NetworkKeys


class Links(Protocol):
    """The part of `OverlayLinks` that every kernel can have."""

    async def apply(self, wanted: Mapping[str, OverlayWanted]) -> Mapping[str, str]: ...

    async def close(self, *, remove: bool = False) -> None: ...


@runtime_checkable
class Rekeying(Protocol):
    """The part that is for encrypted networks."""

    async def rekey(self, keys: NetworkKeys) -> None: ...


class NetworkBalancer(Protocol):
    """`agent.network.lb_namespace.LbNamespace`: see there."""

    async def apply(self, address: str, vips: Collection[str], services: frozenset[VirtualService]) -> None: ...

    async def forget(self, backends: Collection[str]) -> int: ...

    async def close(self, *, remove: bool) -> None: ...


BalancerOf = Callable[[str, str, int], NetworkBalancer]
"""A network's balancer, from the network's id, its bridge and its MTU."""


class StillUsed(Exception):
    """Something of this host is on a network that should go; the text says what."""


Release = Callable[[str], Awaitable[None]]
"""Lets whoever runs containers let go of a network (id). StillUsed while it cannot."""
