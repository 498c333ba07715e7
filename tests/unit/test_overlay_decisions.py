"""What is done to links for the wanted networks: single cases, and any starting point against a model of the kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.mac import bridge_mac, mac_of
from agent.network.overlay.decisions import (
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
    mark,
    remember,
    removals,
)
from agent.network.overlay.interface import OverlayWanted, bridge_name, vxlan_name
from agent.network.overlay.picture import Link, Vxlan

SITE = Site("10.99.0.1", 4789)
ONE, TWO = "aaaaaaaaaa111", "bbbbbbbbbb222"


def wanted(network: str = ONE, vni: int = 4097, **other: object) -> OverlayWanted:
    return dataclasses.replace(OverlayWanted(network, vni, ("10.0.1.1/24",)), **other)  # type: ignore[arg-type]


def carry_out(links: dict[int, Link], step: Step) -> None:
    """What the kernel does of a step."""
    index = max(links, default=0) + 1
    match step:
        case MakeBridge(name=name, mac=mac, mtu=mtu, alias=alias):
            assert name not in {link.name for link in links.values()}
            links[index] = Link(index, name, "bridge", mac, mtu, True, alias=alias)
        case MakeVxlan(name=name, vxlan=vxlan, mtu=mtu, master=master, alias=alias):
            assert name not in {link.name for link in links.values()}
            assert vxlan.vni not in {link.vxlan.vni for link in links.values() if link.vxlan}
            assert links[master].kind == "bridge"
            links[index] = Link(index, name, "vxlan", "06:00:00:00:00:01", mtu, False, master, alias, vxlan)
        case Change(index=at):
            given_ = {
                name: value for name in ("mac", "mtu", "master", "alias") if (value := getattr(step, name)) is not None
            }
            assert given_
            links[at] = dataclasses.replace(links[at], **given_)
        case SetUp(index=at):
            links[at] = dataclasses.replace(links[at], up=True)
        case Remove(index=at):
            del links[at]
            for other in list(links.values()):
                if other.master == at:
                    links[other.index] = dataclasses.replace(other, master=0)
        case AddAddress(index=at, address=address):
            links[at] = dataclasses.replace(links[at], addresses=links[at].addresses | {address})
        case RemoveAddress(index=at, address=address):
            links[at] = dataclasses.replace(links[at], addresses=links[at].addresses - {address})


def settle(links: dict[int, Link], networks: Mapping[str, OverlayWanted], ports: Mapping[str, Ports]) -> dict[str, str]:
    """Decide and carry out until nothing is to be done; why networks are refused."""
    for _ in range(8):
        names = Names(links)
        decisions = {name: decide(overlay, names, SITE, ports.get(name)) for name, overlay in networks.items()}
        steps = [*removals(links, networks), *(step for decision in decisions.values() for step in decision.steps)]
        if not steps:
            return {name: decision.refused for name, decision in decisions.items() if decision.refused}
        links = _after(links, steps)
    raise AssertionError("it does not come to an end")


def _after(links: dict[int, Link], steps: list[Step]) -> dict[int, Link]:
    for step in steps:
        carry_out(links, step)
    return links


def named(links: Mapping[int, Link], name: str) -> Link:
    return next(link for link in links.values() if link.name == name)


def test_a_network_comes_to_an_empty_host() -> None:
    links: dict[int, Link] = {}
    assert settle(links, {ONE: wanted()}, {}) == {}
    bridge, vxlan = named(links, bridge_name(ONE)), named(links, vxlan_name(ONE))
    assert (bridge.kind, bridge.up, bridge.mtu, bridge.alias) == ("bridge", True, 1450, mark(ONE))
    assert (bridge.mac, bridge.addresses) == (bridge_mac(ONE, SITE.host), {"10.0.1.1/24"})
    assert vxlan.vxlan == Vxlan(4097, 4789, "10.99.0.1", learning=False, proxy=True)
    assert (vxlan.up, vxlan.master, vxlan.alias) == (True, bridge.index, mark(ONE))


def test_what_is_there_is_left_as_it_is() -> None:
    links: dict[int, Link] = {}
    settle(links, {ONE: wanted()}, {})
    assert decide(wanted(), Names(links), SITE, None).steps == ()


@pytest.mark.parametrize("alias", ["", "theirs", mark(TWO)])
def test_links_of_our_names_that_are_not_ours_are_refused(alias: str) -> None:
    for name, kind in ((bridge_name(ONE), "bridge"), (vxlan_name(ONE), "vxlan"), (bridge_name(ONE), "veth")):
        vxlan = Vxlan(9, 4789, "10.99.0.1") if kind == "vxlan" else None
        link = Link(3, name, kind, "06:00:00:00:00:09", 1500, alias=alias, vxlan=vxlan)
        decision = decide(wanted(), Names({3: link}), SITE, None)
        assert decision.steps == ()
        assert name in decision.refused


def test_a_bridge_that_the_engine_made_is_ours_by_its_gateway() -> None:
    bridge = Link(3, bridge_name(ONE), "bridge", "02:42:00:00:00:09", 1500, True, addresses=frozenset({"10.0.1.1/24"}))
    links = {3: bridge}
    assert settle(links, {ONE: wanted()}, {}) == {}
    assert (links[3].mac, links[3].mtu, links[3].alias) == (bridge_mac(ONE, SITE.host), 1450, mark(ONE))


def test_another_vxlan_id_means_another_link() -> None:
    links: dict[int, Link] = {}
    settle(links, {ONE: wanted()}, {})
    before = named(links, vxlan_name(ONE)).index
    assert decide(wanted(vni=5000), Names(links), SITE, None).steps == (Remove(before),)
    assert settle(links, {ONE: wanted(vni=5000)}, {}) == {}
    after = named(links, vxlan_name(ONE))
    assert after.vxlan is not None
    assert after.vxlan.vni == 5000


def test_a_vxlan_id_of_a_network_that_goes_is_free_for_the_next() -> None:
    links: dict[int, Link] = {}
    settle(links, {ONE: wanted()}, {})
    assert settle(links, {TWO: wanted(TWO)}, {}) == {}
    assert {link.alias for link in links.values()} == {mark(TWO)}


def test_ports_of_a_bridge_that_was_deleted_come_back_to_the_new_one() -> None:
    links: dict[int, Link] = {}
    settle(links, {ONE: wanted()}, {})
    bridge = named(links, bridge_name(ONE)).index
    links[50] = Link(50, "veth1", "veth", master=bridge)
    links[51] = Link(51, "veth2", "veth", master=bridge)
    links[52] = Link(52, "veth3", "veth")
    ports = remember(wanted(), Names(links), None)
    assert ports == Ports(bridge, frozenset({(50, "veth1"), (51, "veth2")}))
    carry_out(links, Remove(bridge))
    # Seen before the new bridge is there: nothing is forgotten.
    ports = remember(wanted(), Names(links), ports)
    assert ports is not None
    # Another link may have got the index of one that is gone.
    links[51] = Link(51, "other", "veth")
    assert settle(links, {ONE: wanted()}, {ONE: ports}) == {}
    made = named(links, bridge_name(ONE)).index
    assert [links[index].master for index in (50, 51, 52)] == [made, 0, 0]


def test_a_port_taken_off_by_hand_stays_off() -> None:
    links: dict[int, Link] = {}
    settle(links, {ONE: wanted()}, {})
    bridge = named(links, bridge_name(ONE)).index
    links[50] = Link(50, "veth1", "veth")
    ports = Ports(bridge, frozenset({(50, "veth1")}))
    assert decide(wanted(), Names(links), SITE, ports).steps == ()


def _links() -> st.SearchStrategy[dict[int, Link]]:
    """Whatever may be on a host, with our names or not, marked or not."""
    names = [bridge_name(ONE), vxlan_name(ONE), bridge_name(TWO), vxlan_name(TWO), "eth0", "docker0", "vxlan7"]
    aliases = ["", mark(ONE), mark(TWO), mark("gone"), "theirs"]
    shapes = st.builds(
        Vxlan,
        st.sampled_from([4097, 4098, 7]),
        st.just(4789),
        st.sampled_from([SITE.host, "10.99.0.9"]),
        st.booleans(),
        st.booleans(),
    )

    @st.composite
    def one(draw: st.DrawFn, index: int, name: str) -> Link:
        kind = draw(st.sampled_from(["bridge", "vxlan", "veth"]))
        return Link(
            index,
            name,
            kind,
            draw(st.sampled_from([bridge_mac(ONE, SITE.host), "06:00:00:00:00:07"])),
            draw(st.sampled_from([1450, 1500])),
            draw(st.booleans()),
            0,
            draw(st.sampled_from(aliases)),
            draw(shapes) if kind == "vxlan" else None,
            draw(st.frozensets(st.sampled_from(["10.0.1.1/24", "10.0.2.1/24"]))) if kind == "bridge" else frozenset(),
        )

    @st.composite
    def several(draw: st.DrawFn) -> dict[int, Link]:
        chosen = draw(st.lists(st.sampled_from(names), unique=True))
        links = {index: draw(one(index, name)) for index, name in enumerate(chosen, 1)}
        # The kernel has one link of a VXLAN id and port.
        seen: set[int] = set()
        for index, link in list(links.items()):
            if link.vxlan is not None and (link.vxlan.vni in seen or seen.add(link.vxlan.vni)):  # type: ignore[func-returns-value]
                del links[index]
        return links

    return several()


@given(_links(), st.sets(st.sampled_from([ONE, TWO])))
def test_from_anywhere_it_ends_with_what_is_wanted_and_what_is_others_untouched(
    links: dict[int, Link], which: set[str]
) -> None:
    networks = {
        name: overlay
        for name, overlay in {ONE: wanted(), TWO: wanted(TWO, 4098, gateways=("10.0.2.1/24",))}.items()
        if name in which
    }
    before = dict(links)
    refused = settle(links, networks, {})
    for name, overlay in networks.items():
        if name not in refused:
            bridge, vxlan = named(links, bridge_name(name)), named(links, vxlan_name(name))
            assert bridge.addresses == set(overlay.gateways)
            assert (bridge.up, vxlan.up, vxlan.master) == (True, True, bridge.index)
            assert vxlan.vxlan == Vxlan(overlay.vni, 4789, SITE.host)
    ours = {mark(ONE), mark(TWO), mark("gone"), ""}
    for index, link in before.items():
        if link.alias not in ours or (link.name in ("eth0", "docker0", "vxlan7") and not link.alias):
            assert links[index] == link
    for link in links.values():
        assert not link.alias.startswith(mark("")) or link.alias.removeprefix(mark("")) in networks
    assert settle(links, {}, {}) == {}
    assert not any(link.alias.startswith(mark("")) for link in links.values())


def test_macs_are_derived_as_an_engine_does() -> None:
    assert mac_of("10.0.1.5") == "02:42:0a:00:01:05"
    six = {mac_of("fd00::1"), mac_of("fd00::2"), mac_of("fd00:0:0:1::1")}
    assert len(six) == 3
    for mac in (*six, bridge_mac(ONE, "10.0.0.1"), mac_of("255.1.2.3")):
        # Of one host, and not of any maker's.
        assert int(mac[:2], 16) & 3 == 2
    assert mac_of("fd00::1") == mac_of("fd00:0::0:1")
    with pytest.raises(ValueError):
        mac_of("web")
