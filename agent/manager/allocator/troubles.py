"""Why somebody waits for ports, networks or addresses, read from the store alone: for people who ask, on any manager."""

from __future__ import annotations

from ipaddress import ip_network

from agent.api_types.network import Attachment, Network, NetworkSpec
from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task
from agent.manager.allocator import problems
from agent.manager.allocator.address_pool import NetworkPools
from agent.manager.allocator.giving import is_asked_for
from agent.manager.allocator.ports import allocate_endpoint, ingress_ports, lacks_ports
from agent.manager.allocator.problems import Problem
from agent.manager.allocator.subnets import (
    InvalidNetwork,
    Territory,
    Unallocatable,
    hosts_of,
    is_allocated,
    pools_of,
    territory_of,
)
from agent.manager.allocator.targets import (
    Target,
    addresses_of_attachment,
    addresses_of_service,
    addresses_of_task,
    carries,
    has_virtual_ip,
    targets_of_service,
    targets_of_task,
)
from agent.store.transactions import ReadTx


def check_network(tx: ReadTx, spec: NetworkSpec) -> None:
    """Whether a network with that spec could be made now: raises `InvalidNetwork` or `Unallocatable`, which say why not."""
    _territory(tx).allocate(Network(id="new", spec=spec))


def _territory(tx: ReadTx) -> Territory:
    return territory_of(next(iter(tx.all(Cluster)), None), tx.all(Network), tx.all(Node))


def trouble_of_network(tx: ReadTx, network: Network) -> Problem | None:
    """Why a network has no subnet; None for one that has."""
    if is_allocated(network):
        return None
    try:
        _territory(tx).allocate(network)
    except Unallocatable as error:
        return problems.unallocated(network, str(error), error.advice)
    except InvalidNetwork as error:
        return problems.malformed(network, str(error))
    return None


def hosts_inside(tx: ReadTx, network: Network) -> list[str]:
    """Nodes whose own address lies within a network's subnets, as `address of node name`: they came after it."""
    configs = network.ipam_options.configs if network.ipam_options is not None else []
    subnets = [ip_network(config.subnet) for config in configs]
    hosts = hosts_of(tx.all(Node)).items()
    return [f"{address} of node {name}" for address, name in hosts if any(address in subnet for subnet in subnets)]


def free_addresses(tx: ReadTx, network: Network) -> NetworkPools:
    """The addresses of an allocated network without those that are held."""
    pools = pools_of(network)
    held = [pair for task in tx.all(Task) for pair in addresses_of_task(task)]
    held += [pair for service in tx.all(Service) for pair in addresses_of_service(service)]
    held += [pair for each in tx.find(Attachment, "network", network.id) for pair in addresses_of_attachment(each)]
    for network_id, address in held:
        if network_id == network.id:
            pools.reserve(address)
    return pools


def troubles_of_service(tx: ReadTx, service: Service) -> list[Problem]:
    """What a service asks for and does not have."""
    others = ingress_ports(tx.all(Service), but=service.id) if lacks_ports(service) else set()
    found = [problems.no_port()] if lacks_ports(service) and allocate_endpoint(service, others) is None else []
    has = {vip.network_id: vip.addr for vip in service.endpoint.virtual_ips}
    for target in targets_of_service(tx, service):
        problem = _closed(tx, target)
        if problem is None and target.network is not None and has_virtual_ip(service):
            address = has.get(target.network.id, "")
            if target.vip and not is_asked_for(address, target.vip):
                problem = problems.taken(target.network, target.vip)
            elif not address and not free_addresses(tx, target.network).has_room():
                problem = problems.exhausted(target.network)
        if problem is not None:
            found.append(problem)
    return found


def troubles_of_task(tx: ReadTx, task: Task) -> list[Problem]:
    """What a task that was not let on to the scheduler yet waits for."""
    service = tx.get(Service, task.service_id) if task.service_id else None
    found = [] if service is None else troubles_of_service(tx, service)
    for target in targets_of_task(tx, task, service):
        problem = _closed(tx, target)
        if problem is None and target.network is not None and not free_addresses(tx, target.network).has_room():
            problem = problems.exhausted(target.network)
        if problem is not None and problem not in found:
            found.append(problem)
    return found


def _closed(tx: ReadTx, target: Target) -> Problem | None:
    return problems.gone(target.named) if target.network is None else trouble_of_network(tx, target.network)


def networks_without_balancer(tx: ReadTx, task: Task) -> list[Network]:
    """Full networks of a task on which its node has no address for its balancer."""
    found = []
    for node_id, network_id in carries(task):
        network = tx.get(Network, network_id)
        if network is None or not is_allocated(network):
            continue
        there = tx.find(Attachment, "network", network_id)
        placed = any(each.node_id == node_id and not each.container for each in there)
        if not placed and not free_addresses(tx, network).has_room():
            found.append(network)
    return found
