"""Published ports of a host: from outside, from itself, from its machines; beside what others have set up."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from balancer_stage import BRIDGE, POSSIBLE, WHY, Stage, stage, within

from agent.network import namespaces
from agent.network.balancers.choice import nftables_lacks
from agent.network.host_ports import HostPorts
from agent.network.interface import Backend, VirtualService

pytestmark = [pytest.mark.root, pytest.mark.skipif(not POSSIBLE, reason=WHY)]

TASKS = {"t1": "10.0.1.5", "t2": "10.0.1.6", "t3": "10.0.1.7"}


def published(*names: str, port: int = 8000, target: int = 80, protocol: str = "tcp") -> VirtualService:
    return VirtualService(
        "0.0.0.0", port, protocol, frozenset(Backend(TASKS[name], target) for name in names), source_nat=True
    )


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Stage]:
    """A host with three tasks on its ingress bridge, and the machine `outside` that reaches it at 192.0.2.1."""
    async with stage(tmp_path, TASKS.items()) as made:
        outside = await made.place("outside")
        near = made.places["host"]
        within(near, "ip", "link", "add", "ext", "type", "veth", "peer", "name", "eth0", "netns", str(outside))
        for place, link, address in ((near, "ext", "192.0.2.1/24"), (outside, "eth0", "192.0.2.2/24")):
            within(place, "ip", "address", "add", address, "dev", link)
            within(place, "ip", "link", "set", link, "up")
        yield made


@pytest.fixture
async def ports(host: Stage) -> AsyncIterator[HostPorts]:
    made = HostPorts(BRIDGE, host=host.places["host"])
    yield made
    await made.close(remove=True)


@pytest.mark.parametrize(
    ("place", "address"),
    [("outside", "192.0.2.1"), ("host", "127.0.0.1"), ("host", "192.0.2.1"), ("host", "10.0.1.1")],
)
async def test_every_own_address_answers_in_turn(host: Stage, ports: HostPorts, place: str, address: str) -> None:
    for name in TASKS:
        await host.listening(name, 80)
    await ports.apply(frozenset({published(*TASKS)}))
    answers = [await host.ask(place, address, 8000) for _ in range(9)]
    assert Counter(name for name, _ in answers) == {"t1": 3, "t2": 3, "t3": 3}
    assert {seen for _, seen in answers} == {"10.0.1.1"}


async def test_a_task_reaches_others_at_its_own_host(host: Stage, ports: HostPorts) -> None:
    for name in TASKS:
        await host.listening(name, 80)
    await ports.apply(frozenset({published("t2", "t3")}))
    answers = [await host.ask("t1", "10.0.1.1", 8000) for _ in range(4)]
    assert Counter(answers) == {("t2", "10.0.1.1"): 2, ("t3", "10.0.1.1"): 2}


async def test_datagrams_of_the_host_itself_and_of_others(host: Stage, ports: HostPorts) -> None:
    await host.answering("t1", 53)
    await ports.apply(frozenset({published("t1", port=5353, target=53, protocol="udp")}))
    assert await host.say(await host.sender("outside"), "192.0.2.1", 5353) == b"t1 hello"
    assert await host.say(await host.sender("host"), "127.0.0.1", 5353) == b"t1 hello"


async def test_without_a_backend_the_caller_is_refused(host: Stage, ports: HostPorts) -> None:
    await ports.apply(frozenset({published()}))
    for place, address in (("outside", "192.0.2.1"), ("host", "127.0.0.1")):
        with pytest.raises(ConnectionRefusedError):
            await host.ask(place, address, 8000)


async def test_a_task_that_goes_keeps_its_connections_until_they_are_forgotten(host: Stage, ports: HostPorts) -> None:
    for name in TASKS:
        await host.listening(name, 80)
    await ports.apply(frozenset({published(*TASKS)}))
    standing = [await host.connect("outside", "192.0.2.1", 8000) for _ in range(3)]
    await ports.apply(frozenset({published("t2", "t3")}))
    assert await host.count("outside", "192.0.2.1", 8000, 4) == {"t2": 2, "t3": 2}
    for _, _, reader, writer in standing:
        writer.write(b"on\n")
        assert await reader.readline() == b"on\n"
    assert await ports.forget([TASKS["t1"]]) == 1
    for who, _, reader, writer in standing:
        writer.write(b"on\n")
        if who == "t1":
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        else:
            assert await reader.readline() == b"on\n"


async def test_a_port_on_one_address_only(host: Stage, ports: HostPorts) -> None:
    await host.listening("t1", 80)
    await ports.apply(frozenset({VirtualService("192.0.2.1", 8000, "tcp", frozenset({Backend(TASKS["t1"], 80)}))}))
    assert await host.ask("outside", "192.0.2.1", 8000) == ("t1", "10.0.1.1")
    with pytest.raises(ConnectionRefusedError):
        await host.ask("host", "127.0.0.1", 8000)


async def test_other_ports_and_addresses_are_not_caught(host: Stage, ports: HostPorts) -> None:
    await host.listening("host", 9000)
    await host.listening("t1", 80)
    await host.listening("t2", 8000)
    await ports.apply(frozenset({published("t1")}))
    assert (await host.ask("outside", "192.0.2.1", 9000))[0] == "host"
    # Passing through the host to a port of that number elsewhere is none of its business.
    assert (await host.ask("host", TASKS["t2"], 8000))[0] == "t2"


async def test_an_engines_firewall_lets_it_pass(host: Stage, ports: HostPorts) -> None:
    near = host.places["host"]
    for rule in ("-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER"):
        within(near, "iptables", "-w", *rule.split())
    before = within(near, "iptables", "-S")
    await host.listening("t1", 80)
    await ports.apply(frozenset({published("t1")}))
    await ports.mend()
    assert (await host.ask("outside", "192.0.2.1", 8000))[0] == "t1"
    assert within(near, "iptables", "-S", "DOCKER-USER").count("swarmtui") == 2
    # Another way into the tasks is not opened by this.
    within(host.places["outside"], "ip", "route", "add", "10.0.1.0/24", "via", "192.0.2.1")
    probing = asyncio.create_task(host.ask("outside", TASKS["t1"], 80))
    assert await asyncio.wait([probing], timeout=1) == (set(), {probing})
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    await ports.close(remove=True)
    assert within(near, "iptables", "-S") == before


async def test_neighbours_cannot_reach_what_listens_on_127_0_0_1(host: Stage, ports: HostPorts) -> None:
    near = host.places["host"]
    await ports.apply(frozenset({published("t1")}))
    seen = "add table ip seen; add chain ip seen c { type filter hook prerouting priority -500 ; }; "
    seen += "add chain ip seen i { type filter hook input priority -500 ; }; "
    seen += f'add rule ip seen c iifname "{BRIDGE}" ip daddr 127.0.0.1 counter; '
    seen += f'add rule ip seen i iifname "{BRIDGE}" ip daddr 127.0.0.1 counter'
    within(near, "nft", seen)
    link = json.loads(within(near, "ip", "-j", "link", "show", BRIDGE))
    bridge = bytes.fromhex(link[0]["address"].replace(":", ""))
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0)
    packet += socket.inet_aton(TASKS["t1"]) + socket.inet_aton("127.0.0.1")
    total = sum(struct.unpack("!10H", packet))
    packet = packet[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + packet[12:]
    frame = bridge + b"\x02" * 6 + b"\x08\0" + packet + struct.pack("!HHHH", 1234, 9000, 8, 0)

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0))
            wire.send(frame)

    await namespaces.run_in(host.places["t1"], send)
    assert "packets 0" not in within(near, "nft", "list", "chain", "ip", "seen", "c")
    assert "packets 0" in within(near, "nft", "list", "chain", "ip", "seen", "i")


async def test_nothing_of_others_is_touched_and_nothing_is_left(host: Stage, ports: HostPorts) -> None:
    near = host.places["host"]
    rules = (
        "add table ip nat2; add chain ip nat2 pre { type nat hook prerouting priority -100 ; }; "
        "add rule ip nat2 pre tcp dport 9999 dnat to 10.0.1.5:80; "
        "add table inet filter2; add set inet filter2 s { type ipv4_addr ; elements = { 192.0.2.77 } ; }"
    )
    within(near, "nft", rules)
    before = within(near, "nft", "list", "ruleset")
    await ports.apply(frozenset({published(*TASKS), published("t1", port=8001), published("t1", protocol="sctp")}))
    assert within(near, "nft", "list", "ruleset").startswith(before.rstrip())
    await ports.apply(frozenset({published("t1")}))
    await ports.close(remove=True)
    await ports.close(remove=True)
    assert within(near, "nft", "list", "ruleset") == before


async def test_the_ports_outlive_the_agent_and_are_found_again(host: Stage) -> None:
    await host.listening("t1", 80)
    first = HostPorts(BRIDGE, host=host.places["host"])
    await first.apply(frozenset({published("t1"), published("t1", port=8001)}))
    _, _, reader, writer = await host.connect("outside", "192.0.2.1", 8000)
    await first.close(remove=False)
    assert (await host.ask("outside", "192.0.2.1", 8000))[0] == "t1"
    second = HostPorts(BRIDGE, host=host.places["host"])
    await second.apply(frozenset({published("t1")}))
    writer.write(b"on\n")
    assert await reader.readline() == b"on\n"
    with pytest.raises(ConnectionRefusedError):
        await host.ask("outside", "192.0.2.1", 8001)
    await second.close(remove=True)


async def test_what_the_kernel_can_is_found_out_by_trying(host: Stage, ports: HostPorts) -> None:
    near = host.places["host"]
    before = within(near, "nft", "list", "ruleset")
    assert await ports.lacks() is None
    assert within(near, "nft", "list", "ruleset") == before

    def without_rights() -> str | None:
        # CAP_NET_ADMIN taken from the thread that asks: capset for this thread alone.
        import ctypes

        header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, data) == 0
        with pytest.raises(PermissionError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
            pass
        return asyncio.run(nftables_lacks(None))

    lacks = await namespaces.run_in(near, without_rights)
    assert lacks is not None
    assert "not permitted" in lacks
