"""The host as its engine describes it (moby daemon/cluster/executor/container/executor.go, Describe)."""

from __future__ import annotations

import msgspec

from agent.api_types.common import (
    DiscreteGenericResource,
    GenericResource,
    NamedGenericResource,
    Platform,
    Resources,
)
from agent.api_types.node import EngineDescription, NodeDescription, Plugin


class Plugins(msgspec.Struct, frozen=True, rename="pascal"):
    """The engine's drivers by kind."""

    volume: list[str] | None = None
    network: list[str] | None = None
    log: list[str] | None = None


class _Named(msgspec.Struct, frozen=True, rename="pascal"):
    kind: str = ""
    value: str = ""


class _Discrete(msgspec.Struct, frozen=True, rename="pascal"):
    kind: str = ""
    value: int = 0


class _Generic(msgspec.Struct, frozen=True):
    named: _Named | None = msgspec.field(name="NamedResourceSpec", default=None)
    discrete: _Discrete | None = msgspec.field(name="DiscreteResourceSpec", default=None)


class EngineInfo(msgspec.Struct, frozen=True, rename="pascal"):
    """`GET /info`, as far as a node's description needs it."""

    name: str = ""
    architecture: str = ""
    os_type: str = msgspec.field(name="OSType", default="")
    ncpu: int = msgspec.field(name="NCPU", default=0)
    mem_total: int = 0
    server_version: str = ""
    labels: list[str] | None = None
    plugins: Plugins = Plugins()
    generic_resources: list[_Generic] | None = None


def description(info: EngineInfo) -> NodeDescription:
    """The node's description; plugins sorted by type and name, each once."""
    kinds = (("Log", info.plugins.log), ("Network", info.plugins.network), ("Volume", info.plugins.volume))
    plugins = sorted({(kind, name) for kind, names in kinds for name in names or []})
    return NodeDescription(
        hostname=info.name,
        platform=Platform(architecture=info.architecture, os=info.os_type),
        resources=Resources(
            nano_cpus=info.ncpu * 1_000_000_000,
            memory_bytes=info.mem_total,
            generic_resources=[_resource(one) for one in info.generic_resources or []],
        ),
        engine=EngineDescription(
            engine_version=info.server_version,
            labels=dict(_label(text) for text in info.labels or []),
            plugins=[Plugin(type=kind, name=name) for kind, name in plugins],
        ),
    )


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _resource(one: _Generic) -> GenericResource:
    if one.named is not None:
        return GenericResource(named=NamedGenericResource(kind=one.named.kind, value=one.named.value))
    counted = one.discrete or _Discrete()
    return GenericResource(discrete=DiscreteGenericResource(kind=counted.kind, value=counted.value))
