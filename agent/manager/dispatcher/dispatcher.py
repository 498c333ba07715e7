"""The dispatcher: sessions with nodes, their lives, their assignments, the table of published ports.

A session is one stream. What the node says raises the states of its tasks and proves that it lives; what it is sent
follows the store. Everything here is lost with the leadership and made anew by the next leader, which suspects nobody and
gives every node full periods to come.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import ClassVar

import msgspec

from agent.api_types.errors import InvalidArgument
from agent.api_types.identity import IdSource
from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node, NodeDescription, NodeRole, NodeState
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task
from agent.api_types.times import SECOND, Clock
from agent.manager.control_loop import ControlLoop
from agent.manager.dispatcher.connections import Connections
from agent.manager.dispatcher.ingress import answers
from agent.manager.dispatcher.listeners import host_of, listener_of
from agent.manager.dispatcher.liveness import Liveness
from agent.manager.dispatcher.network_keys import KEY_LENGTH, NetworkKeyring
from agent.manager.dispatcher.networks import NetworkBoards, NodeNetworks
from agent.manager.dispatcher.node_reports import NodeReport, NodeWriter
from agent.manager.dispatcher.node_updates import (
    DEFAULT_PERIOD,
    NodeUpdates,
    cluster_id,
    heartbeat_period,
    heartbeat_period_of,
)
from agent.manager.dispatcher.published_ports import PublishedPorts
from agent.manager.dispatcher.session import Session, converse
from agent.manager.dispatcher.turns import Turns
from agent.manager.feature_level import level_of
from agent.manager.group import ELSEWHERE, Group, elsewhere
from agent.manager.status_reports import StatusWriter
from agent.rpc.connection import Connection, Handler
from agent.rpc.messages import (
    Described,
    Heartbeat,
    Leaving,
    ManagerAddress,
    Message,
    SessionEnd,
    SessionOpen,
    SessionReady,
    StatusReport,
)
from agent.rpc.peer import Peer, Purpose
from agent.rpc.stream import Stream
from agent.store.store import Store
from agent.store.watching import Commit, Event, EventKind

log = logging.getLogger(__name__)

LEASE = 60 * SECOND
"""How long a new leader waits for a node that told the old one that it would be back."""

BEGINNING = 1.0
"""Seconds that a node waits for a leader that is made but does not run yet."""

SETTLING = SECOND // 200
"""What a manager spends on a node's further connections at leisure, in nanoseconds: half of it is the handshake."""

MOST_DESCRIPTION = 256 * 1024
"""Bytes that a node may say of itself."""

NO_LONGER = "this manager no longer leads the cluster"
LEADER_CHANGED = 'Node moved to "unknown" state due to leadership change in cluster'
LEAVING = "the agent stopped in order; its tasks stay until it is back"


class Dispatcher(ControlLoop):
    """The leader's side of all sessions. `run` while this manager leads; `handlers` may be registered before."""

    kinds: ClassVar[tuple[type, ...]] = (Node, Task, Service, Network, Attachment, Cluster)

    def __init__(
        self, store: Store, clock: Clock, *, group: Group | None = None, monotonic: Clock, new_id: IdSource
    ) -> None:
        super().__init__(store, clock)
        self._group = group
        self._monotonic = monotonic
        self._new_id = new_id
        self._sessions: dict[str, Session] = {}
        self._liveness = Liveness(DEFAULT_PERIOD)
        self._statuses = StatusWriter(store, clock)
        self._nodes = NodeWriter(store)
        self._updates = NodeUpdates(store, group)
        self._turns = Turns()
        self._ports = PublishedPorts(store, lambda: self._liveness, self._tell_of_table)
        self._boards = NetworkBoards(store)
        self._keyring = NetworkKeyring(store, clock, partial(secrets.token_bytes, KEY_LENGTH))
        self._cluster_changed = False
        self._leads = False
        self._begun = asyncio.Event()
        self.connections = Connections()
        self.on_manager_session: Callable[[], None] = lambda: None
        """Told when a node has a session as a manager (see `address_of`)."""

    # -- for the wiring and for other rooms of the manager

    def handlers(self) -> Mapping[str, Handler]:
        """What nodes may call."""
        return {"session": self._serve}

    def on_connection(self, connection: Connection) -> None:
        """The listener has an authenticated connection."""
        self.connections.add(connection)

    def accept(self, peer: Peer) -> str | None:
        """Why a node with a valid certificate is not let in: it was removed. None lets it in.

        Only the leader says so: to a manager that is behind, a node that has just joined looks like one that was removed.
        """
        if self._leads and self.store.view(lambda tx: tx.get(Node, peer.node_id)) is None:
            return f"node {peer.node_id} is not part of this cluster: it was removed; leave the swarm and join again"
        return None

    def connection_of(self, node_id: str, purpose: Purpose) -> Connection | None:
        """The newest connection that the node holds for the purpose, if it stands."""
        return self.connections.get(node_id, purpose)

    def suspected(self, node_id: str) -> bool:
        """Whether the node's connection broke without a word of leave."""
        return self._liveness.suspected(node_id)

    def connected(self, node_id: str) -> bool:
        """Whether the node has a session."""
        return node_id in self._sessions

    def address_of(self, node_id: str) -> str | None:
        """Where the listener (`host:port`) of a node is that may be a manager: it has a session with a manager's
        certificate, and reads what the log may hold. Else None.
        """
        session = self._sessions.get(node_id)
        if session is None or session.role is not NodeRole.MANAGER:
            return None
        return session.address if session.protocol >= self.store.view(level_of) else None

    def protocol_of(self, node_id: str) -> int | None:
        """The protocol that a node speaks with this manager; None while it has no session."""
        session = self._sessions.get(node_id)
        return None if session is None else session.protocol

    def managers(self) -> list[ManagerAddress]:
        """Where the managers are."""
        return self._updates.managers()

    def certificate_issued(self, node_id: str, role: NodeRole) -> None:
        """A node was given a certificate: as a worker it may forget the managers' log from now on."""
        session = self._sessions.get(node_id)
        if session is not None and role is NodeRole.WORKER:
            session.role = role

    @property
    def lateness(self) -> int:
        """How late this loop came to its ticks at worst in the last ten periods, in nanoseconds."""
        return self._liveness.lateness

    # -- the loop

    async def run(self) -> None:
        """Serve sessions until cancelled."""
        self._liveness = Liveness(self.store.view(heartbeat_period))
        self._statuses, self._nodes = StatusWriter(self.store, self.clock), NodeWriter(self.store)
        self._updates.refresh()
        self._boards.begin()
        self._leads = True
        self._begun.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._statuses.run())
                group.create_task(self._nodes.run())
                self._expect_nodes()
                group.create_task(self._judge())
                group.create_task(self._ports.run())
                if self._group is not None:
                    group.create_task(self._follow_group(self._group))
                group.create_task(super().run())
        finally:
            self._leads = False
            end = self._elsewhere(NO_LONGER)
            self._turns.one_by_one([partial(session.end, end) for session in self._sessions.values()])

    def _elsewhere(self, reason: str) -> SessionEnd:
        return elsewhere(None if self._group is None else self._group.status, self._monotonic(), reason)

    async def _follow_group(self, group: Group) -> None:
        """Tell the nodes when a member came, left or moved."""
        status = group.status
        while True:
            self._tell_nodes()
            members = [(member.id, member.address, member.voter) for member in status.members]
            while [(member.id, member.address, member.voter) for member in status.members] == members:
                status = await group.status_changed(status)

    def _tell_nodes(self) -> None:
        """Something may have changed that any node is to know of its cluster or itself."""
        self._updates.refresh()
        self._turns.one_by_one([session.update_changed for session in self._sessions.values()])

    def _expect_nodes(self) -> None:
        """A new leader knows of no node whether it lives; it says so and gives each of them time to come."""
        for node in self.store.view(lambda tx: tx.all(Node)):
            if node.status.state is NodeState.DOWN:
                continue
            self._liveness.expect_back(node.id, LEASE if node.status.state is NodeState.DISCONNECTED else 0)
            if node.status.state is NodeState.READY:
                self._nodes.report(node.id, NodeReport(NodeState.UNKNOWN, LEADER_CHANGED))

    async def load(self) -> None:
        self._ports.changed()
        self._boards.start_over()
        self._keyring.changed()
        known = {node.id for node in self.store.view(lambda tx: tx.all(Node))}
        for node_id in [node_id for node_id in self._sessions if node_id not in known]:
            self._remove(node_id)
        self._turns.one_by_one([session.start_over for session in self._sessions.values()])

    def observe(self, commit: Commit) -> None:
        changed: dict[str, list[str]] = {}
        for event in commit.events:
            self._boards.observe(event)
            if isinstance(event.object, Network):
                self._keyring.changed()
            if isinstance(event.object, Task):
                if event.object.node_id in self._sessions:
                    changed.setdefault(event.object.node_id, []).append(event.object.id)
                if _changes_table(event):
                    self._ports.changed()
            elif isinstance(event.object, Service):
                before = event.old.endpoint if isinstance(event.old, Service) else None
                if event.kind is not EventKind.UPDATE or before != event.object.endpoint:
                    self._ports.changed()
            elif isinstance(event.object, Node):
                self._observe_node(event.object, event.kind)
            elif isinstance(event.object, Cluster):
                self._set_period(heartbeat_period_of(event.object))
                self._keyring.changed()
                self._cluster_changed = True
        for node_id, task_ids in changed.items():
            self._sessions[node_id].tasks_changed(task_ids)
        self._tell_of_networks()

    def _observe_node(self, node: Node, kind: EventKind) -> None:
        session = self._sessions.get(node.id)
        if kind is EventKind.REMOVE:
            self._remove(node.id)
        elif session is not None:
            session.update_changed()
        elif kind is EventKind.CREATE:
            self._liveness.expect_first(node.id)

    def _remove(self, node_id: str) -> None:
        self._liveness.forget(node_id)
        self._ports.addresses.pop(node_id, None)
        self._ports.changed()
        session = self._sessions.get(node_id)
        if session is not None:
            session.end(SessionEnd("the node was removed from the cluster", removed=True))

    def _set_period(self, period: int) -> None:
        if period == self._liveness.period:
            return
        self._liveness.period = period
        end = SessionEnd("the heartbeat period of the cluster changed")
        self._turns.one_by_one([partial(session.end, end) for session in self._sessions.values()])

    async def act(self) -> int | None:
        if self._cluster_changed:
            self._cluster_changed = False
            self._tell_nodes()
            self._turns.one_by_one([session.networks_changed for session in self._sessions.values()])
        return await self._keyring.act()

    def _tell_of_table(self) -> None:
        self._turns.one_by_one([session.table_changed for session in self._sessions.values()])

    def _tell_of_networks(self) -> None:
        sessions = [self._sessions[node_id] for node_id in self._boards.take_woken() if node_id in self._sessions]
        self._turns.one_by_one([session.networks_changed for session in sessions])

    # -- lives

    async def _judge(self) -> None:
        last = self._monotonic()
        while True:
            await asyncio.sleep(self._liveness.interval / SECOND)
            now = self._monotonic()
            awaited = len(list(self._liveness.awaited()))
            for node_id, reason in self._liveness.tick(now - last):
                log.warning("node %s is down: %s", node_id, reason)
                self._nodes.report(node_id, NodeReport(NodeState.DOWN, reason.value))
                self._ports.addresses.pop(node_id, None)
                self._boards.suspect(node_id)
                session = self._sessions.get(node_id)
                if session is not None:
                    session.end(SessionEnd("no heartbeat came in three periods; open a new session"))
                self._ports.changed()
            self._tell_of_networks()
            if awaited and not list(self._liveness.awaited()):
                self._ports.changed()
            last = now

    # -- sessions

    async def _serve(self, stream: Stream, opening: Message, connection: Connection) -> None:
        if not isinstance(opening, SessionOpen):
            raise InvalidArgument(f"a session is opened with SessionOpen, not {type(opening).__name__}")
        _check_size(opening.description)
        await self._turns()
        if stream.failed:
            # The node has asked elsewhere meanwhile: what stands there is not to be ended by this.
            return
        if not await self._is_leading():
            await stream.send(self._elsewhere(ELSEWHERE))
            return
        node_id = connection.peer.node_id
        node = self.store.view(lambda tx: tx.get(Node, node_id))
        if node is None:
            await stream.send(SessionEnd(f"node {node_id} is not part of this cluster", removed=True))
            return
        address = listener_of(opening.address, connection.peer.address)
        session = Session(
            self._new_id(),
            node_id,
            address,
            stream,
            self.store,
            role=connection.peer.role,
            protocol=connection.peer.protocol,
            update=lambda: self._updates.of(node_id),
            ingress=lambda: self._ports.table,
            networks=NodeNetworks(self._boards, node_id),
            keys=lambda: self._keyring.keys,
            turn=self._turns,
        )
        self._enter(session, opening, connection.peer)
        ready = SessionReady(
            session_id=session.session_id,
            heartbeat_period=self._liveness.period,
            managers=self._updates.managers(),
            node=node,
            cluster_id=self.store.view(cluster_id),
            settling=SETTLING * self.store.view(lambda tx: tx.count(Node)),
        )
        try:
            await converse(session, ready, self._listen(session, stream))
        finally:
            self._leave(session)

    async def _is_leading(self) -> bool:
        """Whether this one leads; one that was only just made is waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGINNING):
                await self._begun.wait()
        return self._leads

    async def _listen(self, session: Session, stream: Stream) -> None:
        while True:
            message = await stream.receive()
            if self._sessions.get(session.node_id) is session:
                self._liveness.heard(session.node_id)
            match message:
                case Heartbeat():
                    session.answer()
                case StatusReport(reports):
                    self._statuses.report(session.node_id, reports)
                case Described(description):
                    _check_size(description)
                    self._nodes.report(session.node_id, NodeReport(description=description))
                case Leaving(lease):
                    self._take_leave(session, lease)
                case _:
                    raise InvalidArgument(f"{type(message).__name__} has no place in a session")

    def _enter(self, session: Session, opening: SessionOpen, peer: Peer) -> None:
        before = self._sessions.get(session.node_id)
        self._sessions[session.node_id] = session
        if before is not None:
            before.end(SessionEnd("the node opened another session"))
        self._ports.addresses[session.node_id] = session.address
        self._liveness.connected(session.node_id)
        self._boards.trust(session.node_id)
        self._tell_of_networks()
        self._report_ready(session, opening.description, peer)
        self._ports.changed()
        if session.role is NodeRole.MANAGER:
            self.on_manager_session()
        log.info("node %s has session %s from %s", session.node_id, session.session_id, peer.address)

    def _report_ready(self, session: Session, description: NodeDescription, peer: Peer) -> None:
        address = host_of(session.address) or host_of(peer.address)
        self._nodes.report(session.node_id, NodeReport(NodeState.READY, "", address, description))

    def _take_leave(self, session: Session, lease: int) -> None:
        if self._sessions.get(session.node_id) is not session:
            return
        session.orderly = True
        self._liveness.leaving(session.node_id, lease)
        self._nodes.report(session.node_id, NodeReport(NodeState.DISCONNECTED, LEAVING))
        self._ports.changed()

    def _leave(self, session: Session) -> None:
        if self._sessions.get(session.node_id) is not session:
            return
        del self._sessions[session.node_id]
        session.networks.close()
        self._liveness.disconnected(session.node_id)
        if self._liveness.suspected(session.node_id):
            self._boards.suspect(session.node_id)
            self._tell_of_networks()
        if self._liveness.suspected(session.node_id) and self._leads and not session.orderly:
            log.warning("node %s is suspected: its session broke", session.node_id)
        self._ports.changed()


def _check_size(description: NodeDescription) -> None:
    """A node's own words go into the store of every manager; they must not fill it."""
    size = len(msgspec.msgpack.encode(description))
    if size > MOST_DESCRIPTION:
        raise InvalidArgument(
            f"the description of the node is {size} bytes long, {MOST_DESCRIPTION} are allowed; "
            "shorten the labels and the list of plugins of its engine"
        )


def _changes_table(event: Event) -> bool:
    """Whether a task began or ceased to take connections."""
    task, old = event.object, event.old
    if not isinstance(task, Task):
        return False
    now = event.kind is not EventKind.REMOVE and answers(task)
    before = isinstance(old, Task) and answers(old)
    return now != before
