"""Who becomes a node: the token's secret is compared, the certificate signed, the node recorded."""

from __future__ import annotations

from agent.api_types.errors import InvalidArgument, Unavailable, Unimplemented
from agent.api_types.identity import IdSource
from agent.api_types.node import Node, NodeAvailability, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus
from agent.api_types.swarm import Cluster
from agent.api_types.times import Clock
from agent.manager.dispatcher.dispatcher import host_of, managers
from agent.pki.root import DEFAULT_EXPIRY, RootCA
from agent.pki.tokens import role_of_secret
from agent.rpc.messages import JoinAnswer, JoinOpen
from agent.rpc.peer import Peer
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx

ONE_MANAGER = (
    "this version keeps a single manager: join as a worker, with the token of `docker swarm join-token worker`"
)


class Membership:
    """Admits new nodes; implements `agent.rpc.listener.JoinService` on the leader."""

    def __init__(self, store: Store, clock: Clock, *, new_id: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """A certificate for a node that knows a join secret. An ApiError's text reaches the node that asked."""
        cluster = self._store.view(_cluster)
        role = _role(cluster, request.secret)
        if role is NodeRole.MANAGER:
            raise Unimplemented(ONE_MANAGER)
        availability = _availability(request.availability)
        if not cluster.ca_key:
            raise Unavailable(
                "this manager does not hold the key of the cluster's certificate authority; ask another one"
            )
        root = RootCA.from_pem(cluster.ca_cert.encode(), cluster.ca_key.encode())
        node_id = self._new_id()
        certificate = root.sign(
            request.request,
            node_id,
            role,
            cluster_id=cluster.id,
            clock=self._clock,
            expiry=cluster.spec.ca_config.node_cert_expiry or DEFAULT_EXPIRY,
        )
        node = Node(
            id=node_id,
            spec=NodeSpec(role=role, availability=availability),
            description=NodeDescription(hostname=request.hostname),
            status=NodeStatus(state=NodeState.UNKNOWN, addr=host_of(request.address) or host_of(peer.address)),
        )

        def record(tx: WriteTx) -> None:
            # The token may have been rotated since it was compared.
            _role(_cluster(tx), request.secret)
            tx.create(node)

        await self._store.update(record)
        return JoinAnswer(
            node_id=node_id,
            role=role,
            cluster_id=cluster.id,
            certificate=certificate,
            root=root.cert_pem,
            managers=self._store.view(managers),
        )


def _cluster(tx: ReadTx) -> Cluster:
    clusters = tx.all(Cluster)
    if not clusters:
        raise Unavailable("the cluster is not set up yet; try again in a moment")
    return clusters[0]


def _role(cluster: Cluster, secret: str) -> NodeRole:
    return role_of_secret(secret, worker_secret=cluster.worker_secret, manager_secret=cluster.manager_secret)


def _availability(text: str) -> NodeAvailability:
    try:
        return NodeAvailability(text or NodeAvailability.ACTIVE)
    except ValueError:
        raise InvalidArgument(f'invalid Availability: "{text}"') from None
