"""Differences between two specifications in the API's JSON: pure functions on dicts.

A path is a tuple of keys. Lists are compared whole: what a list's order means is the engine's knowledge, not ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from swarmtui.docker_api.answers import Json
from swarmtui.operations.base import Change

Path = tuple[str, ...]

_EMPTY: tuple[Any, ...] = (None, {}, [])
"""What the API leaves out. An empty text is a value: a label may have it."""

_WORDS = {
    ("Mode", "Replicated", "Replicas"): "replicas",
    ("Mode", "ReplicatedJob", "TotalCompletions"): "completions",
    ("Mode", "ReplicatedJob", "MaxConcurrent"): "concurrent tasks",
    ("TaskTemplate", "ContainerSpec", "Image"): "image",
    ("TaskTemplate", "ContainerSpec", "Env"): "environment",
    ("TaskTemplate", "ContainerSpec", "Args"): "arguments",
    ("TaskTemplate", "ContainerSpec", "Command"): "command",
    ("TaskTemplate", "ContainerSpec", "Mounts"): "mounts",
    ("TaskTemplate", "Placement", "Constraints"): "constraints",
    ("TaskTemplate", "ForceUpdate"): "forced updates",
    ("TaskTemplate", "Networks"): "networks",
    ("EndpointSpec", "Ports"): "published ports",
    ("Availability",): "availability",
    ("Role",): "role",
}


def flat(spec: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The leaves of nested dicts with their paths; what is empty is left out, as if it were not there."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            yield from flat(value, (*path, key))
    elif spec not in _EMPTY:
        yield path, spec


def differences(old: Json, new: Json) -> list[tuple[Path, Any, Any]]:
    """Path, old value, new value of every leaf that differs; None where there is none. In the order of the paths."""
    before, after = dict(flat(old)), dict(flat(new))
    paths = sorted(before.keys() | after.keys())
    return [(path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)]


def value_at(spec: Json, path: Path) -> Any:
    """The value at a path; None when it is not there or empty."""
    here: Any = spec
    for key in path:
        if not isinstance(here, dict) or key not in here:
            return None
        here = here[key]
    return None if here in _EMPTY else here


def put_at(spec: Json, path: Path, value: Any) -> None:
    """Set the value at a path, making the dicts on the way; None takes the key away."""
    *parents, last = path
    here = spec
    for key in parents:
        inside = here.get(key)
        if not isinstance(inside, dict):
            if value is None:
                return
            inside = here[key] = {}
        here = inside
    if value is None:
        here.pop(last, None)
    else:
        here[last] = value


def child(spec: Json, *path: str) -> Json:
    """The dict at a path, made when it is missing or null, to write into."""
    here = spec
    for key in path:
        inside = here.get(key)
        if not isinstance(inside, dict):
            inside = here[key] = {}
        here = inside
    return here


def path_words(path: Path) -> str:
    """A path as a person reads it: `image`, `limits.NanoCPUs`."""
    known = _WORDS.get(path)
    if known:
        return known
    if path[:1] == ("Labels",):
        return "label " + ".".join(path[1:])
    short = path[1:] if path[0] == "TaskTemplate" and len(path) > 1 else path
    short = short[1:] if short[0] == "ContainerSpec" and len(short) > 1 else short
    return ".".join(short)


def value_words(value: Any) -> str:
    """A value as a person reads it; lists with commas, objects as JSON, no value as "", an empty text in quotes."""
    if value is None:
        return ""
    if value == "":
        return '""'
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return ", ".join(value_words(item) for item in value)
    return msgspec.json.encode(value).decode()


def as_changes(found: list[tuple[Path, Any, Any]]) -> tuple[Change, ...]:
    """Differences for a preview."""
    return tuple(Change(path_words(path), value_words(old), value_words(new)) for path, old, new in found)
