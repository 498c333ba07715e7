"""How clients name objects: by full id, by full name, by the beginning of an id; in this order (moby daemon/cluster)."""

from __future__ import annotations

from collections.abc import Callable

from agent.api.backend import Backend, LocalState
from agent.api_types.errors import InvalidArgument, NotFound, Unavailable
from agent.api_types.network import Network
from agent.api_types.node import Node
from agent.api_types.secret import Config, Secret
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task
from agent.store.store import Store
from agent.store.tables import O
from agent.store.transactions import ReadTx

NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
PREPARING = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)


def manager_store(backend: Backend) -> Store:
    """The cluster's state; Unavailable with Docker's text on a node that has none to show."""
    if backend.local_state is LocalState.LOCKED:
        raise Unavailable(LOCKED)
    if backend.is_manager and backend.store is not None:
        return backend.store
    if backend.is_manager or (
        backend.node_id and backend.node_id in {peer.node_id for peer in backend.remote_managers}
    ):
        # A manager already, for all that it does not know the cluster's state yet.
        raise Unavailable(PREPARING)
    raise Unavailable(NO_SWARM if backend.local_state in (LocalState.INACTIVE, LocalState.ERROR) else WORKER)


def the_cluster(tx: ReadTx) -> Cluster:
    """The one cluster of the store."""
    clusters = tx.all(Cluster)
    if not clusters:
        raise Unavailable(PREPARING)
    return clusters[0]


def _find(tx: ReadTx, kind: type[O], noun: str, wanted: str, named: Callable[[ReadTx, str], list[O]]) -> O:
    found = tx.get(kind, wanted)
    if found is not None:
        return found
    matches = named(tx, wanted) or (tx.by_prefix(kind, wanted) if wanted else [])
    if len(matches) > 1:
        raise InvalidArgument(f"{noun} {wanted} is ambiguous ({len(matches)} matches found)")
    if not matches:
        raise NotFound(f"{noun} {wanted} not found")
    return matches[0]


def find_service(tx: ReadTx, wanted: str) -> Service:
    """A service by id, name or the beginning of an id."""
    return _find(tx, Service, "service", wanted, lambda tx, name: tx.find(Service, "name", name))


def find_node(tx: ReadTx, wanted: str) -> Node:
    """A node by id, hostname or the beginning of an id."""
    return _find(tx, Node, "node", wanted, lambda tx, name: tx.find(Node, "hostname", name))


def find_secret(tx: ReadTx, wanted: str) -> Secret:
    """A secret by id, name or the beginning of an id."""
    return _find(tx, Secret, "secret", wanted, lambda tx, name: tx.find(Secret, "name", name))


def find_config(tx: ReadTx, wanted: str) -> Config:
    """A config by id, name or the beginning of an id."""
    return _find(tx, Config, "config", wanted, lambda tx, name: tx.find(Config, "name", name))


def find_network(tx: ReadTx, wanted: str) -> Network:
    """A network of scope swarm by id, name or the beginning of an id."""
    return _find(tx, Network, "network", wanted, lambda tx, name: tx.find(Network, "name", name))


def task_name(task: Task) -> str:
    """`service.slot.id`, with the node's id in the slot's place for a global service."""
    service = task.service_annotations.name if task.service_annotations is not None else task.service_id
    return task.name or f"{service}.{task.slot or task.node_id}.{task.id}"


def find_task(tx: ReadTx, wanted: str) -> Task:
    """A task by id, full name or the beginning of an id."""

    def named(tx: ReadTx, name: str) -> list[Task]:
        task = tx.get(Task, name.rpartition(".")[2])
        return [task] if task is not None and task_name(task) == name else []

    return _find(tx, Task, "task", wanted, named)
