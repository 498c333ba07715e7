"""The networks on the screen: the table, a network in words, and how it follows the cluster."""

from __future__ import annotations

import pytest
from conftest import console
from textual.widgets import Input
from ui_fake_cluster import FakeCluster, identity, shop, stamp

from swarmtui.ui.navigation import Place

SIZES = [(80, 24), (160, 50)]
FRONT, INGRESS = identity("network", 1), identity("network", 2)


def add_network(cluster: FakeCluster, key: str, name: str, subnet: str, **spec: object) -> None:
    cluster.put(
        "networks",
        {
            "ID": key,
            "CreatedAt": stamp(-7200),
            "Spec": {"Name": name, **spec},
            "DriverState": {"Name": "overlay"},
            "IPAMOptions": {"Configs": [{"Subnet": each} for each in subnet.split()]},
        },
    )


def put_on(cluster: FakeCluster, service: int, network: str, address: str) -> None:
    """A service is on a network, with a virtual address there."""
    thing = cluster.tables["services"][identity("service", service)]
    thing["Spec"]["TaskTemplate"].setdefault("Networks", []).append({"Target": network})
    thing["Endpoint"].setdefault("VirtualIPs", []).append({"NetworkID": network, "Addr": f"{address}/24"})
    cluster.put("services", thing)


def connected_shop() -> FakeCluster:
    cluster = shop()
    add_network(cluster, INGRESS, "ingress", "10.0.0.0/24", Ingress=True)
    encrypted = {"Name": "overlay", "Options": {"encrypted": ""}}
    add_network(
        cluster, FRONT, "front", "10.0.1.0/24 10.0.9.0/24",
        Attachable=True, Internal=True, DriverConfiguration=encrypted, Labels={"team": "shop"},
    )  # fmt: skip
    put_on(cluster, 1, FRONT, "10.0.1.2")
    put_on(cluster, 3, FRONT, "10.0.1.4")
    return cluster


@pytest.mark.parametrize("size", SIZES)
async def test_networks_are_shown_with_who_is_on_them(size: tuple[int, int]) -> None:
    async with console(size, connected_shop()) as there:
        await there.press("7")
        await there.sees("front", "10.0.1.0/24", "8/9", "ingress", "10.0.0.0/24")
        if size[0] > 100:
            await there.sees("attachable internal encrypted", "10.0.1.0/24, 10.0.9.0/24", "overlay", "swarm", "2h")
        there.cluster.add_task(identity("service", 3), 4)
        await there.sees("9/9")
        there.cluster.drop("networks", INGRESS)
        await there.until(lambda: "10.0.0.0/24" not in there.text)
        add_network(there.cluster, INGRESS, "back", "10.0.2.0/24")
        await there.sees("back", "10.0.2.0/24")


@pytest.mark.parametrize("size", SIZES)
async def test_a_network_in_words_and_raw(size: tuple[int, int]) -> None:
    async with console(size, connected_shop()) as there:
        await there.command("networks fro")
        await there.sees("front")
        await there.press("enter")
        await there.sees("describe network front", "10.0.1.0/24, 10.0.9.0/24", "attachable, internal, encrypted")
        await there.sees("SERVICES", "web", "10.0.1.2", "6/6", "worker", "10.0.1.4", "2/3", "team=shop")
        await there.press("escape", "y")
        await there.sees("raw network front", "IPAMOptions:")
        await there.press("escape", "l")
        await there.sees("a network has no log of its own")


async def test_why_names_the_services_that_are_not_whole() -> None:
    async with console((160, 50), connected_shop()) as there:
        there.cluster.explanations[FRONT] = {"summary": "1 task waits for an address.", "advice": ["add a subnet"]}
        await there.command("why front")
        await there.sees("front: 8 of 9 tasks run", "worker pending: no suitable node")
        await there.sees("1 task waits for an address.", "do: add a subnet")


async def test_the_way_to_the_networks_and_back() -> None:
    async with console((160, 50), connected_shop()) as there:
        await there.press("colon")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("netw")
        await there.sees("networks")
        await there.press("escape")
        await there.command("net")
        await there.until(lambda: there.app.main.place == Place("networks"))
        await there.sees("▸ networks")
        await there.command("describe front")
        await there.sees("describe network front")
        await there.press("escape", "2")
        await there.until(lambda: there.app.main.place == Place("services"))
        await there.press("s")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.press("escape")
        await there.press("7", "s")
        await there.until(lambda: there.app.main.place == Place("networks"))
        assert not isinstance(there.app.focused, Input)


async def test_without_networks_the_table_says_how_to_make_one() -> None:
    async with console((160, 50)) as there:
        await there.press("7")
        await there.sees("no networks yet", "docker network create -d overlay")
