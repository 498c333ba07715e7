"""What a host is to have of each overlay network, and who makes it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.rpc.messages import NetworkKeys

NAME_LENGTH = 10
"""Characters of a network's id in the names of its links; with the prefix they stay under the kernel's 15."""

MTU = 1450
"""Bytes of an IP packet that fit an Ethernet frame of 1500 together with VXLAN's headers over IPv4."""

ENCRYPTED_MTU = 1416
"""The same on an encrypted network: ESP in transport mode takes up to 34 bytes more. Larger ones are dropped."""

VXLAN_PORT = 4789
"""UDP port of VXLAN, as IANA has it and as Docker uses it (`--data-path-port`)."""


@dataclass(frozen=True, slots=True)
class OverlayWanted:
    """One network as this host is to have it.

    `gateways` are the bridge's own addresses with their prefix lengths ("10.0.1.1/24"), one a subnet, IPv4 or IPv6.
    `endpoints` leads from every address on another host (no length) to that host's address; this host's own are left out,
    and so are virtual addresses. An endpoint's MAC is `mac_of` its address unless `macs` has another one.
    `bridge_mac` is for networks whose bridges other hosts address (ingress: `mac_of` the address); "" where it is the
    host's own matter.
    """

    id: str
    vni: int
    gateways: tuple[str, ...]
    endpoints: Mapping[str, str] = field(default_factory=dict)
    mtu: int = MTU
    encrypted: bool = False
    bridge_mac: str = ""
    macs: Mapping[str, str] = field(default_factory=dict)

    @property
    def link_mtu(self) -> int:
        """The MTU that the links have and tasks are to have: what is wanted, as far as encryption leaves room for it."""
        return min(self.mtu, ENCRYPTED_MTU) if self.encrypted else self.mtu


def bridge_name(network_id: str) -> str:
    """The link that a network's tasks on this host are ports of, and the fixed bridge name of its engine network."""
    return f"ov-{network_id[:NAME_LENGTH]}"


def vxlan_name(network_id: str) -> str:
    """The link through which a network's other hosts are reached: a port of the bridge."""
    return f"vx-{network_id[:NAME_LENGTH]}"


class OverlayLinks(Protocol):
    """Implemented by `agent.network.overlay.Overlays(own_host, port=VXLAN_PORT, netns="")`, an async context manager.

    `netns` is the path of a network namespace to work in, "" for the process's own. Leaving the context leaves the links:
    traffic flows on while there is no agent. `close(remove=True)` takes them away.
    """

    @property
    def problems(self) -> Mapping[str, str]:
        """Network id to why this host does not have it as wanted; kept true while links change. For people."""
        ...

    async def apply(self, wanted: Mapping[str, OverlayWanted]) -> Mapping[str, str]:
        """Bring the host to exactly these networks (id to what is wanted of it), by the smallest change; `problems` back.

        The first call also takes away what an earlier agent left and nobody wants any more, so it must not come before
        the wanted networks are known. One network that cannot be had does not keep the others from being had.
        """
        ...

    async def rekey(self, keys: NetworkKeys) -> None:
        """Use these keys between hosts on encrypted networks."""
        ...

    async def close(self, *, remove: bool = False) -> None:
        """Stop looking after the links, which stay; or with `remove` leave nothing behind. Idempotent."""
        ...
