"""What nodes are told of overlay networks: each node of the networks that it needs, first all of it, then differences.

A node needs a network while a task that is assigned to it is on the network and has not ended, while a container that a
person runs there is, and the ingress network while it has an address there. Before `Assignments` that are complete every
network that the node needs has come complete: what it knows of others it may forget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node, NodeState
from agent.api_types.service import Service
from agent.api_types.task import Task
from agent.manager.dispatcher.assignments import is_assigned
from agent.manager.dispatcher.network_boards import NetworkBoard, describe, networks_of_service, networks_of_task
from agent.manager.slots import ended
from agent.rpc.messages import NetworkUpdate, OverlayDescription
from agent.store.store import Store
from agent.store.transactions import ReadTx
from agent.store.watching import Event, EventKind


class NetworkBoards:
    """The boards of all networks, and whose nodes read them.

    A board is made when a node first needs its network and given up with the network. `observe` takes every event; who
    has something to be told of is collected until `take_woken`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._boards: dict[str, NetworkBoard] = {}
        self._suspects: set[str] = set()
        self._readers: dict[str, set[str]] = {}
        """Network id to the ids of the nodes that were told of it."""
        self._woken: dict[str, None] = {}

    def begin(self) -> None:
        """This manager leads from now on, and suspects nobody."""
        self._suspects.clear()
        self.start_over()

    def start_over(self) -> None:
        """What changed is not known any more: all boards are made anew. A node that is down is suspected from the first."""
        self._boards.clear()
        self._readers.clear()
        down = [node.id for node in self._store.view(lambda tx: tx.all(Node)) if node.status.state is NodeState.DOWN]
        self._suspects.update(down)

    def take_woken(self) -> list[str]:
        """The ids of the nodes that may have something to be told of, since the last call."""
        woken = list(self._woken)
        self._woken.clear()
        return woken

    # -- who is reached

    def suspect(self, node_id: str) -> None:
        """The node's session broke, or it is down: its tasks are no backends, but for the last ones of a service."""
        if node_id not in self._suspects:
            self._suspects.add(node_id)
            self._judge(node_id)

    def trust(self, node_id: str) -> None:
        """The node has a session again, or is gone."""
        if node_id in self._suspects:
            self._suspects.discard(node_id)
            self._judge(node_id)

    def _judge(self, node_id: str) -> None:
        for board in self._boards.values():
            before = board.revision
            board.judge(node_id, self._suspects)
            self._wake_if_changed(board, before)

    def _wake_if_changed(self, board: NetworkBoard, before: int) -> None:
        if board.revision != before:
            self._woken.update(dict.fromkeys(self._readers.get(board.id, ())))

    # -- what changes

    def observe(self, event: Event) -> None:
        """Take note of one event."""
        match event.object:
            case Task():
                self._observe_task(event, event.object)
            case Service():
                self._observe_service(event, event.object)
            case Network():
                self._observe_network(event, event.object)
            case Attachment():
                self._observe_attachment(event, event.object)
            case Node():
                self._observe_node(event, event.object)

    def _observe_task(self, event: Event, task: Task) -> None:
        old = event.old if isinstance(event.old, Task) else None
        now = set(networks_of_task(task)) if event.kind is not EventKind.REMOVE else set()
        for network_id in {*now, *(networks_of_task(old) if old is not None else networks_of_task(task))}:
            board = self._boards.get(network_id)
            if board is None:
                continue
            before = board.revision
            if network_id in now:
                self._put_task(board, task)
            else:
                board.remove_member(task.id)
            self._wake_if_changed(board, before)

    def _put_task(self, board: NetworkBoard, task: Task) -> None:
        board.put_task(task, task_name(task), self._host(task.node_id), self._suspects)

    def _host(self, node_id: str) -> str:
        node = self._store.view(lambda tx: tx.get(Node, node_id)) if node_id else None
        return "" if node is None else node.status.addr

    def _observe_service(self, event: Event, service: Service) -> None:
        old = event.old if isinstance(event.old, Service) else service
        for network_id in networks_of_service(service) | networks_of_service(old):
            board = self._boards.get(network_id)
            if board is None:
                continue
            before = board.revision
            if event.kind is EventKind.REMOVE:
                board.remove_service(service.id)
            else:
                board.put_service(service)
            self._wake_if_changed(board, before)

    def _observe_network(self, event: Event, network: Network) -> None:
        board = self._boards.get(network.id)
        description = describe(network) if event.kind is not EventKind.REMOVE else None
        if description is None:
            self._boards.pop(network.id, None)
            self._woken.update(dict.fromkeys(self._readers.pop(network.id, ())))
        elif board is not None:
            before = board.revision
            board.redescribe(description)
            self._wake_if_changed(board, before)
        else:
            # Nodes may need it already: its tasks were let on when it was allocated.
            tasks = self._store.view(lambda tx: [task for task in tx.all(Task) if network.id in networks_of_task(task)])
            self._woken.update(dict.fromkeys(task.node_id for task in tasks if is_assigned(task)))

    def _observe_attachment(self, event: Event, attachment: Attachment) -> None:
        self._woken[attachment.node_id] = None
        board = self._boards.get(attachment.network_id)
        if board is None:
            return
        before = board.revision
        if event.kind is EventKind.REMOVE:
            board.remove_attachment(attachment)
        else:
            board.put_attachment(attachment, self._host(attachment.node_id), self._suspects)
        self._wake_if_changed(board, before)

    def _observe_node(self, event: Event, node: Node) -> None:
        if event.kind is EventKind.REMOVE:
            self.trust(node.id)
        elif isinstance(event.old, Node) and event.old.status.addr == node.status.addr:
            return
        tasks, attachments = self._store.view(
            lambda tx: (tx.find(Task, "node", node.id), tx.find(Attachment, "node", node.id))
        )
        for board in self._boards.values():
            before = board.revision
            for task in tasks:
                self._put_task(board, task)
            for attachment in attachments:
                if attachment.network_id == board.id:
                    board.put_attachment(attachment, self._host(node.id), self._suspects)
            self._wake_if_changed(board, before)

    # -- what nodes are told

    def board(self, tx: ReadTx, network_id: str) -> NetworkBoard | None:
        """A network's board, made from the store where there is none yet; None for what is no overlay."""
        board = self._boards.get(network_id)
        if board is None:
            network = tx.get(Network, network_id)
            description = None if network is None else describe(network)
            if description is None:
                return None
            board = self._boards[network_id] = NetworkBoard(network_id, description)
            self._fill(tx, board)
        return board

    def _fill(self, tx: ReadTx, board: NetworkBoard) -> None:
        for service in tx.all(Service):
            if board.id in networks_of_service(service):
                board.put_service(service)
        for task in tx.all(Task):
            if board.id in networks_of_task(task):
                self._put_task(board, task)
        for attachment in tx.find(Attachment, "network", board.id):
            board.put_attachment(attachment, self._host(attachment.node_id), self._suspects)

    def needed(self, tx: ReadTx, node_id: str) -> list[NetworkBoard]:
        """The boards of the networks that a node needs, in order of their ids."""
        wanted: set[str] = set()
        for task in tx.find(Task, "node", node_id):
            if task.networks_attachments and is_assigned(task) and not ended(task):
                wanted.update(networks_of_task(task))
        for attachment in tx.find(Attachment, "node", node_id):
            if attachment.container or _is_ingress(tx, attachment.network_id):
                wanted.add(attachment.network_id)
        return [board for network_id in sorted(wanted) if (board := self.board(tx, network_id)) is not None]

    def reads(self, node_id: str, network_id: str) -> None:
        """The node was told of a network: it is woken when that changes."""
        self._readers.setdefault(network_id, set()).add(node_id)

    def forgets(self, node_id: str, network_ids: Iterable[str] | None = None) -> None:
        """The node is not to be told of these (None: of any) any more. A board that nobody reads is given up."""
        for network_id in list(self._readers if network_ids is None else network_ids):
            readers = self._readers.get(network_id)
            if readers is None:
                continue
            readers.discard(node_id)
            if not readers:
                del self._readers[network_id]
                self._boards.pop(network_id, None)


def task_name(task: Task) -> str:
    """A task's name on its networks: `service.slot.id`, with the node's id in the slot's place for a global service."""
    service = task.service_annotations.name if task.service_annotations is not None else task.service_id
    return task.name or f"{service}.{task.slot or task.node_id}.{task.id}"


def _is_ingress(tx: ReadTx, network_id: str) -> bool:
    network = tx.get(Network, network_id)
    return network is not None and network.spec.ingress


@dataclass(frozen=True, slots=True)
class NetworkNews:
    """Updates to be sent before the assignments that use the networks, and those that may only follow them."""

    first: list[NetworkUpdate]
    last: list[NetworkUpdate]


NOTHING = NetworkNews([], [])


@dataclass(frozen=True, slots=True)
class _Told:
    board: NetworkBoard
    revision: int
    description: OverlayDescription


class NodeNetworks:
    """What one session was told of networks so far."""

    def __init__(self, boards: NetworkBoards, node_id: str) -> None:
        self._boards = boards
        self._node_id = node_id
        self._told: dict[str, _Told] = {}

    @property
    def is_encrypted(self) -> bool:
        """Whether the node was told of an encrypted network: it needs the keys."""
        return any(told.description.encrypted for told in self._told.values())

    def start_over(self) -> None:
        """The node is to be told everything again."""
        self._told.clear()

    def close(self) -> None:
        """The node has no session any more."""
        self._boards.forgets(self._node_id)
        self._told.clear()

    def news(self, tx: ReadTx) -> NetworkNews:
        """What the node is to be told now; it counts as told from here on."""
        needed = self._boards.needed(tx, self._node_id)
        if not needed and not self._told:
            return NOTHING
        first = [update for board in needed if (update := self._update(board)) is not None]
        gone = self._told.keys() - {board.id for board in needed}
        self._boards.forgets(self._node_id, gone)
        for network_id in gone:
            del self._told[network_id]
        return NetworkNews(first, [NetworkUpdate(network_id=network_id, gone=True) for network_id in sorted(gone)])

    def _update(self, board: NetworkBoard) -> NetworkUpdate | None:
        told = self._told.get(board.id)
        if told is not None and told.board is board and told.revision == board.revision:
            return None
        description = board.described_for(self._node_id)
        self._told[board.id] = _Told(board, board.revision, description)
        self._boards.reads(self._node_id, board.id)
        difference = board.difference(told.revision) if told is not None and told.board is board else None
        if difference is None or told is None:
            return board.complete(self._node_id)
        if description != told.description:
            return msgspec.structs.replace(difference, description=description)
        changed = difference.services or difference.removed_services
        return difference if changed or difference.endpoints or difference.removed_endpoints else None
