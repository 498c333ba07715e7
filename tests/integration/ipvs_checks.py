"""What is of IPVS alone; run by test_balancer_ipvs.py in a kernel that has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from balancer_stage import BRIDGE, Stage, batch, stage, within

from agent.network import namespaces
from agent.network.balancers.choice import balancer_in
from agent.network.balancers.ipvs import IpvsBalancer
from agent.network.balancers.ipvs_plan import Service, Virtual, plan
from agent.network.balancers.ipvs_table import IpvsTable
from agent.network.interface import Backend, VirtualService
from agent.network.lb_namespace import LbNamespace

TASKS = {"a": "10.0.1.5", "b": "10.0.1.6", "c": "10.0.1.7"}
VIP = "10.0.1.2"
BY_MARK = Virtual(2, 0x0A000102)


def read(place: Path) -> dict[Virtual, Service]:
    with IpvsTable() as table:
        return table.read()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "lb"
    await namespaces.run_in(None, lambda: namespaces.make(path))
    # IPVS wants a way to every backend.
    batch(path, "link set lo up", "route add 10.0.1.0/24 dev lo")
    yield path
    namespaces.remove(path)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(tmp_path, TASKS.items()) as made:
        yield made


def every(*backends: tuple[str, int]) -> VirtualService:
    return VirtualService(VIP, 0, "", frozenset(Backend(address, 0, weight) for address, weight in backends))


async def test_the_table_follows_and_what_goes_is_drained_first(place: Path) -> None:
    balancer = await balancer_in(place, "lo")
    assert isinstance(balancer, IpvsBalancer)

    async def table() -> dict[Virtual, Service]:
        return await namespaces.run_in(place, lambda: read(place))

    web = VirtualService(VIP, 80, "tcp", frozenset({Backend("10.0.1.5", 8080), Backend("10.0.1.6", 8081)}))
    await balancer.apply(frozenset({every(("10.0.1.5", 1), ("10.0.1.6", 3)), web}))
    by_port = Virtual(2, 0, VIP, 6, 80)
    assert await table() == {
        BY_MARK: Service("wrr", {("10.0.1.5", 0): 1, ("10.0.1.6", 0): 3}),
        by_port: Service("rr", {("10.0.1.5", 8080): 1, ("10.0.1.6", 8081): 1}),
    }
    # Without a connection what is not wanted goes at once.
    again = IpvsBalancer(place, "lo")
    await again.apply(frozenset({every(("10.0.1.6", 1))}))
    assert await table() == {BY_MARK: Service("rr", {("10.0.1.6", 0): 1})}
    await again.close(remove=True)
    assert await table() == {}


async def test_addresses_of_version_6_are_read_as_they_were_written(place: Path) -> None:
    within(place, "ip", "-6", "route", "add", "fd00::/64", "dev", "lo")
    wanted = frozenset(
        {
            VirtualService("fd00::2", 80, "udp", frozenset({Backend("fd00::5", 8080)})),
            VirtualService("fd00::3", 0, "", frozenset({Backend("fd00::6", 0)})),
        }
    )
    balancer = IpvsBalancer(place, "lo")
    await balancer.apply(wanted)
    assert await namespaces.run_in(place, lambda: read(place)) == plan(wanted).state
    await balancer.close(remove=True)
    assert await namespaces.run_in(place, lambda: read(place)) == {}


async def test_a_drained_backend_goes_with_forget_and_comes_back_when_wanted(three: Stage) -> None:
    await three.listening("a", 80)
    await three.listening("b", 80)
    lb = LbNamespace("abcdefghijkl", BRIDGE, folder=three.folder, host=three.places["host"])

    async def weights() -> dict[tuple[str, int], int]:
        table = await namespaces.run_in(lb.path, lambda: read(lb.path))
        return dict(table[BY_MARK].destinations)

    try:
        both, one = every(("10.0.1.5", 1), ("10.0.1.6", 1)), every(("10.0.1.6", 1))
        await lb.apply("10.0.1.9/24", [VIP], frozenset({both}))
        standing = [await three.connect("c", VIP, 80) for _ in range(2)]
        assert {who for who, *_ in standing} == {"a", "b"}
        await lb.apply("10.0.1.9/24", [VIP], frozenset({one}))
        assert await weights() == {("10.0.1.5", 0): 0, ("10.0.1.6", 0): 1}
        await lb.apply("10.0.1.9/24", [VIP], frozenset({both}))
        assert await weights() == {("10.0.1.5", 0): 1, ("10.0.1.6", 0): 1}
        await lb.apply("10.0.1.9/24", [VIP], frozenset({one}))
        await lb.forget(["10.0.1.5"])
        assert await weights() == {("10.0.1.6", 0): 1}
    finally:
        await lb.close(remove=True)
