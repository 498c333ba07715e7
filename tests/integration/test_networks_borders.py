"""Borders between overlays, in namespaces of the test's own: a host that forwards, and a member on each of its bridges."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.network.borders import Borders

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip")

MEMBERS = {"a000000000": 1, "b000000000": 2, "c000000000": 3}
"""Network ids, of which c is internal; their subnets are 10.87.N.0/24. `out` is beyond the host, on 10.87.9.0/24."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def join(host: str, room: str, link: str, number: int) -> None:
    """A namespace with a cable to a link of the host, which is a bridge or the cable's own end."""
    ip("netns", "add", room)
    ip("-n", host, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", room)
    ip("-n", host, "link", "add", link, "type", "bridge")
    ip("-n", host, "link", "set", f"to{number}", "master", link, "up")
    ip("-n", host, "address", "add", f"10.87.{number}.1/24", "dev", link)
    ip("-n", host, "link", "set", link, "up")
    ip("-n", room, "address", "add", f"10.87.{number}.2/24", "dev", "eth0")
    ip("-n", room, "link", "set", "eth0", "up")
    ip("-n", room, "route", "add", "default", "via", f"10.87.{number}.1")


@pytest.fixture
def mark() -> Iterator[str]:
    mark = f"swtb{secrets.token_hex(3)}"
    rooms = [mark, *(f"{mark}-{name}" for name in (*MEMBERS, "out"))]
    try:
        ip("netns", "add", mark)
        for name, number in MEMBERS.items():
            join(mark, f"{mark}-{name}", f"ov-{name}", number)
        join(mark, f"{mark}-out", "lan", 9)
        subprocess.run(["ip", "netns", "exec", mark, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)
        yield mark
    finally:
        for room in rooms:
            subprocess.run(["ip", "netns", "delete", room], check=False, capture_output=True)


def reaches(mark: str, source: str, target: int, last: int = 2) -> bool:
    """Whether a member's ping comes back from the member of the subnet with the number; 1 is the host itself there."""
    command = ["ip", "netns", "exec", f"{mark}-{source}", "busybox", "ping", "-c1", "-W1", f"10.87.{target}.{last}"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def test_networks_are_apart_and_internal_ones_have_no_way_out(mark: str) -> None:
    one, other, internal = MEMBERS
    assert reaches(mark, one, 2)
    assert reaches(mark, internal, 9)
    borders = Borders(Path("/run/netns", mark))
    await borders.apply({one: False, other: False, internal: True})
    assert not reaches(mark, one, 2)
    assert not reaches(mark, other, 3)
    assert not reaches(mark, internal, 9)
    assert not reaches(mark, "out", 3)
    assert reaches(mark, one, 9)
    # Each still reaches its own host's address on the network.
    assert reaches(mark, internal, 3, last=1)
    await borders.close(remove=True)
    assert reaches(mark, one, 2)
