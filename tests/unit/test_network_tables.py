"""The manager's updates, put together."""

from __future__ import annotations

from agent.network.tables import NetworkTables
from agent.rpc.messages import NetworkUpdate, OverlayDescription, OverlayEndpoint, OverlayService, OverlaySubnet

NET = OverlayDescription("net", 4097, [OverlaySubnet("10.0.1.0/24", "10.0.1.1")], balancer="10.0.1.4")
WEB = OverlayService("s1", "web", vip="10.0.1.2")
ONE = OverlayEndpoint("t1", "10.0.1.3", "n1", "192.0.2.1", "s1", "web.1.t1")
TWO = OverlayEndpoint("t2", "10.0.1.5", "n2", "192.0.2.2", "s1", "web.2.t2")


def whole() -> NetworkUpdate:
    return NetworkUpdate("net1", complete=True, description=NET, services=[WEB], endpoints=[ONE, TWO])


def test_a_complete_update_makes_a_picture_and_names_all_of_it() -> None:
    tables = NetworkTables()
    change = tables.apply(whole())
    assert change.described
    assert change.services == {"s1"}
    assert change.endpoints == {"t1", "t2"}
    picture = tables.networks["net1"]
    assert picture is change.picture
    assert dict(picture.endpoints) == {"t1": ONE, "t2": TWO}


def test_the_same_again_is_no_change() -> None:
    tables = NetworkTables()
    tables.apply(whole())
    assert tables.apply(whole()).nothing


def test_a_difference_replaces_adds_and_removes_and_leaves_the_older_picture_alone() -> None:
    tables = NetworkTables()
    older = tables.apply(whole()).picture
    ready = OverlayEndpoint("t2", "10.0.1.5", "n2", "192.0.2.2", "s1", "web.2.t2", ready=True)
    change = tables.apply(NetworkUpdate("net1", endpoints=[ready], removed_endpoints=["t1", "never"]))
    assert not change.described
    assert change.endpoints == {"t1", "t2"}
    assert dict(tables.networks["net1"].endpoints) == {"t2": ready}
    assert tables.networks["net1"].services == {"s1": WEB}
    assert older is not None
    assert set(older.endpoints) == {"t1", "t2"}


def test_a_complete_update_takes_away_what_it_does_not_name() -> None:
    tables = NetworkTables()
    tables.apply(whole())
    change = tables.apply(NetworkUpdate("net1", complete=True, endpoints=[TWO]))
    assert change.services == {"s1"}
    assert change.endpoints == {"t1"}
    assert tables.networks["net1"].description == NET


def test_a_network_goes() -> None:
    tables = NetworkTables()
    tables.apply(whole())
    change = tables.apply(NetworkUpdate("net1", gone=True))
    assert change.picture is None
    assert not change.nothing
    assert not tables.networks


def test_a_difference_to_an_unknown_network_makes_none() -> None:
    tables = NetworkTables()
    assert tables.apply(NetworkUpdate("net1", endpoints=[ONE])).picture is None
    assert not tables.networks


def test_a_picture_can_be_told_as_an_update() -> None:
    tables = NetworkTables()
    tables.apply(whole())
    other = NetworkTables()
    other.apply(tables.networks["net1"].as_update())
    assert other.networks == tables.networks


def test_addresses_get_the_length_of_their_subnet() -> None:
    picture = NetworkTables().apply(whole()).picture
    assert picture is not None
    assert picture.with_length("10.0.1.4") == "10.0.1.4/24"
    assert picture.with_length("10.9.9.9") == "10.9.9.9/32"
