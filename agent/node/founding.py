"""The first state of a new cluster: its authority, its secrets, its first manager. Pure but for the randomness of keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.api_types.errors import InvalidArgument
from agent.api_types.identity import IdSource
from agent.api_types.network import Network
from agent.api_types.node import (
    ManagerStatus,
    Node,
    NodeAvailability,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from agent.api_types.swarm import Cluster, InitRequest
from agent.api_types.times import Clock
from agent.manager.allocator.subnets import InvalidNetwork, Unallocatable, ingress_network
from agent.pki.identity import NodeIdentity, NodeKey
from agent.pki.root import DEFAULT_EXPIRY, RootCA
from agent.pki.tokens import make_secret
from agent.pki.unlock import make_unlock_key
from agent.rpc.addresses import split_address
from agent.store.transactions import WriteTx


@dataclass(frozen=True, slots=True)
class Founding:
    """A cluster that does not exist yet, and the identity of its first manager.

    `ingress` is the network of its routing mesh; None for a cluster that existed before, which has it already.
    """

    identity: NodeIdentity
    cluster: Cluster
    node: Node
    ingress: Network | None = None

    def write(self, tx: WriteTx) -> None:
        """Put the cluster and its first manager into an empty store."""
        tx.create(self.cluster)
        tx.create(self.node)
        if self.ingress is not None:
            tx.create(self.ingress)


def found(
    request: InitRequest, description: NodeDescription, advertise: str, clock: Clock, new_id: IdSource
) -> Founding:
    """A new cluster as `request` (its spec complete) wants it, with this node, reached at `advertise`, as its manager.

    InvalidArgument says which of the address pools is wrong.
    """
    root = RootCA.create(clock)
    assert root.key_pem is not None
    cluster = Cluster(
        id=new_id(),
        spec=request.spec,
        ca_cert=root.cert_pem.decode(),
        ca_key=root.key_pem.decode(),
        worker_secret=make_secret(),
        manager_secret=make_secret(),
        unlock_key=make_unlock_key() if request.auto_lock_managers else "",
        default_addr_pool=request.default_addr_pool,
        subnet_size=request.subnet_size or 24,
        data_path_port=request.data_path_port or 4789,
    )
    try:
        ingress = ingress_network(new_id(), cluster.default_addr_pool, cluster.subnet_size, split_address(advertise)[0])
    except (InvalidNetwork, Unallocatable) as error:
        raise InvalidArgument(str(error)) from None
    availability = NodeAvailability(request.availability.lower() or NodeAvailability.ACTIVE)
    alone = _first_manager(cluster, root, description, advertise, availability, clock, new_id())
    return replace(alone, ingress=ingress)


def found_again(
    cluster: Cluster, description: NodeDescription, advertise: str, clock: Clock, new_id: IdSource
) -> Founding:
    """A cluster that existed before, with this node, which it does not know yet, as its manager."""
    root = RootCA.from_pem(cluster.ca_cert.encode(), cluster.ca_key.encode())
    return _first_manager(cluster, root, description, advertise, NodeAvailability.ACTIVE, clock, new_id())


def _first_manager(
    cluster: Cluster,
    root: RootCA,
    description: NodeDescription,
    advertise: str,
    availability: NodeAvailability,
    clock: Clock,
    node_id: str,
) -> Founding:
    key = NodeKey.create()
    expiry = cluster.spec.ca_config.node_cert_expiry or DEFAULT_EXPIRY
    certificate = root.sign(key.request(), node_id, NodeRole.MANAGER, cluster_id=cluster.id, clock=clock, expiry=expiry)
    node = Node(
        id=node_id,
        spec=NodeSpec(role=NodeRole.MANAGER, availability=availability),
        description=description,
        status=NodeStatus(state=NodeState.READY, addr=split_address(advertise)[0]),
        manager_status=ManagerStatus(leader=True, reachability="reachable", addr=advertise),
    )
    return Founding(NodeIdentity.from_pem(certificate, key.pem, root.cert_pem), cluster, node)
