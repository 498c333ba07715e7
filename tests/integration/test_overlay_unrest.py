"""Anything in any order: networks that come, change and go while somebody breaks their links; what is wanted wins."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
from collections.abc import Iterator

import pytest
from overlay_lab import POSSIBLE, Place, overlay, overlay_lab

from agent.network.mac import mac_of
from agent.network.overlay import Overlays, OverlayWanted, bridge_name, vxlan_name
from agent.network.overlay.entries import entries_of, read_entries
from agent.network.overlay.netlink import ROUTE, Netlink

pytestmark = [pytest.mark.root, pytest.mark.skipif(not POSSIBLE, reason="needs root and iproute2")]

NETWORKS = {f"net{letter * 7}{number}" + "0" * 14: 4097 + number for number, letter in enumerate("abcd")}


@pytest.fixture
def host() -> Iterator[Place]:
    with overlay_lab(1) as lab:
        yield lab.hosts[0]


def some_overlay(dice: random.Random, network: str) -> OverlayWanted:
    number = NETWORKS[network] - 4096
    endpoints = {f"10.0.{number}.{last}": f"10.78.0.{dice.randint(2, 9)}" for last in dice.sample(range(2, 250), 30)}
    vni = dice.choice((NETWORKS[network], NETWORKS[network] + 100))
    gateways = (f"10.0.{number}.1/24", *((f"fd00:{number}::1/64",) if dice.random() < 0.3 else ()))
    return overlay(endpoints, network=network, vni=vni, gateways=gateways, mtu=dice.choice((1400, 1450)))


def break_something(dice: random.Random, host: Place) -> None:
    network = dice.choice(list(NETWORKS))
    bridge, vxlan = bridge_name(network), vxlan_name(network)
    command = dice.choice(
        (
            f"link delete {bridge}",
            f"link delete {vxlan}",
            f"link set {bridge} down",
            f"link set {vxlan} down",
            f"link set {vxlan} nomaster",
            f"link set {vxlan} mtu 1300",
            f"address flush dev {bridge}",
            f"address add 10.9.9.9/24 dev {bridge}",
            f"link set {bridge} address {mac_of('10.9.9.9')}",
        )
    )
    # The link may not be there at present.
    with contextlib.suppress(subprocess.CalledProcessError):
        host.ip(*command.split())


def differences(host: Place, wanted: dict[str, OverlayWanted]) -> list[str]:
    """What is not as wanted, as `ip` and the kernel's tables show it."""
    found = []
    links = {link["ifname"]: link for link in host.links()}
    ours = {name(network) for network in wanted for name in (bridge_name, vxlan_name)}
    if links.keys() - {"lo", "eth0"} != ours:
        return [f"links {sorted(links)} instead of {sorted(ours)}"]
    netlink = Netlink(ROUTE, host.path)
    try:
        for network, one in wanted.items():
            bridge, vxlan = links[bridge_name(network)], links[vxlan_name(network)]
            if (bridge["mtu"], vxlan["mtu"], vxlan.get("master")) != (one.mtu, one.mtu, bridge["ifname"]):
                found.append(f"{network}: {bridge['mtu']} {vxlan['mtu']} {vxlan.get('master')}")
            if "UP" not in bridge["flags"] or "UP" not in vxlan["flags"]:
                found.append(f"{network}: down")
            if vxlan["linkinfo"]["info_data"]["id"] != one.vni:
                found.append(f"{network}: id")
            if read_entries(netlink, vxlan["ifindex"]) != entries_of(one):
                found.append(f"{network}: entries")
            shown = host.ip("address", "show", "dev", bridge["ifname"], "scope", "global")
            addresses = {line.split()[1] for line in shown.splitlines() if line.split()[0] in ("inet", "inet6")}
            if addresses != set(one.gateways):
                found.append(f"{network}: {addresses}")
    finally:
        netlink.close()
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_wanted_wins_over_what_is_broken(host: Place, seed: int) -> None:
    dice = random.Random(seed)
    wanted: dict[str, OverlayWanted] = {}
    async with Overlays(host.address, netns=host.path, retry=0.1) as own:
        for _ in range(30):
            if dice.random() < 0.5:
                chosen = dice.sample(list(NETWORKS), dice.randint(0, len(NETWORKS)))
                wanted = {network: some_overlay(dice, network) for network in chosen}
                await own.apply(wanted)
            else:
                break_something(dice, host)
        try:
            async with asyncio.timeout(20):
                while own.problems or differences(host, wanted):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{dict(own.problems)} {differences(host, wanted)}")
        await own.close(remove=True)
    assert host.names() == {"lo", "eth0"}
