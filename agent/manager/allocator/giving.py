"""What services, tasks and containers are given: decided against the store's state and noted in the ledger."""

from __future__ import annotations

from collections import Counter

import msgspec

from agent.api_types.network import Attachment, Network, NetworkAttachment
from agent.api_types.service import Service
from agent.api_types.task import EndpointSpec, EndpointVirtualIP, Task, TaskState, TaskStatus
from agent.api_types.times import format_time
from agent.manager.allocator import problems
from agent.manager.allocator.ledger import Holder, Ledger
from agent.manager.allocator.ports import IngressPort, allocate_endpoint, ingress_ports, lacks_ports
from agent.manager.allocator.problems import Problem
from agent.manager.allocator.targets import (
    Target,
    addresses_of_attachment,
    has_virtual_ip,
    targets_of_service,
    targets_of_task,
)
from agent.manager.slots import wanted
from agent.store.transactions import WriteTx

PENDING = "pending task scheduling"


class Giving:
    """One transaction's worth of giving. `network_problems` tells why networks have no subnet."""

    def __init__(self, tx: WriteTx, ledger: Ledger, network_problems: dict[str, Problem]) -> None:
        self._tx = tx
        self._ledger = ledger
        self._network_problems = network_problems
        self._now = tx.clock()
        self._taken: Counter[IngressPort] | None = None

    def _closed(self, target: Target) -> Problem | None:
        """Why nothing can be given on a network at all."""
        network = target.network
        if network is None:
            return problems.gone(target.named)
        if not self._ledger.is_open(network.id):
            return self._network_problems.get(network.id) or problems.unallocated(
                network, "it was just made", "Nothing: it has one in a moment."
            )
        return None

    # -- services

    def serve(self, service: Service) -> Problem | None:
        """Give a service its ports and virtual addresses; the first thing that is in the way."""
        found: list[Problem] = []
        endpoint = service.endpoint
        if lacks_ports(service):
            ported = allocate_endpoint(service, self._ports_of_others(service))
            if ported is None:
                found.append(problems.no_port())
            else:
                self._count(service, -1)
                endpoint = ported
                self._count(msgspec.structs.replace(service, endpoint=ported), 1)
        virtual_ips, missing = self._virtual_ips(service)
        endpoint = msgspec.structs.replace(endpoint, virtual_ips=virtual_ips)
        if endpoint != service.endpoint:
            self._tx.update(msgspec.structs.replace(service, endpoint=endpoint))
        return next(iter(found + missing), None)

    def _virtual_ips(self, service: Service) -> tuple[list[EndpointVirtualIP], list[Problem]]:
        holder: Holder = (Service, service.id)
        targets = targets_of_service(self._tx, service)
        found = [problem for target in targets if (problem := self._closed(target)) is not None]
        given: list[EndpointVirtualIP] = []
        before = {vip.network_id: vip for vip in service.endpoint.virtual_ips}
        for target in targets if has_virtual_ip(service) else ():
            network = target.network
            if network is None or not self._ledger.is_open(network.id):
                continue
            vip = before.get(network.id)
            if vip is not None and is_asked_for(vip.addr, target.vip):
                given.append(vip)
                continue
            address = self._ledger.give_one(holder, network.id, self._now, target.vip)
            if address is not None:
                given.append(EndpointVirtualIP(network_id=network.id, addr=address))
            else:
                found.append(problems.taken(network, target.vip) if target.vip else problems.exhausted(network))
                if vip is not None:
                    # Clients go on with the one it has until it can have the one that it asks for.
                    given.append(vip)
        self._ledger.settle(holder, [(vip.network_id, vip.addr) for vip in given], self._now)
        return given, found

    def _ports_of_others(self, service: Service) -> set[IngressPort]:
        if self._taken is None:
            self._taken = Counter()
            for each in self._tx.all(Service):
                self._taken.update(ingress_ports([each]))
        own = ingress_ports([service])
        return {port for port, holders in self._taken.items() if holders > (port in own)}

    def _count(self, service: Service, step: int) -> None:
        if self._taken is not None:
            for port in ingress_ports([service]):
                self._taken[port] += step

    # -- tasks

    def admit(self, task: Task, waits: Problem | None) -> Problem | None:
        """Let a task on to the scheduler with an address on each of its networks; else say in its Err what it waits for.

        `waits` is what its service waits for.
        """
        service = self._tx.get(Service, task.service_id) if task.service_id else None
        attachments: list[NetworkAttachment] = []
        problem = None
        if wanted(task):
            problem = waits or self._unready(service)
            if problem is None:
                targets = targets_of_task(self._tx, task, service)
                problem = next((each for target in targets if (each := self._refusal(target)) is not None), None)
                if problem is None:
                    attachments = [self._attachment(task, target.network) for target in targets if target.network]
        if problem is not None:
            if task.status.err != problem.text:
                status = msgspec.structs.replace(task.status, timestamp=format_time(self._now), err=problem.text)
                self._tx.update(msgspec.structs.replace(task, status=status))
            return problem
        endpoint = task.endpoint if service is None or service.endpoint.spec != _spec_of(task) else service.endpoint
        status = TaskStatus(timestamp=format_time(self._now), state=TaskState.PENDING, message=PENDING)
        self._tx.update(
            msgspec.structs.replace(task, status=status, endpoint=endpoint, networks_attachments=attachments)
        )
        return None

    def _unready(self, service: Service | None) -> Problem | None:
        if service is None or not lacks_ports(service):
            return None
        return Problem("its service has no ports yet", "", problems.of_service(service.id))

    def _refusal(self, target: Target) -> Problem | None:
        problem = self._closed(target)
        if problem is None and target.network is not None and not self._ledger.has_room(target.network.id):
            problem = problems.exhausted(target.network)
        return problem

    def _attachment(self, task: Task, network: Network) -> NetworkAttachment:
        addresses = self._ledger.give((Task, task.id), network.id, self._now)
        assert addresses is not None
        return NetworkAttachment(network=network, addresses=addresses)

    # -- containers and balancers

    def connect(self, attachment: Attachment) -> Problem | None:
        """Give a container that a person runs, or a node's balancer, its address; what is in the way shows in its Err."""
        network = self._tx.get(Network, attachment.network_id)
        problem = self._closed(Target(attachment.network_id, network))
        if problem is None and network is not None:
            holder: Holder = (Attachment, attachment.id)
            asked = next(iter(attachment.addresses), "")
            if asked:
                address = self._ledger.give_one(holder, network.id, self._now, asked)
                addresses = None if address is None else [address]
            else:
                addresses = self._ledger.give(holder, network.id, self._now)
            if addresses is not None:
                self._tx.update(msgspec.structs.replace(attachment, addresses=addresses, err=""))
                return None
            problem = problems.taken(network, asked) if asked else problems.exhausted(network)
        if problem is not None and attachment.err != problem.text:
            self._tx.update(msgspec.structs.replace(attachment, err=problem.text))
        return problem


def is_asked_for(address: str, asked: str) -> bool:
    """Whether an address (with its prefix length) is the one that is asked for, if one is."""
    return not asked or address.partition("/")[0] == asked


def _spec_of(task: Task) -> EndpointSpec | None:
    return None if task.endpoint is None else task.endpoint.spec


def is_connected(attachment: Attachment) -> bool:
    """Whether an attachment has its address."""
    return bool(addresses_of_attachment(attachment))
