"""The table of published ports: every ingress port of the cluster and who answers there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.api_types.service import Service
from agent.api_types.task import Task, TaskState
from agent.manager.allocator import is_ingress
from agent.rpc.messages import IngressBackend, IngressService
from agent.store.transactions import ReadTx


def publishes(service: Service) -> bool:
    """Whether every node answers on a port of the service."""
    return any(is_ingress(port) and port.published_port for port in service.endpoint.ports)


def answers(task: Task) -> bool:
    """Whether the task takes connections: it runs and is to run. One that is asked to stop takes no new ones."""
    return task.status.state is TaskState.RUNNING and task.desired_state is TaskState.RUNNING


def ingress_services(tx: ReadTx, address_of: Mapping[str, str], is_away: Callable[[str], bool]) -> list[IngressService]:
    """The whole table.

    `address_of` is the listener of each node that was heard of; `is_away` tells whether a node's agent cannot be reached
    now. Tasks on such nodes leave the table, but never the last ones of a service.
    """
    table = []
    for service in tx.all(Service):
        if not publishes(service):
            continue
        running = [
            IngressBackend(task.id, task.node_id, address_of[task.node_id])
            for task in tx.find(Task, "service", service.id)
            if answers(task) and task.node_id in address_of
        ]
        reachable = [backend for backend in running if not is_away(backend.node_id)]
        backends = sorted(reachable or running, key=lambda backend: backend.task_id)
        table += [
            IngressService(service.id, port.protocol or "tcp", port.published_port, port.target_port, backends)
            for port in service.endpoint.ports
            if is_ingress(port) and port.published_port
        ]
    return table
