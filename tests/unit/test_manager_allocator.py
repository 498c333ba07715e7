from __future__ import annotations

import msgspec
from manager_objects import a_service

from agent.api_types.service import Service
from agent.api_types.task import Endpoint, EndpointSpec, EndpointVirtualIP, PortConfig
from agent.manager.allocator import FIRST_DYNAMIC, LAST_DYNAMIC, allocate_endpoint, ingress_ports


def port(published: int = 0, target: int = 80, mode: str = "ingress", protocol: str = "tcp") -> PortConfig:
    return PortConfig(protocol=protocol, target_port=target, published_port=published, publish_mode=mode)


def service(*ports: PortConfig, had: list[PortConfig] | None = None, mode: str = "vip") -> Service:
    base = a_service()
    spec = msgspec.structs.replace(base.spec, endpoint_spec=EndpointSpec(mode=mode, ports=list(ports)))
    endpoint = Endpoint(ports=had or [], virtual_ips=[EndpointVirtualIP(network_id="net", addr="10.0.0.2/24")])
    return msgspec.structs.replace(base, spec=spec, endpoint=endpoint)


def numbers(endpoint: Endpoint | None) -> list[int]:
    assert endpoint is not None
    return [each.published_port for each in endpoint.ports]


def test_given_numbers_are_taken_and_others_found() -> None:
    endpoint = allocate_endpoint(service(port(8080), port(), port(mode="host")), set())
    assert numbers(endpoint) == [8080, FIRST_DYNAMIC, 0]
    assert endpoint is not None
    assert [each.published_port for each in endpoint.spec.ports] == [8080, 0, 0], "the spec stays what was asked for"


def test_two_of_one_service_get_two_numbers_and_so_do_two_protocols_one_each() -> None:
    endpoint = allocate_endpoint(service(port(), port(target=81), port(protocol="udp")), set())
    assert numbers(endpoint) == [FIRST_DYNAMIC, FIRST_DYNAMIC + 1, FIRST_DYNAMIC]


def test_taken_numbers_are_skipped() -> None:
    taken = {("tcp", FIRST_DYNAMIC), ("tcp", FIRST_DYNAMIC + 2)}
    assert numbers(allocate_endpoint(service(port(), port(target=81)), taken)) == [FIRST_DYNAMIC + 1, FIRST_DYNAMIC + 3]


def test_a_service_keeps_what_it_has() -> None:
    assert numbers(allocate_endpoint(service(port(), had=[port(31234)]), set())) == [31234]
    assert numbers(allocate_endpoint(service(port(), had=[port(31234)]), {("tcp", 31234)})) == [FIRST_DYNAMIC]
    assert numbers(allocate_endpoint(service(port(), had=[port(8080)]), set())) == [FIRST_DYNAMIC], "given, not found"


def test_a_number_named_beside_is_not_given_twice() -> None:
    assert numbers(allocate_endpoint(service(port(), port(FIRST_DYNAMIC, target=81)), set())) == [
        FIRST_DYNAMIC + 1,
        FIRST_DYNAMIC,
    ]


def test_when_nothing_is_left_nothing_is_given() -> None:
    taken = {("tcp", number) for number in range(FIRST_DYNAMIC, LAST_DYNAMIC + 1)}
    assert allocate_endpoint(service(port()), taken) is None
    assert allocate_endpoint(service(port(protocol="udp")), taken) is not None


def test_virtual_addresses_stay_unless_the_mode_has_none() -> None:
    assert [each.addr for each in allocate_endpoint(service(), set()).virtual_ips] == ["10.0.0.2/24"]  # type: ignore[union-attr]
    assert allocate_endpoint(service(mode="dnsrr"), set()).virtual_ips == []  # type: ignore[union-attr]


def test_the_ports_of_all_but_one() -> None:
    one = msgspec.structs.replace(service(port(8080), port(mode="host", published=22)), id="one")
    two = msgspec.structs.replace(service(port(), had=[port(30001)]), id="two")
    assert ingress_ports([one, two]) == {("tcp", 8080), ("tcp", 30001)}
    assert ingress_ports([one, two], but="two") == {("tcp", 8080)}
