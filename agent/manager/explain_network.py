"""Why a network of scope swarm is as it is: who is on it, where, who waits for it, and who can be removed from it."""

from __future__ import annotations

from collections.abc import Callable

from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node, NodeState
from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState
from agent.manager.allocator.subnets import OVERLAY, driver_of
from agent.manager.allocator.targets import Target, targets_of_service, targets_of_task
from agent.manager.allocator.troubles import free_addresses, hosts_inside, trouble_of_network
from agent.manager.explain_task import Explanation, listed, node_name, sentence, task_name
from agent.manager.slots import wanted
from agent.store.transactions import ReadTx


def explain_network(tx: ReadTx, network_id: str, suspected: Callable[[str], bool]) -> Explanation:
    """What a person asks of a network that does not do what it should. The id is known to exist."""
    network = tx.get(Network, network_id)
    if network is None:
        raise KeyError(network_id)
    name = network.spec.name
    reasons: list[str] = []
    advice: list[str] = []
    if driver_of(network.spec) != OVERLAY:
        summary = (
            f"Every node makes the network for itself (driver {driver_of(network.spec)}); nothing is allocated on it."
        )
        return Explanation("network", network_id, name, summary, reasons, advice)
    problem = trouble_of_network(tx, network)
    if problem is not None:
        reasons.append(f"{sentence(problem.text)}.")
        advice.append(problem.advice)
        return Explanation("network", network_id, name, "The network has no addresses to give.", reasons, advice)
    members = [task for task in tx.all(Task) if _is_on(task, network_id) and not task.status.state.terminal]
    containers = [each for each in tx.find(Attachment, "network", network_id) if each.container]
    services = [each for each in tx.all(Service) if _names(targets_of_service(tx, each), network_id)]
    nodes = sorted({task.node_id for task in members if task.node_id} | {each.node_id for each in containers})
    summary = _summary(network, members, containers, services, nodes)
    _tell_of_full(tx, network, reasons, advice)
    waiting = [task for task in tx.all(Task) if _waits_for(tx, task, network_id)]
    if waiting:
        reasons.append(f"Without an address there: {listed([task_name(task) for task in waiting])}.")
    for node_id in nodes:
        node = tx.get(Node, node_id)
        if node is None or node.status.state is NodeState.DOWN:
            reasons.append(f"Node {node_name(tx, node_id)} is down: its tasks do not answer.")
        elif suspected(node_id):
            reasons.append(
                f"The agent of node {node_name(tx, node_id)} cannot be reached: its tasks get no connections."
            )
        elif not node.status.addr:
            reasons.append(
                f"Nobody knows the address of node {node_name(tx, node_id)}: no other node reaches its tasks."
            )
    if inside := hosts_inside(tx, network):
        reasons.append(f"Its subnets hold {listed(inside)}: where the network is used, those hosts cannot be reached.")
        advice.append("Move its services to a network with another subnet, or give the hosts other addresses.")
    for service in services:
        running = [task for task in members if task.service_id == service.id and task.status.state is TaskState.RUNNING]
        if not running:
            reasons.append(f"Nobody answers for {service.spec.name}: none of its tasks runs on the network.")
            advice.append(f"See why: docker service ps {service.spec.name}")
    if not members and not containers and not services:
        advice.append(f"If it is of no use, remove it: docker network rm {name}")
    return Explanation("network", network_id, name, summary, reasons, advice)


def _is_on(task: Task, network_id: str) -> bool:
    return any(attachment.network.id == network_id for attachment in task.networks_attachments)


def _names(targets: list[Target], network_id: str) -> bool:
    return any(target.network is not None and target.network.id == network_id for target in targets)


def _waits_for(tx: ReadTx, task: Task, network_id: str) -> bool:
    if task.status.state is not TaskState.NEW or not wanted(task) or _is_on(task, network_id):
        return False
    service = tx.get(Service, task.service_id) if task.service_id else None
    return _names(targets_of_task(tx, task, service), network_id)


def _summary(
    network: Network, members: list[Task], containers: list[Attachment], services: list[Service], nodes: list[str]
) -> str:
    configs = [] if network.ipam_options is None else network.ipam_options.configs
    subnets = ", ".join(config.subnet for config in configs)
    if not members and not containers:
        users = f"; {listed([service.spec.name for service in services])} will use it" if services else ""
        return f"The network ({subnets}) is on no node: nobody uses it now{users}."
    parts = [f"{len(members)} tasks" if len(members) != 1 else "1 task"]
    if services:
        parts[0] += f" of {listed([service.spec.name for service in services])}"
    if containers:
        parts.append(f"{len(containers)} containers" if len(containers) != 1 else "1 container")
    where = f"{len(nodes)} nodes" if len(nodes) != 1 else "1 node"
    return f"On the network ({subnets}) are {' and '.join(parts)}, on {where}."


def _tell_of_full(tx: ReadTx, network: Network, reasons: list[str], advice: list[str]) -> None:
    if free_addresses(tx, network).has_room():
        return
    reasons.append("All addresses of the network are in use.")
    advice.append("Scale services on it down, or move some to another network with a larger subnet (--subnet).")
