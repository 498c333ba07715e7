"""One host's overlays as they are in its kernel. Everything here blocks: it runs in a thread, one call at a time."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from agent.network.overlay.decisions import (
    MARK,
    AddAddress,
    Change,
    MakeBridge,
    MakeVxlan,
    Names,
    Ports,
    Remove,
    RemoveAddress,
    SetUp,
    Site,
    Step,
    decide,
    remember,
    removals,
)
from agent.network.overlay.encryption import Association, Encryption, associations
from agent.network.overlay.entries import DELNEIGH, Entries, difference, entries_of, read_entries, requests
from agent.network.overlay.interface import OverlayWanted, vxlan_name
from agent.network.overlay.netlink import ROUTE, XFRM, Netlink, Refused, Request
from agent.network.overlay.picture import (
    Links,
    add_address,
    change_link,
    make_bridge,
    make_vxlan,
    mark_link,
    read_links,
    remove_address,
    remove_link,
)
from agent.rpc.messages import NetworkKeys

_log = logging.getLogger(__name__)

_ROUNDS = 8
"""A network is had after three rounds; more are for links that others change meanwhile."""

_PASSING = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENOENT})
"""Somebody was quicker to remove something: the next round decides on what is there then. So it does on what is there
already of what was to be made, but for a VXLAN id, which may be held from where it cannot be seen."""


@dataclass(frozen=True, slots=True)
class Look:
    """What may be other than it was made: the links of these indexes, or just anything."""

    indexes: frozenset[int] = frozenset()
    everything: bool = False


class Host:
    """Brings the kernel of one network namespace to the wanted networks. OSError: it cannot be spoken to."""

    def __init__(self, site: Site, netns: str = "") -> None:
        self._site = site
        self._netns = netns
        self._netlink = Netlink(ROUTE, netns)
        self._encryption: Encryption | None = None
        self._encrypted: tuple[frozenset[str], NetworkKeys] | None = None
        self._encryption_known = False
        self.keys: NetworkKeys | None = None
        self._shapes: dict[str, tuple[object, ...]] = {}
        self._ports: dict[str, Ports] = {}
        self._programmed: dict[str, tuple[int, Entries]] = {}
        self._vxlans: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        self.indexes: frozenset[int] = frozenset()
        """Links that are ours: what happens to them is to be looked at."""
        self.changes = 0
        """Steps that were taken, ever."""

    def close(self) -> None:
        """Idempotent; leaves the links."""
        self._netlink.close()
        if self._encryption is not None:
            self._encryption.close()

    def bring(self, wanted: Mapping[str, OverlayWanted], *, look: Look | None) -> dict[str, str]:
        """Make it so; network id to what is in the way. Without `look` what was made before is taken to be there still.

        Links are all read with any `look`; entries, of which there may be thousands, are read of its links only.
        """
        try:
            return self._bring(wanted, look)
        except OSError:
            self._shapes.clear()
            self._programmed.clear()
            self._encryption_known = False
            raise

    def remove(self) -> None:
        """Take away every link that carries our mark, and what encrypted their traffic."""
        self.problems = self._bring_links({}, {})
        self._bring_encryption({}, None)
        for network_id, problem in self.problems.items():
            _log.warning("network %s: its links stay: %s", network_id, problem)

    def _bring(self, wanted: Mapping[str, OverlayWanted], look: Look | None) -> dict[str, str]:
        shapes = {network_id: _shape(overlay) for network_id, overlay in wanted.items()}
        # First of all: nothing of an encrypted network may go out before it is.
        plain = self._bring_encryption(wanted, look)
        if look is not None or self.problems or plain or shapes != self._shapes:
            self.problems = self._bring_links(wanted, plain)
            self._shapes = shapes
        # Of a network with a problem nothing is known: its entries are read when it is had again.
        for network_id in (self._programmed.keys() - wanted.keys()) | (self._programmed.keys() & self.problems.keys()):
            del self._programmed[network_id]
        for network_id, overlay in wanted.items():
            if network_id not in self.problems and (problem := self._bring_entries(overlay, look)):
                self.problems[network_id] = problem
        return self.problems

    def _bring_encryption(self, wanted: Mapping[str, OverlayWanted], look: Look | None) -> dict[str, str]:
        """Encrypted networks that cannot be, and why."""
        encrypted = [overlay for overlay in wanted.values() if overlay.encrypted]
        peers = frozenset(host for overlay in encrypted for host in overlay.endpoints.values())
        if encrypted and self.keys is None:
            return {overlay.id: "encrypted: the keys from the managers are not here yet" for overlay in encrypted}
        target = (peers, self.keys) if encrypted and self.keys is not None else None
        if (
            self._encryption_known
            and target == self._encrypted
            and not (look is not None and look.everything and target)
        ):
            return {}
        problem = self._encrypt(associations(self._site.host, *target) if target is not None else None)
        self._encryption_known, self._encrypted = not problem, target
        return {overlay.id: problem for overlay in encrypted} if problem else {}

    def _encrypt(self, wanted: frozenset[Association] | None) -> str:
        try:
            if self._encryption is None:
                self._encryption = Encryption(Netlink(XFRM, self._netns), self._site.host, self._site.port + 1)
            return self._encryption.bring(wanted)
        except OSError as error:
            # Where it cannot be spoken of there is nothing of ours either; hosts without encrypted networks need none of it.
            if error.errno not in (errno.EPROTONOSUPPORT, errno.EPERM):
                raise
            missing = (
                "kernel has no IPsec (XFRM)" if error.errno == errno.EPROTONOSUPPORT else "agent may not set up IPsec"
            )
            return f"encrypted: this {missing}" if wanted is not None else ""

    def _bring_links(self, wanted: Mapping[str, OverlayWanted], failed: dict[str, str]) -> dict[str, str]:
        for _ in range(_ROUNDS):
            links = read_links(self._netlink)
            names = Names(links)
            gone = ((links[step.index].alias.removeprefix(MARK), step) for step in removals(links, wanted))
            todo: list[tuple[str, Step]] = [(network_id, step) for network_id, step in gone if network_id not in failed]
            refused: dict[str, str] = {}
            for network_id, overlay in wanted.items():
                if network_id in failed:
                    continue
                decision = decide(overlay, names, self._site, self._ports.get(network_id))
                if decision.refused:
                    refused[network_id] = decision.refused
                todo += [(network_id, step) for step in decision.steps]
            if not todo:
                break
            failed |= self._carry_out(todo, links)
        else:
            refused |= {network_id: "its links are changed by somebody else all the time" for network_id, _ in todo}
        self._keep(wanted, names)
        return refused | failed

    def _keep(self, wanted: Mapping[str, OverlayWanted], names: Names) -> None:
        """Remember what was found at last."""
        ports = {
            network_id: remember(overlay, names, self._ports.get(network_id)) for network_id, overlay in wanted.items()
        }
        self._ports = {network_id: known for network_id, known in ports.items() if known is not None}
        found = {network_id: names.by_name.get(vxlan_name(network_id)) for network_id in wanted}
        self._vxlans = {network_id: link.index for network_id, link in found.items() if link is not None}
        self.indexes = frozenset(self._vxlans.values()) | {known.bridge for known in self._ports.values()}

    def _carry_out(self, todo: list[tuple[str, Step]], links: Links) -> dict[str, str]:
        """Network id to the first thing that failed for good."""
        for network_id, step in todo:
            _log.info("network %s: %s", network_id, step)
        failed: dict[str, str] = {}
        self.changes += len(todo)
        refusals = {refused.position: refused for refused in self._netlink.send([_request(step) for _, step in todo])}
        for position, refused in refusals.items():
            network_id, step = todo[position]
            if refused.code not in _PASSING and not (
                refused.code == errno.EEXIST and isinstance(step, MakeBridge | AddAddress)
            ):
                failed.setdefault(network_id, self._words(step, refused, links))
        # A mark only for what was made now: the name may be that of a link somebody else was quicker to make.
        made = (step for position, (_, step) in enumerate(todo) if position not in refusals)
        self._netlink.send(
            [mark_link(step.name, step.alias) for step in made if isinstance(step, MakeBridge | MakeVxlan)]
        )
        return failed

    def _words(self, step: Step, refused: Refused, links: Links) -> str:
        if isinstance(step, MakeVxlan) and refused.code == errno.EEXIST:
            return (
                f"VXLAN id {step.vxlan.vni} on UDP port {step.vxlan.port} is held by a link of another network namespace "
                "of this host: is there a Docker Swarm on it?"
            )
        if isinstance(step, SetUp) and refused.code == errno.EADDRINUSE and (vxlan := links[step.index].vxlan):
            return f"UDP port {vxlan.port} (VXLAN) is held by another program on this host"
        if refused.code == errno.EPERM:
            return "this agent may not change network links: it needs to be root (CAP_NET_ADMIN)"
        if refused.code == errno.EOPNOTSUPP and isinstance(step, MakeBridge | MakeVxlan):
            return f"this kernel has no {'bridges' if isinstance(step, MakeBridge) else 'VXLAN'}: {refused}"
        match step:
            case MakeBridge(name=name) | MakeVxlan(name=name):
                return f"link {name} cannot be made: {refused}"
            case _:
                link = links.get(step.index)
                return f"link {link.name if link else step.index} cannot be changed: {refused}"

    def _bring_entries(self, overlay: OverlayWanted, look: Look | None) -> str:
        """The problem in words, "" for none."""
        vxlan = self._vxlans[overlay.id]
        index, before = self._programmed.get(overlay.id, (0, Entries()))
        if index != vxlan or (look is not None and (look.everything or vxlan in look.indexes)):
            before = read_entries(self._netlink, vxlan)
        try:
            after = entries_of(overlay)
        except ValueError as error:
            return f"an address on it cannot be used: {error}"
        change = difference(before, after)
        self._programmed[overlay.id] = vxlan, after
        if not change:
            return ""
        sent = requests(change, vxlan)
        refused = [refused for refused in self._netlink.send(sent) if sent[refused.position].kind != DELNEIGH]
        if not refused:
            return ""
        # What is there now is not known: it is read again next time.
        del self._programmed[overlay.id]
        return f"{len(refused)} entries for other hosts' tasks cannot be made: {refused[0]}"


def _shape(overlay: OverlayWanted) -> tuple[object, ...]:
    return overlay.vni, overlay.gateways, overlay.mtu, overlay.encrypted, overlay.bridge_mac


def _request(step: Step) -> Request:
    match step:
        case MakeBridge(name=name, mac=mac, mtu=mtu):
            return make_bridge(name, mac, mtu)
        case MakeVxlan(name=name, vxlan=vxlan, mtu=mtu, master=master):
            return make_vxlan(name, vxlan, mtu, master)
        case Change(index=index, mac=mac, mtu=mtu, master=master, alias=alias):
            return change_link(index, mac=mac, mtu=mtu, master=master, alias=alias)
        case SetUp(index=index):
            return change_link(index, up=True)
        case Remove(index=index):
            return remove_link(index)
        case AddAddress(index=index, address=address):
            return add_address(index, address)
        case RemoveAddress(index=index, address=address):
            return remove_address(index, address)
