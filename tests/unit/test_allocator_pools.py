"""The pure parts of the allocator: runs of numbers, pools of addresses, subnets and identifiers of networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from manager_objects import NOW, a_node

from agent.api_types.common import Driver
from agent.api_types.network import IPAMConfig, IPAMOptions, Network, NetworkSpec
from agent.api_types.times import SECOND
from agent.manager.allocator.address_pool import QUARANTINE, AddressPool, IPAddress, NetworkPools, assignable
from agent.manager.allocator.intervals import Intervals
from agent.manager.allocator.subnets import (
    FIRST_VNI,
    OVERLAPS,
    VNI_OPTION,
    InvalidNetwork,
    Pool,
    Territory,
    Unallocatable,
    check_spec,
    hosts_of,
    ingress_network,
    pools_of,
    pools_of_cluster,
    vni_of,
)

runs = st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 12))


@given(st.lists(runs, max_size=30), st.integers(-2, 75))
def test_intervals_are_a_set_of_numbers(changes: list[tuple[bool, int, int]], probe: int) -> None:
    intervals, model = Intervals(), set[int]()
    for add, first, more in changes:
        numbers = set(range(first, first + more + 1))
        if add:
            intervals.add(first, first + more)
            model |= numbers
        else:
            intervals.remove(first, first + more)
            model -= numbers
        stretches = list(intervals)
        assert [n for first, last in stretches for n in range(first, last + 1)] == sorted(model)
        assert all(last + 1 < after for (_, last), (after, _) in pairwise(stretches))
    assert (probe in intervals) == (probe in model)
    assert intervals.next(probe) == min((n for n in model if n >= probe), default=None)
    within = {n for first, last in intervals.between(probe, probe + 9) for n in range(first, last + 1)}
    assert within == {n for n in model if probe <= n <= probe + 9}
    assert bool(intervals) == bool(model)


def test_a_run_that_ends_before_it_begins_is_refused() -> None:
    for change in (Intervals().add, Intervals().remove):
        with pytest.raises(ValueError, match="from 3 to 2"):
            change(3, 2)


def pool(subnet: str, within: str = "", gateway: str = "") -> AddressPool:
    return AddressPool(
        ip_network(subnet), ip_network(within) if within else None, ip_address(gateway) if gateway else None
    )


def test_addresses_come_in_order_and_leave_out_what_is_nobodys() -> None:
    small = pool("10.0.0.0/29", gateway="10.0.0.3")
    assert [str(small.take(NOW)) for _ in range(6)] == [
        "10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "None",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("subnet", "first", "last"),
    [
        ("10.0.0.0/24", "10.0.0.1", "10.0.0.254"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
    ],
)
def test_what_a_container_may_have(subnet: str, first: str, last: str) -> None:
    assert assignable(ip_network(subnet)) == (int(ip_address(first)), int(ip_address(last)))


def test_a_range_bounds_what_is_given_but_not_what_is_asked_for() -> None:
    ranged = pool("10.0.0.0/24", within="10.0.0.64/30", gateway="10.0.0.64")
    assert ranged.reserve(ip_address("10.0.0.200"))
    assert not ranged.reserve(ip_address("10.0.0.200"))
    assert not ranged.reserve(ip_address("10.0.0.64")), "the gateway's"
    assert not ranged.reserve(ip_address("10.0.0.255")), "the broadcast address"
    assert not ranged.reserve(ip_address("10.0.1.1"))
    assert ranged.room() == ranged.size == 3
    assert [str(ranged.take(NOW)) for _ in range(4)] == ["10.0.0.65", "10.0.0.66", "10.0.0.67", "None"]
    ranged.release(ip_address("10.0.0.200"), NOW)
    assert ranged.take(NOW) is None
    assert ranged.reserve(ip_address("10.0.0.200")), "a person may have one that rests"


def test_the_one_that_rested_longest_comes_first_when_none_else_is_left() -> None:
    small = pool("10.0.0.0/29")
    addresses = [small.take(NOW) for _ in range(6)]
    for at, number in ((3, 4), (1, 2), (2, 0)):
        address = addresses[number]
        assert address is not None
        small.release(address, NOW + at * SECOND)
    assert [small.take(NOW + 5 * SECOND) for _ in range(4)] == [addresses[2], addresses[0], addresses[4], None]


def test_a_leader_that_resumes_begins_far_from_what_is_in_use() -> None:
    wide = pool("10.0.0.0/24")
    for number in range(1, 51):
        assert wide.reserve(ip_address(f"10.0.0.{number}"))
    wide.resume()
    assert str(wide.take(NOW)) == "10.0.0.152"
    full = pool("10.0.0.0/30")
    assert (full.take(NOW), full.take(NOW)) != (None, None)
    full.resume()
    assert full.take(NOW) is None


class PoolMachine(RuleBasedStateMachine):
    """A pool against a list: nothing twice, all of it in the end, and nothing before its time."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = AddressPool(ip_network("10.0.0.0/27"), ip_network("10.0.0.8/29"), ip_address("10.0.0.9"))
        self.range = {number for number in range(8, 16) if number != 9}
        self.all = {number for number in range(1, 31) if number != 9}
        self.held: set[int] = set()
        self.freed: dict[int, int] = {}
        self.now = NOW

    @rule()
    def take(self) -> None:
        address = self.pool.take(self.now)
        free = self.range - self.held
        if address is None:
            assert not free
            return
        number = int(address) & 0xFF
        assert number in free
        rested = {each for each in free if self.freed.get(each, 0) + QUARANTINE <= self.now}
        if rested:
            assert number in rested
        else:
            assert self.freed[number] == min(self.freed[each] for each in free)
        self.held.add(number)

    @rule(number=st.integers(0, 31))
    def reserve(self, number: int) -> None:
        address: IPAddress = ip_address(f"10.0.0.{number}")
        assert self.pool.reserve(address) == (number in self.all - self.held)
        if number in self.all:
            self.held.add(number)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        self.pool.release(ip_address(f"10.0.0.{number}"), self.now)
        self.held.discard(number)
        self.freed[number] = self.now

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def resume(self) -> None:
        self.pool.resume()

    @invariant()
    def counts(self) -> None:
        assert self.pool.room() == len(self.range - self.held)
        assert self.pool.has_room() == bool(self.range - self.held)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
test_a_pool_against_a_list = PoolMachine.TestCase


def test_a_network_of_both_families_gives_one_of_each_or_nothing() -> None:
    pools = NetworkPools([pool("10.0.0.0/30", gateway="10.0.0.1"), pool("fd00::/64", gateway="fd00::1")])
    assert pools.room() == 1
    assert pools.take(NOW) == ["10.0.0.2/30", "fd00::2/64"]
    assert pools.take(NOW) is None
    pools.release("10.0.0.2/30", NOW)
    assert pools.take(NOW) == ["10.0.0.2/30", "fd00::3/64"], "nothing of IPv6 was lost"
    assert pools.reserve("fd00::77") == "fd00::77/64"
    assert pools.reserve("neither") is None


def test_a_second_subnet_is_used_when_the_first_is_full() -> None:
    pools = NetworkPools([pool("10.0.0.0/30", gateway="10.0.0.1"), pool("10.2.0.0/30", gateway="10.2.0.1")])
    assert [pools.take(NOW) for _ in range(3)] == [["10.0.0.2/30"], ["10.2.0.2/30"], None]
    assert pools.take_one(NOW) is None


# -- subnets and identifiers


def spec(*configs: IPAMConfig, name: str = "ov", options: dict[str, str] | None = None) -> NetworkSpec:
    driver = Driver(name="overlay", options=options or {})
    return NetworkSpec(name=name, driver_configuration=driver, ipam_options=IPAMOptions(configs=list(configs)))


def territory(*pools: str, size: int = 24) -> Territory:
    return Territory(pools_of_cluster(pools, size))


def make(territory: Territory, name: str, *configs: IPAMConfig, **options: str) -> Network:
    network = territory.allocate(Network(id=f"id-{name}", spec=spec(*configs, name=name, options=options)))
    territory.claim(network)
    return network


def shown(network: Network) -> list[tuple[str, str]]:
    assert network.ipam_options is not None
    return [(config.subnet, config.gateway) for config in network.ipam_options.configs]


def test_a_cluster_begins_as_docker_does() -> None:
    ground = territory()
    ingress = ingress_network("id-ingress", (), 0, "192.168.1.5")
    ground.claim(ingress)
    assert shown(ingress) == [("10.0.0.0/24", "10.0.0.1")]
    assert ingress.driver_state == Driver(name="overlay", options={VNI_OPTION: "4096"})
    assert ingress.ipam_options == IPAMOptions(
        driver=Driver(name="default"), configs=[IPAMConfig(subnet="10.0.0.0/24", gateway="10.0.0.1")]
    )
    first = make(ground, "ov1")
    assert shown(first) == [("10.0.1.0/24", "10.0.1.1")]
    assert vni_of(first) == 4097
    second = make(ground, "ov2", IPAMConfig(subnet="10.77.0.0/24", gateway="10.77.0.1"), encrypted="")
    assert shown(second) == [("10.77.0.0/24", "10.77.0.1")]
    assert second.driver_state.options == {VNI_OPTION: "4098", "encrypted": ""}
    assert [(shown(each)[0][0], vni_of(each)) for each in (make(ground, "a"), make(ground, "b"))] == [
        ("10.0.2.0/24", 4099),
        ("10.0.3.0/24", 4100),
    ]


def test_ingress_is_not_laid_over_the_first_manager() -> None:
    assert shown(ingress_network("i", (), 0, "10.0.0.7")) == [("10.0.1.0/24", "10.0.1.1")]
    assert shown(ingress_network("i", ("172.30.0.0/16",), 20, "host.name")) == [("172.30.0.0/20", "172.30.0.1")]


def test_what_was_given_back_comes_last() -> None:
    ground = territory("10.0.0.0/22")
    for name in "abc":
        make(ground, name)
    ground.forget("id-c")
    assert shown(make(ground, "d"))[0][0] == "10.0.3.0/24"
    last = make(ground, "e")
    assert shown(last)[0][0] == "10.0.2.0/24"
    assert vni_of(last) == FIRST_VNI + 4
    with pytest.raises(Unallocatable, match="no subnet is left in the cluster's address pools"):
        make(ground, "f")


def test_pools_are_used_one_after_the_other_around_what_is_there() -> None:
    ground = territory("10.1.0.0/23", "10.2.0.0/23")
    make(ground, "given", IPAMConfig(subnet="10.1.1.128/25"))
    node = a_node("n", address="10.2.0.9")
    ground.hosts = hosts_of([node])
    assert [shown(make(ground, name))[0][0] for name in "ab"] == ["10.1.0.0/24", "10.2.1.0/24"]
    with pytest.raises(Unallocatable) as refused:
        make(ground, "c")
    assert "docker network prune" in refused.value.advice


def test_what_is_taken_is_refused_in_dockers_words_and_ours() -> None:
    ground = territory()
    make(ground, "one", IPAMConfig(subnet="10.5.0.0/16"))
    with pytest.raises(Unallocatable, match=OVERLAPS) as refused:
        make(ground, "two", IPAMConfig(subnet="10.5.7.0/24"))
    assert "10.5.7.0/24 and 10.5.0.0/16 of network one" in str(refused.value)
    ground.hosts = hosts_of([a_node("n", address="192.168.3.4")])
    with pytest.raises(Unallocatable, match=r"192\.168\.3\.4 of node host-n"):
        make(ground, "three", IPAMConfig(subnet="192.168.3.0/24"))
    make(ground, "four", **{VNI_OPTION: "5000"})
    with pytest.raises(Unallocatable, match="vxlan id 5000 is in use by network four"):
        make(ground, "five", **{VNI_OPTION: "5000"})
    assert vni_of(make(ground, "six")) == FIRST_VNI + 1, "a number that was named does not move the others"


def test_subnets_of_both_families() -> None:
    ground = territory()
    both = make(ground, "both", IPAMConfig(subnet="fd00:5::/64"))
    assert shown(both) == [("10.0.0.0/24", "10.0.0.1"), ("fd00:5::/64", "fd00:5::1")]
    assert pools_of(both).take(NOW) == ["10.0.0.2/24", "fd00:5::2/64"]
    several = make(ground, "several", IPAMConfig(subnet="10.8.0.0/24"), IPAMConfig(subnet="10.9.0.0/24"))
    assert shown(several) == [("10.8.0.0/24", "10.8.0.1"), ("10.9.0.0/24", "10.9.0.1")]


def test_a_gateway_comes_from_the_range() -> None:
    ranged = make(territory(), "r", IPAMConfig(subnet="172.28.0.0/16", range="172.28.5.0/24"))
    assert shown(ranged) == [("172.28.0.0/16", "172.28.5.0")]
    assert pools_of(ranged).take(NOW) == ["172.28.5.1/16"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (IPAMConfig(subnet="10.0.0.0"), "invalid subnet 10.0.0.0"),
        (IPAMConfig(subnet="10.0.0.300/24"), "invalid subnet 10.0.0.300/24"),
        (IPAMConfig(subnet="ten"), "invalid subnet ten"),
        (IPAMConfig(subnet="10.0.0.0/24", range="x"), "invalid range x"),
        (IPAMConfig(subnet="10.0.0.0/24", range="10.0.1.0/25"), "does not contain range 10.0.1.0/25"),
        (IPAMConfig(subnet="10.0.0.0/24", range="fd00::/64"), "does not contain range fd00::/64"),
        (IPAMConfig(subnet="10.0.0.0/24", gateway="10.0.1.1"), "does not contain gateway 10.0.1.1"),
        (IPAMConfig(subnet="10.0.0.0/24", gateway="?"), "invalid gateway ?"),
        (IPAMConfig(gateway="10.0.0.1"), "a range or a gateway needs a subnet"),
        (IPAMConfig(subnet="10.0.0.0/32"), "no room"),
    ],
)
def test_specs_that_mean_nothing(config: IPAMConfig, text: str) -> None:
    with pytest.raises(InvalidNetwork) as refused:
        check_spec(spec(config))
    assert text in str(refused.value)


def test_a_spec_may_not_overlap_itself_nor_name_a_strange_identifier() -> None:
    with pytest.raises(InvalidNetwork, match=OVERLAPS):
        check_spec(spec(IPAMConfig(subnet="10.0.0.0/16"), IPAMConfig(subnet="10.0.4.0/24")))
    for text in ("0", "16777216", "many", "-1", "٣"):
        with pytest.raises(InvalidNetwork, match="invalid vxlan id"):
            check_spec(spec(options={VNI_OPTION: text}))


@pytest.mark.parametrize(
    ("pools", "size"), [(["10.0.0.0/24"], 16), (["ten"], 24), (["10.0.0.0/8"], 31), (["fd00::/48", "10.0.0.0/8"], 64)]
)
def test_pools_that_cannot_be_cut(pools: list[str], size: int) -> None:
    with pytest.raises(InvalidNetwork, match="invalid address pool"):
        pools_of_cluster(pools, size)


def test_a_network_of_another_driver_gets_nothing() -> None:
    macvlan = NetworkSpec(name="lan", driver_configuration=Driver(name="macvlan", options={"parent": "eth0"}))
    network = territory().allocate(Network(id="lan", spec=macvlan))
    assert network.driver_state == Driver(name="macvlan", options={"parent": "eth0"})
    assert network.ipam_options is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.integers(0, 9),
            st.tuples(st.integers(0, 63), st.integers(22, 29)),
        ),
        max_size=40,
    )
)
def test_subnets_never_overlap_and_none_is_refused_while_there_is_room(
    steps: list[int | tuple[int, int] | None],
) -> None:
    """None makes a network, a number removes one, a pair makes one with a subnet of its own."""
    ground = territory("10.0.0.0/21")
    alive: list[Network] = []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if step < len(alive):
                ground.forget(alive.pop(step).id)
            continue
        configs = []
        if step is not None:
            configs = [IPAMConfig(subnet=f"10.0.{step[0] // 8}.{step[0] % 8 * 32}/{step[1]}")]
        taken = [ip_network(subnet) for network in alive for subnet, _ in shown(network)]
        wanted = [ip_network(config.subnet, strict=False) for config in configs]
        wanted = wanted or list(ip_network("10.0.0.0/21").subnets(new_prefix=24))
        free = [subnet for subnet in wanted if not any(subnet.overlaps(each) for each in taken)]
        try:
            network = make(ground, f"n{number}", *configs)
        except Unallocatable:
            assert not free
            continue
        assert ip_network(shown(network)[0][0]) in free
        assert vni_of(network) not in {vni_of(each) for each in alive}
        alive.append(network)


def test_networks_claimed_again_change_nothing() -> None:
    ground = Territory([Pool(ip_network("10.0.0.0/8"), 24)])
    network = make(ground, "a")
    make(ground, "b")
    ground.claim(msgspec.structs.replace(network, updated_at="later"))
    assert ground.vnis == {FIRST_VNI: "id-a", FIRST_VNI + 1: "id-b"}
    ground.forget("id-b")
    assert shown(make(ground, "c"))[0][0] == "10.0.2.0/24"
