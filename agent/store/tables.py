"""Which tables there are, by which values their objects are found, and the committed state itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, cast

import msgspec

from agent.api_types.common import Version
from agent.api_types.network import Attachment, Network
from agent.api_types.node import Node
from agent.api_types.secret import Config, Secret
from agent.api_types.service import Service
from agent.api_types.swarm import Cluster
from agent.api_types.task import Task

StoreObject: TypeAlias = Node | Service | Task | Network | Attachment | Secret | Config | Cluster
"""Everything the store can hold."""

O = TypeVar("O", Node, Service, Task, Network, Attachment, Secret, Config, Cluster)  # noqa: E741 - the contract's name

UNCOMMITTED = Version(index=-1)
"""The version of what is not committed yet; replaced by the entry's index when it is applied.

A service whose `spec_version` is set to this one gets the index as its spec version too.
"""


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table: its name in the log, the type it holds, and for each index the value of an object (None: not indexed)."""

    name: str
    kind: type[StoreObject]
    indexes: Mapping[str, Callable[[StoreObject], str | None]]


def _by(getter: Callable[..., str | None]) -> Callable[[StoreObject], str | None]:
    return cast(Callable[[StoreObject], str | None], getter)


TABLES: tuple[TableSchema, ...] = (
    TableSchema("node", Node, {"hostname": _by(lambda n: n.description.hostname or None)}),
    TableSchema("service", Service, {"name": _by(lambda s: s.spec.name)}),
    TableSchema(
        "task",
        Task,
        {
            "service": _by(lambda t: t.service_id or None),
            "node": _by(lambda t: t.node_id or None),
            "slot": _by(lambda t: f"{t.service_id}.{t.slot}" if t.slot else None),
        },
    ),
    TableSchema("network", Network, {"name": _by(lambda n: n.spec.name)}),
    TableSchema(
        "attachment",
        Attachment,
        {"network": _by(lambda a: a.network_id), "node": _by(lambda a: a.node_id or None)},
    ),
    TableSchema("secret", Secret, {"name": _by(lambda s: s.spec.name)}),
    TableSchema("config", Config, {"name": _by(lambda c: c.spec.name)}),
    TableSchema("cluster", Cluster, {"name": _by(lambda c: c.spec.name)}),
)

SCHEMA_OF: Mapping[type, TableSchema] = {table.kind: table for table in TABLES}
SCHEMA_NAMED: Mapping[str, TableSchema] = {table.name: table for table in TABLES}


def stamp(obj: StoreObject, index: int) -> StoreObject:
    """`obj` as it is committed by the entry at `index`."""
    version = Version(index=index)
    if isinstance(obj, Service) and obj.spec_version == UNCOMMITTED:
        return msgspec.structs.replace(obj, version=version, spec_version=version)
    return msgspec.structs.replace(obj, version=version)


class Tables:
    """The committed objects and their indexes. Only the apply loop changes it."""

    def __init__(self) -> None:
        self._objects: dict[type, dict[str, StoreObject]] = {table.kind: {} for table in TABLES}
        self._indexes: dict[type, dict[str, dict[str, dict[str, StoreObject]]]] = {
            table.kind: {name: {} for name in table.indexes} for table in TABLES
        }

    def objects(self, kind: type[O]) -> Mapping[str, O]:
        """All objects of a kind by id."""
        return cast(Mapping[str, O], self._objects[kind])

    def indexed(self, kind: type[O], index: str, value: str) -> Mapping[str, O]:
        """The objects of a kind whose `index` is `value`, by id. KeyError for an index that does not exist."""
        return cast(Mapping[str, O], self._indexes[kind][index].get(value, {}))

    def put(self, obj: StoreObject) -> StoreObject | None:
        """Insert or replace; returns what was there before."""
        kind = type(obj)
        old = self._objects[kind].get(obj.id)
        self._objects[kind][obj.id] = obj
        for name, value_of in SCHEMA_OF[kind].indexes.items():
            index = self._indexes[kind][name]
            value = value_of(obj)
            if old is not None:
                before = value_of(old)
                if before != value:
                    _drop(index, before, obj.id)
            if value is not None:
                index.setdefault(value, {})[obj.id] = obj
        return old

    def remove(self, kind: type[StoreObject], object_id: str) -> StoreObject | None:
        """Take an object out; returns it, or None when there was none."""
        old = self._objects[kind].pop(object_id, None)
        if old is not None:
            for name, value_of in SCHEMA_OF[kind].indexes.items():
                _drop(self._indexes[kind][name], value_of(old), object_id)
        return old

    def clear(self) -> None:
        """Forget everything, before a snapshot is restored."""
        self.__init__()  # type: ignore[misc]

    def __iter__(self) -> Iterator[StoreObject]:
        for table in TABLES:
            yield from self._objects[table.kind].values()


def _drop(index: dict[str, dict[str, StoreObject]], value: str | None, object_id: str) -> None:
    if value is None or value not in index:
        return
    index[value].pop(object_id, None)
    if not index[value]:
        del index[value]
