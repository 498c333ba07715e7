"""Which networks services and tasks are to have addresses on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.api_types.network import Attachment, Network, NetworkAttachmentConfig
from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.task import EndpointSpec, Task, TaskState
from agent.manager.allocator.subnets import OVERLAY, driver_of
from agent.manager.slots import ended
from agent.store.transactions import ReadTx

NODE_LOCAL = frozenset({"host", "bridge", "none"})
"""Networks that every node has by itself: nothing is allocated on them."""

VIP_OPTION = "swarmtui.vip"
"""Option of a service's network (`--network name=N,driver-opt=swarmtui.vip=ADDRESS`): the virtual address it wants there."""

DNSRR = "dnsrr"


@dataclass(frozen=True, slots=True)
class Target:
    """A network that somebody asks for: `network` is None where there is none of that id or name."""

    named: str
    network: Network | None
    vip: str = ""
    """The virtual address that is asked for."""


def targets_of_service(tx: ReadTx, service: Service) -> list[Target]:
    """The overlays that a service's tasks are to be on, as its spec says now."""
    configs = service.spec.task_template.networks or service.spec.networks
    return _with_ingress(tx, service, _resolved(tx, configs))


def targets_of_task(tx: ReadTx, task: Task, service: Service | None) -> list[Target]:
    """The overlays that a task is to be on, as the spec said that it was made from."""
    configs = task.spec.networks or (service.spec.networks if service is not None else [])
    return _with_ingress(tx, service, _resolved(tx, configs))


def _resolved(tx: ReadTx, configs: Sequence[NetworkAttachmentConfig]) -> list[Target]:
    targets: dict[str, Target] = {}
    for config in configs:
        network = tx.get(Network, config.target) or tx.by_name(Network, config.target)
        if network is None and config.target in NODE_LOCAL:
            continue
        if network is not None and driver_of(network.spec) != OVERLAY:
            continue
        key = network.id if network is not None else config.target
        targets.setdefault(key, Target(config.target, network, config.driver_opts.get(VIP_OPTION, "")))
    return list(targets.values())


def _with_ingress(tx: ReadTx, service: Service | None, targets: list[Target]) -> list[Target]:
    if service is None or not wants_ingress(service, ()):
        return targets
    ingress = next((network for network in tx.all(Network) if network.spec.ingress), None)
    return targets if ingress is None else [Target(ingress.id, ingress), *targets]


def wants_ingress(service: Service, nodes: Iterable[Node]) -> bool:
    """Whether a service's published ports go over the ingress network, so that its tasks need addresses there.

    Not as long as nodes relay published ports themselves; then it is: a port in ingress mode, and nodes that carry overlays.
    """
    return False


def has_virtual_ip(service: Service) -> bool:
    """Whether the service is reached by one address on each network (the default), or by those of its tasks."""
    return (service.spec.endpoint_spec or EndpointSpec()).mode != DNSRR


def addresses_of_task(task: Task) -> list[tuple[str, str]]:
    """(network id, address) of what a task holds: nothing once it has ended."""
    return [] if ended(task) else attached(task)


def attached(task: Task) -> list[tuple[str, str]]:
    """(network id, address) of what a task was given, also when it has ended."""
    return [(each.network.id, address) for each in task.networks_attachments for address in each.addresses]


def addresses_of_service(service: Service) -> list[tuple[str, str]]:
    """(network id, address) of a service's virtual addresses."""
    return [(vip.network_id, vip.addr) for vip in service.endpoint.virtual_ips]


def addresses_of_attachment(attachment: Attachment) -> list[tuple[str, str]]:
    """(network id, address) of what it was given; an address without a prefix length is only asked for."""
    return [(attachment.network_id, address) for address in attachment.addresses if "/" in address]


def carries(task: Task) -> list[tuple[str, str]]:
    """(node id, network id) of the networks that a task needs on its node."""
    if not task.node_id or ended(task) or task.status.state.rank < TaskState.ASSIGNED.rank:
        return []
    return [(task.node_id, each.network.id) for each in task.networks_attachments if each.addresses]
