"""Overlays between three hosts (network namespaces) with real links: traffic, isolation, moves, and what others break."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from overlay_lab import NETWORK, POSSIBLE, Lab, Place, elsewhere, overlay, overlay_lab

from agent.network.mac import mac_of
from agent.network.overlay import Overlays, OverlayWanted, bridge_name, vxlan_name

pytestmark = [pytest.mark.root, pytest.mark.skipif(not POSSIBLE, reason="needs root and iproute2")]

OTHER = "netbbbbbbbb2" + "0" * 13
BRIDGE, VXLAN = bridge_name(NETWORK), vxlan_name(NETWORK)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with overlay_lab() as made:
        yield made


@contextlib.asynccontextmanager
async def every_host(lab: Lab) -> AsyncIterator[list[Overlays]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Overlays(host.address, netns=host.path)) for host in lab.hosts]


async def spread(lab: Lab, overlays: list[Overlays], places: dict[str, Place]) -> None:
    """Tell every host where the addresses of the network are."""
    for host, own in zip(lab.hosts, overlays, strict=True):
        assert await own.apply({NETWORK: overlay(elsewhere(places, host))}) == {}


async def test_full_packets_and_bulk_tcp_cross_hosts(lab: Lab) -> None:
    async with every_host(lab) as overlays:
        places = {f"10.0.1.{number + 5}": host for number, host in enumerate(lab.hosts)}
        await spread(lab, overlays, places)
        tasks = [lab.task(host, address) for address, host in places.items()]
        for task in tasks:
            for other in tasks:
                assert await task.reaches(other.address), f"{task.address} to {other.address}"
        # 1450 bytes fit, two more do not.
        assert not await tasks[0].reaches(tasks[1].address, size=1452, count=1)
        size = 64 * 1024 * 1024
        receive = (
            "import socket; s=socket.create_server(('0.0.0.0',9000)); print('up',flush=True); c,_=s.accept(); n=0\n"
            "while d:=c.recv(1<<20): n+=len(d)\nprint(n)"
        )
        send = f"import socket; c=socket.create_connection(('{tasks[1].address}',9000)); c.sendall(bytes({size}))"
        server = await tasks[1].start(sys.executable, "-c", receive)
        assert server.stdout is not None
        assert await server.stdout.readline() == b"up\n"
        client = await tasks[0].start(sys.executable, "-c", send)
        sent, _ = await client.communicate()
        assert client.returncode == 0, sent
        received, _ = await server.communicate()
        assert int(received) == size


async def test_networks_with_the_same_subnet_are_apart(lab: Lab) -> None:
    one, two, _ = lab.hosts
    async with every_host(lab) as overlays:
        first = {"10.0.1.5": one, "10.0.1.6": two}
        second = {"10.0.1.5": one, "10.0.1.9": two}
        for host, own in zip(lab.hosts, overlays, strict=True):
            both = {
                NETWORK: overlay(elsewhere(first, host)),
                OTHER: overlay(elsewhere(second, host), network=OTHER, vni=4098),
            }
            assert await own.apply(both) == {}
        here, there = lab.task(one, "10.0.1.5"), lab.task(two, "10.0.1.6")
        other_here, other_there = lab.task(one, "10.0.1.5", OTHER), lab.task(two, "10.0.1.9", OTHER)
        assert await here.reaches(there.address)
        assert await other_here.reaches(other_there.address)
        assert not await here.reaches(other_there.address, count=1)
        assert not await other_here.reaches(there.address, count=1)


async def test_an_address_that_moves_is_found_at_its_new_host(lab: Lab) -> None:
    one, two, three = lab.hosts
    async with every_host(lab) as overlays:
        watcher, address = "10.0.1.5", "10.0.1.6"
        await spread(lab, overlays, {watcher: one, address: two})
        task = lab.task(one, watcher)
        for place in (two, three, one, two):
            await spread(lab, overlays, {watcher: one, address: place})
            mover = lab.task(place, address)
            assert await task.reaches(address)
            assert await mover.reaches(watcher)
            lab.end(mover)
            assert not await task.reaches(address, count=1)


async def test_ipv6_subnets_carry_traffic_beside_ipv4(lab: Lab) -> None:
    one, two, _ = lab.hosts
    gateways = ("10.0.1.1/24", "fd00:1::1/64")
    async with Overlays(one.address, netns=one.path) as here, Overlays(two.address, netns=two.path) as there:

        def wanted(address: str, address6: str, host: Place) -> dict[str, OverlayWanted]:
            endpoints = {address: host.address, address6: host.address}
            macs = {address6: mac_of(address)}
            return {NETWORK: OverlayWanted(NETWORK, 4097, gateways, endpoints, macs=macs)}

        assert await here.apply(wanted("10.0.1.6", "fd00:1::6", two)) == {}
        assert await there.apply(wanted("10.0.1.5", "fd00:1::5", one)) == {}
        task = lab.task(one, "10.0.1.5", extra="fd00:1::5")
        lab.task(two, "10.0.1.6", extra="fd00:1::6")
        assert await task.reaches("10.0.1.6")
        assert await task.reaches("fd00:1::6", size=1400)
        assert await task.reaches("fd00:1::1", size=1400)


async def test_what_is_broken_by_hand_is_mended(lab: Lab) -> None:
    one, two, _ = lab.hosts
    async with every_host(lab) as overlays:
        await spread(lab, overlays, {"10.0.1.5": one, "10.0.1.6": two})
        here, there = lab.task(one, "10.0.1.5"), lab.task(two, "10.0.1.6")
        assert await here.reaches(there.address)
        mac = one.links("dev", BRIDGE)[0]["address"]
        for event in (
            f"link delete {BRIDGE}",
            f"link delete {VXLAN}",
            f"link set {VXLAN} down",
            f"link set {VXLAN} nomaster",
            f"link set {BRIDGE} down",
            f"address flush dev {BRIDGE}",
            f"link set {VXLAN} mtu 1400",
        ):
            one.ip(*event.split())
            async with asyncio.timeout(10):
                while not await here.reaches(there.address, count=1):
                    pass
            async with asyncio.timeout(10):
                while "10.0.1.1" not in one.ip("address", "show", "dev", BRIDGE):
                    await asyncio.sleep(0)
        assert one.links("dev", BRIDGE)[0]["address"] == mac
        assert await here.reaches("10.0.1.1")
        assert overlays[0].problems == {}


async def test_nothing_is_left_when_networks_go(lab: Lab) -> None:
    host = lab.hosts[0]
    before = host.names()
    async with Overlays(host.address, netns=host.path) as own:
        await own.apply({NETWORK: overlay({"10.0.1.6": "10.78.0.2"}), OTHER: overlay({}, network=OTHER, vni=4098)})
        assert host.names() == before | {BRIDGE, VXLAN, bridge_name(OTHER), vxlan_name(OTHER)}
        await own.apply({OTHER: overlay({}, network=OTHER, vni=4098)})
        assert host.names() == before | {bridge_name(OTHER), vxlan_name(OTHER)}
        await own.close(remove=True)
        assert host.names() == before


async def test_links_stay_when_the_agent_ends_and_are_found_again(lab: Lab) -> None:
    host = lab.hosts[0]
    before = host.names()
    async with Overlays(host.address, netns=host.path) as own:
        await own.apply({NETWORK: overlay({}), OTHER: overlay({}, network=OTHER, vni=4098)})
    indexes = {link["ifname"]: link["ifindex"] for link in host.links()}
    assert BRIDGE in indexes
    async with Overlays(host.address, netns=host.path) as own:
        await own.apply({NETWORK: overlay({})})
        now = {link["ifname"]: link["ifindex"] for link in host.links()}
        assert now.keys() == before | {BRIDGE, VXLAN}
        assert now.items() <= indexes.items()
        await own.close(remove=True)
    assert host.names() == before
