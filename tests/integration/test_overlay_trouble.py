"""Overlays where others are in the way, where the agent dies, and with a thousand tasks: real links in namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from overlay_lab import NETWORK, POSSIBLE, Lab, Place, answers, ip, overlay, overlay_lab

from agent.network.overlay import Overlays, bridge_name, vxlan_name
from agent.network.overlay.entries import read_entries
from agent.network.overlay.netlink import ROUTE, Netlink

pytestmark = [pytest.mark.root, pytest.mark.skipif(not POSSIBLE, reason="needs root and iproute2")]

OTHER = "netbbbbbbbb2" + "0" * 13
BRIDGE, VXLAN = bridge_name(NETWORK), vxlan_name(NETWORK)
AGENT = """
import asyncio, sys
from agent.network.overlay import Overlays, OverlayWanted
async def main():
    async with Overlays(sys.argv[1], netns=sys.argv[2]) as own:
        problems = await own.apply({sys.argv[3]: OverlayWanted(sys.argv[3], 4097, ("10.0.1.1/24",), {sys.argv[4]: sys.argv[5]})})
        print(problems or "ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with overlay_lab(2) as made:
        yield made


@contextlib.asynccontextmanager
async def holder(place: Place, code: str) -> AsyncIterator[None]:
    """A program that has done `code` in a namespace and waits."""
    process = await place.start(
        sys.executable, "-S", "-c", f"{code}\nprint('up', flush=True)\nimport time; time.sleep(60)"
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"up\n"
        yield
    finally:
        process.kill()
        await process.communicate()


async def until(true: Callable[[], bool]) -> None:
    """What has no event for this test to wait on: the mending of `Overlays`."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (BRIDGE, f"link add {BRIDGE} type veth peer name theirs"),
        (BRIDGE, f"link add {BRIDGE} type bridge"),
        (VXLAN, f"link add {VXLAN} type veth peer name theirs"),
        (VXLAN, f"link add {VXLAN} type vxlan id 7 dstport 4789"),
    ],
)
async def test_a_link_of_somebody_else_with_our_name_is_refused_and_left_alone(lab: Lab, name: str, made: str) -> None:
    host = lab.hosts[0]
    host.ip(*made.split())
    before = host.links()
    wanted = {NETWORK: overlay({"10.0.1.6": "10.78.0.2"}), OTHER: overlay({}, network=OTHER, vni=4098)}
    async with Overlays(host.address, netns=host.path) as own:
        problems = await own.apply(wanted)
        assert problems.keys() == {NETWORK}
        assert name in problems[NETWORK]
        assert "somebody else's" in problems[NETWORK]
        others = {bridge_name(OTHER), vxlan_name(OTHER)}
        assert [link for link in host.links() if link["ifname"] not in others] == before
        # The person takes it away: nobody has to be asked again.
        host.ip("link", "delete", name)
        await until(lambda: not own.problems)
        assert host.names() >= {BRIDGE, VXLAN}
        host.ip("link", "add", "ov-mine", "type", "bridge")
        await own.close(remove=True)
    assert host.names() == {"lo", "eth0", "ov-mine"}


async def test_a_bridge_that_the_engine_made_for_the_network_is_taken_over(lab: Lab) -> None:
    host = lab.hosts[0]
    host.ip("link", "add", BRIDGE, "type", "bridge")
    async with Overlays(host.address, netns=host.path) as own:
        assert own.problems == {}
        assert BRIDGE in (await own.apply({NETWORK: overlay({})}))[NETWORK]
        # An engine gives the bridge its address after it made it.
        host.ip("address", "add", "10.0.1.1/24", "dev", BRIDGE)
        await until(lambda: not own.problems)
        assert host.links("dev", BRIDGE)[0]["ifalias"].endswith(NETWORK)
        assert host.names() >= {BRIDGE, VXLAN}


async def test_a_vxlan_id_that_another_link_holds_is_told(lab: Lab) -> None:
    host = lab.hosts[0]
    host.ip("link", "add", "vxother", "type", "vxlan", "id", "4097", "dstport", "4789")
    async with Overlays(host.address, netns=host.path) as own:
        problems = await own.apply({NETWORK: overlay({})})
        assert problems[NETWORK] == "VXLAN id 4097 is held by the link vxother, which is somebody else's: remove it"
        assert "vxother" in host.names()
        host.ip("link", "delete", "vxother")
        await until(lambda: not own.problems)


async def test_a_vxlan_id_held_from_another_namespace_is_told(lab: Lab) -> None:
    host, other = lab.hosts
    host.ip("link", "add", "vxother", "type", "vxlan", "id", "4097", "dstport", "4789")
    host.ip("link", "set", "vxother", "netns", other.name)
    async with Overlays(host.address, netns=host.path, retry=0.05) as own:
        problems = await own.apply({NETWORK: overlay({})})
        assert "4097" in problems[NETWORK]
        assert "Docker Swarm" in problems[NETWORK]
        other.ip("link", "delete", "vxother")
        await until(lambda: not own.problems)


async def test_a_udp_port_that_a_program_holds_is_told_and_tried_again(lab: Lab) -> None:
    host = lab.hosts[0]
    async with Overlays(host.address, netns=host.path, retry=0.05) as own:
        hold = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 4789))"
        async with holder(host, hold):
            problems = await own.apply({NETWORK: overlay({})})
            assert problems[NETWORK] == "UDP port 4789 (VXLAN) is held by another program on this host"
        await until(lambda: not own.problems)
        assert "UP" in host.links("dev", VXLAN)[0]["flags"]


async def test_a_namespace_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        async with Overlays("10.78.0.1", netns="/run/netns/nowhere"):
            pass


async def test_without_privileges_the_network_says_so(lab: Lab) -> None:
    # The namespace is root's own: a user namespace has no say in it.
    code = AGENT.replace("asyncio.run(main())", "import os; os.setresuid(65534, 65534, 65534); asyncio.run(main())")
    host = lab.hosts[0]
    agent = await host.start(sys.executable, "-c", code, host.address, "", NETWORK, "10.0.1.6", "10.78.0.2")
    assert agent.stdout is not None
    try:
        assert b"needs to be root" in await agent.stdout.readline()
    finally:
        agent.kill()
        await agent.communicate()


async def test_no_packet_is_lost_when_the_agent_is_killed_and_comes_back(lab: Lab) -> None:
    one, two = lab.hosts

    async def agent() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, one.address, one.path, NETWORK, "10.0.1.6", two.address),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    async with Overlays(two.address, netns=two.path) as other:
        assert await other.apply({NETWORK: overlay({"10.0.1.5": one.address})}) == {}
        first = await agent()
        here = lab.task(one, "10.0.1.5")
        lab.task(two, "10.0.1.6")
        assert await here.reaches("10.0.1.6")
        ping = await here.ping("10.0.1.6", count=300, interval=0.01)
        first.kill()
        await first.wait()
        before = {link["ifname"]: link["ifindex"] for link in one.links()}
        second = await agent()
        assert await answers(ping) == (300, 300)
        assert {link["ifname"]: link["ifindex"] for link in one.links()} == before
        second.kill()
        await second.wait()


async def test_a_cancelled_apply_leaves_a_state_that_the_next_one_completes(lab: Lab) -> None:
    host = lab.hosts[0]
    endpoints = {f"10.0.1.{number}": "10.78.0.2" for number in range(10, 200)}
    async with Overlays(host.address, netns=host.path) as own:
        for moment in range(12):
            begun = asyncio.create_task(own.apply({NETWORK: overlay(endpoints)}))
            for _ in range(moment):
                await asyncio.sleep(0.001)
            begun.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await begun
            assert await own.apply({NETWORK: overlay(dict(list(endpoints.items())[moment:]))}) == {}
            assert len(programmed(host)) == 190 - moment
            assert await own.apply({}) == {}
            assert host.names() == {"lo", "eth0"}


def programmed(host: Place) -> set[str]:
    """Addresses that the kernel has both a neighbour and a way to a host for."""
    netlink = Netlink(ROUTE, host.path)
    try:
        entries = read_entries(netlink, host.links("dev", VXLAN)[0]["ifindex"])
    finally:
        netlink.close()
    return {".".join(map(str, address)) for address, mac in entries.neighbours.items() if mac in entries.fdb}


async def test_a_thousand_tasks_are_programmed_and_one_change_is_small(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    host = lab.hosts[0]
    gateways = ("10.0.16.1/20",)
    endpoints = {f"10.0.{16 + number // 250}.{number % 250 + 2}": f"10.78.0.{number % 7 + 2}" for number in range(1000)}
    async with Overlays(host.address, netns=host.path) as own:
        begun = time.perf_counter()
        assert await own.apply({NETWORK: overlay(endpoints, gateways=gateways)}) == {}
        first = time.perf_counter() - begun
        assert programmed(host) == endpoints.keys()
        times = []
        for number, address in enumerate(list(endpoints)[:20]):
            changed = dict(endpoints)
            if number % 2:
                changed[address] = "10.78.0.99"
            else:
                del changed[address]
            begun = time.perf_counter()
            assert await own.apply({NETWORK: overlay(changed, gateways=gateways)}) == {}
            times.append(time.perf_counter() - begun)
        assert programmed(host) == changed.keys()
        change = statistics.median(times)
        record_property("first_ms", round(first * 1000, 1))
        record_property("change_ms", round(change * 1000, 2))
        print(
            f"1000 endpoints: first {first * 1000:.1f} ms, one change {change * 1000:.2f} ms (worst {max(times) * 1000:.2f})"
        )
        assert first < 0.2
        assert change < 0.01
        # Somebody empties the tables and sets the link down: the event tells, and all is there again.
        host.ip("link", "set", VXLAN, "down")
        await until(lambda: programmed(host) == changed.keys())


@pytest.mark.parametrize(
    "wrong",
    [
        {"gateways": ("10.0.1.1/240",)},
        {"endpoints": {"web": "10.78.0.2"}},
        {"endpoints": {"10.0.1.6": "host2"}},
        {"endpoints": {"10.0.1.6": "10.78.0.2"}, "macs": {"10.0.1.6": "red"}},
        {"endpoints": {"10.0.1.6": "fd00::2"}},
        {"vni": 1 << 24},
        {"mtu": 20},
    ],
)
async def test_what_the_kernel_cannot_have_is_told_and_the_other_networks_are_had(
    lab: Lab, wrong: dict[str, Any]
) -> None:
    host = lab.hosts[0]
    good, bad = overlay({}, network=OTHER, vni=4098), dataclasses.replace(overlay({}), **wrong)
    async with Overlays(host.address, netns=host.path, retry=0.05) as own:
        problems = await own.apply({NETWORK: bad, OTHER: good})
        assert problems.keys() == {NETWORK}, wrong
        assert host.names() >= {bridge_name(OTHER), vxlan_name(OTHER)}
        assert await own.apply({NETWORK: overlay({}), OTHER: good}) == {}


async def test_a_storm_of_other_links_disturbs_nothing(lab: Lab) -> None:
    host = lab.hosts[0]
    async with Overlays(host.address, netns=host.path) as own:
        await own.apply({NETWORK: overlay({"10.0.1.6": "10.78.0.2"})})
        before = {link["ifname"]: link["ifindex"] for link in host.links()}
        batch = "".join(
            f"link add d{number} type bridge\nlink set d{number} up\nlink delete d{number}\n" for number in range(200)
        )
        process = await asyncio.create_subprocess_exec(
            *("ip", "-n", host.name, "-batch", "-"), stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(batch.encode())
        assert process.returncode == 0
        assert {link["ifname"]: link["ifindex"] for link in host.links()} == before
        host.ip("link", "delete", VXLAN)
        await until(lambda: VXLAN in host.names())
        assert ip("-n", host.name, "neigh", "show", "dev", VXLAN)
