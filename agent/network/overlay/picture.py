"""The links of this host as the kernel shows them, and the requests that change them."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.network.overlay.netlink import ACK, CREATE, EXCLUSIVE, Netlink, Request, attribute, attributes, number, text

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC = (
    1,
    3,
    4,
    10,
    18,
    20,
    26,
)
_INFO_KIND, _INFO_DATA = 1, 2
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PROXY, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 7, 11, 15, 17
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_UP = 1
_LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_NESTED = 0x8000
_GLOBAL_SCOPE = 0


@dataclass(frozen=True, slots=True)
class Vxlan:
    """What cannot be changed of a VXLAN link once it is made."""

    vni: int
    port: int
    local: str
    learning: bool = False
    proxy: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """A link as it is. `master` is an index, 0 for none; `addresses` are the global ones, with their prefix lengths."""

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    up: bool = False
    master: int = 0
    alias: str = ""
    vxlan: Vxlan | None = None
    addresses: frozenset[str] = field(default=frozenset())


Links = Mapping[int, Link]
"""Links by index."""


def read_links(netlink: Netlink) -> dict[int, Link]:
    """Every link of the namespace with its addresses."""
    addresses: dict[int, set[str]] = {}
    for body in netlink.dump(Request(GETADDR, 0, _ADDRESS.pack(0, 0, 0, 0, 0))):
        index, address = parse_address(body)
        if address:
            addresses.setdefault(index, set()).add(address)
    links = {}
    for body in netlink.dump(Request(GETLINK, 0, _LINK.pack(0, 0, 0, 0, 0, 0))):
        index = link_index(body)
        links[index] = parse_link(body, frozenset(addresses.get(index, ())))
    return links


def parse_link(body: bytes, addresses: frozenset[str]) -> Link:
    """A link's message as the kernel sends it."""
    _, _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = _string(info.get(_INFO_KIND, b""))
    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        kind=kind,
        mac=":".join(f"{byte:02x}" for byte in found.get(_IFLA_ADDRESS, b"")),
        mtu=_number(found.get(_IFLA_MTU, b"")),
        up=bool(flags & _UP),
        master=_number(found.get(_IFLA_MASTER, b"")),
        alias=_string(found.get(_IFLA_IFALIAS, b"")),
        vxlan=_parse_vxlan(attributes(info.get(_INFO_DATA, b""))) if kind == "vxlan" else None,
        addresses=addresses,
    )


def parse_address(body: bytes) -> tuple[int, str]:
    """(index of the link, address with prefix length) of an address's message; "" for one that is not global."""
    _, length, _, scope, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    if scope != _GLOBAL_SCOPE or not packed:
        return index, ""
    return index, f"{ipaddress.ip_address(packed)}/{length}"


def parse_event(body: bytes) -> tuple[str, int, int]:
    """(name, index, master) of a link's message."""
    found = attributes(body, _LINK.size)
    return _string(found.get(_IFLA_IFNAME, b"")), link_index(body), _number(found.get(_IFLA_MASTER, b""))


def parse_address_index(body: bytes) -> int:
    """The index of the link in an address's message."""
    return int(_ADDRESS.unpack_from(body)[4])


def link_index(body: bytes) -> int:
    """The index in a link's message."""
    return int(_LINK.unpack_from(body)[3])


def make_bridge(name: str, mac: str, mtu: int) -> Request:
    """A bridge, up."""
    info = text(_INFO_KIND, "bridge")
    body = _LINK.pack(0, 0, 0, 0, _UP, _UP) + text(_IFLA_IFNAME, name) + number(_IFLA_MTU, mtu) + _mac(mac)
    return Request(NEWLINK, CREATE | EXCLUSIVE, body + attribute(_IFLA_LINKINFO | _NESTED, info))


def make_vxlan(name: str, vxlan: Vxlan, mtu: int, master: int) -> Request:
    """A VXLAN link, a port of the bridge `master`; down, so that a UDP port held by somebody else is an error of its own."""
    local = ipaddress.ip_address(vxlan.local)
    data = (
        number(_VXLAN_ID, vxlan.vni)
        + attribute(_VXLAN_LOCAL if local.version == 4 else _VXLAN_LOCAL6, local.packed)
        + attribute(_VXLAN_LEARNING, bytes([vxlan.learning]))
        + attribute(_VXLAN_PROXY, bytes([vxlan.proxy]))
        + attribute(_VXLAN_PORT, struct.pack(">H", vxlan.port))
    )
    info = text(_INFO_KIND, "vxlan") + attribute(_INFO_DATA | _NESTED, data)
    body = (
        _LINK.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + number(_IFLA_MTU, mtu) + number(_IFLA_MASTER, master)
    )
    body += attribute(_IFLA_LINKINFO | _NESTED, info)
    return Request(NEWLINK, CREATE | EXCLUSIVE, body)


def mark_link(name: str, alias: str) -> Request:
    """Give the link of that name an alias: the kernel takes none while it makes a link."""
    return Request(SETLINK, 0, _LINK.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + _alias(alias))


def change_link(
    index: int,
    *,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    alias: str | None = None,
    up: bool = False,
) -> Request:
    """Change what is given of a link; `up` sets it up."""
    body = _LINK.pack(0, 0, 0, index, _UP if up else 0, _UP if up else 0)
    if mac is not None:
        body += _mac(mac)
    if mtu is not None:
        body += number(_IFLA_MTU, mtu)
    if master is not None:
        body += number(_IFLA_MASTER, master)
    if alias is not None:
        body += _alias(alias)
    return Request(SETLINK, 0, body)


def remove_link(index: int) -> Request:
    """Take a link away."""
    return Request(DELLINK, ACK, _LINK.pack(0, 0, 0, index, 0, 0))


def add_address(index: int, address: str) -> Request:
    """Give a link an address ("10.0.1.1/24")."""
    return Request(NEWADDR, CREATE | EXCLUSIVE, _address(index, address))


def remove_address(index: int, address: str) -> Request:
    """Take an address from a link."""
    return Request(DELADDR, 0, _address(index, address))


def _address(index: int, address: str) -> bytes:
    parsed = ipaddress.ip_interface(address)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    packed = parsed.ip.packed
    body = _ADDRESS.pack(family, parsed.network.prefixlen, _flags(parsed.version), _GLOBAL_SCOPE, index)
    return body + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def _flags(version: int) -> int:
    """IPv6: no duplicate address detection. Every host's bridge has the gateway's address, and it is to answer at once."""
    return 0x02 if version == 6 else 0


def _parse_vxlan(data: dict[int, bytes]) -> Vxlan:
    local = data.get(_VXLAN_LOCAL) or data.get(_VXLAN_LOCAL6) or b""
    port = data.get(_VXLAN_PORT, b"")
    return Vxlan(
        vni=_number(data.get(_VXLAN_ID, b"")),
        port=int.from_bytes(port, "big"),
        local=str(ipaddress.ip_address(local)) if local else "",
        learning=any(data.get(_VXLAN_LEARNING, b"")),
        proxy=any(data.get(_VXLAN_PROXY, b"")),
    )


def _mac(mac: str) -> bytes:
    return attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def _alias(alias: str) -> bytes:
    return attribute(_IFLA_IFALIAS, alias.encode())


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0
