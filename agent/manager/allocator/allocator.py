"""The allocator's loop: what was changed is noted, then networks, services, balancers, containers and tasks get their part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import ClassVar, TypeVar

from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task, TaskState
from agent.api_types.times import Clock, format_time, parse_time
from agent.manager.allocator import problems
from agent.manager.allocator.address_pool import QUARANTINE
from agent.manager.allocator.balancers import Balancers, Place
from agent.manager.allocator.giving import Giving, is_connected
from agent.manager.allocator.ledger import Holder, Ledger
from agent.manager.allocator.problems import NETWORKS, PORTS, Problem
from agent.manager.allocator.subnets import (
    InvalidNetwork,
    Territory,
    Unallocatable,
    hosts_of,
    is_allocated,
    territory_of,
)
from agent.manager.allocator.targets import (
    addresses_of_attachment,
    addresses_of_service,
    addresses_of_task,
    attached,
    carries,
    targets_of_service,
)
from agent.manager.allocator.waiting import Waiting
from agent.manager.control_loop import BATCH, ControlLoop
from agent.manager.slots import wanted
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, EventKind

_K = TypeVar("_K")

LOOK = 200
"""Objects that are looked at in one turn of the loop: some 3 ms."""


class Allocator(ControlLoop):
    """Gives networks their subnets, services their endpoints, tasks their addresses, and lets tasks on to the scheduler."""

    kinds: ClassVar[tuple[type, ...]] = (Service, Task, Network, Attachment, Node)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._forget()

    def _forget(self) -> None:
        self._ledger = Ledger()
        self._balancers = Balancers(self._ledger)
        self._waiting = Waiting()
        self._territory = Territory(())
        self._born: dict[str, int] = {}
        """When the networks were made that there are at the beginning."""
        self._places: dict[str, tuple[str, str]] = {}
        """Address and hostname of each node."""
        self._has_moved = False
        self._network_problems: dict[str, Problem] = {}
        self._touched: dict[Holder, None] = {}
        """What commits were about; looked at in the store before anything is given."""
        self._due: dict[type, dict[str, None]] = {Network: {}, Service: {}, Attachment: {}, Task: {}}
        """What may be given something now, in order."""

    # -- what there is

    async def load(self) -> None:
        # A leader that has just begun may not have applied everything that the one before it committed.
        await self.store.barrier()
        self._forget()
        taken: list[list[Service] | list[Task] | list[Attachment]] = []
        await self.store.update(lambda tx: taken.extend(self._survey(tx)))
        now = self.clock()
        used: set[str] = set()
        for number, each in enumerate((obj for objects in taken for obj in objects), 1):
            self._settle(type(each), each.id, each, now)
            if isinstance(each, Task):
                self._remember(each, now, used)
            if number % LOOK == 0:
                await asyncio.sleep(0)
        used |= self._ledger.in_use()
        for network_id, born in self._born.items():
            if network_id in used or born + QUARANTINE <= now:
                self._ledger.resume(network_id)

    def _survey(self, tx: WriteTx) -> list[list[Service] | list[Task] | list[Attachment]]:
        """Take note of the networks; everything that has addresses. Sees also what this process has only proposed."""
        networks = tx.all(Network)
        nodes = tx.all(Node)
        self._territory = territory_of(next(iter(tx.all(Cluster)), None), networks, nodes)
        self._places = {node.id: (node.status.addr, node.description.hostname) for node in nodes}
        self._born = {network.id: parse_time(network.created_at) for network in networks}
        for network in networks:
            self._open(network)
        return [tx.all(Service), tx.all(Task), tx.all(Attachment)]

    def _remember(self, task: Task, now: int, used: set[str]) -> None:
        """Addresses of tasks that have ended rest from then on."""
        held = attached(task)
        used.update(network_id for network_id, _ in held)
        if held and not addresses_of_task(task) and task.updated_at > format_time(now - QUARANTINE):
            for each in held:
                self._ledger.was_used(each, parse_time(task.updated_at))

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            kind = type(event.object)
            self._touched[kind, event.object.id] = None
            if kind is Service and event.kind is not EventKind.CREATE:
                # A port may be free now.
                self._wake(PORTS)

    async def _look(self) -> None:
        """Bring what is known in line with the store, which has everything that was given before this."""
        while self._touched:
            some = list(islice(self._touched, LOOK))
            for holder in some:
                del self._touched[holder]
            await self.store.update(lambda tx, some=some: self._take_note(tx, some))  # type: ignore[misc]
            await asyncio.sleep(0)

    def _take_note(self, tx: ReadTx, touched: Iterable[Holder]) -> None:
        now = self.clock()
        for kind, object_id in touched:
            if kind is Network:
                self._see_network(tx, object_id)
            elif kind is Node:
                self._see_node(tx, object_id)
            else:
                self._settle(kind, object_id, tx.get(kind, object_id), now)
        if self._has_moved:
            self._has_moved = False
            self._see_hosts(tx)

    def _settle(self, kind: type, object_id: str, found: object, now: int) -> None:
        """Something with addresses is as it is: note what it holds, and what it lacks."""
        holder: Holder = (kind, object_id)
        lacks = False
        if isinstance(found, Task):
            self._ledger.settle(holder, addresses_of_task(found), now)
            self._balancers.use(holder, carries(found))
            lacks = found.status.state is TaskState.NEW and not (holder in self._waiting and wanted(found))
        elif isinstance(found, Service):
            self._ledger.settle(holder, addresses_of_service(found), now)
            lacks = True
        elif isinstance(found, Attachment):
            self._ledger.settle(holder, addresses_of_attachment(found), now)
            if found.container:
                on_node = bool(found.node_id) and is_connected(found)
                self._balancers.use(holder, [(found.node_id, found.network_id)] if on_node else ())
            else:
                self._balancers.found(found)
            lacks = bool(found.container)
        else:
            self._ledger.settle(holder, (), now)
            self._balancers.use(holder, ())
            if kind is Attachment:
                self._balancers.lost(object_id)
            self._waiting.drop(holder)
        if lacks:
            self._due[kind][object_id] = None
        elif found is None or not (isinstance(found, Task) and found.status.state is TaskState.NEW):
            self._waiting.drop(holder)
            self._due[kind].pop(object_id, None)
        if kind is Service:
            self._wake(problems.of_service(object_id))

    def _see_network(self, tx: ReadTx, network_id: str) -> None:
        network = tx.get(Network, network_id)
        if network is not None:
            known = self._ledger.is_open(network_id)
            self._open(network)
            if not known:
                self._wake(NETWORKS)
            return
        self._ledger.close(network_id)
        self._territory.forget(network_id)
        self._network_problems.pop(network_id, None)
        self._due[Network].pop(network_id, None)
        self._wake(NETWORKS)
        for line in (network_id, problems.one_of(network_id)):
            self._wake(line)
        self._balancers.look_at(network_id=network_id)
        for attachment in tx.find(Attachment, "network", network_id):
            self._due[Attachment][attachment.id] = None
        for service in tx.all(Service):
            held = any(vip.network_id == network_id for vip in service.endpoint.virtual_ips)
            if held or any(target.network is None for target in targets_of_service(tx, service)):
                self._due[Service][service.id] = None

    def _open(self, network: Network) -> None:
        if is_allocated(network):
            self._territory.claim(network)
            self._ledger.open(network)
            self._network_problems.pop(network.id, None)
            self._due[Network].pop(network.id, None)
        else:
            self._due[Network][network.id] = None

    def _see_hosts(self, tx: ReadTx) -> None:
        hosts = hosts_of(tx.all(Node))
        if hosts != self._territory.hosts:
            self._territory.hosts = hosts
            self._wake(NETWORKS)

    def _see_node(self, tx: ReadTx, node_id: str) -> None:
        node = tx.get(Node, node_id)
        place = None if node is None else (node.status.addr, node.description.hostname)
        if place != self._places.get(node_id):
            # All nodes are looked at together: a thousand may have come at once.
            self._has_moved = True
            if place is None:
                del self._places[node_id]
            else:
                self._places[node_id] = place
            self._balancers.look_at(node_id=node_id)
        if node is None:
            for attachment in tx.find(Attachment, "node", node_id):
                self._due[Attachment][attachment.id] = None

    # -- who may be tried again

    def _wake(self, line: str, number: int | None = None) -> None:
        for kind, holder_id in self._waiting.take(line, number):
            if kind is Balancers:
                node_id, _, network_id = holder_id.partition(" ")
                self._balancers.unsettled[node_id, network_id] = None
            else:
                self._due[kind][holder_id] = None

    def _wake_where_there_is_room(self) -> None:
        for network_id in self._ledger.freed:
            self._wake(problems.one_of(network_id))
        self._ledger.freed.clear()
        for line in self._waiting.lines():
            if self._ledger.is_open(line) and (room := self._ledger.room(line)):
                # More than can come would only have to wait again.
                self._wake(line, room)

    # -- what they get

    async def act(self) -> int | None:
        await self._look()
        while True:
            self._wake_where_there_is_room()
            if self._due[Network]:
                await self._batch(self._due[Network], self._allocate)
            elif self._due[Service]:
                await self._batch(self._due[Service], self._serve)
            elif self._balancers.unsettled:
                await self._batch(self._balancers.unsettled, self._balance)
            elif self._due[Attachment]:
                await self._batch(self._due[Attachment], self._connect)
            elif self._due[Task]:
                await self._batch(self._due[Task], self._admit)
            elif not any(self._balancers.yield_idle(line) for line in self._waiting.lines()):
                following = self._balancers.ripen(self.clock())
                if not self._balancers.unsettled:
                    return following

    async def _batch(self, due: dict[_K, None], give: Callable[[WriteTx, list[_K]], None]) -> None:
        some = list(islice(due, BATCH))
        for each in some:
            del due[each]
        await self.store.update(lambda tx: give(tx, some))

    def _giving(self, tx: WriteTx) -> Giving:
        return Giving(tx, self._ledger, self._network_problems)

    def _note(self, holder: Holder, problem: Problem | None) -> None:
        if problem is None:
            self._waiting.drop(holder)
        else:
            self._waiting.put(holder, problem)

    def _allocate(self, tx: WriteTx, network_ids: list[str]) -> None:
        for network_id in network_ids:
            network = tx.get(Network, network_id)
            if network is None or is_allocated(network):
                continue
            problem = None
            try:
                allocated = self._territory.allocate(network)
            except Unallocatable as error:
                problem = problems.unallocated(network, str(error), error.advice)
            except InvalidNetwork as error:
                problem = problems.malformed(network, str(error))
            if problem is None:
                self._open(tx.update(allocated))
                self._wake(NETWORKS)
            else:
                self._network_problems[network_id] = problem
            self._note((Network, network_id), problem)

    def _serve(self, tx: WriteTx, service_ids: list[str]) -> None:
        giving = self._giving(tx)
        for service_id in service_ids:
            service = tx.get(Service, service_id)
            if service is not None:
                self._note((Service, service_id), giving.serve(service))
                self._wake(problems.of_service(service_id))

    def _balance(self, tx: WriteTx, places: list[Place]) -> None:
        for place in places:
            self._note((Balancers, " ".join(place)), self._balancers.settle(tx, place))

    def _connect(self, tx: WriteTx, attachment_ids: list[str]) -> None:
        giving = self._giving(tx)
        for attachment_id in attachment_ids:
            attachment = tx.get(Attachment, attachment_id)
            if attachment is None:
                continue
            holder: Holder = (Attachment, attachment_id)
            node_gone = attachment.node_id and tx.get(Node, attachment.node_id) is None
            if node_gone or tx.get(Network, attachment.network_id) is None:
                tx.delete(Attachment, attachment_id)
                self._settle(Attachment, attachment_id, None, tx.clock())
            elif not is_connected(attachment):
                self._note(holder, giving.connect(attachment))

    def _admit(self, tx: WriteTx, task_ids: list[str]) -> None:
        giving = self._giving(tx)
        for task_id in task_ids:
            task = tx.get(Task, task_id)
            if task is None or task.status.state is not TaskState.NEW:
                continue
            waits = self._waiting.problem((Service, task.service_id))
            if waits is not None:
                waits = Problem(waits.text, waits.advice, problems.of_service(task.service_id))
            self._note((Task, task_id), giving.admit(task, waits))
