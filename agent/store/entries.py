"""The form of a transaction and of a snapshot, as bytes.

Both are msgpack and begin with a format number; a newer one is refused with a clear text. Objects are written as the
API's types with their JSON names, so that a field that is added later is simply absent in old entries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from agent.store.tables import SCHEMA_NAMED, SCHEMA_OF, StoreObject
from agent.store.transactions import Change

ENTRY_FORMAT = 1


class UnknownFormat(Exception):
    """The bytes were written by a newer version of this program."""


class _ChangeForm(msgspec.Struct, array_like=True, gc=False):
    table: str
    id: str
    object: msgspec.Raw


class _EntryForm(msgspec.Struct, array_like=True, gc=False):
    format: int
    nonce: int
    changes: list[_ChangeForm]


_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(_EntryForm)
_objects_decoder = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]])
_NONE = msgspec.Raw(_encoder.encode(None))


@cache
def _decoder(table: str) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(SCHEMA_NAMED[table].kind)


def encode_entry(nonce: int, changes: list[Change]) -> bytes:
    """A transaction as a log entry; `nonce` lets its proposer recognise it when it comes back to be applied."""
    forms = [
        _ChangeForm(
            SCHEMA_OF[change.kind].name,
            change.id,
            _NONE if change.object is None else msgspec.Raw(_encoder.encode(change.object)),
        )
        for change in changes
    ]
    return _encoder.encode(_EntryForm(ENTRY_FORMAT, nonce, forms))


def entry_nonce(data: bytes) -> int:
    """The nonce of an entry, without decoding its objects."""
    return _read(data).nonce


def decode_entry(data: bytes) -> list[Change]:
    """The changes of a log entry."""
    changes = []
    for form in _read(data).changes:
        if form.table not in SCHEMA_NAMED:
            raise UnknownFormat(f"the log names a table that this version does not know: {form.table}")
        obj = None if bytes(form.object) == bytes(_NONE) else _decoder(form.table).decode(form.object)
        changes.append(Change(SCHEMA_NAMED[form.table].kind, form.id, obj))
    return changes


def _read(data: bytes) -> _EntryForm:
    entry = _entry_decoder.decode(data)
    if entry.format != ENTRY_FORMAT:
        raise UnknownFormat(f"log entry of format {entry.format}, this version reads {ENTRY_FORMAT}")
    return entry


def encode_objects(objects: list[StoreObject]) -> bytes:
    """Some objects as a chunk of a snapshot."""
    return _encoder.encode([(SCHEMA_OF[type(obj)].name, obj) for obj in objects])


def decode_objects(chunk: bytes) -> list[StoreObject]:
    """The objects of a chunk."""
    objects: list[StoreObject] = []
    for table, raw in _objects_decoder.decode(chunk):
        if table not in SCHEMA_NAMED:
            raise UnknownFormat(f"the snapshot names a table that this version does not know: {table}")
        objects.append(_decoder(table).decode(raw))
    return objects
