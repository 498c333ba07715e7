"""A cluster with several managers: each with a store of its own that follows one agreed log, on hosts that run tasks too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from invariants import Broken
from simulated_link import End, Link
from simulated_log import AgreedLog, Lost, Member
from simulated_node import SimulatedNode
from virtual_time import EPOCH, VirtualLoop, run_virtual
from world import World

from agent.api_types.errors import ApiError
from agent.api_types.node import Node, NodeState
from agent.api_types.task import TaskState
from agent.api_types.times import SECOND, parse_time
from agent.manager.dispatcher.ingress import answers as takes_connections
from agent.manager.group import elsewhere
from agent.manager.manager import Manager
from agent.raft.interface import NotLeader
from agent.rpc.errors import RpcError
from agent.rpc.messages import IngressTable
from agent.store.store import Store
from agent.store.transactions import ReadTx, WriteTx
from agent.store.watching import Commit, Watch

R = TypeVar("R")

BACK_WITHIN = 2.0
"""Seconds in which a node that can be reached is to have found the leader: nobody may call it down after."""


class PersonsStore:
    """What a person sees and does through whichever manager answers: the newest state, and changes that are surely made."""

    def __init__(self, log: AgreedLog) -> None:
        self._log = log

    def view(self, fn: Callable[[ReadTx], R]) -> R:
        return self._log.witness.view(fn)

    def watch(self, *kinds: type) -> Watch:
        return self._log.witness.watch(*kinds)

    @property
    def index(self) -> int:
        return self._log.witness.index

    async def update(self, fn: Callable[[WriteTx], object]) -> int:
        while True:
            leader = next((member for member in self._log.members.values() if member.believes), None)
            if leader is None:
                await self._log.next_change()
                continue
            try:
                return await leader.store.update(fn)
            except NotLeader:
                await asyncio.sleep(0.01)
            except Lost as lost:
                if lost.committed:
                    return self.index


@dataclass
class Process:
    """A manager's process on its host."""

    member: Member
    life: asyncio.Task[None] | None = None
    manager: Manager | None = None


class ReplicatedWorld(World):
    """`managers` of the hosts, the first ones, are managers too; a host that loses power takes its manager with it."""

    def __init__(self, seed: int | str, nodes: int = 5, latency: float = 0.002, managers: int = 3) -> None:
        self._managers = [f"{number:02d}" for number in range(1, managers + 1)]
        self.processes: dict[str, Process] = {}
        self.terms: list[str] = []
        """Who led, in order."""
        self.blames: list[tuple[float, str]] = []
        """When which node was called down."""
        self.tables: dict[str, IngressTable] = {}
        super().__init__(seed, nodes, latency)
        self._blame_watch = self.store.watch(Node)

    def _make_store(self, latency: float) -> Store:
        import random

        loop = self.loop
        assert isinstance(loop, VirtualLoop)
        self.log = AgreedLog(
            self._managers, loop, random.Random(f"log {self.rng.random()}"), self.new_id, latency=latency
        )
        return cast(Store, PersonsStore(self.log))

    # -- managers

    @property
    def manager(self) -> Manager | None:
        return next((each.manager for each in self.processes.values() if each.member.believes and each.manager), None)

    @manager.setter
    def manager(self, manager: Manager | None) -> None:
        assert manager is None

    def lead(self) -> None:
        for name in self._managers:
            if name not in self.processes:
                self._start(name)

    async def __aenter__(self) -> ReplicatedWorld:  # type: ignore[override]
        self.lead()
        await super().__aenter__()
        return self

    async def stop_leading(self) -> None:
        for name in list(self.processes):
            await self._stop(name)

    def _start(self, name: str) -> None:
        member = self.log.members[name]
        if member.dead:
            member = self.log.start(name)
        process = self.processes[name] = Process(member)
        process.life = asyncio.ensure_future(self._live(process))

    async def _stop(self, name: str) -> None:
        process = self.processes.pop(name)
        self.log.kill(name)
        assert process.life is not None
        process.life.cancel()
        await asyncio.gather(process.life, return_exceptions=True)
        for node in self._all_nodes:
            if node.link is not None and node.link.to == name:
                node.link.break_off("the manager died")

    async def _live(self, process: Process) -> None:
        """As a node does: what the leader runs is made anew for every term."""
        member = process.member
        while True:
            status = member.status
            if not status.leading:
                await member.status_changed(status)
                continue
            self.terms.append(member.id)
            process.manager = Manager(
                member.store, group=member, clock=self.loop.clock, monotonic=self.loop.monotonic, new_id=self.new_id
            )
            try:
                await process.manager.run()
            except NotLeader:
                now = member.status
                assert not now.leading or now.term != status.term, "the loops ended while their manager leads"
            finally:
                process.manager = None

    async def kill_leader(self, *, with_its_host: bool = True) -> str:
        """The leader dies, by default with everything on its host; who it was."""
        while not self.log.leader:
            await self.log.next_change()
        name = self.log.leader
        await self.kill(name, with_its_host=with_its_host)
        return name

    async def kill(self, name: str, *, with_its_host: bool = True) -> None:
        if name in self.processes:
            await self._stop(name)
        if with_its_host:
            self.nodes[name].power_off()

    def revive(self, name: str) -> None:
        """The host is switched on, and its manager starts."""
        self.nodes[name].power_on()
        if name not in self.processes:
            self._start(name)

    def cut(self, name: str) -> None:
        """The network of a host is lost, or its processes are frozen as far as anybody can tell."""
        self.nodes[name].cut_off()
        if name in self.processes:
            self.log.cut_off(name)
        for node in self._all_nodes:
            if node.link is not None and node.link.to == name:
                node.link.hold()

    def mend(self, name: str) -> None:
        self.nodes[name].reconnect()
        if name in self.processes:
            self.log.reconnect(name)
        for node in self._all_nodes:
            if node.link is not None and node.link.to == name and node.answers:
                node.link.release()

    async def change_leader(self, pause: float = 0.0) -> None:
        """An orderly one."""
        others = [name for name in self.processes if name != self.log.leader]
        if others:
            self.log.hand_over(self.rng.choice(others))
        await asyncio.sleep(pause)

    def reachable(self, name: str) -> bool:
        return name in self.processes and name not in self.log.cut

    # -- nodes

    async def add_node(self, node_id: str, zone: str = "a") -> SimulatedNode:
        node = await super().add_node(node_id, zone)
        node.patience = 0.3
        node.on_table = self._check_table
        return node

    def _connect(self, link: Link) -> bool:
        node = next(each for each in self._all_nodes if each.link is link)
        link.to, node.hint = node.hint or self.rng.choice(self._managers), ""
        if link.to not in self.processes:
            return False
        if link.to in self.log.cut:
            link.hold()
        manager = self.processes[link.to].manager
        if manager is not None:
            manager.dispatcher.on_connection(link)  # type: ignore[arg-type]
        return True

    def _serve(self, end: End, link: Link) -> None:
        process = self.processes[link.to]
        handler: Any
        if process.manager is not None:
            handler = process.manager.handlers()["session"]
        else:

            async def handler(stream: End, opening: object, link: Link) -> None:
                await stream.send(elsewhere(process.member.status, self.loop.monotonic()))

        self.spawn(_answer(handler, end, link))

    # -- looking

    def check(self) -> None:
        for process in self.processes.values():
            if process.life is not None and process.life.done():
                process.life.result()
        for commit in self._watch.drain():
            self.invariants.check(commit)
        for commit in self._blame_watch.drain():
            self._check_blame(commit)

    def _check_blame(self, commit: Commit) -> None:
        for event in commit.events:
            node, before = event.object, event.old
            if not isinstance(node, Node) or not isinstance(before, Node):
                continue
            if node.status.state is not NodeState.DOWN or before.status.state is NodeState.DOWN:
                continue
            when = (parse_time(node.updated_at) - EPOCH) / SECOND
            self.blames.append((when, node.id))
            host = self.nodes.get(node.id)
            if host is not None and host.answers and when - host.answers_since > BACK_WITHIN:
                raise Broken(
                    f"node {node.id}, alive since {host.answers_since}, is down at {when}: {node.status.message}"
                )

    def _check_table(self, node: SimulatedNode, table: IngressTable) -> None:
        """No published port loses its last backend while one of its tasks runs where it can be reached."""
        now = {(each.service_id, each.published_port): each.backends for each in table.services}
        for (service_id, port), backends in now.items():
            if not backends and (able := self._able(service_id)):
                raise Broken(f"port {port} lost its last backend at node {node.id}, while {able} run")
        before = self.tables.get(node.id)
        for service in before.services if before is not None else ():
            key = service.service_id, service.published_port
            if key not in now and service.service_id in {each.id for each in self._services()}:
                raise Broken(f"port {service.published_port} was withdrawn from node {node.id}")
        self.tables[node.id] = table

    def _able(self, service_id: str) -> list[str]:
        """Tasks that have run for long enough to be known, on hosts that have been reached for long enough."""
        found = []
        for task in self.tasks(service_id):
            host = self.nodes.get(task.node_id)
            if host is None or not host.answers or self.loop.time() - host.answers_since < 5:
                continue
            process = host.processes.get(task.id)
            if takes_connections(task) and process is not None and process.status.state is TaskState.RUNNING:
                found.append(task.id)
        return found

    def _services(self) -> list[Any]:
        from agent.api_types.service import Service

        return self.store.view(lambda tx: tx.all(Service))

    def wrong(self) -> str | None:
        if self.manager is None:
            return "nobody leads"
        return super().wrong()


async def _answer(handler: Any, end: End, link: Link) -> None:
    """What the listener does with a stream that a node opens."""
    try:
        opening = await end.receive()
        await handler(end, opening, link)
        await end.end()
    except (RpcError, ApiError) as error:
        await end.fail(str(error))


def simulate_managers(story: Callable[[ReplicatedWorld], Awaitable[None]], seed: int | str = 1, **options: Any) -> None:
    """Run `story` in a cluster of three managers on five hosts, all of them ready."""

    async def main() -> None:
        async with ReplicatedWorld(seed, **options) as world:
            await story(world)

    run_virtual(main(), VirtualLoop())
