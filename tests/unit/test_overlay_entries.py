"""Static entries for other hosts' tasks: the smallest change between any two states, and the messages that make it."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from agent.network.mac import mac_of
from agent.network.overlay.entries import DELNEIGH, NEWNEIGH, Entries, difference, entries_of, requests
from agent.network.overlay.interface import OverlayWanted
from agent.network.overlay.netlink import attribute, attributes, messages
from agent.network.overlay.picture import parse_link

_ADDRESSES = st.integers(2, 40).map(lambda number: f"10.0.1.{number}")
_HOSTS = st.integers(2, 6).map(lambda number: f"10.99.0.{number}")
_ENDPOINTS = st.dictionaries(_ADDRESSES, _HOSTS)


def _wanted(endpoints: dict[str, str], macs: dict[str, str] | None = None) -> OverlayWanted:
    return OverlayWanted("n", 4097, ("10.0.1.1/24",), endpoints, macs=macs or {})


def test_an_endpoint_is_a_neighbour_and_a_way() -> None:
    mac = bytes.fromhex("02420a000105")
    entries = entries_of(_wanted({"10.0.1.5": "10.99.0.2"}))
    assert entries == Entries({mac: bytes([10, 99, 0, 2])}, {bytes([10, 0, 1, 5]): mac})


def test_a_second_address_of_a_task_goes_with_the_mac_of_its_first() -> None:
    hosts = {"10.0.1.5": "10.99.0.2", "fd00::5": "10.99.0.2"}
    entries = entries_of(_wanted(hosts, {"fd00::5": mac_of("10.0.1.5")}))
    assert len(entries.fdb) == 1
    assert set(entries.neighbours) == {bytes([10, 0, 1, 5]), ipaddress.ip_address("fd00::5").packed}


def test_a_host_may_be_reached_over_ipv6() -> None:
    entries = entries_of(_wanted({"10.0.1.5": "fd01::2"}))
    assert list(entries.fdb.values()) == [ipaddress.ip_address("fd01::2").packed]


@given(_ENDPOINTS, _ENDPOINTS)
def test_the_difference_leads_from_one_to_the_other_and_touches_nothing_else(
    before: dict[str, str], after: dict[str, str]
) -> None:
    one, two = entries_of(_wanted(before)), entries_of(_wanted(after))
    change = difference(one, two)
    fdb = {mac: host for mac, host in one.fdb.items() if mac not in change.gone} | change.set_fdb
    neighbours = {ip: mac for ip, mac in one.neighbours.items() if ip not in change.lost} | change.set_neighbours
    assert (fdb, neighbours) == (two.fdb, two.neighbours)
    moved = {address for address, host in after.items() if before.get(address) != host}
    assert len(change.set_fdb) == len(moved)
    assert len(change.gone) == len(before.keys() - after.keys())
    assert bool(change) == (before != after)


@given(_ENDPOINTS, _ENDPOINTS)
def test_ways_are_there_before_they_are_asked_for_and_go_after(before: dict[str, str], after: dict[str, str]) -> None:
    made = requests(difference(entries_of(_wanted(before)), entries_of(_wanted(after))), 7)
    order = [(request.kind == DELNEIGH, (request.body[0] == 7) != (request.kind == DELNEIGH)) for request in made]
    new = [way for gone, way in order if not gone]
    old = [way for gone, way in order if gone]
    assert new == sorted(new, reverse=True)
    assert old == sorted(old, reverse=True)
    assert [gone for gone, _ in order] == sorted(gone for gone, _ in order)
    assert {request.kind for request in made} <= {NEWNEIGH, DELNEIGH}


@given(st.dictionaries(st.integers(1, 100), st.binary(max_size=40)))
def test_attributes_are_read_as_they_were_written(values: dict[int, bytes]) -> None:
    written = b"".join(attribute(kind, value) for kind, value in values.items())
    assert attributes(written) == values


@given(st.binary(max_size=200))
def test_damaged_messages_are_read_to_an_end(data: bytes) -> None:
    for _, _, _, body in messages(data):
        attributes(body)
        attributes(body, 16)


@given(st.binary(min_size=16, max_size=300))
def test_any_link_is_shown_somehow(data: bytes) -> None:
    assert parse_link(data, frozenset()).addresses == frozenset()
