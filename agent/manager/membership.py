"""Who becomes a node: the token's secret is compared, the certificate signed, the node recorded.

A newcomer may ask any manager. The leader admits it (`Membership`); any other manager hands the question on (`Referral`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from agent.api_types.errors import ApiError, InvalidArgument, Unavailable
from agent.api_types.identity import ID_LENGTH, IdSource
from agent.api_types.node import Node, NodeAvailability, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus
from agent.api_types.swarm import Cluster
from agent.api_types.times import Clock
from agent.manager.authority import issue, the_cluster, trusted_roots
from agent.manager.dispatcher.listeners import host_of, listener_of
from agent.pki.tokens import InvalidJoinToken, role_of_secret
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.rpc.connection import Connection, Handler, only
from agent.rpc.messages import JoinAnswer, JoinOpen, JoinRefused, ManagerAddress, Message
from agent.rpc.peer import Peer
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.transactions import WriteTx

LEADER_LOST = "the cluster is electing another leader; try again in a moment"


class LeaderLost(Unavailable):
    """The leader leads no more, and nobody can say yet what of the change is left: the next leader is to be asked."""

    def __init__(self) -> None:
        super().__init__(LEADER_LOST)


class Membership:
    """Admits new nodes on the leader. `managers` tells where the managers are now."""

    def __init__(
        self, store: Store, clock: Clock, *, new_id: IdSource, managers: Callable[[], list[ManagerAddress]]
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._managers = managers

    def handlers(self) -> Mapping[str, Handler]:
        """What other managers may call: `join`, for a newcomer that asked them."""
        return {"join": only(NodeRole.MANAGER, self._serve)}

    async def issue(self, request: JoinOpen, peer: Peer, node_id: str = "") -> JoinAnswer:
        """A certificate for a node that knows a join secret. An ApiError's text reaches the node that asked.

        `node_id` is the newcomer's id where another manager has chosen it (empty: a new one): a question that is asked
        again after a leader was lost makes no second node. Raises LeaderLost.
        """
        cluster = self._store.view(the_cluster)
        role = _role(cluster, request.secret)
        availability = _availability(request.availability)
        node_id = _fit(node_id) if node_id else self._new_id()
        certificate = issue(cluster, request.request, node_id, role, self._clock)
        node = Node(
            id=node_id,
            spec=NodeSpec(role=role, availability=availability),
            description=NodeDescription(hostname=request.hostname),
            status=NodeStatus(state=NodeState.UNKNOWN, addr=host_of(listener_of(request.address, peer.address))),
        )

        def record(tx: WriteTx) -> None:
            # The token may have been rotated since it was compared.
            _role(the_cluster(tx), request.secret)
            known = tx.get(Node, node_id)
            if known is None:
                tx.create(node)
            elif (known.spec, known.description) != (node.spec, node.description):
                raise InvalidArgument(f"node {node_id} is part of the cluster already")

        try:
            await self._store.update(record)
        except (NotLeader, OutcomeUnknown):
            raise LeaderLost from None
        return JoinAnswer(
            node_id=node_id,
            role=role,
            cluster_id=cluster.id,
            certificate=certificate,
            root=trusted_roots(cluster),
            managers=self._managers(),
        )

    async def _serve(self, stream: Stream, opening: Message, connection: Connection) -> None:
        if not isinstance(opening, JoinOpen):
            raise InvalidArgument(f"a {type(opening).__name__} where a JoinOpen was expected")
        try:
            answer: Message = await self.issue(opening, connection.peer, opening.node_id)
        except LeaderLost:
            # Fails the question instead of answering it: it is asked again.
            raise
        except ApiError as error:
            answer = JoinRefused(text=str(error), wrong_token=isinstance(error, InvalidJoinToken))
        await stream.send(answer)


class Referral:
    """Hands a newcomer on, from a manager that does not lead.

    `ask` carries the question to the leader's `join` and returns its answer; it raises Unavailable when nobody leads.
    """

    def __init__(self, ask: Callable[[JoinOpen], Awaitable[Message]]) -> None:
        self._ask = ask

    async def issue(self, request: JoinOpen, peer: Peer, node_id: str) -> JoinAnswer:
        """The leader's answer. An ApiError's text reaches the node that asked. `node_id` is the newcomer's, as above."""
        seen = msgspec.structs.replace(
            request, address=listener_of(request.address or ":0", peer.address), node_id=node_id
        )
        answer = await self._ask(seen)
        if isinstance(answer, JoinAnswer):
            return answer
        if not isinstance(answer, JoinRefused):
            raise Unavailable(f"the leader answered a {type(answer).__name__} where a certificate was expected")
        raise InvalidJoinToken(answer.text) if answer.wrong_token else Unavailable(answer.text)


def _role(cluster: Cluster, secret: str) -> NodeRole:
    return role_of_secret(secret, worker_secret=cluster.worker_secret, manager_secret=cluster.manager_secret)


def _fit(node_id: str) -> str:
    if len(node_id) != ID_LENGTH or not (node_id.isascii() and node_id.isalnum()):
        raise InvalidArgument(f"{node_id!r} is no id of a node")
    return node_id


def _availability(text: str) -> NodeAvailability:
    try:
        return NodeAvailability(text or NodeAvailability.ACTIVE)
    except ValueError:
        raise InvalidArgument(f'invalid Availability: "{text}"') from None
