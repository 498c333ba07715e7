"""Who becomes a node: the token's secret is compared, the certificate signed, the node recorded.

A newcomer may ask any manager. The leader admits it (`Membership`); any other manager hands the question on (`Referral`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from agent.api_types.errors import ApiError, InvalidArgument, Unavailable
from agent.api_types.identity import IdSource
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


class Membership:
    """Admits new nodes; implements `agent.rpc.listener.JoinService` on the leader.

    `managers` tells where the managers are now.
    """

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

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """A certificate for a node that knows a join secret. An ApiError's text reaches the node that asked."""
        cluster = self._store.view(the_cluster)
        role = _role(cluster, request.secret)
        availability = _availability(request.availability)
        node_id = self._new_id()
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
            tx.create(node)

        try:
            await self._store.update(record)
        except (NotLeader, OutcomeUnknown):
            raise Unavailable(LEADER_LOST) from None
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
            answer: Message = await self.issue(opening, connection.peer)
        except ApiError as error:
            answer = JoinRefused(text=str(error), wrong_token=isinstance(error, InvalidJoinToken))
        await stream.send(answer)


class Referral:
    """Implements `agent.rpc.listener.JoinService` on a manager that does not lead.

    `ask` carries the question to the leader's `join` and returns its answer; it raises Unavailable when nobody leads.
    """

    def __init__(self, ask: Callable[[JoinOpen], Awaitable[Message]]) -> None:
        self._ask = ask

    async def issue(self, request: JoinOpen, peer: Peer) -> JoinAnswer:
        """The leader's answer. An ApiError's text reaches the node that asked."""
        seen = msgspec.structs.replace(request, address=listener_of(request.address or ":0", peer.address))
        answer = await self._ask(seen)
        if isinstance(answer, JoinAnswer):
            return answer
        if not isinstance(answer, JoinRefused):
            raise Unavailable(f"the leader answered a {type(answer).__name__} where a certificate was expected")
        raise InvalidJoinToken(answer.text) if answer.wrong_token else Unavailable(answer.text)


def _role(cluster: Cluster, secret: str) -> NodeRole:
    return role_of_secret(secret, worker_secret=cluster.worker_secret, manager_secret=cluster.manager_secret)


def _availability(text: str) -> NodeAvailability:
    try:
        return NodeAvailability(text or NodeAvailability.ACTIVE)
    except ValueError:
        raise InvalidArgument(f'invalid Availability: "{text}"') from None
