"""Certificates anew, and managers that leave: what nodes that are part of the cluster ask of the leader."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from agent.api_types.errors import InvalidArgument, PermissionDenied, Unavailable
from agent.api_types.node import Node, NodeRole
from agent.api_types.times import Clock
from agent.manager.authority import issue, the_cluster, trusted_roots
from agent.manager.group import Group, effective_role, member_of, survives_without, until_survivable
from agent.manager.membership import LEADER_LOST
from agent.raft.interface import GroupStatus, NotLeader, OutcomeUnknown
from agent.rpc.connection import Connection, Handler, only
from agent.rpc.messages import DepartAnswer, DepartOpen, Message, RenewAnswer, RenewOpen
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.transactions import WriteTx

QUORUM_LOSS = "can't remove member from the raft: this would result in a loss of quorum"
"""Docker's words."""
LAST_MANAGER = "this is the last manager of the cluster"
LEADS = "this manager leads the cluster: it hands the leadership over before it departs"


class Renewal:
    """Answers `renew` (any node) and `depart` (managers) on the leader."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        group: Group | None,
        *,
        on_issued: Callable[[str, NodeRole], None] = lambda node_id, role: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._group = group
        self._on_issued = on_issued

    def handlers(self) -> Mapping[str, Handler]:
        """What nodes may call."""
        return {"renew": self._renew, "depart": only(NodeRole.MANAGER, self._depart)}

    async def _renew(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """Sign for the node of the connection's certificate, in the role that it is to have now."""
        if not isinstance(opening, RenewOpen):
            raise InvalidArgument(f"a {type(opening).__name__} where a RenewOpen was expected")
        status = self._leading()
        node_id = connection.peer.node_id
        cluster, node = self._store.view(lambda tx: (the_cluster(tx), tx.get(Node, node_id)))
        if node is None:
            raise PermissionDenied(
                f"node {node_id} is not part of this cluster: it was removed and gets no certificate"
            )
        role = effective_role(node, status)
        certificate = issue(cluster, opening.request, node_id, role, self._clock)
        self._on_issued(node_id, role)
        await stream.send(RenewAnswer(certificate=certificate, roots=trusted_roots(cluster)))

    async def _depart(self, stream: Stream, opening: Message, connection: Connection) -> None:
        """Take the manager of the connection's certificate out of the group; answer once it is out."""
        if not isinstance(opening, DepartOpen):
            raise InvalidArgument(f"a {type(opening).__name__} where a DepartOpen was expected")
        error = await self._refusal(connection.peer.node_id)
        if not error:
            # The store alone says who is to be a manager: the role manager takes the member out.
            await self._make_worker(connection.peer.node_id)
            async with stream.guard():
                await self._gone(connection.peer.node_id)
        await stream.send(DepartAnswer(error))

    async def _refusal(self, node_id: str) -> str:
        """Why the manager may not leave; a leader that is new is given the time to hear who is there."""
        error = refuse_departure(self._leading(), node_id)
        if error != QUORUM_LOSS or self._group is None:
            return error
        await until_survivable(self._group.status, self._group.status_changed, node_id)
        return refuse_departure(self._leading(), node_id)

    async def _make_worker(self, node_id: str) -> None:
        def demote(tx: WriteTx) -> None:
            node = tx.get(Node, node_id)
            if node is not None and node.spec.role is NodeRole.MANAGER:
                tx.update(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, role=NodeRole.WORKER)))

        try:
            await self._store.update(demote)
        except (NotLeader, OutcomeUnknown):
            raise Unavailable(LEADER_LOST) from None

    async def _gone(self, node_id: str) -> None:
        """Wait until the group is without the node."""
        if self._group is None:
            return
        status = self._leading()
        while status is not None and member_of(status, node_id) is not None:
            await self._group.status_changed(status)
            status = self._leading()

    def _leading(self) -> GroupStatus | None:
        """The group's status, None without one; Unavailable when this manager does not lead."""
        if self._group is None:
            return None
        status = self._group.status
        if not status.leading:
            raise Unavailable(LEADER_LOST)
        return status


def refuse_departure(status: GroupStatus | None, node_id: str) -> str:
    """Why a manager may not leave the group now; empty when it may."""
    if status is None:
        return LAST_MANAGER
    member = member_of(status, node_id)
    if member is None or not member.voter:
        return ""
    if sum(other.voter for other in status.members) == 1:
        return LAST_MANAGER
    if node_id == status.member_id:
        return LEADS
    return "" if survives_without(status, node_id) else QUORUM_LOSS
