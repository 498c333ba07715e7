"""Ends connections in the kernel's connection table (conntrack) by netlink messages of our own.

A connection that was sent on to a backend keeps its entry until it times out, five days for an idle TCP connection. With the
entry gone the client's next packet is taken for a new connection's: another backend, or the address itself, answers with a
reset. All calls are blocking and work in the calling thread's network namespace.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET = 1
IPCTNL_MSG_CT_DELETE = 2
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

CTA_TUPLE_ORIG = 1
CTA_TUPLE_REPLY = 2
CTA_STATUS = 3
CTA_ID = 12
CTA_ZONE = 18
CTA_FILTER = 25
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_SOURCE_ADDRESS = 0x1
FILTER_PROTOCOL = 0x8
CTA_TUPLE_IP = 1
CTA_TUPLE_PROTO = 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM = 1
CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 2, 3

IPS_SRC_NAT = 0x10
IPS_DST_NAT = 0x20

SINGLY = 8
"""Backends that are asked for one by one; for more the table is read once."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection: whom the client called (`target`), and who answers it (`answered_by`), which differ under NAT."""

    family: int
    protocol: int
    target: IPAddress
    target_port: int
    answered_by: IPAddress
    status: int
    """IPS_* of the kernel."""
    key: bytes
    """The attributes that name the entry to the kernel."""


def forget(backends: Collection[str], targets: Collection[str] = ()) -> int:
    """Delete the connections that a rule sent on to these addresses; how many there were.

    IPVS does not say in the table that it sent a connection on: `targets` are the addresses that clients call, and
    connections to them that these backends answer go too. OSError when the kernel refuses.
    """
    wanted = {ipaddress.ip_address(address) for address in backends}
    called = {ipaddress.ip_address(address) for address in targets}

    def chosen(entry: Entry) -> bool:
        return entry.answered_by in wanted and (bool(entry.status & IPS_DST_NAT) or entry.target in called)

    with _Conntrack() as table:
        if len(wanted) > SINGLY:
            found = [entry for family in {_family(address) for address in wanted} for entry in table.entries(family)]
        else:
            found = [entry for address in wanted for entry in table.entries(_family(address), answered_by=address)]
        return table.delete(filter(chosen, found))


def forget_senders(targets: Collection[tuple[str, int]]) -> int:
    """Delete what senders of datagrams to (address, port) have in the table while no rule translates them; how many.

    Port 0 is every port, 0.0.0.0 and :: are every address. Who sent while there was no backend has an entry that leads
    nowhere and keeps it alive by going on; only without it will a new rule see its packets.
    """
    wanted = {(ipaddress.ip_address(address), port) for address, port in targets}

    def chosen(entry: Entry) -> bool:
        if entry.status & (IPS_SRC_NAT | IPS_DST_NAT):
            return False
        every = ipaddress.ip_address("0.0.0.0" if entry.family == socket.AF_INET else "::")
        port = entry.target_port
        return not wanted.isdisjoint({(entry.target, port), (entry.target, 0), (every, port)})

    with _Conntrack() as table:
        families = {_family(address) for address, _ in wanted}
        found = [entry for family in families for entry in table.entries(family, protocol=socket.IPPROTO_UDP)]
        return table.delete(entry for entry in found if entry.protocol == socket.IPPROTO_UDP and chosen(entry))


class _Conntrack:
    """A netlink socket to the table of the thread's namespace."""

    def __enter__(self) -> _Conntrack:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def entries(self, family: int, *, answered_by: IPAddress | None = None, protocol: int = 0) -> list[Entry]:
        """The table's entries of a family. The kernel leaves out what is not asked for where it can (5.8 and later), so that
        others can still be among them."""
        request = b""
        if answered_by is not None:
            source = CTA_IP_V4_SRC if family == socket.AF_INET else CTA_IP_V6_SRC
            addresses = _nested(CTA_TUPLE_IP, _attribute(source, answered_by.packed))
            flags = _attribute(CTA_FILTER_REPLY_FLAGS, struct.pack("=I", FILTER_SOURCE_ADDRESS))
            request = _nested(CTA_TUPLE_REPLY, addresses) + _nested(CTA_FILTER, flags)
        elif protocol:
            number = _nested(CTA_TUPLE_PROTO, _attribute(CTA_PROTO_NUM, bytes([protocol])))
            flags = _attribute(CTA_FILTER_ORIG_FLAGS, struct.pack("=I", FILTER_PROTOCOL))
            request = _nested(CTA_TUPLE_ORIG, number) + _nested(CTA_FILTER, flags)
        self._send(IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP, family, request)
        return [entry for body in self._answers() if (entry := _entry(body)) is not None]

    def delete(self, entries: Iterable[Entry]) -> int:
        """Delete these; how many were still there."""
        ended = 0
        for entry in entries:
            self._send(IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, entry.family, entry.key)
            try:
                for _ in self._answers():
                    pass
            except FileNotFoundError:
                continue
            ended += 1
        return ended

    def _send(self, kind: int, flags: int, family: int, attributes: bytes) -> None:
        body = struct.pack("=BBH", family, 0, 0) + attributes
        head = struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, 0, 0)
        self._socket.send(head + body)

    def _answers(self) -> Iterator[bytes]:
        """Bodies of the answers to one request, to its end. OSError that the kernel answered."""
        while True:
            data = self._socket.recv(1 << 18)
            at = 0
            while at < len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                body = data[at + 16 : at + length]
                at += (length + 3) & ~3
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number == 0:
                        return
                    raise OSError(number, f"conntrack: {os.strerror(number)}")
                yield body


def _entry(body: bytes) -> Entry | None:
    """One entry of a dump; None for a protocol without ports or without a tuple, which no balancer of ours makes."""
    family = body[0]
    attributes = dict(_attributes(body[4:]))
    try:
        original, reply = attributes[CTA_TUPLE_ORIG], attributes[CTA_TUPLE_REPLY]
        _, target, protocol, port = _tuple(original)
        answered_by, _, _, _ = _tuple(reply)
    except KeyError:
        return None
    key = _nested(CTA_TUPLE_ORIG, original)
    for kind in (CTA_ID, CTA_ZONE):
        if kind in attributes:
            key += _attribute(kind, attributes[kind])
    status = struct.unpack(">I", attributes.get(CTA_STATUS, bytes(4)))[0]
    return Entry(family, protocol, target, port, answered_by, status, key)


def _tuple(data: bytes) -> tuple[IPAddress, IPAddress, int, int]:
    """Source, destination, protocol and destination port. KeyError when one is missing."""
    parts = dict(_attributes(data))
    addresses = dict(_attributes(parts[CTA_TUPLE_IP]))
    protocol = dict(_attributes(parts[CTA_TUPLE_PROTO]))
    version4 = CTA_IP_V4_SRC in addresses
    source, target = (CTA_IP_V4_SRC, CTA_IP_V4_DST) if version4 else (CTA_IP_V6_SRC, CTA_IP_V6_DST)
    (port,) = struct.unpack(">H", protocol[CTA_PROTO_DST_PORT])
    return (
        ipaddress.ip_address(addresses[source]),
        ipaddress.ip_address(addresses[target]),
        protocol[CTA_PROTO_NUM][0],
        port,
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            raise OSError(errno.EBADMSG, "conntrack: an attribute without a length")
        yield kind & NLA_TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NLA_F_NESTED, value)


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
