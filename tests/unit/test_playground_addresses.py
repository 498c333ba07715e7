"""Which addresses a session takes, given what the host has."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.playground.addresses import (
    CANDIDATES,
    LAST_NUMBER,
    Addressing,
    NoFreeSubnet,
    choose_offset,
    choose_subnet,
    host_link,
    hosts_file,
    instance_name,
    parse_routes,
)

ROUTES = """\
default via 192.0.2.1 dev eth0 proto dhcp metric 100
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.2
10.0.0.0/8 via 192.0.2.7 dev eth0
blackhole 198.51.100.0/24
local 192.168.210.5 dev lo table local proto kernel scope host src 192.168.210.5
broadcast 127.255.255.255 dev lo table local proto kernel scope link src 127.0.0.1
unreachable default dev lo metric 4294967295
"""


def test_routes_are_read_with_single_addresses_and_without_the_default() -> None:
    assert parse_routes(ROUTES) == [
        IPv4Network("192.0.2.0/24"),
        IPv4Network("10.0.0.0/8"),
        IPv4Network("198.51.100.0/24"),
        IPv4Network("192.168.210.5/32"),
        IPv4Network("127.255.255.255/32"),
    ]


def test_a_single_address_of_the_host_rules_its_subnet_out() -> None:
    assert choose_subnet(parse_routes(ROUTES)) == IPv4Network("192.168.211.0/24")


def test_a_default_route_rules_nothing_out() -> None:
    assert choose_subnet([IPv4Network("0.0.0.0/0")]) == CANDIDATES[0]


def test_a_host_whose_routes_cover_everything_is_told_what_to_do() -> None:
    with pytest.raises(NoFreeSubnet, match="--tier loopback"):
        choose_subnet([IPv4Network("192.168.0.0/16"), IPv4Network("10.0.0.0/8")])


@given(
    st.lists(
        st.builds(
            lambda address, prefix: IPv4Network((address, prefix), strict=False),
            st.integers(0, 2**32 - 1),
            st.integers(6, 32),
        ),
        max_size=20,
    )
)
def test_the_chosen_subnet_overlaps_with_nothing_taken(taken: list[IPv4Network]) -> None:
    try:
        chosen = choose_subnet(taken)
    except NoFreeSubnet:
        assert all(any(candidate.overlaps(network) for network in taken) for candidate in CANDIDATES)
    else:
        assert not any(chosen.overlaps(network) for network in taken)


def test_every_instance_has_an_address_of_its_own_apart_from_the_hosts() -> None:
    addressing = Addressing(IPv4Network("192.168.210.0/24"))
    addresses = {addressing.instance(number) for number in range(1, LAST_NUMBER + 1)}
    assert addressing.instance(1) == IPv4Address("192.168.210.11")
    assert len(addresses) == LAST_NUMBER
    assert addressing.host not in addresses
    assert IPv4Address("192.168.210.255") not in addresses


def test_loopback_addresses_are_those_that_the_agents_expect() -> None:
    addressing = Addressing(None)
    assert [str(addressing.instance(number)) for number in (1, 2, LAST_NUMBER)] == [
        "127.77.1.1",
        "127.77.2.1",
        f"127.77.{LAST_NUMBER}.1",
    ]
    assert addressing.host is None


def test_loopback_sessions_side_by_side_do_not_meet() -> None:
    offset = choose_offset({0}.__contains__)
    assert choose_offset(lambda offset: False) == 0
    assert choose_offset({0, offset}.__contains__) not in (0, offset)
    assert choose_offset(lambda offset: True) == 0
    first = {Addressing(None).instance(number) for number in range(1, 51)}
    second = {Addressing(None, offset).instance(number) for number in range(1, 51)}
    assert not first & second


@pytest.mark.parametrize("number", [0, -1, LAST_NUMBER + 1])
def test_numbers_out_of_range_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="numbers go from 1"):
        Addressing(IPv4Network("192.168.210.0/24")).instance(number)


def test_names_of_links_fit_into_what_the_kernel_takes() -> None:
    session = "abcdef"
    assert len(host_link(session)) <= 15
    assert len(f"{instance_name(LAST_NUMBER)}-{session}") <= 15


def test_the_hosts_file_names_every_instance() -> None:
    text = hosts_file(Addressing(IPv4Network("192.168.210.0/24")), range(1, 4))
    assert "192.168.210.13 node3\n" in text
    assert text.startswith("127.0.0.1 localhost\n")
