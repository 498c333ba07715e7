"""IPVS of the kernel through pyroute2. Blocking, in the calling thread's network namespace.

Of pyroute2's IPVS classes only what they get right is used. Scheduler, mask and forwarding method are always given, as its
defaults are wlc, no mask (which a service by mark is refused without) and another method than NAT; what is read is taken
from the raw attributes, as its objects are made with those defaults; and a change is `set`, as its `update` is a removal.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from pyroute2 import IPVS, IPVSDest, IPVSService
from pyroute2.netlink.exceptions import NetlinkError

from agent.network.balancers.ipvs_plan import Action, Service, Step, Virtual

MASQUERADING = 0
"""Forwarding by address translation (NAT)."""

_ANSWERED_ALREADY = {
    Action.ADD_SERVICE: errno.EEXIST,
    Action.ADD_DESTINATION: errno.EEXIST,
    Action.REMOVE_SERVICE: errno.ESRCH,
}


class IpvsTable:
    """The table of one namespace, as a context manager. OSError: the kernel has no IPVS, or refuses."""

    def __enter__(self) -> IpvsTable:
        with _as_os_error("IPVS cannot be used"):
            self._ipvs = IPVS()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ipvs.close()

    def read(self) -> dict[Virtual, Service]:
        """Everything that stands, drained destinations too."""
        found = {}
        with _as_os_error("IPVS cannot be read"):
            for message in self._ipvs.service("dump"):
                seen = _raw(message, "IPVS_CMD_ATTR_SERVICE", "IPVS_SVC_ATTR_")
                virtual = Virtual(
                    seen["AF"],
                    seen.get("FWMARK", 0),
                    seen.get("ADDR", ""),
                    seen.get("PROTOCOL", 0),
                    seen.get("PORT", 0),
                )
                weights = {destination: weight for destination, weight, _ in self._destinations(virtual)}
                found[virtual] = Service(seen["SCHED_NAME"], weights)
        return found

    def carry_out(self, step: Step) -> None:
        """One step; one that is done already is no error."""
        service = _service(step.virtual, step.scheduler or "rr")
        with _as_os_error(f"IPVS refuses {step}", already=_ANSWERED_ALREADY.get(step.action, 0)):
            match step.action:
                case Action.ADD_SERVICE:
                    self._ipvs.service("add", service=service)
                case Action.SET_SERVICE:
                    self._ipvs.service("set", service=service)
                case Action.REMOVE_SERVICE:
                    self._ipvs.service("del", service=service)
                case Action.ADD_DESTINATION:
                    self._ipvs.dest("add", service=service, dest=_destination(step.destination, step.weight))
                case Action.SET_DESTINATION:
                    self._ipvs.dest("set", service=service, dest=_destination(step.destination, step.weight))

    def idle(self, virtual: Virtual) -> list[tuple[str, int]]:
        """Destinations that are drained and have no connection left."""
        with _as_os_error("IPVS cannot be read"):
            return [place for place, weight, busy in self._destinations(virtual) if not weight and not busy]

    def remove(self, virtual: Virtual, destination: tuple[str, int]) -> None:
        """Take a destination out; packets of its connections are answered with a reset from now on."""
        with _as_os_error(f"IPVS does not let {destination} go", already=errno.ENOENT):
            self._ipvs.dest("del", service=_service(virtual, "rr"), dest=_destination(destination, 0))

    def _destinations(self, virtual: Virtual) -> Iterator[tuple[tuple[str, int], int, int]]:
        """(address, port), weight and number of connections."""
        for message in self._ipvs.dest("dump", service=_service(virtual, "rr")):
            seen = _raw(message, "IPVS_CMD_ATTR_DEST", "IPVS_DEST_ATTR_")
            busy = sum(seen.get(name, 0) for name in ("ACTIVE_CONNS", "INACT_CONNS", "PERSIST_CONNS"))
            yield (seen["ADDR"], seen["PORT"]), seen["WEIGHT"], busy


def _service(virtual: Virtual, scheduler: str) -> Any:
    # IPv6 has the length of a prefix in the field, as a number; pyroute2 knows the field as an IPv4 address only.
    mask = "255.255.255.255" if virtual.family == socket.AF_INET else socket.inet_ntoa(struct.pack("=I", 128))
    if virtual.mark:
        return IPVSService(af=virtual.family, fwmark=virtual.mark, netmask=mask, sched_name=scheduler)
    return IPVSService(
        af=virtual.family,
        addr=virtual.address,
        port=virtual.port,
        protocol=virtual.protocol,
        netmask=mask,
        sched_name=scheduler,
    )


def _destination(place: tuple[str, int], weight: int) -> Any:
    return IPVSDest(addr=place[0], port=place[1], weight=weight, fwd_method=MASQUERADING)


def _raw(message: Any, outer: str, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in message.get_attr(outer)["attrs"]}


@contextmanager
def _as_os_error(what: str, already: int = 0) -> Iterator[None]:
    """pyroute2's errors are not OSErrors. `already` is the one that says that nothing is left to do."""
    try:
        yield
    except NetlinkError as error:
        if error.code != already:
            raise OSError(error.code, f"{what}: {os.strerror(error.code)}") from error
