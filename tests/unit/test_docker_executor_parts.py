"""The Docker executor's decisions, without an engine."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api_types.common import Driver, Limits, Resources
from agent.api_types.container import (
    ConfigReference,
    ContainerSpec,
    CredentialSpec,
    HealthConfig,
    Mount,
    Privileges,
    ReferenceFileTarget,
    SecretReference,
    SELinuxContext,
    VolumeOptions,
)
from agent.api_types.network import Network, NetworkAttachment, NetworkSpec
from agent.api_types.node import NodeDescription
from agent.api_types.task import (
    Endpoint,
    EndpointSpec,
    PortConfig,
    ResourceRequirements,
    ServiceAnnotations,
    Task,
    TaskSpec,
)
from agent.api_types.times import SECOND, format_time
from agent.worker.executors.docker.container import Placement, create_body, extra_hosts, grace_seconds
from agent.worker.executors.docker.describe import EngineInfo, description
from agent.worker.executors.docker.files import Delivered, TaskFiles, filesystem_in
from agent.worker.executors.docker.images import reference_parts
from agent.worker.executors.docker.names import labels, task_name
from agent.worker.executors.docker.outcome import (
    Container,
    address,
    exit_status,
    is_passing,
    name_conflict,
    no_such_image,
    port_status,
)
from agent.worker.executors.docker.output import LONGEST_LINE, Framed, MalformedOutput, Terminal, split_time
from agent.worker.executors.docker.template import Expansion, expand_spec
from agent.worker.interface import Dependencies, LogLine, RejectedByExecutor, Stream


def a_task(container: ContainerSpec | None = None, /, **changes: object) -> Task:
    fields: dict[str, object] = {
        "spec": TaskSpec(container_spec=container or ContainerSpec(image="bb:1")),
        "service_id": "svc1",
        "slot": 2,
        "node_id": "node1",
        "service_annotations": ServiceAnnotations(name="web", labels={"tier": "front"}),
    }
    return Task(id="task1", **{**fields, **changes})


NODE = NodeDescription(hostname="h1")


def body_of(task: Task, *files: Delivered) -> dict[str, object]:
    assert task.spec.container_spec is not None
    return create_body(task, task.spec.container_spec, Placement("me", files))


# -- the body of a container


def test_a_command_replaces_the_entrypoint_and_arguments_alone_do_not() -> None:
    with_command = body_of(a_task(ContainerSpec(image="i", command=["a"], args=["b"])))
    assert (with_command["Entrypoint"], with_command["Cmd"]) == (["a"], ["b"])
    with_arguments = body_of(a_task(ContainerSpec(image="i", args=["b"])))
    assert "Entrypoint" not in with_arguments
    assert with_arguments["Cmd"] == ["b"]
    assert "Cmd" not in body_of(a_task())


def test_labels_of_the_system_win_over_the_task_over_the_spec() -> None:
    spec = ContainerSpec(image="i", labels={"a": "spec", "b": "spec", "com.docker.swarm.task.id": "forged"})
    made = labels(a_task(spec, labels={"b": "task"}), "me")
    assert (made["a"], made["b"], made["com.docker.swarm.task.id"]) == ("spec", "task", "task1")
    assert made["swarmtui.agent"] == "me"


def test_names_are_service_slot_task_and_the_node_for_global_ones() -> None:
    assert task_name(a_task()) == "web.2.task1"
    assert task_name(a_task(slot=0)) == "web.node1.task1"
    assert task_name(a_task(service_annotations=None)) == "svc1.2.task1"
    assert task_name(a_task(name="given")) == "given"


def test_limits_and_reservations() -> None:
    resources = ResourceRequirements(
        limits=Limits(nano_cpus=1_500_000_000, memory_bytes=10, pids=5), reservations=Resources(memory_bytes=4)
    )
    host = body_of(a_task(spec=TaskSpec(container_spec=ContainerSpec(image="i"), resources=resources)))["HostConfig"]
    assert (host["CpuPeriod"], host["CpuQuota"], host["Memory"]) == (100_000, 150_000, 10)
    assert (host["PidsLimit"], host["MemoryReservation"]) == (5, 4)
    bare = body_of(a_task())["HostConfig"]
    assert not {"CpuQuota", "Memory", "PidsLimit", "Init", "Dns", "LogConfig"} & bare.keys()
    assert bare["RestartPolicy"] == {"Name": "no"}


def test_only_ports_of_mode_host_are_the_engines() -> None:
    ports = [
        PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=80, published_port=8081, publish_mode="host"),
        PortConfig(protocol="UDP", target_port=53, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=443, published_port=8443, publish_mode="ingress"),
    ]
    body = body_of(a_task(endpoint=Endpoint(spec=EndpointSpec(ports=ports))))
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}],
        "53/udp": [{}],
    }
    assert body["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}


def test_the_hosts_network_replaces_the_bridge() -> None:
    attachment = NetworkAttachment(network=Network(spec=NetworkSpec(name="host")))
    assert body_of(a_task())["HostConfig"]["NetworkMode"] == "default"
    assert body_of(a_task(networks_attachments=[attachment]))["HostConfig"]["NetworkMode"] == "host"


def test_security_options() -> None:
    context = SELinuxContext(disable=True, user="u", level="s0")
    privileges = Privileges(no_new_privileges=True, selinux_context=context)
    host = body_of(a_task(ContainerSpec(image="i", privileges=privileges)))["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges:true", "label=disable", "label=user:u", "label=level:s0"]


def test_a_health_check_and_files_and_log_driver() -> None:
    check = HealthConfig(test=["CMD", "x"], interval=5, retries=2)
    task = a_task(
        spec=TaskSpec(
            container_spec=ContainerSpec(image="i", healthcheck=check),
            log_driver=Driver(name="syslog", options={"a": "b"}),
        )
    )
    body = body_of(task, Delivered(Path("/dev/shm/x"), "/run/secrets/x"))
    assert body["Healthcheck"] == {"Test": ["CMD", "x"], "Interval": 5, "Retries": 2}
    assert body["HostConfig"]["LogConfig"] == {"Type": "syslog", "Config": {"a": "b"}}
    assert body["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/dev/shm/x", "Target": "/run/secrets/x", "ReadOnly": True}
    ]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (ContainerSpec(), "image required"),
        (ContainerSpec(image="i", mounts=[Mount(type="cluster", target="/x")]), "cluster volumes are not supported"),
        (ContainerSpec(image="i", privileges=Privileges(credential_spec=CredentialSpec(file="x"))), "Windows"),
    ],
)
def test_what_cannot_be_is_refused_in_words(spec: ContainerSpec, text: str) -> None:
    with pytest.raises(RejectedByExecutor, match=text):
        body_of(a_task(spec))


def test_every_body_is_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(body_of(a_task())))


def test_grace_is_rounded_up() -> None:
    assert [grace_seconds(ns) for ns in (None, 0, 1, SECOND, SECOND + 1)] == [10, 0, 1, 1, 2]


def test_lines_of_a_hosts_file_become_the_engines_entries() -> None:
    assert extra_hosts(["10.0.0.1 a b", "::1 six"]) == ["a:10.0.0.1", "b:10.0.0.1", "six:::1"]


# -- templates


def expand(text: str, task: Task | None = None) -> str:
    return Expansion.of(task or a_task(), NODE).expand(text)


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("plain", "plain"),
        ("{{.Service.Name}}", "web"),
        ("{{ .Service.ID }}-{{.Task.ID}}-{{.Node.ID}}", "svc1-task1-node1"),
        ("{{.Task.Name}}", "web.2.task1"),
        ("{{.Task.Slot}}", "2"),
        ("{{.Node.Hostname}}", "h1"),
        ('{{index .Service.Labels "tier"}}', "front"),
        ("{{index .Service.Labels `none`}}", ""),
        ('{{join "-" .Service.Name .Task.Slot}}', "web-2"),
        ('{{"lit\\"eral"}}', 'lit"eral'),
        ("a  {{- .Task.Slot -}}  b", "a2b"),
        ("{{/* a comment */}}x", "x"),
        ("{{.Service.Labels}}", "map[tier:front]"),
        ('{{"}}"}}', "}}"),
        ("a } b }} c", "a } b }} c"),
    ],
)
def test_templates_expand_as_go_does(template: str, result: str) -> None:
    assert expand(template) == result


def test_the_slot_of_a_global_task_is_its_node() -> None:
    assert expand("{{.Task.Slot}}", a_task(slot=0)) == "node1"


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{.Service.Nope}}",
        "{{.Service.Name.More}}",
        "{{if .Task.Slot}}x{{end}}",
        "{{.Task.Slot | printf}}",
        '{{index "a" "b"}}',
        "{{}}",
        '{{"open}}',
        "{{.Task.Slot}} {{ .Service",
    ],
)
def test_a_template_that_is_not_understood_is_refused_and_named(template: str) -> None:
    with pytest.raises(RejectedByExecutor, match="expanding template"):
        expand(template)


@given(st.text(alphabet='{}.-" `\\/*aSTservice\n', max_size=40))
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        assert isinstance(expand(text), str)
    except RejectedByExecutor:
        assert "{{" in text


def test_hostname_environment_and_mounts_are_expanded_and_nothing_else() -> None:
    mark = "{{.Task.Slot}}"
    spec = ContainerSpec(
        image=mark,
        args=[mark],
        hostname=mark,
        env=[f"A={mark}"],
        mounts=[
            Mount(
                source=mark,
                target=mark,
                volume_options=VolumeOptions(labels={mark: mark}, driver_config=Driver(name="n", options={"o": mark})),
            )
        ],
    )
    done = expand_spec(spec, Expansion.of(a_task(), NODE))
    assert (done.image, done.args, done.hostname, done.env) == (mark, [mark], "2", ["A=2"])
    (mount,) = done.mounts
    assert mount.volume_options is not None
    assert mount.volume_options.driver_config is not None
    assert (mount.source, mount.target) == ("2", "2")
    assert (mount.volume_options.labels, mount.volume_options.driver_config.options) == ({mark: "2"}, {"o": "2"})


# -- what the engine says


def a_container(**state: object) -> Container:
    return msgspec.convert({"Id": "c", "State": state}, Container)


def test_how_a_container_ended() -> None:
    assert exit_status(a_container(Status="exited")).error == ""
    assert exit_status(a_container(ExitCode=2)).error == "task: non-zero exit (2)"
    assert exit_status(a_container(ExitCode=137, OOMKilled=True)).error == "task: non-zero exit (137): out of memory"
    assert exit_status(a_container(ExitCode=127, Error="no")).error == "task: non-zero exit (127): no"
    assert exit_status(a_container(ExitCode=0), unhealthy=True).error == "dockerexec: unhealthy container"
    assert (
        exit_status(a_container(ExitCode=143), unhealthy=True).error
        == "task: non-zero exit (143): dockerexec: unhealthy container"
    )


def test_where_a_container_answers() -> None:
    def on(mode: str, running: bool = True, **networks: str) -> Container:
        return msgspec.convert(
            {
                "Id": "c",
                "State": {"Status": "running" if running else "exited"},
                "HostConfig": {"NetworkMode": mode},
                "NetworkSettings": {"Networks": {name: {"IPAddress": ip} for name, ip in networks.items()}},
            },
            Container,
        )

    assert address(on("default", bridge="172.17.0.2")) == "172.17.0.2"
    assert address(on("default", other="10.0.0.2", bridge="172.17.0.2")) == "172.17.0.2"
    assert address(on("default", bridge="", other="10.0.0.2")) == "10.0.0.2"
    assert address(on("host")) == "127.0.0.1"
    assert address(on("none")) is None
    assert address(on("default", False, bridge="172.17.0.2")) is None


def test_host_ports_are_named_once() -> None:
    ports = {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": None,
    }
    container = msgspec.convert({"Id": "c", "NetworkSettings": {"Ports": ports}}, Container)
    assert port_status(container).ports == [
        PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="host")
    ]


@pytest.mark.parametrize(
    ("status", "message", "passing"),
    [
        (503, "anything", True),
        (500, "connection error: desc = transport: dial unix containerd.sock: connect: connection refused", True),
        (500, "transport is closing: unavailable", True),
        (500, "context canceled", True),
        (500, "driver failed programming external connectivity: Bind for :80 failed: port is already allocated", False),
        (500, "OCI runtime create failed: executable file not found", False),
        (404, "No such container: x", False),
        (409, "connection refused", False),
        (500, 'Get "https://registry.test/v2/": dial tcp: lookup registry.test: read: connection refused', False),
        (500, 'Get "https://registry.test/v2/": context deadline exceeded', False),
    ],
)
def test_which_errors_pass(status: int, message: str, passing: bool) -> None:
    assert is_passing(status, message) is passing


def test_conflicts_and_missing_images_are_told_from_their_texts() -> None:
    taken = 'Conflict. The container name "/x" is already in use by container "abc". You have to remove it.'
    assert name_conflict(409, taken)
    assert not name_conflict(409, "removal of container x is already in progress")
    assert no_such_image(404, "No such image: x:latest")
    assert not no_such_image(404, "No such container: x")


def test_a_node_is_described_in_sorted_order() -> None:
    info = msgspec.convert(
        {
            "Name": "h",
            "NCPU": 2,
            "MemTotal": 5,
            "Architecture": "x86_64",
            "OSType": "linux",
            "ServerVersion": "20.10",
            "Labels": ["a=b=c", "flag"],
            "Plugins": {"Volume": ["local"], "Network": ["host", "bridge"], "Log": None, "Authorization": None},
            "GenericResources": [
                {"NamedResourceSpec": {"Kind": "gpu", "Value": "u1"}},
                {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
            ],
        },
        EngineInfo,
    )
    node = description(info)
    assert [(one.type, one.name) for one in node.engine.plugins] == [
        ("Network", "bridge"),
        ("Network", "host"),
        ("Volume", "local"),
    ]
    assert node.engine.labels == {"a": "b=c", "flag": ""}
    assert node.resources.nano_cpus == 2_000_000_000
    named, discrete = node.resources.generic_resources
    assert named.named is not None
    assert discrete.discrete is not None
    assert (named.named.value, discrete.discrete.value) == ("u1", 3)


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("bb", ("bb", "latest")),
        ("bb:1", ("bb", "1")),
        ("host:5000/bb", ("host:5000/bb", "latest")),
        ("host:5000/a/bb:2", ("host:5000/a/bb", "2")),
        ("bb@sha256:" + "0" * 64, ("bb", "sha256:" + "0" * 64)),
    ],
)
def test_the_parts_of_an_image_name(image: str, parts: tuple[str, str]) -> None:
    assert reference_parts(image) == parts


# -- output


def stamped(timestamp: int, text: bytes) -> bytes:
    return format_time(timestamp).encode() + b" " + text


def frame(stream: int, content: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(content).to_bytes(4, "big") + content


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50).filter(lambda text: b"\n" not in text)), max_size=8
    ),
    st.lists(st.integers(1, 30), max_size=60),
)
def test_frames_are_read_however_they_are_cut(lines: list[tuple[int, bytes]], cuts: list[int]) -> None:
    raw = b"".join(frame(stream, stamped(n, text + b"\n")) for n, (stream, text) in enumerate(lines, 1))
    parser, read, position = Framed(), [], 0
    for size in itertools.chain(cuts, itertools.repeat(len(raw) + 1)):
        if position >= len(raw):
            break
        read += parser.feed(raw[position : position + size])
        position += size
    assert read == [
        LogLine(n, Stream.STDOUT if stream == 1 else Stream.STDERR, text.removesuffix(b"\r"))
        for n, (stream, text) in enumerate(lines, 1)
    ]
    assert list(parser.rest()) == []


def test_a_line_in_several_frames_is_one_line_with_its_first_time() -> None:
    parser = Framed()
    pieces = frame(1, stamped(5, b"a" * 10)) + frame(2, stamped(6, b"err\n")) + frame(1, stamped(7, b"b\r\n"))
    assert list(parser.feed(pieces)) == [LogLine(6, Stream.STDERR, b"err"), LogLine(5, Stream.STDOUT, b"a" * 10 + b"b")]
    assert list(parser.feed(frame(1, stamped(8, b"rest")))) == []
    assert list(parser.rest()) == [LogLine(8, Stream.STDOUT, b"rest")]


def test_a_line_without_end_does_not_grow_for_ever() -> None:
    parser = Framed()
    seen = [line for n in range(100) for line in parser.feed(frame(1, stamped(n, b"x" * 16384)))]
    assert len(seen) == 1
    assert len(seen[0].data) == LONGEST_LINE
    terminal = Terminal()
    assert len(list(terminal.feed(stamped(1, b"y" * LONGEST_LINE)))) == 1


def test_a_terminal_is_split_at_line_ends() -> None:
    terminal = Terminal()
    raw = stamped(1, b"one\r\n") + stamped(2, b"two\r\n") + stamped(3, b"three")
    read = [line for byte in raw for line in terminal.feed(bytes([byte]))] + list(terminal.rest())
    assert [(line.timestamp, line.data) for line in read] == [(1, b"one"), (2, b"two"), (3, b"three")]


def test_what_is_no_output_is_refused() -> None:
    with pytest.raises(MalformedOutput):
        list(Framed().feed(b"HTTP/1.1 200 OK\r\n"))
    with pytest.raises(MalformedOutput):
        split_time(b"yesterday hello")


# -- files


def test_the_file_system_of_a_path_is_that_of_the_last_mount_on_it() -> None:
    table = "\n".join(
        (
            "22 1 254:0 / / rw - ext4 /dev/vda rw",
            "23 22 0:5 / /dev rw - devtmpfs none rw",
            "24 23 0:6 / /dev/shm rw shared:3 - tmpfs none rw",
            "25 22 0:7 / /with\\040space rw - tmpfs none rw",
            "26 24 0:8 / /dev/shm/on-disk rw - ext4 /dev/vdb rw",
            "27 26 0:9 / /dev/shm/on-disk rw - ramfs none rw",
        )
    )
    found = {
        path: filesystem_in(table, Path(path))
        for path in ("/etc", "/dev/shm/x", "/dev/shmx", "/with space/y", "/dev/shm/on-disk/z")
    }
    assert found == {
        "/etc": "ext4",
        "/dev/shm/x": "tmpfs",
        "/dev/shmx": "devtmpfs",
        "/with space/y": "tmpfs",
        "/dev/shm/on-disk/z": "ramfs",
    }


def test_a_task_id_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    for task_id in ("../x", "", "a/b", ".", "x" * 65):
        with pytest.raises(RejectedByExecutor):
            TaskFiles(tmp_path, task_id)


def test_an_owner_must_be_a_number(tmp_path: Path) -> None:
    root = Path("/dev/shm") / f"{tmp_path.parent.name}-{tmp_path.name}" / "agent"
    reference = SecretReference(secret_id="s", secret_name="n", file=ReferenceFileTarget(name="n", uid="root"))
    files = TaskFiles(root, "task1")
    with pytest.raises(RejectedByExecutor, match="'root' is not a numeric user"):
        files.deliver(ContainerSpec(image="i", secrets=[reference]), Dependencies({"s": b""}))
    files.remove()
    files.remove()
    assert not root.parent.exists()


def test_a_config_lands_at_the_root_and_a_secret_with_the_secrets(tmp_path: Path) -> None:
    root = Path("/dev/shm") / f"{tmp_path.parent.name}-{tmp_path.name}" / "agent"
    file = ReferenceFileTarget(name="n", mode=0o400)
    spec = ContainerSpec(
        image="i",
        secrets=[SecretReference(secret_id="s", secret_name="n", file=file)],
        configs=[ConfigReference(config_id="c", config_name="n", file=file)],
    )
    files = TaskFiles(root, "task1")
    try:
        secret, config = files.deliver(spec, Dependencies({"s": b"1"}, {"c": b"2"}))
        assert (secret.target, config.target) == ("/run/secrets/n", "/n")
        assert (secret.source.read_bytes(), config.source.read_bytes()) == (b"1", b"2")
        assert secret.source.stat().st_mode & 0o7777 == 0o400
        assert files.deliver(spec, Dependencies({"s": b"3"}, {"c": b"4"})) == (secret, config)
        assert secret.source.read_bytes() == b"3"
    finally:
        files.remove()
    assert not root.parent.exists()
