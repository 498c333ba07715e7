"""What the front door refuses: Docker's statuses and texts, and the agent that goes on."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_scripted import Client, ScriptedBackend, init_body, served, service_body
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api.backend import LocalState
from agent.api.call import MAX_BODY
from agent.api_types.node import Node, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus
from agent.api_types.service import Service

GRPC = "rpc error: code = "


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def client(backend: ScriptedBackend, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a manager."""
    async with served(backend, tmp_path) as client:
        assert (await client.call("POST", "/swarm/init", init_body()))[0] == 200
        yield client


def spec(**template: Any) -> dict[str, Any]:
    """A service whose task template has these members too."""
    container = {"Image": "busybox"} | template.pop("ContainerSpec", {})
    return service_body(TaskTemplate={"ContainerSpec": container} | template)


def ports(*configs: dict[str, Any], mode: str = "vip") -> dict[str, Any]:
    return service_body(EndpointSpec={"Mode": mode, "Ports": list(configs)})


BAD_SPECS: list[tuple[dict[str, Any], int, str]] = [
    (service_body("Bad_Näme"), 400, GRPC + "InvalidArgument desc = name must be valid as a DNS name component"),
    (service_body("a" * 64), 400, GRPC + "InvalidArgument desc = name must be 63 characters or fewer"),
    (service_body(TaskTemplate={}), 400, "mismatched Runtime and *Spec fields"),
    (service_body(TaskTemplate={"Runtime": "plugin"}), 400, "mismatched Runtime and *Spec fields"),
    (spec(Runtime="vm"), 400, "unsupported runtime"),
    (
        spec(ContainerSpec={"Image": ""}),
        400,
        GRPC + "InvalidArgument desc = ContainerSpec: image reference must be provided",
    ),
    (
        spec(ContainerSpec={"Image": "Busy Box"}),
        400,
        GRPC + 'InvalidArgument desc = ContainerSpec: "Busy Box" is not a valid repository/tag',
    ),
    (
        spec(Placement={"Constraints": ["bad"]}),
        500,
        GRPC + "Unknown desc = constraint expected one operator from ==, !=",
    ),
    (spec(Placement={"Constraints": ["!k==v"]}), 500, GRPC + "Unknown desc = key '!k' is invalid"),
    (spec(Placement={"Constraints": ["node.role==~"]}), 500, GRPC + "Unknown desc = value '~' is invalid"),
    (
        spec(Resources={"Limits": {"NanoCPUs": 100}}),
        400,
        GRPC + "InvalidArgument desc = invalid cpu value 1e-07: Must be at least 0.001",
    ),
    (
        spec(Resources={"Reservations": {"MemoryBytes": 1024}}),
        400,
        GRPC + "InvalidArgument desc = invalid memory value 1024: Must be at least 4MiB",
    ),
    (
        spec(ContainerSpec={"Mounts": [{"Type": "tmpfs", "Target": "/a"}, {"Type": "tmpfs", "Target": "/a"}]}),
        400,
        GRPC + "InvalidArgument desc = ContainerSpec: duplicate mount point: /a",
    ),
    (spec(ContainerSpec={"Mounts": [{"Type": "floppy", "Target": "/a"}]}), 400, 'invalid MountType: "floppy"'),
    (
        spec(ContainerSpec={"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000}}),
        400,
        GRPC + "InvalidArgument desc = ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
    ),
    (
        spec(ContainerSpec={"Secrets": [{"SecretID": "x", "SecretName": "y", "File": {"Name": "y"}}]}),
        400,
        GRPC + "InvalidArgument desc = secret not found: y",
    ),
    (
        spec(ContainerSpec={"Configs": [{"ConfigID": "x", "ConfigName": "y"}]}),
        400,
        GRPC + "InvalidArgument desc = malformed config reference, no target provided",
    ),
    (spec(RestartPolicy={"Condition": "sometimes"}), 400, 'invalid RestartCondition: "sometimes"'),
    (
        spec(RestartPolicy={"Delay": -1}),
        400,
        GRPC + "InvalidArgument desc = TaskSpec: restart-delay cannot be negative",
    ),
    (service_body(UpdateConfig={"FailureAction": "bogus"}), 400, "unrecognized update failure action bogus"),
    (service_body(UpdateConfig={"Order": "bogus"}), 400, "unrecognized update order bogus"),
    (
        service_body(UpdateConfig={"MaxFailureRatio": 1.5}),
        400,
        GRPC + "InvalidArgument desc = TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
    ),
    (service_body(Mode={"Replicated": {}, "Global": {}}), 400, "must specify only one service mode"),
    (
        service_body(Mode={"Replicated": {"Replicas": -1}}),
        400,
        GRPC + "InvalidArgument desc = Number of replicas must be non-negative",
    ),
    (
        service_body(Mode={"Replicated": {"Replicas": 10**12}}),
        400,
        GRPC + "InvalidArgument desc = Number of replicas must be at most 1000000",
    ),
    (
        service_body(Mode={"ReplicatedJob": {"TotalCompletions": -1}}),
        400,
        GRPC + "InvalidArgument desc = Total completed jobs must not be negative",
    ),
    (
        service_body(Mode={"GlobalJob": {}}, UpdateConfig={"Parallelism": 1}),
        400,
        GRPC + "InvalidArgument desc = Jobs may not have an update config",
    ),
    (service_body(EndpointSpec={"Mode": "magic"}), 400, 'invalid resolution mode: "magic"'),
    (
        ports({"TargetPort": 80, "PublishedPort": 8080}, {"TargetPort": 81, "PublishedPort": 8080}),
        400,
        GRPC + "InvalidArgument desc = EndpointSpec: duplicate published ports provided",
    ),
    (
        ports({"TargetPort": 80, "PublishedPort": 8080}, mode="dnsrr"),
        400,
        GRPC + "InvalidArgument desc = EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        ports({"TargetPort": 80, "PublishedPort": 70000}),
        400,
        GRPC + "InvalidArgument desc = EndpointSpec: published port 70000 is not between 1 and 65535",
    ),
    (ports({"TargetPort": 80, "Protocol": "icmp"}), 400, 'invalid port protocol: "icmp"'),
    (spec(Networks=[{"Target": "nosuch"}]), 404, "network nosuch not found"),
]


@pytest.mark.parametrize(("body", "status", "text"), BAD_SPECS, ids=[case[2][-40:] for case in BAD_SPECS])
async def test_a_bad_service_is_refused_and_not_made(
    client: Client, backend: ScriptedBackend, body: dict[str, Any], status: int, text: str
) -> None:
    assert await client.call("POST", "/v1.41/services/create", body) == (status, {"message": text})
    assert backend.store is not None
    assert backend.store.view(lambda tx: tx.count(Service)) == 0


@pytest.mark.parametrize(
    ("taken", "wanted", "how"),
    [
        ("ingress", "ingress", "an ingress port"),
        ("ingress", "host", "an ingress port"),
        ("host", "ingress", "a host-published port"),
    ],
)
async def test_a_port_has_one_owner(client: Client, taken: str, wanted: str, how: str) -> None:
    def publishing(name: str, mode: str) -> dict[str, Any]:
        return ports({"TargetPort": 80, "PublishedPort": 8080, "PublishMode": mode}) | {"Name": name}

    first = (await client.call("POST", "/services/create", publishing("one", taken)))[1]["ID"]
    status, answer = await client.call("POST", "/services/create", publishing("two", wanted))
    assert (status, answer["message"]) == (
        400,
        f"{GRPC}InvalidArgument desc = port '8080' is already in use by service 'one' ({first}) as {how}",
    )


async def test_host_ports_of_two_services_live_together(client: Client) -> None:
    for name in ("one", "two"):
        body = ports({"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}) | {"Name": name}
        assert (await client.call("POST", "/services/create", body))[0] == 201


async def test_what_an_update_cannot_change(client: Client) -> None:
    service = (await client.call("POST", "/services/create", service_body()))[1]["ID"]
    version = (await client.call("GET", "/services/web"))[1]["Version"]["Index"]

    async def refusal(body: dict[str, Any], query: str) -> tuple[int, str]:
        status, answer = await client.call("POST", f"/services/{service}/update?{query}", body)
        return status, answer["message"]

    unimplemented = GRPC + "Unimplemented desc = "
    ours = f"version={version}"
    assert await refusal(service_body("other"), ours) == (501, unimplemented + "renaming services is not supported")
    mode = service_body(Mode={"Global": {}})
    assert await refusal(mode, ours) == (501, unimplemented + "service mode change is not allowed")
    assert await refusal(service_body(), f"version={version - 1}") == (
        500,
        GRPC + "Unknown desc = update out of sequence",
    )
    assert await refusal(service_body(), "version=") == (
        400,
        "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax",
    )
    assert await refusal(service_body(), ours + "&rollback=next") == (500, "unrecognized rollback option next")
    assert await refusal(service_body(), ours + "&registryAuthFrom=x") == (500, "unsupported registryAuthFrom value")
    assert await refusal(service_body(), ours + "&rollback=previous") == (
        400,
        f"{GRPC}FailedPrecondition desc = service {service} does not have a previous spec",
    )


async def test_names_prefixes_and_ambiguity(client: Client, backend: ScriptedBackend) -> None:
    backend.next_ids = ["abc" + "0" * 22, "abd" + "0" * 22, "web" + "0" * 22]
    for name in ("one", "abd", "three"):
        await client.call("POST", "/services/create", service_body(name))
    assert (await client.call("GET", "/services/abc"))[1]["Spec"]["Name"] == "one"
    assert (await client.call("GET", "/services/abd"))[1]["Spec"]["Name"] == "abd"  # a name beats a prefix
    assert await client.call("GET", "/services/ab") == (400, {"message": "service ab is ambiguous (2 matches found)"})


async def test_nodes_that_cannot_go(client: Client, backend: ScriptedBackend) -> None:
    worker = Node(
        id="w" * 25,
        spec=NodeSpec(role=NodeRole.WORKER),
        description=NodeDescription(hostname="h2"),
        status=NodeStatus(state=NodeState.READY),
    )
    await backend.put(worker)
    me = backend.node_id
    status, answer = await client.call("DELETE", "/nodes/h1")
    assert (status, answer["message"]) == (
        400,
        f"{GRPC}FailedPrecondition desc = node {me} is a cluster manager and is a member of the raft cluster. "
        "It must be demoted to worker before removal",
    )
    status, answer = await client.call("DELETE", "/nodes/h2")
    assert (status, answer["message"]) == (
        400,
        f"{GRPC}FailedPrecondition desc = node {worker.id} is not down and can't be removed",
    )
    assert (await client.call("DELETE", "/nodes/h2?force=1"))[0] == 200
    assert (await client.call("GET", "/nodes/h2"))[0] == 404


async def test_node_words(client: Client) -> None:
    body = {"Labels": {}, "Role": "king", "Availability": "active"}
    assert await client.call("POST", "/nodes/h1/update?version=1", body) == (400, {"message": 'invalid Role: "king"'})
    body = {"Labels": {}, "Role": "manager", "Availability": "asleep"}
    refused = (400, {"message": 'invalid Availability: "asleep"'})
    assert await client.call("POST", "/nodes/h1/update?version=1", body) == refused


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/services?filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", "invalid filter 'colour'"),
        ("/nodes?filters=%7B%22role%22%3A%5B%22king%22%5D%7D", "Invalid role filter: 'king'"),
        ("/nodes?filters=%7B%22membership%22%3A%5B%22x%22%5D%7D", "Invalid membership filter: 'x'"),
        ("/tasks?filters=%7B%22desired-state%22%3A%5B%22x%22%5D%7D", "Invalid desired-state filter: 'x'"),
        ("/services?status=perhaps", "invalid value for status: perhaps"),
        ("/services/x?insertDefaults=perhaps", "invalid value for insertDefaults: perhaps"),
        ("/services/x/logs", "Bad parameters: you must choose at least one stream"),
        ("/services/x/logs?stdout=1&tail=many", 'tail value must be a positive integer or "all"'),
        ("/services/x/logs?stdout=1&tail=-1", "negative tail values not supported"),
        ("/swarmtui/v1/watch?since=yesterday", "invalid value for since: yesterday"),
    ],
)
async def test_bad_queries(client: Client, path: str, text: str) -> None:
    assert await client.call("GET", path) == (400, {"message": text})


async def test_both_forms_of_filters(client: Client) -> None:
    for name in ("web", "wide", "api"):
        await client.call("POST", "/services/create", service_body(name, Labels={"tier": name[0]}))

    async def names(filters: object) -> set[str]:
        found = (await client.call("GET", "/services?filters=" + json.dumps(filters).replace('"', "%22")))[1]
        return {service["Spec"]["Name"] for service in found}

    assert await names({"name": {"w": True}}) == {"web", "wide"}
    assert await names({"name": ["w"]}) == {"web", "wide"}
    assert await names({"label": ["tier=a"]}) == {"api"}
    assert await names({"label": ["tier"], "name": ["api", "web"]}) == {"api", "web"}
    assert await names({"mode": ["global"]}) == set()
    assert await names({}) == {"web", "wide", "api"}


async def test_a_worker_and_a_stranger_say_what_to_do(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    async with served(backend, tmp_path) as client:
        status, answer = await client.call("GET", "/services")
        assert (status, answer["message"][:80]) == (
            503,
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join"',
        )
        assert await client.call("POST", "/swarm/leave") == (503, {"message": "This node is not part of a swarm"})
        backend.local_state = LocalState.LOCKED
        assert (await client.call("GET", "/nodes"))[1]["message"].startswith(
            "Swarm is encrypted and needs to be unlocked"
        )
        assert (await client.call("POST", "/swarm/unlock", {"UnlockKey": "SWMKEY-1-x"}))[0] == 200
        assert backend.unlocked_with == "SWMKEY-1-x"
        assert "Worker nodes can't" in (await client.call("GET", "/nodes"))[1]["message"]


async def test_swarm_requests_that_make_no_sense(client: Client, tmp_path: Path) -> None:
    async def refusal(path: str, body: dict[str, Any]) -> tuple[int, str]:
        status, answer = await client.call("POST", path, body)
        return status, answer["message"]

    assert (await refusal("/swarm/init", init_body()))[0] == 503
    assert await refusal("/swarm/unlock", {"UnlockKey": "x"}) == (409, "swarm is not locked")
    version = (await client.call("GET", "/swarm"))[1]["Version"]["Index"]
    assert await refusal(f"/swarm/update?version={version}", {"Name": "mine"}) == (
        400,
        'swarm spec must be named "default"',
    )
    short = {"CAConfig": {"NodeCertExpiry": 1000}}
    assert await refusal(f"/swarm/update?version={version}", short) == (
        400,
        GRPC + "InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
    )
    assert (await refusal(f"/swarm/update?version={version}&rotateWorkerToken=often", {}))[1] == (
        "invalid value for rotateWorkerToken: often"
    )
    async with served(ScriptedBackend(), tmp_path, "other") as other:
        for body, text in (
            ({}, 'invalid ListenAddr "": invalid empty address'),
            (init_body(Spec={"Name": "x"}), 'swarm spec must be named "default"'),
            (init_body(Availability="never"), 'invalid Availability: "never"'),
        ):
            assert await other.call("POST", "/swarm/init", body) == (400, {"message": text})
        join = {"ListenAddr": "0.0.0.0:2377", "JoinToken": "SWMTKN-1-bad"}
        refused = (400, {"message": "at least 1 RemoteAddr is required to join"})
        assert await other.call("POST", "/swarm/join", join) == refused
        join["RemoteAddrs"] = ["127.0.0.1:2377"]  # type: ignore[assignment]
        assert await other.call("POST", "/swarm/join", join) == (500, {"message": "invalid join token"})


async def test_tokens_and_unlock_key_rotate_alone(client: Client) -> None:
    async def update(query: str, **changes: Any) -> dict[str, Any]:
        swarm = (await client.call("GET", "/swarm"))[1]
        body = swarm["Spec"] | changes
        assert (await client.call("POST", f"/swarm/update?version={swarm['Version']['Index']}&{query}", body))[0] == 200
        return dict((await client.call("GET", "/swarm"))[1]["JoinTokens"])

    async def key() -> str:
        return str((await client.call("GET", "/swarm/unlockkey"))[1]["UnlockKey"])

    before = (await client.call("GET", "/swarm"))[1]["JoinTokens"]
    worker = await update("rotateWorkerToken=true")
    assert (worker["Worker"] != before["Worker"], worker["Manager"]) == (True, before["Manager"])
    manager = await update("rotateManagerToken=1")
    assert (manager["Manager"] != worker["Manager"], manager["Worker"]) == (True, worker["Worker"])
    assert await key() == ""
    locked = {"EncryptionConfig": {"AutoLockManagers": True}}
    await update("", **locked)
    first = await key()
    assert first.startswith("SWMKEY-1-")
    await update("", **locked)
    assert await key() == first
    await update("rotateManagerUnlockKey=true", **locked)
    assert await key() not in ("", first)
    await update("", EncryptionConfig={"AutoLockManagers": False})
    assert await key() == ""


async def test_secrets_never_show_their_data(client: Client) -> None:
    body = {"Name": "s", "Labels": {"a": "b"}, "Data": "dG9w"}
    made = (await client.call("POST", "/secrets/create", body))[1]["ID"]
    for path in ("/secrets", "/secrets/s", f"/secrets/{made}"):
        assert "dG9w" not in json.dumps((await client.call("GET", path))[1])
    async with client.session.get("http://d/swarmtui/v1/watch") as stream:
        seen = b""
        while b'"synced"' not in seen:
            seen += await stream.content.readline()
    assert b"dG9w" not in seen
    assert b"PRIVATE KEY" not in seen
    assert b"CAKey" not in seen
    bad = [
        ({"Name": "s", "Data": "eA=="}, 409, "AlreadyExists desc = secret s already exists"),
        (
            {"Name": "x y", "Data": "eA=="},
            400,
            "InvalidArgument desc = invalid name, only 64 [a-zA-Z0-9-_.] characters",
        ),
        ({"Name": "e"}, 400, "InvalidArgument desc = secret data must be larger than 0 and less than 512000 bytes"),
    ]
    for refused, status, text in bad:
        answer = await client.call("POST", "/secrets/create", refused)
        assert answer[0] == status
        assert text in answer[1]["message"]


async def test_registry_credentials_are_kept_and_never_shown(client: Client, backend: ScriptedBackend) -> None:
    def kept() -> list[str]:
        assert backend.store is not None
        (service,) = backend.store.view(lambda tx: tx.all(Service))
        specs = [service.spec, service.previous_spec]
        containers = [spec.task_template.container_spec for spec in specs if spec is not None]
        return [c.pull_options.registry_auth if c and c.pull_options else "" for c in containers]

    async def update(query: str, auth: str = "") -> None:
        version = (await client.call("GET", "/services/web"))[1]["Version"]["Index"]
        headers = {"X-Registry-Auth": auth} if auth else {}
        body = service_body(Labels={"n": str(version)})
        told = await client.call("POST", f"/services/web/update?version={version}&{query}", body, headers=headers)
        assert told == (200, {"Warnings": None})

    body = service_body()
    body["TaskTemplate"]["ContainerSpec"]["PullOptions"] = {"RegistryAuth": "from the body"}
    await client.call("POST", "/services/create", body, headers={"X-Registry-Auth": "first"})
    assert kept() == ["first"]
    await update("registryAuthFrom=spec")
    assert kept() == ["first", "first"]
    await update("", auth="second")
    assert kept() == ["second", "first"]
    await update("registryAuthFrom=previous-spec")
    assert kept() == ["first", "second"]
    shown = json.dumps([await client.call("GET", path) for path in ("/services", "/services/web?insertDefaults=true")])
    async with client.session.get("http://d/swarmtui/v1/watch") as stream:
        while '"synced"' not in (line := (await stream.content.readline()).decode()):
            shown += line
    assert "PullOptions" not in shown


# -- bytes that are no requests


async def raw(folder: Path, data: bytes, *, half_close: bool = False) -> bytes:
    """What the server answers to these bytes."""
    reader, writer = await asyncio.open_unix_connection(str(folder / "api.sock"))
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_stops_talking_still_gets_its_answer(client: Client, tmp_path: Path) -> None:
    request = b"GET /nodes HTTP/1.1\r\nHost: d\r\n\r\n"
    answer = await raw(tmp_path, request, half_close=True)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert (await raw(tmp_path, request + request, half_close=True)).count(b"HTTP/1.1 200 OK") == 2
    assert await raw(tmp_path, b"", half_close=True) == b""
    cut = await raw(
        tmp_path, b"POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Length: 100\r\n\r\n{", half_close=True
    )
    assert cut.startswith(b"HTTP/1.1 400")
    assert b"the request's body is incomplete" in cut


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /nodes HTTP/9.9\r\n\r\n", b"400"),
        (b"GET /nodes HTTP/1.1\r\nHost: d\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: d\r\n\r\n", b"400"),
        (b"POST /services/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
async def test_what_is_no_http_gets_a_message(client: Client, tmp_path: Path, data: bytes, status: bytes) -> None:
    answer = await raw(tmp_path, data)
    assert answer.split(b" ", 2)[1] == status
    assert b'{"message":"' in answer
    assert (await client.call("GET", "/nodes"))[0] == 200


async def test_bodies_that_are_too_large(client: Client, tmp_path: Path) -> None:
    body = io.BytesIO(b" " * (MAX_BODY + 1))
    told = await client.call("POST", "/services/create", body, headers={"Content-Type": "application/json"})
    assert told[0] == 413
    assert str(MAX_BODY) in told[1]["message"]

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    async with client.session.post("http://d/services/create", data=endless(), headers=headers) as answer:
        assert answer.status == 413
    assert (await client.call("GET", "/nodes"))[0] == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"{", "invalid JSON: "),
        (b"[]", "invalid JSON: "),
        (b'{"Name": 7}', "invalid JSON: "),
        (b'{"Name": "x"} trailing', "invalid JSON: "),
        (b"\xff\xfe", "invalid JSON: "),
        (b'{"TaskTemplate":' * 50_000, "invalid JSON: "),
    ],
)
async def test_json_that_is_none(client: Client, body: bytes, text: str) -> None:
    status, answer = await client.call("POST", "/services/create", body, headers={"Content-Type": "application/json"})
    assert status == 400
    assert answer["message"].startswith(text)


async def test_another_media_type(client: Client) -> None:
    told = await client.call("POST", "/services/create", b"<xml/>", headers={"Content-Type": "text/xml"})
    assert told == (400, {"message": "unsupported Content-Type header (text/xml): must be 'application/json'"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = (
    "Name Labels TaskTemplate ContainerSpec Image Mode Replicated Replicas Global ReplicatedJob EndpointSpec Ports "
    "PublishedPort TargetPort Protocol UpdateConfig Parallelism Monitor Networks Target Secrets File Placement "
    "Constraints Preferences Resources Limits NanoCPUs MemoryBytes RestartPolicy Condition Delay Mounts Type "
    "Healthcheck Interval Env Args Role Availability Data Spec CAConfig NodeCertExpiry Dispatcher HeartbeatPeriod "
    "Raft ListenAddr"
)
NAMES = st.sampled_from(WORDS.split())
QUERIES = "filters status insertDefaults since until tail stdout follow version force"
SPECS = st.recursive(
    JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=6) | st.lists(inner, max_size=2), max_leaves=30
)
TARGETS = st.sampled_from(
    [
        ("POST", "/services/create"),
        ("POST", "/services/web/update?version=7"),
        ("POST", "/nodes/h1/update?version=1"),
        ("POST", "/swarm/update?version=1"),
        ("POST", "/swarm/init"),
        ("POST", "/swarm/join"),
        ("POST", "/swarm/unlock"),
        ("POST", "/secrets/create"),
        ("POST", "/configs/create"),
        ("POST", "/networks/create"),
    ]
)


async def test_any_json_gets_an_answer_of_the_api(client: Client) -> None:
    """Whatever a client sends: a status that means something, a message, and no failure of the server itself."""
    await client.call("POST", "/services/create", service_body())
    sent: list[tuple[tuple[str, str], Any]] = []

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(TARGETS, SPECS)
    def collect(target: tuple[str, str], body: Any) -> None:
        sent.append((target, body))

    collect()
    for (method, path), body in sent:
        status, answer = await client.call(
            method, path, json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        assert status in (200, 201, 400, 404, 409, 413, 500, 501, 503), (method, path, body, answer)
        if status >= 400:
            assert "internal error" not in answer["message"], (method, path, body, answer)
            assert status != 500 or answer["message"].startswith(GRPC), (method, path, body, answer)
    assert len(sent) >= 250
    assert (await client.call("GET", "/services?status=true"))[0] == 200


async def test_any_query_gets_an_answer_of_the_api(client: Client) -> None:
    paths = [
        "/nodes",
        "/services",
        "/tasks",
        "/secrets",
        "/configs",
        "/networks",
        "/services/web",
        "/tasks/x/logs",
        "/swarm",
    ]
    sent: list[tuple[str, dict[str, str]]] = []
    queries = st.dictionaries(
        st.sampled_from(
            ["filters", "status", "insertDefaults", "since", "until", "tail", "stdout", "follow", "version", "force"]
        ),
        st.text(max_size=12) | SPECS.map(json.dumps),
        max_size=4,
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.sampled_from(paths), queries)
    def collect(path: str, query: dict[str, str]) -> None:
        sent.append((path, query))

    collect()
    for path, query in sent:
        async with client.session.get(f"http://d{path}", params=query) as answer:
            assert answer.status in (200, 400, 404), (path, query, await answer.text())
