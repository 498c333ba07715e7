"""An overlay as the engine sees it: a bridge network on a bridge that has the overlay's name, subnet and gateway.

The bridge is there before, with its way to the other hosts; the engine adopts it and leaves it alone when the network goes.
What the engine adds are the containers' ends, its resolver in them, and masquerading of what leaves the overlay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

import msgspec

from agent.worker.executors.docker import names
from agent.worker.executors.docker.engine import Engine, EngineError, filters
from agent.worker.interface import RejectedByExecutor, TemporaryFailure
from agent.worker.overlay_places import OverlayPlace

Body = dict[str, Any]


class _Listed(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Bridging:
    """How this host has its overlays: the bridge of a network's id, and the MAC that goes with an address."""

    bridge_of: Callable[[str], str]
    mac_of: Callable[[str], str]


class OverlayNetworks:
    """The engine's networks that stand for overlays."""

    def __init__(self, engine: Engine, owner: str, bridging: Bridging) -> None:
        self.bridging = bridging
        self._engine = engine
        self._owner = owner
        self._turns: dict[str, asyncio.Lock] = {}

    async def have(self, place: OverlayPlace) -> str:
        """Make the network unless it is there; its name at the engine. RejectedByExecutor with the engine's reason."""
        async with self._turns.setdefault(place.network_id, asyncio.Lock()):
            found = await self._find(place.network_id)
            if found:
                return found[0].name
            body = network_body(place, self.bridging.bridge_of(place.network_id), self._owner)
            try:
                await self._engine.request("POST", "networks/create", body=body)
            except EngineError as error:
                if error.status != 409 or "already exists" not in error.message:
                    raise _refused(place.network, error) from None
                # Somebody has a network of this name at this engine: ours gets a longer one.
                body["Name"] = f"{place.network}.{place.network_id[:10]}"
                try:
                    await self._engine.request("POST", "networks/create", body=body)
                except EngineError as again:
                    raise _refused(place.network, again) from None
            return str(body["Name"])

    async def remove(self, network_id: str) -> None:
        """Remove the network. TemporaryFailure while a container is on it."""
        async with self._turns.setdefault(network_id, asyncio.Lock()):
            for one in await self._find(network_id):
                try:
                    await self._engine.request("DELETE", f"networks/{one.id}")
                except EngineError as error:
                    if error.status != 404:
                        raise TemporaryFailure(f"the engine keeps network {one.name}: {error.message}") from None
        self._turns.pop(network_id, None)

    async def _find(self, network_id: str) -> list[_Listed]:
        label = filters(label=[f"{names.OVERLAY}={network_id}", f"{names.OWNER}={self._owner}"])
        return await self._engine.get("networks", list[_Listed], {"filters": label})


def network_body(place: OverlayPlace, bridge: str, owner: str) -> Body:
    """The body of `POST /networks/create`. RejectedByExecutor for what one bridge network of an engine cannot be."""
    inside = [ip_interface(address).ip for address in place.addresses]
    used = [one for one in place.subnets if any(address in ip_network(one.subnet, strict=False) for address in inside)]
    config = [{"Subnet": one.subnet, **({"Gateway": one.gateway} if one.gateway else {})} for one in used]
    return {
        "Name": place.network,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "EnableIPv6": any(ip_network(one.subnet, strict=False).version == 6 for one in used),
        "IPAM": {"Driver": "default", "Config": config},
        "Internal": False,
        "Attachable": place.attachable,
        "Options": {
            "com.docker.network.bridge.name": bridge,
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "false" if place.internal else "true",
            "com.docker.network.driver.mtu": str(place.mtu),
        },
        "Labels": {names.OVERLAY: place.network_id, names.OWNER: owner},
    }


def endpoint_config(place: OverlayPlace, bridging: Bridging) -> Body:
    """A container's place on the engine's network: the addresses that the manager gave, nothing of the engine's choice."""
    ipam, config = {}, Body()
    if address := place.address(6):
        ipam["IPv6Address"] = address
    if address := place.address(4):
        ipam["IPv4Address"] = address
        # Engines before 25 derive the same from the address, later ones would take any.
        config["MacAddress"] = bridging.mac_of(address)
    return config | {"IPAMConfig": ipam}


def _refused(network: str, error: EngineError) -> RejectedByExecutor:
    return RejectedByExecutor(f"network {network} cannot be made at the engine: {error.message}")
