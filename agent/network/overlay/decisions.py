"""What to do to a host's links so that it has the networks that are wanted. Pure: links as they are in, steps out.

Steps are decided anew after they were carried out, until there are none: what needs the index of a link that is not made
yet waits for the next round. Links are ours by the alias we give them; what else tells ours is in `_own_bridge` and
`_own_vxlan`. Everything else stays as it is, and keeps a network of the same names from being had.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.network.mac import bridge_mac
from agent.network.overlay.interface import OverlayWanted, bridge_name, vxlan_name
from agent.network.overlay.picture import Link, Links, Vxlan

MARK = "swarmtui overlay "
"""The alias of our links, followed by the network's id."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where this is: the address that other hosts reach this one at, and the UDP port of VXLAN."""

    host: str
    port: int

    def port_of(self, wanted: OverlayWanted) -> int:
        """The VXLAN port of a network. Encrypted ones have one of their own, which never shows on the wire: by it alone
        their packets are told from the others', so that none of them is sent or taken plain.
        """
        return self.port + 1 if wanted.encrypted else self.port


@dataclass(frozen=True, slots=True)
class MakeBridge:
    """Make a bridge with our mark."""

    name: str
    mac: str
    mtu: int
    alias: str


@dataclass(frozen=True, slots=True)
class MakeVxlan:
    """Make a VXLAN link with our mark, a port of the bridge `master`."""

    name: str
    vxlan: Vxlan
    mtu: int
    master: int
    alias: str


@dataclass(frozen=True, slots=True)
class Change:
    """Change what is not None of a link."""

    index: int
    mac: str | None = None
    mtu: int | None = None
    master: int | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class SetUp:
    """Set a link up."""

    index: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a link away."""

    index: int


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give a bridge an address."""

    index: int
    address: str


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address from a bridge."""

    index: int
    address: str


Step = MakeBridge | MakeVxlan | Change | SetUp | Remove | AddAddress | RemoveAddress


@dataclass(frozen=True, slots=True)
class Ports:
    """What was seen to be on a network's bridge: the bridge's index, and (index, name) of its ports.

    A bridge that is deleted by hand lets its ports go; nobody else knows then where the tasks' ends belong.
    """

    bridge: int
    ports: frozenset[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Decision:
    """`steps` to carry out now, and `refused`: why the network cannot be had, "" when it can."""

    steps: tuple[Step, ...] = ()
    refused: str = ""


@dataclass
class _Refusal(Exception):
    reason: str


@dataclass(frozen=True, slots=True)
class Names:
    """Links by their names, worked out once for all networks."""

    links: Links
    by_name: Mapping[str, Link] = field(init=False)
    by_vni: Mapping[tuple[int, int], Link] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {link.name: link for link in self.links.values()})
        held = {(link.vxlan.vni, link.vxlan.port): link for link in self.links.values() if link.vxlan is not None}
        object.__setattr__(self, "by_vni", held)


def mark(network_id: str) -> str:
    """The alias of a network's links."""
    return MARK + network_id


def removals(links: Links, wanted: Mapping[str, OverlayWanted]) -> tuple[Remove, ...]:
    """What carries our mark for a network that nobody wants: VXLAN links first, so that nothing comes in any more."""
    unwanted = [
        link for link in links.values() if link.alias.startswith(MARK) and link.alias.removeprefix(MARK) not in wanted
    ]
    return tuple(Remove(link.index) for link in sorted(unwanted, key=lambda link: (link.kind != "vxlan", link.index)))


def decide(wanted: OverlayWanted, names: Names, site: Site, ports: Ports | None) -> Decision:
    """The next steps towards one network. No steps and no refusal: the host has it."""
    try:
        return Decision(steps=tuple(_steps(wanted, names, site, ports)))
    except _Refusal as refusal:
        return Decision(refused=refusal.reason)
    except ValueError as error:
        return Decision(refused=f"an address of it cannot be used: {error}")


def remember(wanted: OverlayWanted, names: Names, before: Ports | None) -> Ports | None:
    """The ports to put back if the bridge goes, from what is there now.

    A port that lost its bridge stays known while it exists and has no other: the links are not read at one instant, so a
    port can be seen alone while the bridge it was on still seemed to be there.
    """
    bridge = names.by_name.get(bridge_name(wanted.id))
    if bridge is None or bridge.kind != "bridge":
        return before
    lost = {port for port in before.ports if _alone(names.links, port)} if before is not None else set()
    now = {
        (link.index, link.name)
        for link in names.links.values()
        if link.master == bridge.index and link.name != vxlan_name(wanted.id)
    }
    return Ports(bridge.index, frozenset(now | lost))


def _steps(wanted: OverlayWanted, names: Names, site: Site, ports: Ports | None) -> Iterator[Step]:
    mac = wanted.bridge_mac or bridge_mac(wanted.id, site.host)
    alias = mark(wanted.id)
    bridge = names.by_name.get(bridge_name(wanted.id))
    if bridge is not None and not _own_bridge(bridge, wanted, mac):
        raise _Refusal(_foreign(bridge))
    shape = Vxlan(wanted.vni, site.port_of(wanted), str(ipaddress.ip_address(site.host)))
    vxlan = names.by_name.get(vxlan_name(wanted.id))
    if vxlan is not None and not _own_vxlan(vxlan, wanted, shape):
        raise _Refusal(_foreign(vxlan))
    if vxlan is None or vxlan.vxlan != shape:
        holder = names.by_vni.get((shape.vni, shape.port))
        if holder is not None and holder is not vxlan:
            raise _Refusal(
                f"VXLAN id {shape.vni} is held by the link {holder.name}, which is somebody else's: remove it"
            )
    if bridge is None:
        yield MakeBridge(bridge_name(wanted.id), mac, wanted.link_mtu, alias)
    else:
        yield from _bridge_steps(bridge, wanted, mac, alias)
        if ports is not None and ports.bridge != bridge.index:
            for port in sorted(ports.ports):
                if _alone(names.links, port):
                    yield Change(port[0], master=bridge.index)
    if vxlan is not None and vxlan.vxlan != shape:
        yield Remove(vxlan.index)
    elif bridge is not None and vxlan is None:
        yield MakeVxlan(vxlan_name(wanted.id), shape, wanted.link_mtu, bridge.index, alias)
    elif bridge is not None and vxlan is not None:
        yield from _changed(
            vxlan,
            mtu=wanted.link_mtu,
            master=bridge.index,
            alias=alias,
        )
        if not vxlan.up:
            yield SetUp(vxlan.index)


def _bridge_steps(bridge: Link, wanted: OverlayWanted, mac: str, alias: str) -> Iterator[Step]:
    yield from _changed(bridge, mac=mac, mtu=wanted.link_mtu, alias=alias)
    gateways = {str(ipaddress.ip_interface(gateway)) for gateway in wanted.gateways}
    for address in sorted(bridge.addresses - gateways):
        yield RemoveAddress(bridge.index, address)
    for address in sorted(gateways - bridge.addresses):
        yield AddAddress(bridge.index, address)
    if not bridge.up:
        yield SetUp(bridge.index)


def _changed(link: Link, *, mtu: int, alias: str, mac: str | None = None, master: int | None = None) -> Iterator[Step]:
    change = Change(
        link.index,
        mac=None if mac in (None, link.mac) else mac,
        mtu=None if mtu == link.mtu else mtu,
        master=None if master in (None, link.master) else master,
        alias=None if alias == link.alias else alias,
    )
    if change != Change(link.index):
        yield change


def _own_bridge(link: Link, wanted: OverlayWanted, mac: str) -> bool:
    """Ours: by mark, by the MAC that only we work out, or made by the engine for the network, with its gateways.

    An engine that starts makes the bridge of each of its networks that is not there, without our mark.
    """
    if link.kind != "bridge":
        return False
    if link.alias:
        return link.alias == mark(wanted.id)
    gateways = {str(ipaddress.ip_interface(gateway)) for gateway in wanted.gateways}
    return link.mac == mac or bool(gateways & link.addresses)


def _own_vxlan(link: Link, wanted: OverlayWanted, shape: Vxlan) -> bool:
    """Ours: by mark, or just as we make them and cut short before the mark was set."""
    if link.alias:
        return link.kind == "vxlan" and link.alias == mark(wanted.id)
    return link.vxlan == shape


def _foreign(link: Link) -> str:
    if link.alias.startswith(MARK):
        return f"link {link.name} belongs to another network of this cluster, {link.alias.removeprefix(MARK)}"
    return f"link {link.name} ({link.kind or 'a device'}) is somebody else's: rename or remove it"


def _alone(links: Links, port: tuple[int, str]) -> bool:
    link = links.get(port[0])
    return link is not None and link.name == port[1] and link.master == 0
