"""Networks of scope swarm in the form of the engine's own (moby daemon/cluster/convert/network.go), and who is on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from agent.api.lookup import task_name
from agent.api.network_specs import driver_of
from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.task import PortConfig, Task, TaskState
from agent.network.mac import mac_of
from agent.store.transactions import ReadTx

OVERLAY_LABEL = "swarmtui.network"
"""On the bridge that carries an overlay on a host; its value is the overlay's id. Clients see the overlay in its place."""


def network_view(network: Network) -> dict[str, Any]:
    """A network without what a host knows of it, as lists show it."""
    spec, ipam = network.spec, network.ipam_options or network.spec.ipam_options
    configs = [] if ipam is None else [_ipam_config(c.subnet, c.range, c.gateway) for c in ipam.configs]
    asked = {} if spec.driver_configuration is None else spec.driver_configuration.options
    return {
        "Name": spec.name,
        "Id": network.id,
        "Created": network.created_at,
        "Scope": "swarm",
        "Driver": network.driver_state.name or driver_of(spec),
        "EnableIPv6": spec.ipv6_enabled,
        "IPAM": {"Driver": (ipam.driver.name if ipam else "") or "default", "Options": None, "Config": configs},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": "" if spec.config_from is None else spec.config_from.network},
        "ConfigOnly": False,
        "Containers": None,
        "Options": {**asked, **network.driver_state.options} or None,
        "Labels": spec.labels or None,
    }


def _ipam_config(subnet: str, address_range: str, gateway: str) -> dict[str, str]:
    config = {"Subnet": subnet, "IPRange": address_range, "Gateway": gateway}
    return {name: value for name, value in config.items() if value}


def carried_view(told: dict[str, Any]) -> dict[str, Any]:
    """What an engine says of the bridge that carries an overlay, as the overlay, for a node that has no other knowledge."""
    return {
        **told,
        "Id": told["Labels"][OVERLAY_LABEL],
        "Scope": "swarm",
        "Driver": "overlay",
        "Options": None,
        "Labels": {name: value for name, value in told["Labels"].items() if name != OVERLAY_LABEL} or None,
    }


# -- who is on a network


def detailed_view(tx: ReadTx, network: Network, node_id: str, *, verbose: bool) -> dict[str, Any]:
    """A network as inspect shows it: with the containers of the node `node_id` there, and the nodes that carry it.

    `verbose`: with the services and their running tasks everywhere too. What nobody is on has none of these members.
    """
    view = network_view(network)
    tasks = sorted(tasks_on(tx, network.id), key=lambda task: task.id)
    attachments = sorted(tx.find(Attachment, "network", network.id), key=lambda attachment: attachment.id)
    view["Containers"] = dict(_containers(network, tasks, attachments, node_id)) or None
    nodes = sorted({task.node_id for task in tasks} | {attachment.node_id for attachment in attachments})
    peers = [{"Name": node.description.hostname, "IP": node.status.addr} for node in _known(tx, nodes)]
    if peers:
        view["Peers"] = peers
    if verbose:
        services = {
            service.spec.name: _service(tx, network.id, service, tasks) for service in _services(tx, network.id)
        }
        if services:
            view["Services"] = dict(sorted(services.items()))
    return view


def tasks_on(tx: ReadTx, network_id: str) -> Iterator[Task]:
    """The tasks that have an address on a network and have not ended."""
    for task in tx.all(Task):
        if not task.status.state.terminal and addresses_on(task, network_id):
            yield task


def addresses_on(task: Task, network_id: str) -> list[str]:
    """A task's addresses on a network, with prefix length."""
    return [
        address
        for attachment in task.networks_attachments
        if attachment.network.id == network_id
        for address in attachment.addresses
    ]


def _known(tx: ReadTx, node_ids: Iterable[str]) -> Iterator[Node]:
    for node_id in node_ids:
        node = tx.get(Node, node_id)
        if node is not None:
            yield node


def _containers(
    network: Network, tasks: Iterable[Task], attachments: Iterable[Attachment], node_id: str
) -> Iterator[tuple[str, dict[str, str]]]:
    for task in tasks:
        container = task.status.container_status
        if task.node_id == node_id and container is not None and container.container_id:
            addresses = addresses_on(task, network.id)
            yield container.container_id, _endpoint(network.id, task.id, task_name(task), addresses)
    for attachment in attachments:
        if attachment.node_id != node_id:
            continue
        key, name = attachment.container, attachment.name
        if not key:
            key, name = f"lb-{network.spec.name}", f"{network.spec.name}-endpoint"
        yield key, _endpoint(network.id, attachment.id, name, attachment.addresses)


def _endpoint(network_id: str, owner_id: str, name: str, addresses: Iterable[str]) -> dict[str, str]:
    v4, v6 = _first(addresses, 4), _first(addresses, 6)
    bare = (v4 or v6).partition("/")[0]
    return {
        "Name": name,
        "EndpointID": endpoint_id(network_id, owner_id),
        "MacAddress": mac_of(bare) if bare else "",
        "IPv4Address": v4,
        "IPv6Address": v6,
    }


def endpoint_id(network_id: str, owner_id: str) -> str:
    """An id in the form of the engine's for who is on a network: the same at every manager and every time."""
    return hashlib.sha256(f"{network_id}\0{owner_id}".encode()).hexdigest()


def _first(addresses: Iterable[str], version: int) -> str:
    return next((address for address in addresses if (6 if ":" in address else 4) == version), "")


# -- verbose


def _services(tx: ReadTx, network_id: str) -> Iterator[Service]:
    return (service for service in tx.all(Service) if network_id in networks_of(service))


def networks_of(service: Service) -> set[str]:
    """The ids of the networks that a service's tasks ask for."""
    attachments = service.spec.task_template.networks or service.spec.networks
    return {attachment.target for attachment in attachments}


def _service(tx: ReadTx, network_id: str, service: Service, tasks: Iterable[Task]) -> dict[str, Any]:
    vips = [vip.addr.partition("/")[0] for vip in service.endpoint.virtual_ips if vip.network_id == network_id]
    running = [task for task in tasks if task.service_id == service.id and task.status.state is TaskState.RUNNING]
    return {
        # Go prints an address that is not there so, and clients know it.
        "VIP": vips[0] if vips else "<nil>",
        "Ports": [_port(port) for port in service.endpoint.ports] if _is_ingress(tx, network_id) else [],
        "LocalLBIndex": int(endpoint_id(network_id, service.id)[:4], 16),
        "Tasks": [
            _task(tx, network_id, task) for task in sorted(running, key=lambda each: (each.slot, task_name(each)))
        ],
    }


def _is_ingress(tx: ReadTx, network_id: str) -> bool:
    network = tx.get(Network, network_id)
    return network is not None and network.spec.ingress


def _port(port: PortConfig) -> str:
    return f"Target: {port.target_port}, Publish: {port.published_port}"


def _task(tx: ReadTx, network_id: str, task: Task) -> dict[str, Any]:
    node = tx.get(Node, task.node_id)
    return {
        "Name": task_name(task),
        "EndpointID": endpoint_id(network_id, task.id),
        "EndpointIP": _first(addresses_on(task, network_id), 4).partition("/")[0],
        "Info": {"Host IP": "" if node is None else node.status.addr},
    }
