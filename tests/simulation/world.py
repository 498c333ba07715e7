"""A whole cluster in one virtual loop: the real control loops over a store in memory, simulated hosts, and a person."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Self

import msgspec
from invariants import Invariants
from simulated_link import End, Link
from simulated_node import Behaviour, SimulatedNode
from virtual_time import VirtualLoop

from agent.api_types.container import ContainerSpec, SecretReference
from agent.api_types.errors import ApiError
from agent.api_types.node import Node, NodeAvailability, NodeSpec, NodeState, NodeStatus
from agent.api_types.service import (
    GlobalService,
    ReplicatedService,
    Service,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
    UpdateState,
    UpdateStatus,
)
from agent.api_types.swarm import Cluster, DispatcherConfig, SwarmSpec
from agent.api_types.task import Endpoint, EndpointSpec, Placement, PortConfig, RestartPolicy, Task, TaskSpec, TaskState
from agent.api_types.times import SECOND, format_time
from agent.manager.constraints import placement_fits
from agent.manager.manager import Manager
from agent.manager.orchestrator.updater import state_of
from agent.manager.slots import down, ended, is_global_service, replicas_of, up_to_date, wanted
from agent.rpc.errors import RpcError
from agent.store.store import Store
from agent.store.tables import UNCOMMITTED
from agent.store.transactions import WriteTx


class World:
    """`async with World(seed) as world:`; then make things happen and `await world.settled()`."""

    def __init__(self, seed: int | str, nodes: int = 4, latency: float = 0.002) -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, VirtualLoop)
        self.rng = random.Random(seed)
        self._ids = itertools.count(1)
        self.store = self._make_store(latency)
        self.behaviour = Behaviour()
        self.nodes: dict[str, SimulatedNode] = {}
        """Hosts that are part of the cluster."""
        self._all_nodes: list[SimulatedNode] = []
        self.manager: Manager | None = None
        self.invariants = Invariants()
        self._leading: asyncio.Task[None] | None = None
        self._running: list[asyncio.Task[None]] = []
        self._count = nodes
        self._watch = self.store.watch()

    def new_id(self) -> str:
        return f"id{next(self._ids):023d}"

    def _make_store(self, latency: float) -> Store:
        store = Store.in_memory(clock=self.loop.clock, ids=self.new_id)
        _delay_commits(store, self.loop, latency)
        return store

    async def __aenter__(self) -> Self:
        await self.store.update(lambda tx: _cluster(tx))
        for number in range(1, self._count + 1):
            await self.add_node(f"{number:02d}", zone="ab"[number % 2])
        self.lead()
        await self.settled(within=5)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop_leading()
        finally:
            for node in self._all_nodes:
                node.power_off()
            lives = [life for node in self._all_nodes for life in node.lives]
            for task in (*self._running, *lives):
                task.cancel()
            await asyncio.gather(*self._running, *lives, return_exceptions=True)
        self.check()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work beside the story, which ends with the world."""
        task = asyncio.ensure_future(work)
        self._running.append(task)
        return task

    # -- the manager

    def lead(self) -> None:
        """A manager begins to lead."""
        self.manager = Manager(self.store, clock=self.loop.clock, monotonic=self.loop.monotonic, new_id=self.new_id)
        self._leading = asyncio.ensure_future(self.manager.run())

    async def stop_leading(self) -> None:
        """The leader dies; all connections to it break."""
        if self._leading is None:
            return
        leading, self._leading = self._leading, None
        self.manager = None
        leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading
        self.check()
        for node in self._all_nodes:
            if node.link is not None:
                node.link.break_off("the leader died")

    async def change_leader(self, pause: float) -> None:
        await self.stop_leading()
        await asyncio.sleep(pause)
        self.lead()

    def _connect(self, link: Link) -> bool:
        if self.manager is None:
            return False
        self.manager.dispatcher.on_connection(link)  # type: ignore[arg-type]
        return True

    def _serve(self, end: End, link: Link) -> None:
        manager = self.manager
        assert manager is not None

        self.spawn(_serve(manager, end, link))

    # -- hosts

    async def add_node(self, node_id: str, zone: str = "a") -> SimulatedNode:
        spec = NodeSpec(labels={"zone": zone})
        await self.store.update(
            lambda tx: tx.create(Node(id=node_id, spec=spec, status=NodeStatus(state=NodeState.UNKNOWN))) and None
        )
        node = SimulatedNode(node_id, self.loop, random.Random(self.rng.random()), self._connect, self.behaviour)
        node.serve = self._serve
        self.nodes[node_id] = node
        self._all_nodes.append(node)
        self.spawn(node.run())
        return node

    async def set_availability(self, node_id: str, availability: NodeAvailability) -> None:
        def change(tx: WriteTx) -> None:
            node = tx.get(Node, node_id)
            if node is not None:
                tx.update(
                    msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, availability=availability))
                )

        await self.store.update(change)

    async def set_labels(self, node_id: str, labels: dict[str, str]) -> None:
        def change(tx: WriteTx) -> None:
            node = tx.get(Node, node_id)
            if node is not None:
                tx.update(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, labels=labels)))

        await self.store.update(change)

    async def remove_node(self, node_id: str) -> None:
        await self.store.update(lambda tx: tx.delete(Node, node_id))

    # -- services, changed as the API changes them

    async def create_service(self, name: str, spec: ServiceSpec) -> str:
        made: list[Service] = []
        await self.store.update(
            lambda tx: made.append(
                tx.create(Service(spec=msgspec.structs.replace(spec, name=name), spec_version=UNCOMMITTED))
            )
        )
        return made[-1].id

    async def update_service(self, service_id: str, change: Callable[[ServiceSpec], ServiceSpec]) -> None:
        def write(tx: WriteTx) -> None:
            stored = tx.get(Service, service_id)
            if stored is None:
                return
            tx.update(
                msgspec.structs.replace(
                    stored,
                    spec=change(stored.spec),
                    spec_version=UNCOMMITTED,
                    previous_spec=stored.spec,
                    previous_spec_version=stored.spec_version,
                    update_status=None,
                )
            )

        await self.store.update(write)

    async def roll_back(self, service_id: str) -> None:
        def write(tx: WriteTx) -> None:
            stored = tx.get(Service, service_id)
            if stored is None or stored.previous_spec is None:
                return
            tx.update(
                msgspec.structs.replace(
                    stored,
                    spec=stored.previous_spec,
                    spec_version=stored.previous_spec_version,
                    previous_spec=stored.spec,
                    previous_spec_version=stored.spec_version,
                    update_status=UpdateStatus(
                        state=UpdateState.ROLLBACK_STARTED,
                        started_at=format_time(tx.clock()),
                        message="manually requested rollback",
                    ),
                )
            )

        await self.store.update(write)

    async def scale(self, service_id: str, replicas: int) -> None:
        mode = ServiceMode(replicated=ReplicatedService(replicas=replicas))
        await self.update_service(service_id, lambda spec: msgspec.structs.replace(spec, mode=mode))

    async def remove_service(self, service_id: str) -> None:
        await self.store.update(lambda tx: tx.delete(Service, service_id))

    async def set_heartbeat_period(self, seconds: int) -> None:
        def change(tx: WriteTx) -> None:
            cluster = tx.all(Cluster)[0]
            dispatcher = DispatcherConfig(heartbeat_period=seconds * SECOND)
            tx.update(
                msgspec.structs.replace(cluster, spec=msgspec.structs.replace(cluster.spec, dispatcher=dispatcher))
            )

        await self.store.update(change)

    # -- looking

    def task(self, task_id: str) -> Task:
        task = self.store.view(lambda tx: tx.get(Task, task_id))
        assert task is not None
        return task

    def check(self) -> None:
        """Hold every commit so far against the invariants, and see that the leader's loops still run."""
        if self._leading is not None and self._leading.done():
            self._leading.result()
        for commit in self._watch.drain():
            self.invariants.check(commit)

    async def settled(self, within: float = 180.0) -> float:
        """Wait until the cluster is as it should be, checking each commit; seconds that it took."""
        began = self.loop.time()
        while (wrong := self.wrong()) is not None:
            self.check()
            if self.loop.time() - began > within:
                raise AssertionError(f"after {within} s: {wrong}")
            await asyncio.sleep(0.25)
        self.check()
        return self.loop.time() - began

    def service(self, service_id: str) -> Service:
        service = self.store.view(lambda tx: tx.get(Service, service_id))
        assert service is not None
        return service

    def tasks(self, service_id: str) -> list[Task]:
        return self.store.view(lambda tx: tx.find(Task, "service", service_id))

    def running(self, service_id: str) -> list[Task]:
        return [task for task in self.tasks(service_id) if wanted(task) and task.status.state is TaskState.RUNNING]

    def wrong(self) -> str | None:
        """What is not yet as the specs want it; None when all is well."""
        services, tasks, nodes = self.store.view(lambda tx: (tx.all(Service), tx.all(Task), tx.all(Node)))
        node_of = {node.id: node for node in nodes}
        for service in services:
            problem = _wrong_service(service, [task for task in tasks if task.service_id == service.id], node_of)
            if problem is not None:
                return f"service {service.spec.name}: {problem}"
        known = {service.id for service in services}
        # What a dead host ran is remembered for a day.
        dead = {node.id for node in nodes if node.status.state is NodeState.DOWN}
        strays = [task.id for task in tasks if task.service_id not in known and task.node_id not in dead]
        if strays:
            return f"tasks of removed services are left: {strays}"
        for node in self.nodes.values():
            if node.id in node_of and node.answers != (node_of[node.id].status.state is NodeState.READY):
                return f"node {node.id} is {node_of[node.id].status.state}, it answers: {node.answers}"
            remembered = {task.id for task in tasks if task.node_id == node.id}
            if node.answers and not node.removed and set(node.processes) - remembered:
                return f"node {node.id} was not told to forget {sorted(set(node.processes) - remembered)}"
            should = {task.id for task in tasks if task.node_id == node.id and wanted(task)}
            if node.answers and not node.removed and node.running != should:
                return f"node {node.id} runs {sorted(node.running)} instead of {sorted(should)}"
        return None


def _wrong_service(service: Service, tasks: list[Task], nodes: dict[str, Node]) -> str | None:
    alive = [task for task in tasks if wanted(task)]
    if is_global_service(service):
        fitting = [
            node.id
            for node in nodes.values()
            if node.status.state is NodeState.READY
            and node.spec.availability is NodeAvailability.ACTIVE
            and placement_fits(service.spec.task_template.placement, node)
        ]
        if sorted(task.node_id for task in alive) != sorted(fitting):
            return f"tasks on {sorted(task.node_id for task in alive)} instead of {sorted(fitting)}"
    elif len(alive) != replicas_of(service):
        return f"{len(alive)} tasks instead of {replicas_of(service)}"
    for task in alive:
        if task.status.state is not TaskState.RUNNING or task.desired_state is not TaskState.RUNNING:
            return f"task {task.id} is {task.status.state}/{task.desired_state} {task.status.err}"
        node = nodes.get(task.node_id)
        if node is None or node.status.state is not NodeState.READY:
            return f"task {task.id} is on node {task.node_id}, which is not ready"
        if node.spec.availability is NodeAvailability.DRAIN:
            return f"task {task.id} is on the drained node {task.node_id}"
        if not placement_fits(task.spec.placement, node):
            return f"task {task.id} is on node {task.node_id}, which does not fit"
        if not up_to_date(task, service, nodes.get) and state_of(service) not in _STUCK:
            return f"task {task.id} is out of date; the update is {service.update_status}"
    slots: dict[object, int] = {}
    for task in tasks:
        if task.node_id and not ended(task) and down(nodes.get(task.node_id)):
            continue
        slots[task.slot or task.node_id] = slots.get(task.slot or task.node_id, 0) + 1
    if slots and max(slots.values()) > 5:
        return f"a slot keeps {max(slots.values())} tasks"
    if state_of(service) in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED):
        return f"its update is {service.update_status}"
    return None


_STUCK = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)


def make_spec(
    *,
    replicas: int | None = 3,
    image: str = "good:1",
    constraints: list[str] | None = None,
    update: UpdateConfig | None = None,
    rollback: UpdateConfig | None = None,
    restart: RestartPolicy | None = None,
    ports: list[PortConfig] | None = None,
    max_replicas: int = 0,
    secrets: list[SecretReference] | None = None,
) -> ServiceSpec:
    """A spec for tests; `replicas` None makes a global service."""
    return ServiceSpec(
        name="",
        task_template=TaskSpec(
            container_spec=ContainerSpec(image=image, secrets=secrets or []),
            restart_policy=restart,
            placement=Placement(constraints=constraints or [], max_replicas=max_replicas),
        ),
        mode=ServiceMode(global_service=GlobalService())
        if replicas is None
        else ServiceMode(replicated=ReplicatedService(replicas=replicas)),
        update_config=update,
        rollback_config=rollback,
        endpoint_spec=EndpointSpec(mode="vip", ports=ports) if ports else None,
    )


def with_image(image: str) -> Callable[[ServiceSpec], ServiceSpec]:
    """A change of a spec's image."""

    def change(spec: ServiceSpec) -> ServiceSpec:
        template = spec.task_template
        container = msgspec.structs.replace(template.container_spec or ContainerSpec(), image=image)
        return msgspec.structs.replace(spec, task_template=msgspec.structs.replace(template, container_spec=container))

    return change


def _cluster(tx: WriteTx) -> None:
    tx.create(Cluster(spec=SwarmSpec(name="default")))


async def _serve(manager: Manager, end: End, link: Link) -> None:
    """What the listener does with a stream that a node opens."""
    try:
        opening = await end.receive()
        await manager.dispatcher.handlers()["session"](end, opening, link)  # type: ignore[arg-type]
        await end.end()
    except (RpcError, ApiError) as error:
        await end.fail(str(error))


def _delay_commits(store: Store, loop: asyncio.AbstractEventLoop, latency: float) -> None:
    """Let an entry take `latency` seconds to be committed, so that pending transactions overlap."""
    consensus = store._consensus
    assert consensus is not None
    order = itertools.count(1)
    # Timers of one moment fire in no particular order; entries are committed in order.
    proposed: deque[tuple[int, bytes, asyncio.Future[int]]] = deque()

    def commit() -> None:
        index, data, future = proposed.popleft()
        store.apply(index, data)
        if not future.done():
            future.set_result(index)

    class Slow:
        leading = True

        def propose(self, data: bytes) -> asyncio.Future[int]:
            future: asyncio.Future[int] = loop.create_future()
            proposed.append((next(order), data, future))
            loop.call_later(latency, commit)
            return future

        async def read_index(self) -> int:
            await asyncio.sleep(latency)
            return store.index

    store.connect(Slow())


__all__ = ["SECOND", "Endpoint", "World", "make_spec", "with_image"]
