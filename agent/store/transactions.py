"""Reading and changing the store: a consistent view, and a list of changes made against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from agent.api_types.errors import OutOfSequence
from agent.api_types.identity import IdSource
from agent.api_types.times import Clock, format_time
from agent.store.tables import SCHEMA_OF, UNCOMMITTED, O, StoreObject, Tables

MAX_CHANGES = 200
"""Changes a transaction may hold, as SwarmKit bounds them, so that one entry never holds the loop for long."""


class TooManyChanges(ValueError):
    """A transaction with more than `MAX_CHANGES` changes; its author must split it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object created or updated (`object`), or removed (`object` is None)."""

    kind: type[StoreObject]
    id: str
    object: StoreObject | None


class ReadTx:
    """A consistent view of the committed state. Valid only inside the function it is given to."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, kind: type[O], object_id: str) -> O | None:
        """The object of that id, or None."""
        return self._tables.objects(kind).get(object_id)

    def all(self, kind: type[O]) -> list[O]:
        """Every object of a kind, in order of creation."""
        return list(self._tables.objects(kind).values())

    def find(self, kind: type[O], index: str, value: str) -> list[O]:
        """The objects whose index has that value; see `agent.store.tables.TABLES` for the indexes."""
        return list(self._tables.indexed(kind, index, value).values())

    def by_name(self, kind: type[O], name: str) -> O | None:
        """The object with that name (services, networks, secrets, configs, the cluster), or None."""
        found = self.find(kind, "name", name)
        return found[0] if found else None

    def by_prefix(self, kind: type[O], prefix: str) -> list[O]:
        """The objects whose id begins with `prefix`."""
        return [obj for object_id, obj in self._tables.objects(kind).items() if object_id.startswith(prefix)]

    def count(self, kind: type[O]) -> int:
        """How many objects of a kind there are."""
        return len(self._tables.objects(kind))


class Overlay:
    """What is proposed but not applied yet, newest last, so that a transaction sees those before it."""

    def __init__(self) -> None:
        self._entries: dict[tuple[type[StoreObject], str], tuple[int, StoreObject | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def lay(self, nonce: int, changes: list[Change]) -> None:
        """Put the changes of the transaction `nonce` on top."""
        for change in changes:
            self._entries[change.kind, change.id] = (nonce, change.object)

    def lift(self, nonce: int, changes: list[Change]) -> None:
        """Take them away again: they are applied, or will never be."""
        for change in changes:
            entry = self._entries.get((change.kind, change.id))
            if entry is not None and entry[0] == nonce:
                del self._entries[change.kind, change.id]

    def get(self, kind: type[StoreObject], object_id: str) -> tuple[bool, StoreObject | None]:
        """(True, object or None for removed) when something is pending for that id, else (False, None)."""
        entry = self._entries.get((kind, object_id))
        return (False, None) if entry is None else (True, entry[1])

    def of(self, kind: type[StoreObject]) -> Iterator[tuple[str, StoreObject | None]]:
        """Everything pending for a kind."""
        for (entry_kind, object_id), (_, obj) in self._entries.items():
            if entry_kind is kind:
                yield object_id, obj


class WriteTx(ReadTx):
    """A view that includes what is pending and what this transaction changed, and collects its changes."""

    def __init__(self, tables: Tables, pending: Overlay, clock: Clock, new_id: IdSource) -> None:
        super().__init__(tables)
        self.clock = clock
        self.new_id = new_id
        self._pending = pending
        self._own: dict[tuple[type[StoreObject], str], StoreObject | None] = {}

    @property
    def changes(self) -> list[Change]:
        """The changes so far, one for each object."""
        return [Change(kind, object_id, obj) for (kind, object_id), obj in self._own.items()]

    def _overlaid(self, kind: type[O], base: Mapping[str, O]) -> dict[str, O]:
        merged = dict(base)
        laid: dict[str, StoreObject | None] = dict(self._pending.of(kind))
        laid.update({object_id: obj for (own_kind, object_id), obj in self._own.items() if own_kind is kind})
        for object_id, obj in laid.items():
            if obj is None:
                merged.pop(object_id, None)
            else:
                merged[object_id] = cast(O, obj)
        return merged

    def get(self, kind: type[O], object_id: str) -> O | None:
        if (kind, object_id) in self._own:
            return cast("O | None", self._own[kind, object_id])
        found, obj = self._pending.get(kind, object_id)
        return cast("O | None", obj) if found else super().get(kind, object_id)

    def all(self, kind: type[O]) -> list[O]:
        if not self._pending and not self._own:
            return super().all(kind)
        return list(self._overlaid(kind, self._tables.objects(kind)).values())

    def find(self, kind: type[O], index: str, value: str) -> list[O]:
        if not self._pending and not self._own:
            return super().find(kind, index, value)
        value_of = SCHEMA_OF[kind].indexes[index]
        merged = self._overlaid(kind, self._tables.indexed(kind, index, value))
        return [obj for obj in merged.values() if value_of(obj) == value]

    def by_prefix(self, kind: type[O], prefix: str) -> list[O]:
        return [obj for obj in self.all(kind) if obj.id.startswith(prefix)]

    def count(self, kind: type[O]) -> int:
        return len(self.all(kind))

    def create(self, obj: O) -> O:
        """Add an object; without an id it gets one. Returns it as it will be, its version still uncommitted."""
        now = format_time(self.clock())
        made = msgspec.structs.replace(
            obj, id=obj.id or self.new_id(), version=UNCOMMITTED, created_at=now, updated_at=now
        )
        if self.get(type(made), made.id) is not None:
            raise ValueError(f"{SCHEMA_OF[type(made)].name} {made.id} exists already")
        self._set(made)
        return made

    def update(self, obj: O) -> O:
        """Replace an object. Its version must be the one that this transaction sees, else `OutOfSequence`."""
        stored = self.get(type(obj), obj.id)
        if stored is None or stored.version != obj.version:
            raise OutOfSequence
        made = msgspec.structs.replace(obj, version=UNCOMMITTED, updated_at=format_time(self.clock()))
        self._set(made)
        return made

    def delete(self, kind: type[O], object_id: str) -> None:
        """Remove an object; nothing happens when there is none."""
        if self.get(kind, object_id) is None:
            return
        self._check_room(kind, object_id)
        self._own[kind, object_id] = None

    def _set(self, obj: StoreObject) -> None:
        self._check_room(type(obj), obj.id)
        self._own[type(obj), obj.id] = obj

    def _check_room(self, kind: type[StoreObject], object_id: str) -> None:
        if len(self._own) >= MAX_CHANGES and (kind, object_id) not in self._own:
            raise TooManyChanges(f"a transaction holds at most {MAX_CHANGES} changes")
