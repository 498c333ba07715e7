"""`docker run` and `docker network connect` on an attachable overlay, with the real CLI on three hosts with an engine each."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from test_networks_overlay import TIERS, Hosts, hosts

from swarmtui.playground.tier import Tier

__all__ = ["hosts"]

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(Tier.ENGINE not in TIERS, reason="needs root, busybox and an engine"),
    pytest.mark.parametrize("hosts", [Tier.ENGINE], indirect=True),
]


async def containers_on(hosts: Hosts, network: str) -> dict[str, Any]:
    (shown,) = json.loads(await hosts.docker("network", "inspect", network))
    return {each["Name"]: each for each in (shown["Containers"] or {}).values()}


async def until(hosts: Hosts, network: str, name: str, *, there: bool) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        found = await containers_on(hosts, network)
        if (name in found) == there:
            return dict(found.get(name, {}))
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def until_answers(hosts: Hosts, container: str, script: str, wanted: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        told = await hosts.docker("exec", container, "busybox", "sh", "-c", script, check=False)
        if wanted in told:
            return
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.2)


async def test_a_container_of_a_person_is_on_the_network_as_a_task_is(hosts: Hosts) -> None:
    await hosts.docker("network", "create", "-d", "overlay", "--attachable", "net")
    await hosts.docker("network", "create", "-d", "overlay", "closed")
    await hosts.create("web", 3, hosts.tools, "--network", "net", command=("busybox", "sleep", "1000"))

    await hosts.docker("run", "-d", "--network", "net", "--name", "db", "bb:1", "busybox", "sleep", "1000")
    place = await until(hosts, "net", "db", there=True)
    address = place["IPv4Address"].partition("/")[0]
    (told,) = json.loads(await hosts.docker("inspect", "db"))
    assert told["NetworkSettings"]["Networks"]["net"]["IPAddress"] == address
    assert told["NetworkSettings"]["Networks"]["net"]["MacAddress"] == place["MacAddress"]

    await until_answers(hosts, "db", "busybox ping -c 1 -W 2 tasks.web", "1 packets received")
    for host in ("node1", "node2", "node3"):
        pinged = await hosts.inside(host, "web", "busybox ping -c 1 -W 2 db")
        assert f"({address})" in pinged, pinged
        assert "1 packets received" in pinged

    refused = await hosts.docker("run", "--rm", "--network", "closed", "bb:1", "busybox", "true", check=False)
    assert "network closed not manually attachable" in refused
    elsewhere = await hosts.docker(
        "run", "--rm", "--network", "net", "bb:1", "busybox", "true", host="node2", check=False
    )
    assert "only managers can give a container of yours an address" in elsewhere
    used = await hosts.docker("network", "rm", "net", check=False)
    assert "is in use by" in used

    await hosts.docker("restart", "-t", "0", "db")
    await until_answers(hosts, "db", "busybox ping -c 1 -W 2 tasks.web", "1 packets received")
    (told,) = json.loads(await hosts.docker("inspect", "db"))
    assert told["NetworkSettings"]["Networks"]["net"]["IPAddress"] == address

    await hosts.docker("run", "-d", "--name", "late", "bb:1", "busybox", "sleep", "1000")
    await hosts.docker("network", "connect", "--alias", "later", "net", "late")
    await until(hosts, "net", "late", there=True)
    await until_answers(hosts, "db", "busybox ping -c 1 -W 2 later", "1 packets received")
    await hosts.docker("network", "disconnect", "net", "late")
    await until(hosts, "net", "late", there=False)

    await hosts.docker("service", "rm", "web")
    await hosts.docker("rm", "-f", "db", "late")
    await until(hosts, "net", "db", there=False)
    await hosts.docker("network", "rm", "net")
    await hosts.until_gone("ov-", "vx-")


async def test_a_network_comes_to_a_host_with_a_container_and_goes_with_it(hosts: Hosts) -> None:
    await hosts.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.80.0.0/24", "net")
    said = await hosts.docker(
        "run", "--rm", "--network", "net", "--ip", "10.80.0.77", "bb:1", "busybox", "ip", "-o", "-4", "addr"
    )
    assert "10.80.0.77/24" in said
    await hosts.until_gone("ov-", "vx-")
    await hosts.docker("network", "rm", "net")
