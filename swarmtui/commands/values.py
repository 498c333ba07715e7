"""Values of options as people write them: pure parsers, each raising ValueError with what is wrong."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from swarmtui.docker_api.times import parse_duration

Json = dict[str, Any]

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4, "p": 1024**5}
_PROTOCOLS = ("tcp", "udp", "sctp")
_TRUE = ("", "1", "true")
_FALSE = ("0", "false")


def memory(text: str) -> int:
    """`64M`, `1.5g`, `4096`: bytes; factors of 1024, as Docker has them."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no amount of memory; write for example 64M or 1.5G")
    return int(Decimal(match.group(1)) * _FACTORS[match.group(2).lower()])


def cpus(text: str) -> int:
    """`0.5`: billionths of a core."""
    try:
        nano = Decimal(text) * 1_000_000_000
        whole = int(nano)
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError(f"{text!r} is no number of CPUs; write for example 0.5") from None
    if nano < 0 or whole != nano:
        raise ValueError(f"{text!r} is no number of CPUs: at least 0 and nine digits after the point at most")
    return whole


def duration(text: str) -> int:
    """`10s`, `1m30s`: nanoseconds."""
    return parse_duration(text)


def key_value(text: str) -> tuple[str, str]:
    """`key=value`, or `key` alone for an empty value."""
    key, _, value = text.partition("=")
    if not key:
        raise ValueError(f"{text!r} has no key; write KEY=VALUE")
    return key, value


def fields(text: str) -> list[tuple[str, str | None]]:
    """`a=1,b,"c=x,y"` as pairs; a field without `=` has no value. Quotes as in CSV."""
    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"{text!r} cannot be read: {error}") from None
    pairs = []
    for field in row:
        key, separator, value = field.partition("=")
        pairs.append((key.strip().lower(), value if separator else None))
    return pairs


def port(text: str) -> list[Json]:
    """A published port, `8081:8000`, `8000-8002:80-82/udp`, `80`, or `published=8081,target=8000,mode=host`."""
    if "=" in text:
        return [_long_port(text)]
    body, slash, protocol = text.partition("/")
    address, _, rest = body.rpartition("]:") if body.startswith("[") else ("", "", body)
    pieces = rest.split(":")
    if address or len(pieces) > 2:
        raise ValueError(f"{text!r}: a service is published on every node, not on one address; leave the address out")
    targets = _range(pieces[-1], text)
    published = _range(pieces[0], text) if len(pieces) == 2 and pieces[0] else [0] * len(targets)
    protocol = _protocol(protocol if slash else "tcp", text)
    if len(targets) != len(published):
        raise ValueError(f"{text!r}: the ranges have {len(published)} and {len(targets)} ports; they must be equal")
    return [_port(protocol, target, outside, "ingress") for target, outside in zip(targets, published, strict=True)]


def _long_port(text: str) -> Json:
    found = {"protocol": "tcp", "mode": "ingress", "published": "0"}
    for key, value in fields(text):
        if key not in ("target", "published", "protocol", "mode") or value is None:
            raise ValueError(f"{text!r}: {key!r} is not understood; there are target, published, protocol, mode")
        found[key] = value
    if "target" not in found:
        raise ValueError(f"{text!r}: target is missing")
    if found["mode"] not in ("ingress", "host"):
        raise ValueError(f"{text!r}: the mode is ingress or host")
    target, published = _range(found["target"], text), _range(found["published"], text, lowest=0)
    if len(target) != 1 or len(published) != 1:
        raise ValueError(f"{text!r}: ranges are understood in the short form only")
    return _port(_protocol(found["protocol"], text), target[0], published[0], found["mode"])


def _port(protocol: str, target: int, published: int, mode: str) -> Json:
    made: Json = {"Protocol": protocol, "TargetPort": target, "PublishMode": mode}
    if published:
        made["PublishedPort"] = published
    return made


def _protocol(text: str, whole: str) -> str:
    if text.lower() not in _PROTOCOLS:
        raise ValueError(f"{whole!r}: the protocol is tcp, udp or sctp")
    return text.lower()


def _range(text: str, whole: str, lowest: int = 1) -> list[int]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal()):
        raise ValueError(f"{whole!r} is no port; write PUBLISHED:TARGET[/PROTOCOL] or published=...,target=...")
    begin, end = int(first), int(last or first)
    if not lowest <= begin <= end <= 65535:
        raise ValueError(f"{whole!r}: ports go from 1 to 65535, ranges upwards")
    return list(range(begin, end + 1))


def mount(text: str) -> Json:
    """`type=volume,src=data,dst=/data,readonly`: one mount, with the docker CLI's keys."""
    made: Json = {"Type": "volume"}
    for key, value in fields(text):
        if key in ("readonly", "ro"):
            made["ReadOnly"] = _truth(value, key)
        elif key == "volume-nocopy":
            made.setdefault("VolumeOptions", {})["NoCopy"] = _truth(value, key)
        elif value is None:
            raise ValueError(f"{text!r}: {key!r} needs a value")
        else:
            _mount_value(made, key, value, text)
    if not made.get("Target"):
        raise ValueError(f"{text!r}: target is missing")
    if made["Type"] == "bind" and not made.get("Source"):
        raise ValueError(f"{text!r}: a bind mount needs a source")
    return made


def _mount_value(made: Json, key: str, value: str, text: str) -> None:
    if key == "type":
        if value not in ("bind", "volume", "tmpfs", "npipe", "cluster"):
            raise ValueError(f"{text!r}: the type is bind, volume or tmpfs")
        made["Type"] = value
    elif key in ("source", "src"):
        made["Source"] = value
    elif key in ("target", "dst", "destination"):
        made["Target"] = value
    elif key == "consistency":
        made["Consistency"] = value
    elif key == "bind-propagation":
        made.setdefault("BindOptions", {})["Propagation"] = value
    elif key == "volume-label":
        name, content = key_value(value)
        made.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = content
    elif key == "volume-subpath":
        made.setdefault("VolumeOptions", {})["Subpath"] = value
    elif key == "volume-driver":
        made.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, content = key_value(value)
        driver = made.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
        driver.setdefault("Options", {})[name] = content
    elif key == "tmpfs-size":
        made.setdefault("TmpfsOptions", {})["SizeBytes"] = memory(value)
    elif key == "tmpfs-mode":
        made.setdefault("TmpfsOptions", {})["Mode"] = _octal(value, text)
    else:
        raise ValueError(f"{text!r}: {key!r} is not understood")


def reference(text: str, *, prefix: str = "") -> Json:
    """A secret or config: `name`, or `source=name,target=/path,uid=0,gid=0,mode=0400`. `prefix`: "/" for configs."""
    source, target, uid, gid, mode = "", "", "0", "0", 0o444
    if "=" not in text:
        source = text
    else:
        for key, value in fields(text):
            if key in ("source", "src") and value:
                source = value
            elif key == "target" and value:
                target = value
            elif key == "uid" and value:
                uid = value
            elif key == "gid" and value:
                gid = value
            elif key == "mode" and value:
                mode = _octal(value, text)
            else:
                raise ValueError(f"{text!r}: {key!r} is not understood")
    if not source:
        raise ValueError(f"{text!r}: source is missing")
    return {"name": source, "File": {"Name": target or prefix + source, "UID": uid, "GID": gid, "Mode": mode}}


def ulimit(text: str) -> Json:
    """`nofile=100:200`: soft and hard bound; one number for both."""
    name, _, numbers = text.partition("=")
    soft, _, hard = numbers.partition(":")
    try:
        made = {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise ValueError(f"{text!r} is no limit; write NAME=SOFT[:HARD]") from None
    if not name:
        raise ValueError(f"{text!r} is no limit; write NAME=SOFT[:HARD]")
    return made


def capability(text: str) -> str:
    """`net_admin`: as the API has it, `CAP_NET_ADMIN`; `ALL` stays."""
    name = text.strip().upper()
    if not name:
        raise ValueError("a capability has a name, such as NET_ADMIN")
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def generic_resource(text: str) -> Json:
    """`gpu=2`: so many of a kind."""
    kind, _, count = text.partition("=")
    if not kind or not count.isdecimal():
        raise ValueError(f"{text!r} is no resource; write KIND=NUMBER")
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": int(count)}}


def extra_host(text: str) -> str:
    """`name:address`, as the API has it: address first."""
    name, separator, address = text.partition(":")
    if not (name and separator and address):
        raise ValueError(f"{text!r} is no host; write NAME:ADDRESS")
    return f"{address} {name}"


def preference(text: str) -> Json:
    """`spread=node.labels.zone`."""
    kind, separator, value = text.partition("=")
    if kind != "spread" or not separator or not value:
        raise ValueError(f"{text!r} is no placement preference; write spread=node.labels.KEY")
    return {"Spread": {"SpreadDescriptor": value}}


def replica_count(text: str) -> tuple[str, int]:
    """`web=3` of `service scale`."""
    name, separator, number = text.rpartition("=")
    if not separator or not name:
        raise ValueError(f"{text!r}: write SERVICE=REPLICAS")
    if not number.isdecimal():
        raise ValueError(f"{text!r}: {number!r} is no number of replicas")
    return name, int(number)


def as_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """`--filter name=web --filter label=a=b` for the API."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ValueError(f"{text!r} is no filter; write KEY=VALUE")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found


def _truth(value: str | None, key: str) -> bool:
    text = (value or "").lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{key}={value}: write true or false")


def _octal(text: str, whole: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f"{whole!r}: {text!r} is no file mode; write for example 0400") from None
