"""How a task becomes processes: decisions and refusals, without a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.api_types.common import Driver, Limits
from agent.api_types.container import (
    ConfigReference,
    ContainerSpec,
    DNSConfig,
    HealthConfig,
    Mount,
    ReferenceFileTarget,
    SecretReference,
    Ulimit,
    VolumeOptions,
)
from agent.api_types.task import (
    Endpoint,
    EndpointSpec,
    PortConfig,
    ResourceRequirements,
    ServiceAnnotations,
    Task,
    TaskSpec,
)
from agent.worker.executors.process.host import Account, Host, UnknownAccount, find_account
from agent.worker.executors.process.launching import contents_of, files_folder, shim_settings
from agent.worker.executors.process.plan import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    parse_signal,
    parse_size,
    plan_container,
)
from agent.worker.executors.process.records import ContainerRecord
from agent.worker.interface import Dependencies, RejectedByExecutor

VOLUMES = Path("/state/volumes")

ROOT = Host(
    hostname="node1",
    architecture="x86_64",
    cpus=2,
    memory_bytes=2**30,
    root=True,
    no_isolation="",
    low_ports=True,
    controllers=frozenset({"memory", "cpu", "pids"}),
    interpreter=("/usr/bin/python3", "-S"),
    programs="/opt/agent/programs/__main__.py",
    visible=("/opt/agent",),
)
PLAIN = Host(
    hostname="node1",
    architecture="x86_64",
    cpus=2,
    memory_bytes=2**30,
    root=False,
    no_isolation="the agent does not run as root",
    low_ports=False,
    controllers=frozenset(),
    interpreter=("/usr/bin/python3", "-S"),
    programs="/opt/agent/programs/__main__.py",
    visible=("/opt/agent",),
    marks=("SWARMTUI_PLAYGROUND=abc123",),
)


def accounts(user: str, groups: tuple[str, ...]) -> Account:
    if user == "nosuch":
        raise UnknownAccount("unable to find user nosuch: no matching entries in passwd file")
    if user:
        return Account(1234, 1234, tuple(int(group) for group in groups), "/home/x")
    return Account(0, 0, (), "/root")


def plan(
    host: Host = ROOT, image: str = "alpine", *, task: dict[str, Any] | None = None, **spec: Any
) -> ContainerRecord:
    more = task or {}
    made = Task(
        id="task1",
        service_id="service1",
        slot=more.pop("slot", 2),
        node_id="node-id",
        service_annotations=ServiceAnnotations(name="web"),
        endpoint=more.pop("endpoint", None),
        labels=more.pop("labels", {}),
        spec=TaskSpec(container_spec=ContainerSpec(image=image, **spec), **more),
    )
    assert made.spec.container_spec is not None
    return plan_container(made, made.spec.container_spec, host, accounts, "127.77.1.2", VOLUMES, 5)


def environment(record: ContainerRecord) -> dict[str, str]:
    return dict(item.split("=", 1) for item in record.env)


def test_names_and_labels_are_dockers() -> None:
    record = plan(task={"labels": {"a": "b"}}, labels={"c": "d"})
    assert record.name == "web.2.task1"
    assert plan(task={"slot": 0}).name == "web.node-id.task1"
    assert record.labels["com.docker.swarm.task"] == ""
    assert record.labels["com.docker.swarm.task.id"] == "task1"
    assert record.labels["com.docker.swarm.task.name"] == "web.2.task1"
    assert record.labels["com.docker.swarm.node.id"] == "node-id"
    assert record.labels["com.docker.swarm.service.id"] == "service1"
    assert record.labels["com.docker.swarm.service.name"] == "web"
    assert (record.labels["a"], record.labels["c"]) == ("b", "d")
    assert record.hostname == record.container_id[:12]
    assert len(record.container_id) == 64


def test_command_and_arguments_replace_the_images_as_in_docker() -> None:
    assert plan().argv == ["/bin/sh"]
    assert plan(args=["sleep", "1"]).argv == ["sleep", "1"]
    assert plan(command=["top"], args=["-b"]).argv == ["top", "-b"]
    whoami = plan(image="swarmtui/whoami", args=["--port", "81"])
    assert whoami.argv == ["/usr/bin/python3", "-S", "/opt/agent/programs/__main__.py", "whoami", "--port", "81"]
    assert (whoami.entrypoint, whoami.command) == (["/whoami"], ["--port", "81"])
    assert plan(image="swarmtui/whoami", command=["sh"], args=["-c", "x"]).argv == ["sh", "-c", "x"]


def test_the_environment_and_what_cannot_be_changed_in_it() -> None:
    record = plan(
        PLAIN,
        image="swarmtui/web:1.0",
        env=["VERSION=9", "A=b=c", "PATH", "TASK_ADDRESS=1.2.3.4", "TASK_ID=x", "SWARMTUI_PLAYGROUND=other", "EMPTY="],
    )
    found = environment(record)
    assert (found["VERSION"], found["A"], found["EMPTY"]) == ("9", "b=c", "")
    assert "PATH" not in found
    assert (found["TASK_ADDRESS"], found["TASK_ID"]) == ("127.77.1.2", "task1")
    assert found["SWARMTUI_PLAYGROUND"] == "abc123"
    assert (found["TASK_NAME"], found["TASK_SLOT"], found["SERVICE_NAME"]) == ("web.2.task1", "2", "web")
    assert (found["NODE_HOSTNAME"], found["HOSTNAME"], found["HOME"]) == ("node1", record.hostname, "/root")


def test_low_ports_move_up_where_they_are_kept_to_root() -> None:
    assert plan(ROOT).port_shift == 0
    assert "TASK_PORT_SHIFT" not in environment(plan(ROOT))
    assert plan(PLAIN).port_shift == 8000
    assert environment(plan(PLAIN))["TASK_PORT_SHIFT"] == "8000"
    # Another user may not bind them either, whoever the agent is.
    assert plan(ROOT, user="x").port_shift == 8000


@pytest.mark.parametrize(
    ("host", "spec", "text"),
    [
        (ROOT, {"image": "redis"}, "No such image: redis:latest"),
        (ROOT, {"user": "nosuch"}, "unable to find user nosuch"),
        (PLAIN, {"user": "x"}, "running as user x needs root"),
        (ROOT, {"stop_signal": "SIGNOPE"}, "invalid signal: SIGNOPE"),
        (ROOT, {"env": ["=x"]}, "invalid environment variable"),
        (ROOT, {"healthcheck": HealthConfig(test=["WHAT"])}, "Unknown healthcheck type"),
        (ROOT, {"ulimits": [Ulimit(name="nope")]}, "invalid ulimit type: nope"),
        (ROOT, {"capability_add": ["NOPE"]}, "unknown capability"),
        (ROOT, {"capability_add": ["SYS_ADMIN"]}, "would let a task out of its sandbox"),
        (ROOT, {"mounts": [Mount(type="bind", source="rel", target="/x")]}, "invalid bind mount source"),
        (ROOT, {"mounts": [Mount(type="bind", source="/x", target="rel")]}, "invalid mount target"),
        (ROOT, {"mounts": [Mount(type="bind", source="/x", target="/../")]}, "invalid mount target"),
        (ROOT, {"mounts": [Mount(type="npipe", source="x", target="/x")]}, 'mount type "npipe" is not supported'),
        (
            ROOT,
            {"mounts": [Mount(type="volume", source="../x", target="/x")]},
            "invalid characters for a local volume name",
        ),
        (
            ROOT,
            {
                "mounts": [
                    Mount(source="v", target="/x", volume_options=VolumeOptions(driver_config=Driver(name="nfs")))
                ]
            },
            'plugin "nfs" not found',
        ),
        (
            PLAIN,
            {"mounts": [Mount(type="tmpfs", target="/x")]},
            "mounts are not to be had here: the agent does not run as root",
        ),
        (ROOT, {"secrets": [SecretReference(secret_name="s")]}, "secret target type is not supported: s"),
        (
            ROOT,
            {"configs": [ConfigReference(config_name="c", file=ReferenceFileTarget(name="x", uid="joe"))]},
            "owner of .*: 'joe' is no number",
        ),
        (ROOT, {"task": {"log_driver": Driver(name="splunk")}}, "no log driver named 'splunk' is registered"),
        (ROOT, {"task": {"log_driver": Driver(options={"max-size": "x"})}}, "invalid value for max-size"),
        (ROOT, {"task": {"log_driver": Driver(options={"max-file": "0"})}}, "max-file cannot be less than 1"),
    ],
)
def test_what_can_never_run_here(host: Host, spec: dict[str, Any], text: str) -> None:
    with pytest.raises(RejectedByExecutor, match=text):
        plan(host, **spec)


def test_ports_of_mode_host_under_1024_need_the_right() -> None:
    port = PortConfig(protocol="tcp", target_port=80, published_port=80, publish_mode="host")
    ingress = PortConfig(protocol="tcp", target_port=80, published_port=81, publish_mode="ingress")
    endpoint = Endpoint(ports=[port, ingress])
    assert plan(ROOT, task={"endpoint": endpoint}).published == [port]
    with pytest.raises(RejectedByExecutor, match=r"listen tcp 0\.0\.0\.0:80: bind: permission denied"):
        plan(PLAIN, task={"endpoint": endpoint})
    high = msgspec.structs.replace(port, published_port=8080)
    assert plan(PLAIN, task={"endpoint": Endpoint(spec=EndpointSpec(ports=[high]))}).published == [high]


def test_limits_that_cannot_be_enforced_are_told() -> None:
    limits = {"resources": ResourceRequirements(limits=Limits(memory_bytes=2**24, nano_cpus=10**8))}
    assert not any("limits" in notice for notice in plan(ROOT, task=dict(limits)).notices)
    assert any("limits of memory, cpu are not enforced" in notice for notice in plan(PLAIN, task=dict(limits)).notices)
    assert any("read-only root" in notice for notice in plan(PLAIN, read_only=True).notices)
    assert any("tty" in notice for notice in plan(ROOT, tty=True).notices)


def test_capabilities() -> None:
    default = sorted(CAPABILITIES[name] for name in DEFAULT_CAPABILITIES)
    assert plan().capabilities == default
    assert plan(capability_drop=["CAP_CHOWN"]).capabilities == sorted(set(default) - {CAPABILITIES["CHOWN"]})
    assert plan(capability_drop=["ALL"], capability_add=["NET_RAW"]).capabilities == [CAPABILITIES["NET_RAW"]]
    everything = plan(capability_add=["ALL"]).capabilities
    assert everything is not None
    assert CAPABILITIES["SYS_ADMIN"] not in everything
    assert plan(PLAIN).capabilities is None
    assert (CAPABILITIES["SYS_ADMIN"], CAPABILITIES["CHECKPOINT_RESTORE"]) == (21, 40)


def test_secrets_and_configs_stay_below_their_root() -> None:
    record = plan(
        PLAIN,
        secrets=[
            SecretReference(secret_id="s", secret_name="s", file=ReferenceFileTarget(name="../../etc/x", mode=0o4777))
        ],
        configs=[
            ConfigReference(
                config_id="c",
                config_name="c",
                file=ReferenceFileTarget(name="//a/../../b", uid="5", gid="6", mode=0o600),
            )
        ],
    )
    assert [file.path for file in record.files] == ["/etc/x", "/b"]
    assert [file.mode for file in record.files] == [0o777, 0o600]
    assert (record.files[1].uid, record.files[1].gid) == (5, 6)
    assert files_folder(record).startswith("/dev/shm/swarmtui-")
    assert contents_of(record, Dependencies({"s": b"1"}, {"c": b"2"})) == {"/etc/x": b"1", "/b": b"2"}
    with pytest.raises(RejectedByExecutor, match="config of /b is not here"):
        contents_of(record, Dependencies({"s": b"1"}, {}))


def test_the_shims_settings_hold_secrets_and_the_record_does_not() -> None:
    secret = SecretReference(secret_id="s", secret_name="s", file=ReferenceFileTarget(name="s", mode=0o400))
    record = plan(ROOT, secrets=[secret], dns_config=DNSConfig(nameservers=["1.1.1.1"], search=["a", "b"]), dir="app")
    settings = shim_settings(record, Path("/state/containers/task1"), ROOT, {"/run/secrets/s": b"hidden"}, ["/cg"])
    assert b"hidden" not in msgspec.json.encode(record)
    root: Any = settings["root"]
    files = {path: content for path, content, *_rest in root["files"]}
    assert files["/run/secrets/s"] == b"hidden"
    assert files["/etc/resolv.conf"] == b"nameserver 1.1.1.1\nsearch a b\n"
    assert root["cwd"] == "/app"
    assert settings["cgroups"] == ["/cg"]
    assert msgspec.json.decode(msgspec.json.encode(record), type=ContainerRecord) == record
    assert shim_settings(plan(PLAIN), Path("/x"), PLAIN, {}, [])["root"] is None


def test_volumes_have_names_and_places() -> None:
    named, nameless = plan(mounts=[Mount(type="volume", source="data", target="/data/"), Mount(target="/x/y")]).mounts
    assert (named.source, named.name, named.target) == ("/state/volumes/data", "data", "/data")
    assert nameless.name.endswith("-y")
    assert nameless.source.startswith("/state/volumes/")


@pytest.mark.parametrize(("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN", 34), ("usr1", 10)])
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "999", "SIG", "-1", "SIGTERM "])
def test_signals_that_are_none(text: str) -> None:
    with pytest.raises(RejectedByExecutor, match="invalid signal"):
        parse_signal(text)


def test_sizes() -> None:
    found = [parse_size(text) for text in ("10m", "64k", "1G", "4096", "2 mb", "x", "", "1t")]
    assert found == [10 * 2**20, 65536, 2**30, 4096, 2 * 2**20, None, None, None]


def test_accounts_of_this_machine() -> None:
    root = find_account("root")
    assert (root.uid, root.gid) == (0, 0)
    assert find_account("54321").uid == 54321
    assert find_account("54321:5").gid == 5
    assert find_account("root", ("7",)).groups == (7,)
    with pytest.raises(UnknownAccount, match="unable to find user no-such-user"):
        find_account("no-such-user")
    with pytest.raises(UnknownAccount, match="unable to find group no-such-group"):
        find_account("root:no-such-group")
