"""How a field of an API object is named and when it is left out.

The recorded answers of a real engine leave some empty fields out and keep others (`"Labels": {}` on a node), so the
rule is a property of each field, never of a whole object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class ApiObject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of every API object: immutable, keyword-only, outside the garbage collector (it can hold no cycle)."""


def omitempty(name: str, default: T) -> T:
    """A field that is left out of the JSON while it equals `default` (None, 0, "", False, or an empty container)."""
    if isinstance(default, list | dict | set):
        return msgspec.field(name=name, default_factory=type(default))
    return msgspec.field(name=name, default=default)


def present(name: str, default: T) -> T:
    """A field that is in the JSON whatever its value; `default` is its zero value.

    msgspec compares with plain defaults only, so a factory of its own keeps the field from being left out.
    """
    if isinstance(default, list | dict):
        kind = type(default)
        return msgspec.field(name=name, default_factory=lambda: kind())
    return msgspec.field(name=name, default_factory=lambda: default)


def nested(name: str, factory: Callable[[], T]) -> T:
    """An object that is always in the JSON, made by `factory` when the sender left it out."""
    return msgspec.field(name=name, default_factory=factory)


def required(name: str) -> Any:
    """A field without a default: whoever builds the object must say it."""
    return msgspec.field(name=name)
