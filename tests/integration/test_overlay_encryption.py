"""Encrypted overlays between hosts, on kernels that have ESP: nothing plain on the wire, and keys that change."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from overlay_lab import NETWORK, POSSIBLE, Lab, Place, answers, elsewhere, overlay, overlay_lab

from agent.network.overlay import Overlays, bridge_name
from agent.network.overlay.interface import ENCRYPTED_MTU
from agent.rpc.messages import NetworkKey, NetworkKeys

OTHER = "netbbbbbbbb2" + "0" * 13
ONE, TWO, THREE = (NetworkKey(number, bytes([number]) * 16) for number in (1, 2, 3))

CAPTURE = """
import collections, select, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
print("started", flush=True)
seen = collections.Counter()
while True:
    ready, _, _ = select.select([wire, sys.stdin], [], [])
    if sys.stdin in ready:
        break
    data = wire.recv(65536)
    if data[12:14] == b"\\x08\\x00":
        protocol = data[23]
        port = int.from_bytes(data[36:38], "big") if protocol == 17 else 0
        seen["esp" if protocol == 50 else f"udp{port}" if protocol == 17 else "other"] += 1
print(dict(seen))
"""


def _esp() -> bool:
    """Whether the kernel has ESP with AES-GCM: tried in a namespace of its own."""
    if not POSSIBLE:
        return False
    with overlay_lab(1) as lab, contextlib.suppress(Exception):
        state = "xfrm state add src 10.1.1.1 dst 10.1.1.2 proto esp spi 0x1000 mode transport aead rfc4106(gcm(aes))"
        lab.hosts[0].ip(*state.split(), "0x" + "11" * 36, "128")
        return True
    return False


pytestmark = [pytest.mark.root, pytest.mark.skipif(not _esp(), reason="needs root and a kernel with ESP and AES-GCM")]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with overlay_lab() as made:
        yield made


@contextlib.asynccontextmanager
async def every_host(lab: Lab) -> AsyncIterator[list[Overlays]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Overlays(host.address, netns=host.path)) for host in lab.hosts]


class Capture:
    """Counts kinds of packets at a host's cable: "esp", "udpPORT", "other"."""

    async def begin(self, host: Place) -> None:
        within = ("ip", "netns", "exec", host.name, sys.executable, "-S", "-c", CAPTURE)
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*within, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"started\n"

    async def end(self) -> str:
        output, _ = await self._process.communicate(b"\n")
        return output.decode()


def places(lab: Lab) -> dict[str, Place]:
    return {f"10.0.1.{number + 5}": host for number, host in enumerate(lab.hosts)}


async def test_only_esp_is_on_the_wire_and_packets_arrive(lab: Lab) -> None:
    one = lab.hosts[0]
    everywhere = places(lab)
    async with every_host(lab) as overlays:
        for host, own in zip(lab.hosts, overlays, strict=True):
            problems = await own.apply({NETWORK: overlay(elsewhere(everywhere, host), encrypted=True)})
            assert "keys" in problems[NETWORK]
            assert bridge_name(NETWORK) not in host.names()
            await own.rekey(NetworkKeys([ONE, TWO], 1))
            assert own.problems == {}
        tasks = [lab.task(host, address) for address, host in everywhere.items()]
        capture = Capture()
        await capture.begin(one)
        for task in tasks:
            for other in tasks:
                assert await task.reaches(other.address, size=ENCRYPTED_MTU), f"{task.address} to {other.address}"
        seen = await capture.end()
        assert "'esp'" in seen
        assert "udp478" not in seen
        assert "udp479" not in seen
        for host, own in zip(lab.hosts, overlays, strict=True):
            await own.close(remove=True)
            assert host.ip("xfrm", "state") == host.ip("xfrm", "policy") == ""
            assert not {name for name in host.names() if name.startswith(("ov-", "vx-"))}


async def test_a_plain_network_beside_it_stays_plain_and_works(lab: Lab) -> None:
    one, two, _ = lab.hosts
    async with every_host(lab) as overlays:
        for host, own in zip(lab.hosts, overlays, strict=True):
            await own.rekey(NetworkKeys([ONE], 1))
            there = elsewhere({"10.0.1.5": one, "10.0.1.6": two}, host)
            both = {
                NETWORK: overlay(there, encrypted=True),
                OTHER: overlay(there, network=OTHER, vni=4098),
            }
            assert await own.apply(both) == {}
        secret, _ = lab.task(one, "10.0.1.5"), lab.task(two, "10.0.1.6")
        plain, _ = lab.task(one, "10.0.1.5", OTHER), lab.task(two, "10.0.1.6", OTHER)
        assert await secret.reaches("10.0.1.6", size=ENCRYPTED_MTU)
        capture = Capture()
        await capture.begin(one)
        assert await plain.reaches("10.0.1.6")
        assert "udp4789" in await capture.end()


async def test_keys_change_host_by_host_without_a_lost_packet(lab: Lab) -> None:
    everywhere = places(lab)
    async with every_host(lab) as overlays:
        for host, own in zip(lab.hosts, overlays, strict=True):
            await own.rekey(NetworkKeys([ONE, TWO], 1))
            assert await own.apply({NETWORK: overlay(elsewhere(everywhere, host), encrypted=True)}) == {}
        tasks = [lab.task(host, address) for address, host in everywhere.items()]
        assert await tasks[0].reaches(tasks[1].address, size=ENCRYPTED_MTU)
        pings = [
            await tasks[at].ping(tasks[to].address, size=ENCRYPTED_MTU, count=150, interval=0.02)
            for at, to in ((0, 1), (1, 2), (2, 0))
        ]
        # Each step is done by one host after the other: half of them have it while the others have not.
        for keys in (NetworkKeys([ONE, TWO], 2), NetworkKeys([TWO, THREE], 2), NetworkKeys([TWO, THREE], 3)):
            for own in overlays:
                await own.rekey(keys)
                assert own.problems == {}
        for ping in pings:
            sent, answered = await answers(ping)
            assert answered == sent


async def test_a_host_with_other_keys_is_not_heard(lab: Lab) -> None:
    one, two, _ = lab.hosts
    async with every_host(lab) as overlays:
        for host, own, key in zip(lab.hosts, overlays, (ONE, NetworkKey(1, b"x" * 16), ONE), strict=True):
            await own.rekey(NetworkKeys([key], 1))
            there = elsewhere({"10.0.1.5": one, "10.0.1.6": two}, host)
            assert await own.apply({NETWORK: overlay(there, encrypted=True)}) == {}
        task, _ = lab.task(one, "10.0.1.5"), lab.task(two, "10.0.1.6")
        assert not await task.reaches("10.0.1.6", size=ENCRYPTED_MTU, count=1)


async def test_plain_packets_are_not_taken_and_a_flush_is_mended(lab: Lab) -> None:
    one, two, _ = lab.hosts
    async with every_host(lab) as overlays:
        there = {"10.0.1.5": one, "10.0.1.6": two}
        for host, own in zip(lab.hosts, overlays, strict=True):
            await own.rekey(NetworkKeys([ONE], 1))
            assert await own.apply({NETWORK: overlay(elsewhere(there, host), encrypted=True)}) == {}
        task, _ = lab.task(one, "10.0.1.5"), lab.task(two, "10.0.1.6")
        assert await task.reaches("10.0.1.6", size=ENCRYPTED_MTU)
        # The sender's own agent is deaf: it sends plain.
        await overlays[0].close()
        one.ip("xfrm", "state", "flush")
        one.ip("xfrm", "policy", "flush")
        assert not await task.reaches("10.0.1.6", size=ENCRYPTED_MTU, count=1)
        async with Overlays(one.address, netns=one.path) as again:
            await again.rekey(NetworkKeys([ONE], 1))
            assert await again.apply({NETWORK: overlay(elsewhere(there, one), encrypted=True)}) == {}
            assert await task.reaches("10.0.1.6", size=ENCRYPTED_MTU)
            capture = Capture()
            await capture.begin(one)
            for what in ("state", "policy"):
                one.ip("xfrm", what, "flush")
                async with asyncio.timeout(10):
                    while not one.ip("xfrm", what):
                        await asyncio.sleep(0.01)
            assert await task.reaches("10.0.1.6", size=ENCRYPTED_MTU)
            assert "'esp'" in await capture.end()
