"""JSON as Go's encoding/json reads it, and as the API writes it.

Go matches keys without case, takes null for the zero value and ignores what it does not know; clients rely on all
three, so requests are folded onto the declared names before msgspec checks their types.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, TypeVar

import msgspec

from agent.api_types.errors import InvalidArgument

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
encode_json = _encoder.encode
"""An object, or a list or dict of objects, as the API's JSON."""


def decode_json(body: bytes | str, kind: type[T]) -> T:
    """The request `body` as a `kind`; InvalidArgument names the field whose type is wrong."""
    try:
        raw = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    return from_builtins(raw, kind)


def from_builtins(raw: Any, kind: type[T]) -> T:
    """Parsed JSON as a `kind`, with Go's leniency."""
    try:
        return msgspec.convert(_fold(raw, kind), kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None


@cache
def _declared(kind: type) -> dict[str, tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    return {field.encode_name.lower(): (field.encode_name, hints[field.name]) for field in msgspec.structs.fields(kind)}


@cache
def _struct_of(kind: Any) -> type | None:
    """The Struct inside an optional, or None."""
    options = (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )
    for option in options:
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


@cache
def _element_of(kind: Any) -> Any:
    """The element type of a list, the value type of a dict, inside an optional or not; None when it has none."""
    options = (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else (kind,)
    )
    for option in options:
        if typing.get_origin(option) in (list, dict):
            return typing.get_args(option)[-1]
    return None


def _fold(raw: Any, kind: Any) -> Any:
    if isinstance(raw, dict):
        struct = _struct_of(kind)
        if struct is not None:
            declared = _declared(struct)
            folded = {}
            for key, value in raw.items():
                known = declared.get(key.lower())
                if known is None or value is None:
                    continue
                folded[known[0]] = _fold(value, known[1])
            return folded
        element = _element_of(kind)
        if element is not None:
            return {key: _fold(value, element) for key, value in raw.items()}
    elif isinstance(raw, list):
        element = _element_of(kind)
        if element is not None:
            return [_fold(value, element) for value in raw if value is not None]
    return raw
