"""Overlays at the engine: what is asked of it, decided without one."""

from __future__ import annotations

import pytest

from agent.api_types.common import Driver
from agent.api_types.container import ContainerSpec, DNSConfig
from agent.api_types.network import IPAMConfig, IPAMOptions, Network, NetworkAttachment, NetworkSpec
from agent.api_types.task import Task, TaskSpec
from agent.network.mac import mac_of
from agent.network.overlay.interface import bridge_name
from agent.worker.executors.docker.container import Placement, create_body
from agent.worker.executors.docker.networks import Bridging, endpoint_config, network_body
from agent.worker.interface import RejectedByExecutor, TemporaryFailure
from agent.worker.overlay_places import overlay_places, refuse_overlays

BRIDGING = Bridging(bridge_name, mac_of)


def network(name: str, number: int, **more: object) -> Network:
    return Network(
        id=f"{name}00000000000000000000",
        spec=NetworkSpec(name=name, **more),  # type: ignore[arg-type]
        driver_state=Driver(
            name="overlay", options={"com.docker.network.driver.overlay.vxlanid_list": str(4096 + number)}
        ),
        ipam_options=IPAMOptions(configs=[IPAMConfig(subnet=f"10.0.{number}.0/24", gateway=f"10.0.{number}.1")]),
    )


def task(*attachments: NetworkAttachment) -> Task:
    return Task(
        id="t1", spec=TaskSpec(container_spec=ContainerSpec(image="web")), networks_attachments=list(attachments)
    )


NET = NetworkAttachment(network=network("net", 1), addresses=["10.0.1.5/24"])
BACK = NetworkAttachment(network=network("back", 2, internal=True), addresses=["10.0.2.9/24"])
INGRESS = NetworkAttachment(network=network("ingress", 0, ingress=True), addresses=["10.0.0.7/24"])


def test_an_overlay_is_a_bridge_network_with_its_subnet_gateway_bridge_and_label() -> None:
    (place,) = overlay_places(task(NET))
    body = network_body(place, bridge_name(place.network_id), "me")
    assert body["Driver"] == "bridge"
    assert body["IPAM"]["Config"] == [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]
    assert body["Options"]["com.docker.network.bridge.name"] == "ov-net0000000"
    assert body["Options"]["com.docker.network.driver.mtu"] == "1450"
    assert body["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "true"
    assert body["Labels"]["swarmtui.network"] == NET.network.id


def test_nothing_leaves_an_internal_network_in_disguise() -> None:
    (place,) = overlay_places(task(BACK))
    body = network_body(place, "ov-back", "me")
    assert body["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"


def test_a_container_gets_the_address_that_the_manager_gave_and_its_mac() -> None:
    (place,) = overlay_places(task(NET))
    assert endpoint_config(place, BRIDGING) == {
        "IPAMConfig": {"IPv4Address": "10.0.1.5"},
        "MacAddress": "02:42:0a:00:01:05",
    }


def test_the_first_overlay_is_the_containers_own_and_all_resolvers_are_asked() -> None:
    one = task(NET, BACK)
    spec = ContainerSpec(image="web", dns_config=DNSConfig(nameservers=["192.0.2.53"]))
    placement = Placement("me", network="net", endpoint={"IPAMConfig": {}}, resolvers=("10.0.1.1", "10.0.2.1"))
    body = create_body(one, spec, placement)
    assert body["HostConfig"]["NetworkMode"] == "net"
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"net": {"IPAMConfig": {}}}}
    assert body["HostConfig"]["Dns"] == ["10.0.1.1", "10.0.2.1", "192.0.2.53"]


def test_the_ingress_network_is_the_hosts_affair() -> None:
    assert [place.network for place in overlay_places(task(INGRESS, NET))] == ["net"]
    refuse_overlays(task(INGRESS), "there are none here")


def test_a_task_without_networks_is_as_before() -> None:
    body = create_body(task(), ContainerSpec(image="web"), Placement("me"))
    assert "NetworkingConfig" not in body
    assert "Dns" not in body["HostConfig"]


def test_an_address_that_is_missing_is_waited_for() -> None:
    with pytest.raises(TemporaryFailure, match="waiting for an address on network net"):
        overlay_places(task(NetworkAttachment(network=NET.network)))


def test_what_cannot_be_had_is_refused_in_words() -> None:
    with pytest.raises(RejectedByExecutor, match="network net cannot be had on this node: no root"):
        refuse_overlays(task(NET), "no root")


@pytest.mark.parametrize(
    ("options", "mtu"),
    [
        ({"com.docker.network.driver.mtu": "9000"}, 8950),
        ({"com.docker.network.driver.mtu": "no number"}, 1450),
        ({"encrypted": ""}, 1412),
        ({"encrypted": "false"}, 1450),
    ],
)
def test_the_mtu_leaves_room_for_what_goes_around_a_packet(options: dict[str, str], mtu: int) -> None:
    asked = network("net", 1, driver_configuration=Driver(name="overlay", options=options))
    (place,) = overlay_places(task(NetworkAttachment(network=asked, addresses=["10.0.1.5/24"])))
    assert place.mtu == mtu
