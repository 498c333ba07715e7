"""Values of options: what Docker understands is understood, what is wrong is said in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmtui.commands import values
from swarmtui.operations.services import tagged


def port(target: int, published: int = 0, protocol: str = "tcp", mode: str = "ingress") -> dict[str, Any]:
    made: dict[str, Any] = {"Protocol": protocol, "TargetPort": target, "PublishMode": mode}
    return {**made, "PublishedPort": published} if published else made


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8081:8000", [port(8000, 8081)]),
        ("80", [port(80)]),
        (":80", [port(80)]),
        ("53:53/udp", [port(53, 53, "udp")]),
        ("8000-8002:80-82", [port(80, 8000), port(81, 8001), port(82, 8002)]),
        ("published=8081,target=8000", [port(8000, 8081)]),
        ("target=80,mode=host,protocol=sctp", [port(80, 0, "sctp", "host")]),
        ("target=80,published=0", [port(80)]),
    ],
)
def test_ports(text: str, ports: list[dict[str, Any]]) -> None:
    assert values.port(text) == ports


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no port"),
        ("a:b", "is no port"),
        ("0:80", "1 to 65535"),
        ("80:70000", "1 to 65535"),
        ("82-80:1-3", "ranges upwards"),
        ("80-81:80-82", "2 and 3 ports"),
        ("80:80/icmp", "tcp, udp or sctp"),
        ("127.0.0.1:80:80", "on every node"),
        ("[::1]:80:80", "on every node"),
        ("published=80", "target is missing"),
        ("target=80,mode=bridge", "ingress or host"),
        ("target=80,colour=red", "'colour' is not understood"),
        ("target=80-81", "short form only"),
        ('"target=80', "cannot be read"),
    ],
)
def test_wrong_ports(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.port(text)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=volume,src=v1,dst=/v", {"Type": "volume", "Source": "v1", "Target": "/v"}),
        ("type=tmpfs,target=/t,tmpfs-size=1M,tmpfs-mode=1777",
         {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}}),
        ("type=bind,source=/a,target=/b,readonly", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("type=bind,source=/a,target=/b,ro=false,bind-propagation=rshared",
         {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False,
          "BindOptions": {"Propagation": "rshared"}}),
        ('src=v,dst=/v,volume-driver=local,"volume-opt=o=a,b",volume-label=k=v,volume-nocopy',
         {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {
             "DriverConfig": {"Name": "local", "Options": {"o": "a,b"}}, "Labels": {"k": "v"}, "NoCopy": True}}),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: dict[str, Any]) -> None:
    assert values.mount(text) == mount


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("src=v", "target is missing"),
        ("type=bind,dst=/a", "needs a source"),
        ("type=disk,dst=/a", "bind, volume or tmpfs"),
        ("dst=/a,ro=maybe", "true or false"),
        ("dst=/a,source", "needs a value"),
        ("dst=/a,colour=red", "not understood"),
        ("type=tmpfs,dst=/a,tmpfs-size=big", "no amount of memory"),
        ("type=tmpfs,dst=/a,tmpfs-mode=9", "no file mode"),
    ],
)
def test_wrong_mounts(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.mount(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 64 << 20), ("1.5G", 3 << 29), ("4096", 4096), ("1kb", 1024), ("2GiB", 2 << 30), ("7b", 7)],
)
def test_memory(text: str, size: int) -> None:
    assert values.memory(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "1 000", "nan"])
def test_wrong_memory(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of memory"):
        values.memory(text)


@pytest.mark.parametrize(("text", "nano"), [("0.5", 500_000_000), ("2", 2_000_000_000), ("0.000000001", 1)])
def test_cpus(text: str, nano: int) -> None:
    assert values.cpus(text) == nano


@pytest.mark.parametrize("text", ["", "half", "-1", "0.0000000001", "nan", "inf"])
def test_wrong_cpus(text: str) -> None:
    with pytest.raises(ValueError, match="no number of CPUs"):
        values.cpus(text)


def test_secrets_and_configs() -> None:
    assert values.reference("s") == {"name": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 0o444}}
    assert values.reference("c", prefix="/")["File"]["Name"] == "/c"
    long = values.reference("source=s,target=/x,mode=0400,uid=1,gid=2")
    assert long == {"name": "s", "File": {"Name": "/x", "UID": "1", "GID": "2", "Mode": 0o400}}
    for text in ("target=/x", "source=s,mode=rw", "source=s,colour=red", ""):
        with pytest.raises(ValueError, match=r"missing|no file mode|not understood"):
            values.reference(text)


def test_small_ones() -> None:
    assert values.ulimit("nofile=100:200") == {"Name": "nofile", "Soft": 100, "Hard": 200}
    assert values.ulimit("nofile=100") == {"Name": "nofile", "Soft": 100, "Hard": 100}
    assert values.extra_host("db:10.0.0.1") == "10.0.0.1 db"
    assert values.extra_host("db:::1") == "::1 db"
    assert values.key_value("a=b=c") == ("a", "b=c")
    assert values.key_value("a") == ("a", "")
    assert values.preference("spread=node.labels.z") == {"Spread": {"SpreadDescriptor": "node.labels.z"}}
    assert values.replica_count("web=3") == ("web", 3)
    assert values.as_filters(["name=a", "name=b", "label=k=v"]) == {"name": ["a", "b"], "label": ["k=v"]}
    assert values.capability("net_admin") == "CAP_NET_ADMIN"
    assert values.capability("all") == "ALL"
    assert values.generic_resource("gpu=2") == {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (values.ulimit, "nofile"),
        (values.ulimit, "=1"),
        (values.ulimit, "nofile=a:b"),
        (values.extra_host, "db"),
        (values.key_value, "=x"),
        (values.preference, "pack=x"),
        (values.replica_count, "web"),
        (values.replica_count, "web=-1"),
        (values.replica_count, "=1"),
        (values.as_filters, ["name"]),
        (values.capability, " "),
        (values.generic_resource, "gpu"),
    ],
)
def test_small_ones_that_are_wrong(parse: Any, text: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", "web:latest"),
        ("web:1", "web:1"),
        ("registry:5000/web", "registry:5000/web:latest"),
        ("registry:5000/web:1", "registry:5000/web:1"),
        ("web@sha256:abc", "web@sha256:abc"),
    ],
)
def test_an_image_has_a_tag(text: str, expected: str) -> None:
    assert tagged(text) == expected


PARSERS = [values.port, values.mount, values.memory, values.cpus, values.reference, values.ulimit, values.extra_host,
           values.preference, values.replica_count, values.key_value, values.duration]  # fmt: skip


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.one_of(st.text(max_size=20), st.text('0123456789:-/=,.[]"tcpudargesmo', max_size=20)))
def test_any_text_is_a_value_or_a_value_error(parse: Any, text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017
