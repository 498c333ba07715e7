"""What the nodes of an overlay network are to know of it: one board a network, kept up to date event by event.

A board remembers in which order its entries changed, so that what a node lacks is found in as many steps as there were
changes, however many tasks are on the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from agent.api_types.network import Attachment, Network
from agent.api_types.overlays import OVERLAY, is_encrypted, options_of, overlay_mtu
from agent.api_types.service import Service
from agent.api_types.task import Task
from agent.manager.dispatcher.assignments import is_assigned
from agent.manager.dispatcher.ingress import answers
from agent.manager.slots import ended
from agent.rpc.messages import NetworkUpdate, OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet

VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"

TOMBSTONES = 4096
"""Changes that a board remembers beyond its entries; a node that lacks more is told everything."""

Key: TypeAlias = tuple[str, str]
"""`service` or `endpoint`, and an id."""


def describe(network: Network) -> OverlayDescription | None:
    """A network as its nodes need it, without a balancer; None when it is no overlay or not allocated yet."""
    vni = network.driver_state.options.get(VNI_OPTION, "").partition(",")[0]
    if network.driver_state.name != OVERLAY or network.ipam_options is None or not vni.isdigit():
        return None
    subnets = [OverlaySubnet(config.subnet, config.gateway) for config in network.ipam_options.configs if config.subnet]
    return OverlayDescription(
        name=network.spec.name,
        vni=int(vni),
        subnets=subnets,
        internal=network.spec.internal,
        encrypted=is_encrypted(network),
        ingress=network.spec.ingress,
        attachable=network.spec.attachable,
        mtu=overlay_mtu(network),
        options={name: value for name, value in options_of(network).items() if name != VNI_OPTION},
    )


@dataclass(slots=True)
class _Group:
    """The members of one service: who answers, and where."""

    members: set[str] = field(default_factory=set)
    reachable: int = 0
    """How many answer from nodes that are not suspected."""


@dataclass(slots=True)
class _Member:
    """A task or an attachment on the network."""

    node_id: str
    service_id: str
    answers: bool
    endpoint_ids: list[str]
    counted: bool = False
    """Whether it is one of its group's reachable ones."""


class NetworkBoard:
    """One network. `revision` counts what changed; `difference` finds it again."""

    def __init__(self, network_id: str, description: OverlayDescription) -> None:
        self.id = network_id
        self.description = description
        self.services: dict[str, OverlayService] = {}
        self.endpoints: dict[str, OverlayEndpoint] = {}
        self.balancers: dict[str, str] = {}
        """Node id to the address of its balancer."""
        self.revision = 0
        self._forgotten = 0
        """Changes up to this revision are not told apart any more."""
        self._journal: dict[Key, int] = {}
        """What changed, in order of the last change of each."""
        self._members: dict[str, _Member] = {}
        self._groups: dict[str, _Group] = {}
        self._on_node: dict[str, set[str]] = {}

    # -- what nodes are told

    def described_for(self, node_id: str) -> OverlayDescription:
        """The description with the balancer of this very node."""
        balancer = self.balancers.get(node_id, "")
        return msgspec.structs.replace(self.description, balancer=balancer) if balancer else self.description

    def complete(self, node_id: str) -> NetworkUpdate:
        """Everything."""
        return NetworkUpdate(
            network_id=self.id,
            complete=True,
            description=self.described_for(node_id),
            services=list(self.services.values()),
            endpoints=list(self.endpoints.values()),
        )

    def difference(self, since: int) -> NetworkUpdate | None:
        """What changed after the revision `since`; None when that is too long ago to be known."""
        if since < self._forgotten:
            return None
        services, removed_services, endpoints, removed_endpoints = [], [], [], []
        for (kind, key), revision in reversed(self._journal.items()):
            if revision <= since:
                break
            if kind == "service":
                if key in self.services:
                    services.append(self.services[key])
                else:
                    removed_services.append(key)
            elif key in self.endpoints:
                endpoints.append(self.endpoints[key])
            else:
                removed_endpoints.append(key)
        return NetworkUpdate(
            network_id=self.id,
            services=services,
            removed_services=removed_services,
            endpoints=endpoints,
            removed_endpoints=removed_endpoints,
        )

    # -- what changes

    def redescribe(self, description: OverlayDescription) -> None:
        """The network itself is another one."""
        if description != self.description:
            self.description = description
            self.revision += 1

    def put_service(self, service: Service) -> None:
        """A service was made or changed: it may be on the network now, or not any more."""
        shown = _service_on(self.id, service)
        if shown is None:
            self.remove_service(service.id)
        elif self.services.get(service.id) != shown:
            self.services[service.id] = shown
            self._note(("service", service.id))

    def remove_service(self, service_id: str) -> None:
        """A service is gone."""
        if self.services.pop(service_id, None) is not None:
            self._note(("service", service_id))

    def put_task(self, task: Task, name: str, host: str, suspects: set[str]) -> None:
        """A task was made or changed. `host` is where its node is reached, empty when nobody knows."""
        addresses = _addresses_on(self.id, task) if is_assigned(task) and not ended(task) and host else []
        endpoints = _endpoints(
            addresses, id=task.id, node_id=task.node_id, host=host, service_id=task.service_id, name=name
        )
        self._put(task.id, _Member(task.node_id, task.service_id, answers(task), []), endpoints, suspects)

    def put_attachment(self, attachment: Attachment, host: str, suspects: set[str]) -> None:
        """An address was given to a node's balancer, or to a container of a person's."""
        # One without a prefix length is only asked for.
        addresses = [address for address in attachment.addresses if "/" in address]
        own = addresses[0].partition("/")[0] if addresses else ""
        if not attachment.container and own and self.balancers.get(attachment.node_id) != own:
            self.balancers[attachment.node_id] = own
            self.revision += 1
        endpoints = _endpoints(
            addresses if host else [],
            id=attachment.id,
            node_id=attachment.node_id,
            host=host,
            name=attachment.name if attachment.container else "",
            aliases=attachment.aliases if attachment.container else [],
        )
        self._put(attachment.id, _Member(attachment.node_id, "", True, []), endpoints, suspects)

    def remove_attachment(self, attachment: Attachment) -> None:
        """An address was given back."""
        if not attachment.container and self.balancers.pop(attachment.node_id, None) is not None:
            self.revision += 1
        self.remove_member(attachment.id)

    def remove_member(self, member_id: str) -> None:
        """A task or an attachment is not on the network any more."""
        member = self._members.pop(member_id, None)
        if member is None:
            return
        for endpoint_id in member.endpoint_ids:
            del self.endpoints[endpoint_id]
            self._note(("endpoint", endpoint_id))
        on_node = self._on_node[member.node_id]
        on_node.discard(member_id)
        if not on_node:
            del self._on_node[member.node_id]
        if member.service_id:
            group = self._groups[member.service_id]
            group.members.discard(member_id)
            left = group.reachable > 0
            self._count(group, member, False)
            if not group.members:
                del self._groups[member.service_id]
            elif left and not group.reachable:
                self._show_group(group)

    def judge(self, node_id: str, suspects: set[str]) -> None:
        """A node is suspected from now on, or not any more."""
        for member_id in list(self._on_node.get(node_id, ())):
            self._assess(member_id, suspects)

    def _put(self, member_id: str, member: _Member, endpoints: Iterable[OverlayEndpoint], suspects: set[str]) -> None:
        shown = {endpoint.id: endpoint for endpoint in endpoints}
        before = self._members.get(member_id)
        if before is not None and (
            not shown or (before.node_id, before.service_id) != (member.node_id, member.service_id)
        ):
            self.remove_member(member_id)
            before = None
        if not shown:
            return
        if before is not None:
            for endpoint_id in before.endpoint_ids:
                if endpoint_id not in shown:
                    del self.endpoints[endpoint_id]
                    self._note(("endpoint", endpoint_id))
            member.counted = before.counted
        member.endpoint_ids = list(shown)
        self._members[member_id] = member
        self._on_node.setdefault(member.node_id, set()).add(member_id)
        if member.service_id:
            self._groups.setdefault(member.service_id, _Group()).members.add(member_id)
        for endpoint in shown.values():
            known = self.endpoints.get(endpoint.id)
            as_before = endpoint if known is None else msgspec.structs.replace(endpoint, ready=known.ready)
            if as_before != known:
                self.endpoints[endpoint.id] = as_before
                self._note(("endpoint", endpoint.id))
        self._assess(member_id, suspects)

    def _assess(self, member_id: str, suspects: set[str]) -> None:
        """Whether a member is ready; the last ones of a service are also on a suspected node."""
        member = self._members[member_id]
        trusted = member.answers and member.node_id not in suspects
        group = self._groups.get(member.service_id) if member.service_id else None
        if group is None:
            self._show(member, trusted)
            return
        left = group.reachable > 0
        self._count(group, member, trusted)
        if left == (group.reachable > 0):
            self._show(member, trusted or (member.answers and not left))
            return
        self._show_group(group)

    def _show_group(self, group: _Group) -> None:
        for each in group.members:
            member = self._members[each]
            self._show(member, member.answers and (member.counted or not group.reachable))

    def _count(self, group: _Group, member: _Member, counted: bool) -> None:
        group.reachable += counted - member.counted
        member.counted = counted

    def _show(self, member: _Member, ready: bool) -> None:
        for endpoint_id in member.endpoint_ids:
            endpoint = self.endpoints[endpoint_id]
            if endpoint.ready != ready:
                self.endpoints[endpoint_id] = msgspec.structs.replace(endpoint, ready=ready)
                self._note(("endpoint", endpoint_id))

    def _note(self, key: Key) -> None:
        self.revision += 1
        self._journal.pop(key, None)
        self._journal[key] = self.revision
        if len(self._journal) > TOMBSTONES + 2 * (len(self.endpoints) + len(self.services)):
            oldest = next(iter(self._journal))
            self._forgotten = self._journal.pop(oldest)


def _service_on(network_id: str, service: Service) -> OverlayService | None:
    wanted = service.spec.task_template.networks or service.spec.networks
    configs = [config for config in wanted if config.target == network_id]
    vips = [vip.addr.partition("/")[0] for vip in service.endpoint.virtual_ips if vip.network_id == network_id]
    if not configs and not vips:
        return None
    aliases = list(dict.fromkeys(alias for config in configs for alias in config.aliases))
    # One address stands for a service; where it has one of each kind, that of IPv4.
    vip = min(vips, key=lambda address: ":" in address, default="")
    return OverlayService(id=service.id, name=service.spec.name, vip=vip, aliases=aliases)


def networks_of_task(task: Task) -> Iterator[str]:
    """The ids of the networks that a task has addresses on."""
    return (attachment.network.id for attachment in task.networks_attachments)


def networks_of_service(service: Service) -> set[str]:
    """The ids of the networks that a service may be on."""
    wanted = service.spec.task_template.networks or service.spec.networks
    return {config.target for config in wanted} | {vip.network_id for vip in service.endpoint.virtual_ips}


def _addresses_on(network_id: str, task: Task) -> list[str]:
    return [
        address
        for attachment in task.networks_attachments
        if attachment.network.id == network_id
        for address in attachment.addresses
    ]


def _endpoints(
    addresses: Iterable[str],
    *,
    id: str,
    node_id: str,
    host: str,
    service_id: str = "",
    name: str = "",
    aliases: Iterable[str] = (),
) -> Iterator[OverlayEndpoint]:
    """One endpoint an address; that of the second address has the id and `.1`, and so on."""
    for number, address in enumerate(addresses):
        yield OverlayEndpoint(
            id=id if not number else f"{id}.{number}",
            address=address.partition("/")[0],
            node_id=node_id,
            host=host,
            service_id=service_id,
            name=name,
            aliases=list(aliases),
        )
