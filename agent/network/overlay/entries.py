"""The entries that lead to other hosts' tasks: neighbours (address to MAC) and the VXLAN link's FDB (MAC to host).

All entries are static: nothing is learned and nothing asked of the network. The link answers its host's ARP questions
from the neighbours, so no broadcast crosses to other hosts.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from dataclasses import dataclass, field

from agent.network.mac import mac_of
from agent.network.overlay.interface import OverlayWanted
from agent.network.overlay.netlink import CREATE, REPLACE, Netlink, Request, attribute, attributes

NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_SELF, _MASTER = 0x02, 0x04
_PERMANENT, _NOARP = 0x80, 0x40
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_BRIDGE = 7


@dataclass(frozen=True, slots=True)
class Entries:
    """Packed: MAC to host in `fdb`, address to MAC in `neighbours`."""

    fdb: dict[bytes, bytes] = field(default_factory=dict)
    neighbours: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """Entries to set (new or other than before) and to take away. `gone` are MACs, `lost` addresses."""

    set_fdb: dict[bytes, bytes]
    set_neighbours: dict[bytes, bytes]
    gone: frozenset[bytes]
    lost: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.set_fdb or self.set_neighbours or self.gone or self.lost)


def entries_of(wanted: OverlayWanted) -> Entries:
    """The entries that a network's endpoints ask for. ValueError: something in it is no address."""
    entries = Entries()
    for address, host in wanted.endpoints.items():
        given = wanted.macs.get(address)
        mac = bytes.fromhex(given.replace(":", "")) if given else _mac(address)
        entries.fdb[mac] = _packed(host)
        entries.neighbours[_packed(address)] = mac
    return entries


def difference(before: Entries, after: Entries) -> Difference:
    """The smallest change from one to the other."""
    return Difference(
        set_fdb={mac: host for mac, host in after.fdb.items() if before.fdb.get(mac) != host},
        set_neighbours={ip: mac for ip, mac in after.neighbours.items() if before.neighbours.get(ip) != mac},
        gone=frozenset(before.fdb.keys() - after.fdb.keys()),
        lost=frozenset(before.neighbours.keys() - after.neighbours.keys()),
    )


def requests(difference: Difference, vxlan: int) -> list[Request]:
    """The difference for the VXLAN link of that index: ways first, then who is asked for; taken away the other way round."""
    made = [_set_fdb(vxlan, mac, host) for mac, host in difference.set_fdb.items()]
    made += [_set_neighbour(vxlan, address, mac) for address, mac in difference.set_neighbours.items()]
    made += [_remove_neighbour(vxlan, address) for address in difference.lost]
    for mac in difference.gone:
        made.append(_remove_fdb(vxlan, mac, _SELF))
        # The bridge has learned the MAC on the VXLAN port. Who has it next on this very host is to be reached at once.
        made.append(_remove_fdb(vxlan, mac, _MASTER))
    return made


def read_entries(netlink: Netlink, vxlan: int) -> Entries:
    """What the kernel has for the VXLAN link of that index."""
    found = Entries()
    for body in netlink.dump(Request(GETNEIGH, 0, _NEIGHBOUR.pack(_BRIDGE, 0, 0, vxlan, 0, 0, 0))):
        _, _, _, index, _, flags, _ = _NEIGHBOUR.unpack_from(body)
        values = attributes(body, _NEIGHBOUR.size)
        if index == vxlan and flags & _SELF and _NDA_LLADDR in values:
            found.fdb[values[_NDA_LLADDR]] = values.get(_NDA_DST, b"")
    only = attribute(_NDA_IFINDEX, struct.pack("=i", vxlan))
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in netlink.dump(Request(GETNEIGH, 0, _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0) + only)):
            _, _, _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
            values = attributes(body, _NEIGHBOUR.size)
            if index == vxlan and state & _PERMANENT and _NDA_DST in values:
                found.neighbours[values[_NDA_DST]] = values.get(_NDA_LLADDR, b"")
    return found


def _set_fdb(vxlan: int, mac: bytes, host: bytes) -> Request:
    body = _NEIGHBOUR.pack(_BRIDGE, 0, 0, vxlan, _PERMANENT | _NOARP, _SELF, 0)
    return Request(NEWNEIGH, CREATE | REPLACE, body + attribute(_NDA_LLADDR, mac) + attribute(_NDA_DST, host))


def _remove_fdb(vxlan: int, mac: bytes, whose: int) -> Request:
    return Request(DELNEIGH, 0, _NEIGHBOUR.pack(_BRIDGE, 0, 0, vxlan, 0, whose, 0) + attribute(_NDA_LLADDR, mac))


def _set_neighbour(vxlan: int, address: bytes, mac: bytes) -> Request:
    body = _NEIGHBOUR.pack(_family(address), 0, 0, vxlan, _PERMANENT, 0, 0)
    return Request(NEWNEIGH, CREATE | REPLACE, body + attribute(_NDA_DST, address) + attribute(_NDA_LLADDR, mac))


def _remove_neighbour(vxlan: int, address: bytes) -> Request:
    body = _NEIGHBOUR.pack(_family(address), 0, 0, vxlan, 0, 0, 0)
    return Request(DELNEIGH, 0, body + attribute(_NDA_DST, address))


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


# Bounded by what a host can meet; a thousand endpoints are looked up at every change, and parsing each takes 5 ms in all.
@functools.lru_cache(maxsize=65536)
def _mac(address: str) -> bytes:
    return bytes.fromhex(mac_of(address).replace(":", ""))


@functools.lru_cache(maxsize=65536)
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed
