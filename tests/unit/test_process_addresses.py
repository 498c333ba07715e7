"""Addresses of tasks on the loopback network."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from agent.worker.executors.process.addresses import AddressPool, NoFreeAddress, node_network


def test_addresses_are_given_out_in_turn_and_come_again_last() -> None:
    pool = AddressPool(node_network(7))
    assert [pool.choose(set()) for _ in range(3)] == ["127.77.7.2", "127.77.7.3", "127.77.7.4"]
    seen = [pool.choose(set()) for _ in range(250)]
    assert seen[-1] == "127.77.7.254"
    assert len(set(seen)) == 250
    assert pool.choose(set()) == "127.77.7.2"


def test_what_is_taken_is_passed_over_and_the_last_one_is_remembered() -> None:
    pool = AddressPool(node_network(1), "127.77.1.9")
    assert pool.choose({"127.77.1.10", "127.77.1.11"}) == "127.77.1.12"
    assert AddressPool(node_network(1), "127.77.1.254").choose(set()) == "127.77.1.2"


def test_a_full_network_says_so() -> None:
    network = IPv4Network("127.77.1.0/29")
    pool = AddressPool(network)
    taken = {pool.choose(set()) for _ in range(5)}
    assert taken == {f"127.77.1.{n}" for n in range(2, 7)}
    with pytest.raises(NoFreeAddress, match=r"no address is free in 127\.77\.1\.0/29: 5 tasks"):
        pool.choose(taken)


def test_a_network_or_an_ordinal_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no room"):
        AddressPool(IPv4Network("127.77.1.0/31"))
    with pytest.raises(ValueError, match="0 to 255"):
        node_network(256)
