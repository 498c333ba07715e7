"""A task's places on overlay networks, out of what the manager allocated. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface, ip_network

from agent.api_types.network import NetworkAttachment
from agent.api_types.overlays import is_overlay, overlay_mtu
from agent.api_types.task import Task
from agent.worker.interface import RejectedByExecutor, TemporaryFailure


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet of a network in CIDR form, and its gateway (an address without a length, may be empty)."""

    subnet: str
    gateway: str


@dataclass(frozen=True, slots=True)
class OverlayPlace:
    """One network of a task: the task's addresses there with their prefix lengths, and the network's subnets."""

    network_id: str
    network: str
    addresses: tuple[str, ...]
    subnets: tuple[Subnet, ...]
    mtu: int
    internal: bool = False
    attachable: bool = False

    def address(self, version: int) -> str:
        """The first address (without a length) of the IP version; empty for none."""
        found = (ip_interface(one).ip for one in self.addresses)
        return next((str(one) for one in found if one.version == version), "")

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways of the subnets that the task has an address in."""
        inside = [ip_interface(one).ip for one in self.addresses]
        return tuple(
            one.gateway
            for one in self.subnets
            if one.gateway and any(address in ip_network(one.subnet, strict=False) for address in inside)
        )


def overlay_names(task: Task) -> list[str]:
    """Names of the overlay networks that the task asks for."""
    found = [attachment.network for attachment in task.networks_attachments if is_overlay(attachment.network)]
    return [network.spec.name or network.id for network in found]


def overlay_places(task: Task) -> list[OverlayPlace]:
    """Where the task goes, in the order it asks for. TemporaryFailure while an address is missing."""
    found = [attachment for attachment in task.networks_attachments if is_overlay(attachment.network)]
    return [_place(attachment) for attachment in found]


def refuse_overlays(task: Task, why: str) -> None:
    """RejectedByExecutor when the task asks for an overlay network, which cannot be had here."""
    asked = overlay_names(task)
    if asked:
        raise RejectedByExecutor(f"network {asked[0]} cannot be had on this node: {why}")


def _place(attachment: NetworkAttachment) -> OverlayPlace:
    network = attachment.network
    name = network.spec.name or network.id
    if not attachment.addresses:
        raise TemporaryFailure(f"waiting for an address on network {name}")
    configs = network.ipam_options.configs if network.ipam_options is not None else []
    return OverlayPlace(
        network_id=network.id,
        network=name,
        addresses=tuple(attachment.addresses),
        subnets=tuple(Subnet(config.subnet, config.gateway.partition("/")[0]) for config in configs),
        mtu=overlay_mtu(network),
        internal=network.spec.internal,
        attachable=network.spec.attachable,
    )
