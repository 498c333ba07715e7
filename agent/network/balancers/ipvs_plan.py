"""Virtual services as IPVS has them, and the steps from one state to another: pure, no effect.

A service of every port is one of a packet mark, which the firewall sets by address; the others are named by address,
protocol and port. A backend that is not wanted any more gets weight 0 first: it takes nothing new, what it has goes on.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.network.interface import VirtualService

NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


@dataclass(frozen=True, slots=True, order=True)
class Virtual:
    """What names a service to IPVS: a mark, or else address, protocol number and port."""

    family: int
    mark: int = 0
    address: str = ""
    protocol: int = 0
    port: int = 0


Destinations = Mapping[tuple[str, int], int]
"""(address, port) to weight."""


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is shared out. `scheduler` is rr where all weights are one, wrr else."""

    scheduler: str
    destinations: Destinations


State = Mapping[Virtual, Service]


class Action(enum.Enum):
    """A step's kind, in the words of IPVS."""

    ADD_SERVICE = enum.auto()
    SET_SERVICE = enum.auto()
    REMOVE_SERVICE = enum.auto()
    ADD_DESTINATION = enum.auto()
    SET_DESTINATION = enum.auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `scheduler` is of a service's steps, `destination` and `weight` of a destination's."""

    action: Action
    virtual: Virtual
    scheduler: str = ""
    destination: tuple[str, int] = ("", 0)
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The state that services ask for, and the marks (by address, the protocols that are marked) that lead to it."""

    state: dict[Virtual, Service]
    marks: dict[str, tuple[int, tuple[str, ...]]]


def plan(services: Iterable[VirtualService]) -> Plan:
    """ValueError: a service is not one, or two of every port share an address."""
    made = Plan({}, {})
    for service in sorted(services, key=lambda service: (service.address, service.port, service.protocol)):
        if service.protocol not in ("", *NUMBERS):
            raise ValueError(f"{service.protocol!r} is not a protocol that is balanced")
        address = ipaddress.ip_address(service.address)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        protocols = (service.protocol,) if service.protocol else tuple(NUMBERS)
        shared = _service(service, address.version)
        if service.port:
            for protocol in protocols:
                made.state[Virtual(family, 0, str(address), NUMBERS[protocol], service.port)] = shared
            continue
        if str(address) in made.marks:
            raise ValueError(f"two services want every port of {address}")
        mark = service.mark or _mark(address)
        made.marks[str(address)] = (mark, protocols)
        made.state[Virtual(family, mark)] = shared
    return made


def steps(standing: State, wanted: State) -> list[Step]:
    """What to do, additions before removals. Destinations that are not wanted are drained, not removed."""
    todo = []
    for virtual, service in wanted.items():
        known = standing.get(virtual)
        if known is None:
            todo.append(Step(Action.ADD_SERVICE, virtual, service.scheduler))
        elif known.scheduler != service.scheduler:
            todo.append(Step(Action.SET_SERVICE, virtual, service.scheduler))
        before: Destinations = known.destinations if known is not None else {}
        for destination, weight in service.destinations.items():
            if destination not in before:
                todo.append(Step(Action.ADD_DESTINATION, virtual, destination=destination, weight=weight))
            elif before[destination] != weight:
                todo.append(Step(Action.SET_DESTINATION, virtual, destination=destination, weight=weight))
        for destination, weight in before.items():
            if destination not in service.destinations and weight:
                todo.append(Step(Action.SET_DESTINATION, virtual, destination=destination, weight=0))
    return todo + [Step(Action.REMOVE_SERVICE, virtual) for virtual in standing if virtual not in wanted]


def after(standing: State, wanted: State) -> dict[Virtual, Service]:
    """What stands once the steps are done: what is wanted, and what drains."""
    result = {}
    for virtual, service in wanted.items():
        known = standing.get(virtual)
        drained = dict.fromkeys(known.destinations, 0) if known is not None else {}
        result[virtual] = Service(service.scheduler, {**drained, **service.destinations})
    return result


def firewall(marks: Mapping[str, tuple[int, tuple[str, ...]]], outward: str, version: int) -> str:
    """All rules of a balancer's namespace, for iptables-restore: marks by address, and our own address as the source."""
    lines = ["*mangle", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    for address, (mark, protocols) in sorted(marks.items()):
        if ipaddress.ip_address(address).version == version:
            for chain in ("PREROUTING", "OUTPUT"):
                lines += [f"-A {chain} -d {address} -p {name} -j MARK --set-mark {mark:#x}" for name in protocols]
    lines += ["COMMIT", "*nat", ":POSTROUTING ACCEPT [0:0]"]
    lines += [f"-A POSTROUTING -o {outward} -m ipvs --ipvs -j MASQUERADE", "COMMIT", ""]
    return "\n".join(lines)


def _service(service: VirtualService, version: int) -> Service:
    destinations: dict[tuple[str, int], int] = {}
    for backend in sorted(service.backends):
        address = ipaddress.ip_address(backend.address)
        if address.version != version:
            raise ValueError(f"{backend.address} cannot be a backend of {service.address}: another family")
        if not 0 <= backend.port < 65536 or (backend.port == 0) != (service.port == 0):
            raise ValueError(f"port {backend.port} of a backend does not go with port {service.port}")
        destinations[str(address), backend.port] = backend.weight
    even = all(weight in (0, 1) for weight in destinations.values())
    return Service("rr" if even else "wrr", destinations)


def _mark(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """A mark that an agent after a restart finds again; unique in the namespace, whose packets are ours alone."""
    return int(address) if address.version == 4 else zlib.crc32(address.packed) | 1
