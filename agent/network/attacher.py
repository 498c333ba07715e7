"""Connects tasks of this host to its networks, in the order that keeps connections whole."""

from __future__ import annotations

import asyncio
import logging

from agent.api_types.network import NetworkAttachment
from agent.api_types.overlays import is_overlay
from agent.api_types.task import Task
from agent.network.host import HostNetworks
from agent.network.mac import mac_of
from agent.network.overlay.interface import bridge_name
from agent.network.sandboxes import Interface, Sandboxes
from agent.network.tables import NetworkPicture

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds for a network to come to this host before the task says that it waits."""


class NotHereYet(Exception):
    """A network of the task cannot be had now; the text says which and why."""


class Attacher:
    """Implements the worker's `NetworkAttacher` on the host's networks.

    `sandboxes` gives tasks namespaces of their own where nobody else does (an engine has its own way).
    """

    def __init__(
        self, networks: HostNetworks, sandboxes: Sandboxes | None = None, *, patience: float = PATIENCE
    ) -> None:
        self._networks = networks
        self._sandboxes = sandboxes
        self._patience = patience

    async def attach(self, task: Task) -> list[NetworkAttachment]:
        """Return when the task's networks are here and, with sandboxes, its namespace is on them. NotHereYet."""
        attachments = overlays_of(task)
        if not attachments:
            return []
        for attachment in attachments:
            self._networks.use(attachment.network.id, task.id)
        pictures = [await self._brought(attachment) for attachment in attachments]
        if self._sandboxes is not None:
            interfaces = [
                interface(picture, attachment) for picture, attachment in zip(pictures, attachments, strict=True)
            ]
            try:
                await self._sandboxes.have(task.id, interfaces)
            except OSError as error:
                raise NotHereYet(f"the task's network namespace cannot be made: {error}") from None
        return attachments

    async def activate(self, task: Task) -> None:
        """The task is healthy."""
        if overlays_of(task):
            self._networks.announce(task.id)

    async def deactivate(self, task: Task) -> None:
        """Return when no name and no balancer of this host leads to the task any more."""
        if overlays_of(task):
            await self._networks.withdraw(task.id)

    async def detach(self, task: Task) -> None:
        """The process is gone: reset what is still connected to it, let go of its networks."""
        for attachment in overlays_of(task):
            addresses = [address.partition("/")[0] for address in attachment.addresses]
            await self._networks.forget(attachment.network.id, addresses)
        if self._sandboxes is not None and overlays_of(task):
            try:
                await self._sandboxes.remove(task.id)
            except OSError as error:
                logger.warning("the network namespace of task %s stays: %s", task.id, error)
        for attachment in overlays_of(task):
            self._networks.leave(attachment.network.id, task.id)

    async def _brought(self, attachment: NetworkAttachment) -> NetworkPicture:
        network = attachment.network
        try:
            async with asyncio.timeout(self._patience):
                return await self._networks.until_brought(network.id)
        except TimeoutError:
            why = self._networks.problems.get(network.id) or "no manager has told this node of it yet"
            raise NotHereYet(f"waiting for network {network.spec.name or network.id}: {why}") from None


def overlays_of(task: Task) -> list[NetworkAttachment]:
    """The task's places on overlay networks."""
    return [attachment for attachment in task.networks_attachments if is_overlay(attachment.network)]


def interface(picture: NetworkPicture, attachment: NetworkAttachment) -> Interface:
    """The task's end on the network."""
    plain = [address.partition("/")[0] for address in attachment.addresses]
    gateways = dict.fromkeys(subnet.gateway for one in plain if (subnet := picture.subnet_of(one)) and subnet.gateway)
    return Interface(
        bridge=bridge_name(picture.id),
        addresses=tuple(picture.with_length(one) for one in plain),
        gateways=tuple(gateways),
        mac=mac_of(plain[0]) if plain else "",
        mtu=picture.description.mtu,
    )
