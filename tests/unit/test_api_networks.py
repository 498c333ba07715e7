"""Networks of scope swarm at the front door: what is made, shown, refused and removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiohttp import web
from api_managers import managers
from api_scripted import Client, ScriptedBackend, init_body, served, service_body
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api.network_specs import NetworkRequest, spec_of
from agent.api_types.codec import decode_json
from agent.api_types.common import Driver
from agent.api_types.container import ContainerSpec
from agent.api_types.errors import ApiError
from agent.api_types.network import (
    Attachment,
    IPAMConfig,
    IPAMOptions,
    Network,
    NetworkAttachment,
    NetworkSpec,
)
from agent.api_types.service import Service
from agent.api_types.task import (
    ContainerStatus,
    Endpoint,
    EndpointVirtualIP,
    ServiceAnnotations,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)

OVERLAY: dict[str, Any] = {"Name": "ov", "Driver": "overlay", "CheckDuplicate": True}


def subnet(cidr: str, **more: Any) -> dict[str, Any]:
    return {"IPAM": {"Driver": "default", "Config": [{"Subnet": cidr} | more]}}


@pytest.fixture
async def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[Client]:
    async with served(backend, tmp_path) as client:
        await client.call("POST", "/swarm/init", init_body())
        yield client


async def make(client: Client, **body: Any) -> str:
    status, answer = await client.call("POST", "/networks/create", OVERLAY | body)
    assert status == 201, answer
    return str(answer["Id"])


async def test_all_that_can_be_asked_for_is_kept(client: Client, backend: ScriptedBackend) -> None:
    body = OVERLAY | {
        "EnableIPv6": True,
        "IPAM": {
            "Driver": "default",
            "Options": {"x": "y"},
            "Config": [
                {"Subnet": "10.77.0.0/16", "IPRange": "10.77.4.0/24", "Gateway": "10.77.4.1"},
                {"Subnet": "10.78.0.0/24"},
                {"Subnet": "fd00:77::/64", "Gateway": "fd00:77::1"},
            ],
        },
        "Internal": True,
        "Attachable": True,
        "Options": {"encrypted": ""},
        "Labels": {"a": "b"},
    }
    network_id = await make(client, **body)
    assert backend.store is not None
    stored = backend.store.view(lambda tx: tx.get(Network, network_id))
    assert stored is not None
    assert stored.spec == NetworkSpec(
        name="ov",
        labels={"a": "b"},
        driver_configuration=Driver(name="overlay", options={"encrypted": ""}),
        ipv6_enabled=True,
        internal=True,
        attachable=True,
        ipam_options=IPAMOptions(
            driver=Driver(name="default", options={"x": "y"}),
            configs=[
                IPAMConfig(subnet="10.77.0.0/16", range="10.77.4.0/24", gateway="10.77.4.1"),
                IPAMConfig(subnet="10.78.0.0/24"),
                IPAMConfig(subnet="fd00:77::/64", gateway="fd00:77::1"),
            ],
        ),
        scope="swarm",
    )
    status, shown = await client.call("GET", "/networks/ov")
    assert status == 200
    assert (shown["Id"], shown["Internal"], shown["Attachable"], shown["EnableIPv6"]) == (network_id, True, True, True)
    assert shown["Options"] == {"encrypted": ""}
    assert shown["IPAM"]["Config"][0] == {"Subnet": "10.77.0.0/16", "IPRange": "10.77.4.0/24", "Gateway": "10.77.4.1"}


async def test_a_network_of_every_node_made_of_its_own_configuration(client: Client, backend: ScriptedBackend) -> None:
    network_id = await make(
        client, Driver="macvlan", Scope="swarm", Attachable=True, ConfigFrom={"Network": "lan"}, Name="outside"
    )
    status, shown = await client.call("GET", "/networks/outside")
    assert (status, shown["Driver"], shown["Scope"]) == (200, "macvlan", "swarm")
    assert (shown["ConfigFrom"], shown["Id"]) == ({"Network": "lan"}, network_id)


async def test_ipv6_without_a_subnet_is_told_of(client: Client) -> None:
    _, answer = await client.call("POST", "/networks/create", OVERLAY | {"EnableIPv6": True})
    assert "no IPv6 subnet" in answer["Warning"]


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"Name": ""}, 400, "rpc error: code = InvalidArgument desc = meta: name must be provided"),
    ({"Name": "a.b"}, 400, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"),
    ({"Name": "x" * 64}, 400, "rpc error: code = InvalidArgument desc = name must be 63 characters or fewer"),
    ({"Name": "host"}, 403, "host is a pre-defined network and cannot be created"),
    ({"Driver": "weave", "Scope": "swarm"}, 400, "error during lookup of plugin weave"),
    ({"EnableIPv4": False}, 400, "IPv4 cannot be disabled in a Swarm scoped network"),
    ({"Ingress": True, "Attachable": True}, 400, "ingress network cannot be attachable"),
    ({"Ingress": True, "Driver": "bridge"}, 501, "only overlay driver is currently supported for ingress network"),
    ({"Labels": {"com.docker.swarm.predefined": "true"}}, 403, "cannot be applied by users"),
    ({"ConfigFrom": {"Network": "x"}}, 400, "an overlay network is the same on every node"),
    (
        {"Driver": "macvlan", "Scope": "swarm", "ConfigFrom": {"Network": "x"}, "Options": {"parent": "eth0"}},
        403,
        "user specified configurations are not supported if the network depends on a configuration network",
    ),
    ({"IPAM": {"Driver": "dhcp"}}, 400, "error during lookup of plugin dhcp"),
    (subnet("10.9.0.0"), 400, "ipam configuration: invalid subnet 10.9.0.0"),
    (subnet(""), 400, "ipam configuration: invalid subnet "),
    (subnet("10.9.0.5/24"), 400, "invalid subnet 10.9.0.5/24: it should be 10.9.0.0/24"),
    (subnet("10.9.0.0/30"), 400, "subnet 10.9.0.0/30 is too small"),
    (subnet("10.9.0.0/24", IPRange="10.9.0.0"), 400, "ipam configuration: invalid range 10.9.0.0"),
    (subnet("10.9.0.0/24", IPRange="10.8.0.0/28"), 400, "subnet 10.9.0.0/24 does not contain range 10.8.0.0/28"),
    (subnet("10.9.0.0/24", IPRange="10.9.0.0/16"), 400, "subnet 10.9.0.0/24 does not contain range 10.9.0.0/16"),
    (subnet("10.9.0.0/24", Gateway="nowhere"), 400, "ipam configuration: invalid gateway nowhere"),
    (subnet("10.9.0.0/24", Gateway="10.8.0.1"), 400, "subnet 10.9.0.0/24 does not contain gateway 10.8.0.1"),
    (subnet("10.9.0.0/24", Gateway="10.9.0.255"), 400, "gateway 10.9.0.255 is not the address of a host"),
    (subnet("10.9.0.0/24", AuxiliaryAddresses={"a": "10.9.0.4"}), 501, "auxiliary addresses are not supported"),
    (
        {"IPAM": {"Config": [{"Subnet": "10.9.0.0/16"}, {"Subnet": "10.9.4.0/24"}]}},
        403,
        "Pool overlaps with other one on this address space: 10.9.4.0/24 overlaps with another subnet of the network",
    ),
    (
        subnet("10.7.0.0/16"),
        403,
        "Pool overlaps with other one on this address space: 10.7.0.0/16 overlaps with 10.7.7.0/24",
    ),
    ({"Name": "taken"}, 409, "network with name taken already exists"),
    ({"Options": {"encrypted": 1}}, 400, "invalid JSON"),
]


@pytest.mark.parametrize(("body", "status", "text"), REFUSED)
async def test_what_cannot_be_had_is_refused_in_words(
    client: Client, body: dict[str, Any], status: int, text: str
) -> None:
    await make(client, Name="taken", **subnet("10.7.7.0/24"))
    found, answer = await client.call("POST", "/networks/create", OVERLAY | body)
    assert (found, text in answer["message"]) == (status, True), answer
    _, listed = await client.call("GET", "/networks")
    assert [network["Name"] for network in listed] == ["taken"]


async def test_one_ingress_network(client: Client) -> None:
    network_id = await make(client, Name="ingress", Ingress=True)
    status, answer = await client.call("POST", "/networks/create", OVERLAY | {"Ingress": True})
    assert (status, answer["message"]) == (
        409,
        f"rpc error: code = AlreadyExists desc = ingress network ({network_id}) is already present",
    )


async def test_a_worker_makes_no_overlay(tmp_path: Path) -> None:
    async with served(ScriptedBackend(), tmp_path) as client:
        status, answer = await client.call("POST", "/networks/create", OVERLAY)
        assert (status, "not a swarm manager" in answer["message"]) == (503, True)


TEXTS = st.sampled_from(
    ["", "default", "overlay", "10.0.0.0/8", "10.0.0.0/24", "::/0", "1", "10.0.0.1", "\x00", "é"]
) | (st.text(max_size=8))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "Name": TEXTS,
            "Driver": TEXTS,
            "EnableIPv6": st.booleans() | st.none(),
            "Ingress": st.booleans(),
            "Options": st.dictionaries(TEXTS, TEXTS, max_size=2) | st.none(),
            "Labels": st.dictionaries(TEXTS, TEXTS, max_size=2) | st.none(),
            "ConfigFrom": st.none() | st.fixed_dictionaries({"Network": TEXTS}),
            "IPAM": st.none()
            | st.fixed_dictionaries(
                {},
                optional={
                    "Driver": TEXTS,
                    "Config": st.none()
                    | st.lists(
                        st.fixed_dictionaries({}, optional={"Subnet": TEXTS, "IPRange": TEXTS, "Gateway": TEXTS}),
                        max_size=3,
                    ),
                },
            ),
        },
    )
)
def test_whatever_is_asked_for_is_a_spec_or_an_error_of_the_api(body: dict[str, Any]) -> None:
    with suppress(ApiError):
        assert spec_of(decode_json(json.dumps(body), NetworkRequest)).name == body["Name"]


# -- shown


async def test_filters(client: Client) -> None:
    one = await make(client, Name="one", Labels={"a": "b"})
    await make(client, Name="another", Driver="macvlan", Scope="swarm")
    await client.call(
        "POST",
        "/services/create",
        service_body(TaskTemplate={"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "one"}]}),
    )

    async def names(**filters: list[str]) -> list[str]:
        status, listed = await client.call("GET", f"/networks?filters={quote(json.dumps(filters))}")
        assert status == 200
        return sorted(network["Name"] for network in listed)

    assert await names() == ["another", "one"]
    assert await names(name=["on"]) == ["one"]
    assert await names(name=["o"]) == ["another", "one"]
    assert await names(id=[one[:6]]) == ["one"]
    assert await names(driver=["overlay"]) == ["one"]
    assert await names(driver=["macvlan", "overlay"]) == ["another", "one"]
    assert await names(label=["a"]) == ["one"]
    assert await names(label=["a=c"]) == []
    assert await names(scope=["local"]) == []
    assert await names(type=["custom"]) == ["another", "one"]
    assert await names(type=["builtin"]) == []
    assert await names(dangling=["true"]) == ["another"]
    assert await names(dangling=["false"]) == ["one"]


async def test_who_is_on_a_network(client: Client, backend: ScriptedBackend) -> None:
    network_id = await make(client, Labels={"a": "b"})
    network = Network(id=network_id)

    def a_task(name: str, node: str, address: str, state: TaskState = TaskState.RUNNING) -> Task:
        return Task(
            id=name,
            service_id="s",
            service_annotations=ServiceAnnotations(name="web"),
            slot=int(name[1:]),
            node_id=node,
            status=TaskStatus(state=state, container_status=ContainerStatus(container_id=f"container-{name}")),
            desired_state=TaskState.RUNNING,
            networks_attachments=[NetworkAttachment(network=network, addresses=[address])],
        )

    service = Service(
        id="s", endpoint=Endpoint(virtual_ips=[EndpointVirtualIP(network_id=network_id, addr="10.0.1.2/24")])
    )
    template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "ov"}]}
    backend.next_ids = [service.id]
    await client.call("POST", "/services/create", service_body(TaskTemplate=template))
    assert backend.store is not None
    stored = backend.store.view(lambda tx: tx.find(Service, "name", "web")[0])
    await backend.put(
        Service(id=stored.id, spec=stored.spec, endpoint=service.endpoint),
        a_task("t1", backend.node_id, "10.0.1.5/24"),
        a_task("t2", "elsewhere", "10.0.1.6/24"),
        a_task("t3", backend.node_id, "10.0.1.7/24", TaskState.FAILED),
        Attachment(id="lb", network_id=network_id, node_id=backend.node_id, addresses=["10.0.1.3/24"]),
        Attachment(
            id="c",
            network_id=network_id,
            node_id=backend.node_id,
            container="person",
            name="db",
            addresses=["10.0.1.9/24"],
        ),
    )
    _, shown = await client.call("GET", "/networks/ov?verbose=true")
    assert {key: (each["Name"], each["IPv4Address"]) for key, each in shown["Containers"].items()} == {
        "container-t1": ("web.1.t1", "10.0.1.5/24"),
        "lb-ov": ("ov-endpoint", "10.0.1.3/24"),
        "person": ("db", "10.0.1.9/24"),
    }
    assert shown["Containers"]["container-t1"]["MacAddress"] == "02:42:0a:00:01:05"
    assert shown["Peers"] == [{"Name": "h1", "IP": "10.99.0.1"}]
    web_shown = shown["Services"]["web"]
    assert web_shown["VIP"] == "10.0.1.2"
    assert [(task["Name"], task["EndpointIP"]) for task in web_shown["Tasks"]] == [
        ("web.1.t1", "10.0.1.5"),
        ("web.2.t2", "10.0.1.6"),
    ]
    _, plain = await client.call("GET", "/networks/ov")
    assert "Services" not in plain


async def test_a_network_explains_itself(client: Client) -> None:
    network_id = await make(client)
    assert await client.call("GET", "/swarmtui/v1/explain/network/ov") == (200, {"network": network_id})
    assert (await client.call("GET", "/swarmtui/v1/explain/network/nosuch"))[0] == 404


# -- in use


async def test_a_network_in_use_stays(client: Client, backend: ScriptedBackend) -> None:
    network_id = await make(client)
    template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "ov"}]}
    _, made = await client.call("POST", "/services/create", service_body(TaskTemplate=template))
    assert await client.call("DELETE", "/networks/ov") == (
        400,
        {
            "message": f"rpc error: code = FailedPrecondition desc = network {network_id} is in use by service {made['ID']}"
        },
    )
    await client.call("DELETE", "/services/web")
    person = Attachment(id="a", network_id=network_id, node_id="n", container="c1", addresses=["10.0.1.4/24"])
    await backend.put(person)
    status, answer = await client.call("DELETE", "/networks/ov")
    assert (status, answer["message"].endswith("is in use by container c1")) == (400, True)
    assert backend.store is not None
    await backend.store.update(lambda tx: tx.delete(Attachment, "a"))
    alone = Task(
        id="t",
        spec=TaskSpec(container_spec=ContainerSpec(image="x")),
        status=TaskStatus(state=TaskState.RUNNING),
        desired_state=TaskState.RUNNING,
        networks_attachments=[NetworkAttachment(network=Network(id=network_id))],
    )
    await backend.put(alone)
    status, answer = await client.call("DELETE", "/networks/ov")
    assert (status, answer["message"].endswith("is in use by task t")) == (400, True)
    await backend.store.update(lambda tx: tx.delete(Task, "t"))
    assert await client.call("DELETE", "/networks/ov") == (204, None)
    assert (await client.call("DELETE", "/networks/ov"))[0] == 404


async def test_the_ingress_network_stays_while_a_port_is_published(client: Client) -> None:
    await make(client, Name="ingress", Ingress=True)
    ports = {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}
    _, made = await client.call("POST", "/services/create", service_body(EndpointSpec=ports))
    status, answer = await client.call("DELETE", "/networks/ingress")
    assert (status, f"because service {made['ID']} depends on it" in answer["message"]) == (400, True)
    await client.call("DELETE", "/services/web")
    assert await client.call("DELETE", "/networks/ingress") == (204, None)


async def test_prune_takes_what_nobody_uses(client: Client, backend: ScriptedBackend) -> None:
    await make(client, Name="ingress", Ingress=True)
    await make(client, Name="used")
    await make(client, Name="free", Labels={"a": "b"})
    await make(client, Name="free2")
    template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "used"}]}
    await client.call("POST", "/services/create", service_body(TaskTemplate=template))

    async def prune(**filters: list[str]) -> Any:
        return await client.call("POST", f"/networks/prune?filters={quote(json.dumps(filters))}")

    assert await prune(until=["1h"]) == (200, {"NetworksDeleted": None})
    assert await prune(label=["a=c"]) == (200, {"NetworksDeleted": None})
    assert await prune(**{"label!": ["a"]}) == (200, {"NetworksDeleted": ["free2"]})
    assert (await prune(until=["1h", "2h"]))[0] == 400
    assert (await prune(name=["x"]))[0] == 400
    backend.now += 7200 * 1_000_000_000
    assert await prune(until=["1h30m"]) == (200, {"NetworksDeleted": ["free"]})
    _, listed = await client.call("GET", "/networks")
    assert sorted(network["Name"] for network in listed) == ["ingress", "used"]


# -- services


async def test_services_name_networks_by_name_or_id(client: Client) -> None:
    network_id = await make(client)
    for target in ("ov", network_id, network_id[:10]):
        template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": target, "Aliases": ["a"]}]}
        status, made = await client.call("POST", "/services/create", service_body(TaskTemplate=template))
        assert status == 201
        _, shown = await client.call("GET", "/services/web")
        assert shown["Spec"]["TaskTemplate"]["Networks"] == [{"Target": network_id, "Aliases": ["a"]}]
        await client.call("DELETE", f"/services/{made['ID']}")


async def test_services_are_refused_networks_that_they_cannot_have(client: Client) -> None:
    await make(client)
    await make(client, Name="ingress", Ingress=True)

    async def refusal(*targets: str) -> Any:
        template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": target} for target in targets]}
        status, answer = await client.call("POST", "/services/create", service_body(TaskTemplate=template))
        return status, answer["message"]

    assert await refusal("nosuch") == (404, "network nosuch not found")
    assert await refusal("ingress") == (
        400,
        "rpc error: code = InvalidArgument desc = "
        'Service cannot be explicitly attached to the ingress network "ingress"',
    )
    status, text = await refusal("ov", "ov")
    assert (status, text.endswith('attached to the network "ov" more than once')) == (400, True)


async def test_services_on_the_network_of_their_host(client: Client) -> None:
    status, shown = await client.call("GET", "/networks/host?scope=swarm")
    assert (status, shown["Name"], shown["Driver"], shown["Scope"]) == (200, "host", "host", "swarm")
    template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": shown["Id"]}]}
    assert (await client.call("POST", "/services/create", service_body(TaskTemplate=template)))[0] == 201
    _, service = await client.call("GET", "/services/web")
    assert service["Spec"]["TaskTemplate"]["Networks"] == [{"Target": "host"}]
    assert (await client.call("GET", "/networks"))[1] == []


async def test_a_service_keeps_its_networks_when_it_is_updated(client: Client, backend: ScriptedBackend) -> None:
    one, two = await make(client, Name="one"), await make(client, Name="two")
    template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "one"}]}
    await client.call("POST", "/services/create", service_body(TaskTemplate=template))
    _, shown = await client.call("GET", "/services/web")
    template["Networks"] = [{"Target": one}, {"Target": "two"}]
    target = f"/services/web/update?version={shown['Version']['Index']}"
    assert (await client.call("POST", target, service_body(TaskTemplate=template)))[0] == 200
    _, shown = await client.call("GET", "/services/web")
    assert [config["Target"] for config in shown["Spec"]["TaskTemplate"]["Networks"]] == [one, two]
    template["Networks"] = [{"Target": "gone"}]
    assert await client.call("POST", target, service_body(TaskTemplate=template)) == (
        404,
        {"message": "network gone not found"},
    )


# -- beside an engine


class NetworksOfAnEngine:
    """As much of an engine as has networks: an HTTP server on a unix socket."""

    def __init__(self) -> None:
        self.networks: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    def add(self, name: str, network_id: str, **more: Any) -> None:
        self.networks[name] = {
            "Name": name,
            "Id": network_id,
            "Driver": "bridge",
            "Scope": "local",
            "Labels": {},
        } | more

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.partition("/networks")[2].strip("/")
        self.asked.append(f"{request.method} /{path}?{unquote(request.query_string)}")
        if request.path.endswith("_ping"):
            return web.Response(text="OK", headers={"Api-Version": "1.41"})
        if path == "create":
            self.add((await request.json())["Name"], "e" * 64)
            return web.json_response({"Id": "e" * 64, "Warning": ""}, status=201)
        if path == "prune":
            return web.json_response({"NetworksDeleted": ["theirs"]})
        if not path:
            return web.json_response(list(self.networks.values()))
        for network in self.networks.values():
            if network["Name"] == path or network["Id"].startswith(path):
                if request.method == "DELETE":
                    return web.Response(status=204)
                return web.json_response(network)
        return web.json_response({"message": f"network {path} not found"}, status=404)


@asynccontextmanager
async def beside_engine(folder: Path) -> AsyncIterator[tuple[Client, NetworksOfAnEngine, ScriptedBackend]]:
    engine = NetworksOfAnEngine()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "engine")).start()
    backend = ScriptedBackend(engine_socket=str(folder / "engine"))
    try:
        async with served(backend, folder) as client:
            yield client, engine, backend
    finally:
        await runner.cleanup()


async def test_names_of_the_engines_networks_and_of_the_swarms(tmp_path: Path) -> None:
    async with beside_engine(tmp_path) as (client, engine, _):
        await client.call("POST", "/swarm/init", init_body())
        engine.add("mine", "a" * 64)
        taken = (409, {"message": "network with name mine already exists"})
        assert await client.call("POST", "/networks/create", OVERLAY | {"Name": "mine"}) == taken
        await make(client)
        engine.add("ov", "c" * 64, Labels={"swarmtui.network": "x" * 25})
        taken = (409, {"message": "network with name ov already exists"})
        assert await client.call("POST", "/networks/create", {"Name": "ov", "Driver": "bridge"}) == taken
        assert (await client.call("POST", "/networks/create", {"Name": "br", "Driver": "bridge"}))[0] == 201
        assert (await client.call("POST", "/networks/create", {"Name": "c", "ConfigOnly": True, "Scope": "swarm"}))[
            0
        ] == 201
        _, listed = await client.call("GET", "/networks")
        assert [network["Name"] for network in listed] == ["ov", "mine", "br", "c"]


async def test_services_cannot_have_a_network_of_one_host(tmp_path: Path) -> None:
    async with beside_engine(tmp_path) as (client, engine, _):
        await client.call("POST", "/swarm/init", init_body())
        engine.add("mine", "a" * 64)
        template = {"ContainerSpec": {"Image": "x"}, "Networks": [{"Target": "mine"}]}
        status, answer = await client.call("POST", "/services/create", service_body(TaskTemplate=template))
        assert status == 403
        assert answer["message"].startswith("The network mine cannot be used with services. Only networks scoped to")


async def test_a_whole_name_goes_before_the_beginning_of_an_id(tmp_path: Path) -> None:
    async with beside_engine(tmp_path) as (client, engine, backend):
        await client.call("POST", "/swarm/init", init_body())
        backend.next_ids = ["abc".ljust(25, "0")]
        network_id = await make(client)
        engine.add("ab", "f" * 64)
        assert (await client.call("GET", "/networks/ab"))[1]["Id"] == "f" * 64
        assert (await client.call("GET", f"/networks/{network_id[:4]}"))[1]["Name"] == "ov"
        assert (await client.call("DELETE", "/networks/ab"))[0] == 204
        assert (await client.call("GET", "/networks/ov"))[0] == 200


async def test_the_bridge_of_an_overlay_is_shown_as_the_overlay_and_is_nobodys_to_remove(tmp_path: Path) -> None:
    async with beside_engine(tmp_path) as (client, engine, _):
        await client.call("POST", "/swarm/init", init_body())
        network_id = await make(client)
        engine.add("ov", "c" * 64, Labels={"swarmtui.network": network_id})
        engine.add("left", "d" * 64, Labels={"swarmtui.network": "gone".ljust(25, "0")})
        assert (await client.call("GET", f"/networks/{'c' * 12}"))[1]["Id"] == network_id
        status, shown = await client.call("GET", "/networks/left")
        assert (status, shown["Driver"], shown["Scope"], shown["Id"]) == (
            200,
            "overlay",
            "swarm",
            "gone".ljust(25, "0"),
        )
        status, answer = await client.call("DELETE", "/networks/left")
        assert (status, "carries an overlay" in answer["message"]) == (400, True)
        assert not any(asked.startswith("DELETE") for asked in engine.asked)


async def test_a_worker_shows_the_overlays_that_it_carries(tmp_path: Path) -> None:
    async with beside_engine(tmp_path) as (client, engine, _):
        engine.add("bridge", "a" * 64)
        engine.add("ov", "c" * 64, Labels={"swarmtui.network": "x" * 25})
        _, listed = await client.call("GET", "/networks")
        assert [(n["Name"], n["Driver"], n["Scope"]) for n in listed] == [
            ("bridge", "bridge", "local"),
            ("ov", "overlay", "swarm"),
        ]
        status, answer = await client.call("DELETE", "/networks/ov")
        assert (status, "not a swarm manager" in answer["message"]) == (503, True)


async def test_pruning_an_engine_leaves_the_bridges_of_overlays(tmp_path: Path) -> None:
    async with beside_engine(tmp_path) as (client, engine, _):
        await client.call("POST", "/swarm/init", init_body())
        await make(client)
        assert await client.call("POST", "/v1.41/networks/prune") == (200, {"NetworksDeleted": ["ov", "theirs"]})
        assert engine.asked[-1] == 'POST /prune?filters={"label!":["swarmtui.network"]}'


# -- several managers


async def test_a_follower_has_its_networks_made_and_removed_by_the_leader(tmp_path: Path) -> None:
    async with managers(tmp_path) as group:
        follower = group.clients["h2"]
        network_id = await make(follower)
        for name in ("h1", "h2"):
            _, shown = await group.clients[name].call("GET", "/networks/ov")
            assert shown["Id"] == network_id
        answers = await asyncio.gather(
            *(
                group.clients[name].call("POST", "/networks/create", OVERLAY | {"Name": "same"})
                for name in ("h1", "h2", "h1", "h2")
            )
        )
        assert sorted(status for status, _ in answers) == [201, 409, 409, 409]
        assert await follower.call("POST", "/networks/prune") == (200, {"NetworksDeleted": ["ov", "same"]})
        assert await follower.call("GET", "/networks") == (200, [])
