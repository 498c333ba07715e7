"""The allocator: published ports of services, and tasks from NEW to PENDING.

Ports that a service names are taken as they are; others come from 30000 to 32767, and a service keeps those it has. An
ingress port belongs to one service in the whole cluster (the API refuses a second one that names it); a host port is the
scheduler's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import msgspec

from agent.api_types.service import Service, ServiceSpec
from agent.api_types.task import Endpoint, EndpointSpec, PortConfig, Task, TaskState, TaskStatus
from agent.api_types.times import Clock, format_time
from agent.manager.control_loop import BATCH, ControlLoop
from agent.store.store import Store
from agent.store.transactions import WriteTx
from agent.store.watching import Commit, EventKind

PENDING = "pending task scheduling"
FIRST_DYNAMIC, LAST_DYNAMIC = 30000, 32767
NO_PORT_LEFT = f"no published port is free between {FIRST_DYNAMIC} and {LAST_DYNAMIC}"

HOST = "host"
IngressPort = tuple[str, int]
"""Protocol and number."""


def is_ingress(port: PortConfig) -> bool:
    """Whether every node publishes the port (the default) or only the task's own."""
    return port.publish_mode != HOST


def allocate_endpoint(service: Service, taken: set[IngressPort]) -> Endpoint | None:
    """The endpoint that the service's spec leads to; None when no port is left for it.

    `taken` are the ingress ports of all other services. A port without a number keeps the one it got before.
    """
    wanted = service.spec.endpoint_spec or EndpointSpec()
    named = {_number(port) for port in wanted.ports if is_ingress(port) and port.published_port}
    before = [port for port in service.endpoint.ports if is_ingress(port)]
    free = _free_ports(taken | named)
    ports = []
    used = set(named)
    for port in wanted.ports:
        if port.published_port or not is_ingress(port):
            ports.append(port)
            continue
        number = _kept(port, before, taken | used) or next(free(port.protocol, used), 0)
        if not number:
            return None
        given = msgspec.structs.replace(port, published_port=number)
        used.add(_number(given))
        ports.append(given)
    return Endpoint(
        spec=wanted, ports=ports, virtual_ips=service.endpoint.virtual_ips if wanted.mode != "dnsrr" else []
    )


class _free_ports:  # noqa: N801 - reads as the function that it is used as
    """Free dynamic ports of a protocol, lowest first."""

    def __init__(self, taken: set[IngressPort]) -> None:
        self._taken = taken

    def __call__(self, protocol: str, used: set[IngressPort]) -> Iterator[int]:
        for number in range(FIRST_DYNAMIC, LAST_DYNAMIC + 1):
            key = (protocol or "tcp", number)
            if key not in self._taken and key not in used:
                yield number


def _kept(port: PortConfig, before: Sequence[PortConfig], taken: set[IngressPort]) -> int:
    for old in before:
        alike = (old.name, old.protocol, old.target_port) == (port.name, port.protocol, port.target_port)
        if alike and FIRST_DYNAMIC <= old.published_port <= LAST_DYNAMIC and _number(old) not in taken:
            return old.published_port
    return 0


def _spec_ports(spec: ServiceSpec) -> Sequence[PortConfig]:
    return () if spec.endpoint_spec is None else spec.endpoint_spec.ports


def _number(port: PortConfig) -> IngressPort:
    return port.protocol or "tcp", port.published_port


def ingress_ports(services: Iterable[Service], but: str = "") -> set[IngressPort]:
    """The ingress ports that services hold, without those of the service `but`."""
    return {
        _number(port)
        for service in services
        if service.id != but
        for port in [*_spec_ports(service.spec), *service.endpoint.ports]
        if is_ingress(port) and port.published_port
    }


class Allocator(ControlLoop):
    """Fills the endpoints of services and lets new tasks on to the scheduler."""

    kinds: ClassVar[tuple[type, ...]] = (Service, Task)

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(store, clock)
        self._services: set[str] = set()
        self._tasks: dict[str, None] = {}
        """New tasks, in order."""

    async def load(self) -> None:
        services, tasks = self.store.view(lambda tx: (tx.all(Service), tx.all(Task)))
        self._services = {service.id for service in services if _unallocated(service)}
        self._tasks = {task.id: None for task in tasks if task.status.state is TaskState.NEW}

    def observe(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.object, Service):
                if event.kind is EventKind.CREATE:
                    self._services.add(event.object.id)
                else:
                    # A port may be free now, for this service or for one that waits.
                    self._services.update(self._unserved())
            elif isinstance(event.object, Task):
                if event.kind is not EventKind.REMOVE and event.object.status.state is TaskState.NEW:
                    self._tasks[event.object.id] = None
                else:
                    self._tasks.pop(event.object.id, None)

    def _unserved(self) -> set[str]:
        return {service.id for service in self.store.view(lambda tx: tx.all(Service)) if _unallocated(service)}

    async def act(self) -> int | None:
        services, self._services = self._services, set()
        for service_id in services:
            await self.store.update(lambda tx, service_id=service_id: _allocate(tx, service_id))  # type: ignore[misc]
        tasks = list(self._tasks)
        for begin in range(0, len(tasks), BATCH):
            batch = tasks[begin : begin + BATCH]
            await self.store.update(lambda tx, batch=batch: _admit(tx, batch))  # type: ignore[misc]
        return None


def _unallocated(service: Service) -> bool:
    return service.endpoint.spec != (service.spec.endpoint_spec or EndpointSpec()) or any(
        not port.published_port and is_ingress(port) for port in service.endpoint.ports
    )


def _allocate(tx: WriteTx, service_id: str) -> None:
    service = tx.get(Service, service_id)
    if service is None or not _unallocated(service):
        return
    endpoint = allocate_endpoint(service, ingress_ports(tx.all(Service), but=service_id))
    if endpoint is not None and endpoint != service.endpoint:
        tx.update(msgspec.structs.replace(service, endpoint=endpoint))


def _admit(tx: WriteTx, task_ids: Iterable[str]) -> None:
    """Let tasks on whose service's endpoint is allocated; the others say what they wait for."""
    now = format_time(tx.clock())
    for task_id in task_ids:
        task = tx.get(Task, task_id)
        if task is None or task.status.state is not TaskState.NEW:
            continue
        service = tx.get(Service, task.service_id) if task.service_id else None
        if service is not None and _unallocated(service):
            if task.status.err != NO_PORT_LEFT:
                status = msgspec.structs.replace(task.status, timestamp=now, err=NO_PORT_LEFT)
                tx.update(msgspec.structs.replace(task, status=status))
            continue
        status = TaskStatus(timestamp=now, state=TaskState.PENDING, message=PENDING)
        endpoint = task.endpoint if service is None or service.endpoint.spec != _spec_of(task) else service.endpoint
        tx.update(msgspec.structs.replace(task, status=status, endpoint=endpoint))


def _spec_of(task: Task) -> EndpointSpec | None:
    return None if task.endpoint is None else task.endpoint.spec
