"""The links of a balancer's namespace: a veth pair from the network's bridge, and the addresses at its inner end.

Reads what is there and changes what differs; all calls block and belong into a thread of their own.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agent.network.mac import mac_of
from agent.network.overlay.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    ROUTE,
    Netlink,
    Request,
    attribute,
    attributes,
    number,
    text,
)

INNER = "eth0"
"""The veth's end in the namespace."""

MARK = "swarmtui balancer "
"""Begins the alias of the end on the bridge; the network's id follows."""

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR, _NEWROUTE = 16, 17, 18, 20, 21, 22, 24
_IFNAME, _ADDRESS, _MTU, _LINK, _MASTER, _LINKINFO, _IFALIAS, _NET_NS_FD = 3, 1, 4, 5, 10, 18, 20, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 6, 8
_IFA_F_NODAD = 0x02
_RTA_OIF = 4
_NESTED = 0x8000
_UP = 0x1
_FOREVER = 0xFFFFFFFF
_LINK_SCOPE, _BOOT_PROTOCOL, _MAIN_TABLE, _UNICAST = 253, 3, 254, 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A namespace's links as they are to be. `address` has a prefix length, `vips` have none."""

    name: str
    network_id: str
    bridge: str
    mtu: int
    address: str
    vips: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Link:
    index: int
    peer: int
    """The other end's index, in its own namespace."""
    master: int
    mtu: int
    mac: str
    up: bool
    alias: str


def bring(wanted: Wanted, place: Path, host: Path | None) -> None:
    """Make the links and addresses so. `place` is the balancer's namespace, `host` the bridge's (None: the process's own).

    OSError: the bridge is not there, the namespace is another host's, or the kernel refuses.
    """
    with (
        contextlib.closing(Netlink(ROUTE, str(host or ""))) as outer,
        contextlib.closing(Netlink(ROUTE, str(place))) as inner,
    ):
        bridge = _find(outer, wanted.bridge)
        if bridge is None:
            raise OSError(errno.ENODEV, f"there is no bridge {wanted.bridge}")
        _pair(wanted, place, outer, inner)
        near, far = _find(outer, wanted.name), _find(inner, INNER)
        if near is None or far is None:
            raise OSError(errno.ENODEV, f"link {wanted.name} went away while it was made")
        _settle_near(outer, near, wanted, bridge.index)
        _settle_far(inner, far, wanted)


def leftovers(host: Path | None) -> dict[str, str]:
    """Name of the link on the bridge to network id, of every balancer's namespace of this host."""
    with contextlib.closing(Netlink(ROUTE, str(host or ""))) as outer:
        found = {}
        for body in outer.dump(Request(_GETLINK, 0, _link_head())):
            seen = attributes(body, 16)
            alias = _word(seen.get(_IFALIAS, b""))
            if alias.startswith(MARK):
                found[_word(seen[_IFNAME])] = alias.removeprefix(MARK)
        return found


def unlink(name: str, host: Path | None) -> None:
    """Take the pair away, if it is there."""
    with contextlib.closing(Netlink(ROUTE, str(host or ""))) as outer:
        link = _find(outer, name)
        if link is not None and link.alias.startswith(MARK):
            _send(outer, f"cannot remove {name}", [Request(_DELLINK, 0, _link_head(link.index))])


def _pair(wanted: Wanted, place: Path, outer: Netlink, inner: Netlink) -> None:
    """The veth pair between the two namespaces: the one that is there, or a new one."""
    near, far = _find(outer, wanted.name), _find(inner, INNER)
    if near is not None and far is not None and near.peer == far.index and far.peer == near.index:
        return
    if near is not None and not near.alias.startswith(MARK):
        raise OSError(errno.EEXIST, f"link {wanted.name} is somebody else's")
    if far is not None and near is None:
        raise OSError(errno.EEXIST, f"namespace {place} is in use by another host of this machine; give each a folder")
    requests = []
    if near is not None:
        requests.append(Request(_DELLINK, 0, _link_head(near.index)))
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer = (
            _link_head()
            + text(_IFNAME, INNER)
            + attribute(_ADDRESS, _mac(wanted.address))
            + number(_NET_NS_FD, descriptor)
        )
        data = attribute(_INFO_DATA | _NESTED, attribute(_VETH_PEER | _NESTED, peer))
        kind = attribute(_LINKINFO | _NESTED, text(_INFO_KIND, "veth") + data)
        body = _link_head() + text(_IFNAME, wanted.name) + number(_MTU, wanted.mtu) + kind
        requests.append(Request(_NEWLINK, CREATE | EXCLUSIVE, body))
        alias = text(_IFALIAS, MARK + wanted.network_id)
        requests.append(Request(_NEWLINK, 0, _link_head() + text(_IFNAME, wanted.name) + alias))
        _send(outer, f"cannot make {wanted.name}", requests)
    finally:
        os.close(descriptor)


def _settle_near(outer: Netlink, near: _Link, wanted: Wanted, bridge: int) -> None:
    change = b""
    if near.mtu != wanted.mtu:
        change += number(_MTU, wanted.mtu)
    if near.master != bridge:
        change += number(_MASTER, bridge)
    if change or not near.up:
        request = Request(_NEWLINK, 0, _link_head(near.index, up=True) + change)
        _send(outer, f"cannot set up {wanted.name}", [request])


def _settle_far(inner: Netlink, far: _Link, wanted: Wanted) -> None:
    change = b""
    if far.mtu != wanted.mtu:
        change += number(_MTU, wanted.mtu)
    if far.mac != _mac(wanted.address).hex(":"):
        change += attribute(_ADDRESS, _mac(wanted.address))
    requests = []
    if change or not far.up:
        requests.append(Request(_NEWLINK, 0, _link_head(far.index, up=True) + change))
        requests.append(Request(_NEWLINK, 0, _link_head(1, up=True)))
    own = ipaddress.ip_interface(wanted.address)
    kept = {(own.ip, own.network.prefixlen)}
    kept |= {(parsed, parsed.max_prefixlen) for parsed in map(ipaddress.ip_address, wanted.vips)}
    there = _addresses(inner, far.index)
    requests += [Request(_DELADDR, 0, _address_body(far.index, *entry)) for entry in there - kept]
    # The balancer's own comes first: the first address is what connections leave with.
    for entry in sorted(kept - there, key=lambda entry: entry[0] != own.ip):
        requests.append(Request(_NEWADDR, CREATE | REPLACE, _address_body(far.index, *entry, own=entry[0] == own.ip)))
    if requests:
        # A network has several subnets, and all of them are on this very link.
        family = socket.AF_INET if own.version == 4 else socket.AF_INET6
        head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN_TABLE, _BOOT_PROTOCOL, _scope(family), _UNICAST, 0)
        requests.append(Request(_NEWROUTE, CREATE | REPLACE, head + number(_RTA_OIF, far.index)))
        _send(inner, f"cannot set up {INNER} of {wanted.name}", requests)


def _scope(family: int) -> int:
    return _LINK_SCOPE if family == socket.AF_INET else 0


def _find(netlink: Netlink, name: str) -> _Link | None:
    for body in netlink.dump(Request(_GETLINK, 0, _link_head())):
        seen = attributes(body, 16)
        if _word(seen.get(_IFNAME, b"")) == name:
            _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
            return _Link(
                index=index,
                peer=_value(seen.get(_LINK)),
                master=_value(seen.get(_MASTER)),
                mtu=_value(seen.get(_MTU)),
                mac=seen.get(_ADDRESS, b"").hex(":"),
                up=bool(flags & _UP),
                alias=_word(seen.get(_IFALIAS, b"")),
            )
    return None


def _addresses(netlink: Netlink, index: int) -> set[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """(address, prefix length) of a link, without those that IPv6 gives itself."""
    found = set()
    for body in netlink.dump(Request(_GETADDR, 0, struct.pack("=BBBBi", 0, 0, 0, 0, index))):
        _, length, _, _, owner = struct.unpack_from("=BBBBi", body)
        seen = attributes(body, 8)
        address = ipaddress.ip_address(seen.get(_IFA_LOCAL) or seen[_IFA_ADDRESS])
        if owner == index and not address.is_link_local:
            found.add((address, length))
    return found


def _address_body(
    index: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int, own: bool = True
) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBi", family, length, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    if address.version == 6:
        body += number(_IFA_FLAGS, _IFA_F_NODAD)
        if not own:
            # Deprecated: answered, and never taken as a source, for which IPv6 would prefer the longest match.
            body += attribute(_IFA_CACHEINFO, struct.pack("=IIII", 0, _FOREVER, 0, 0))
    return body


def _link_head(index: int = 0, up: bool = False) -> bytes:
    flag = _UP if up else 0
    return struct.pack("=BxHiII", 0, 0, index, flag, flag)


def _send(netlink: Netlink, what: str, requests: list[Request]) -> None:
    for refused in netlink.send(requests):
        raise OSError(refused.code, f"{what}: {refused}")


def _mac(address: str) -> bytes:
    return bytes.fromhex(mac_of(address.partition("/")[0]).replace(":", ""))


def _word(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _value(value: bytes | None) -> int:
    return 0 if value is None else int(struct.unpack("=I", value)[0])
