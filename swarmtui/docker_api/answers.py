"""Reading the engine's answers and writing the parameters of a request: pure functions below `EngineClient`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from swarmtui.docker_api.address import EngineAddress
from swarmtui.docker_api.errors import InvalidRequest, MalformedAnswer

NEWEST_API = (1, 50)
"""The newest version of the API whose answers were looked at; an engine that is newer is asked in this one."""
OLDEST_API = (1, 24)
"""Swarm's objects came with it."""

Filters = Mapping[str, Sequence[str]]
"""`{"service": ["web"]}`: values of one key are alternatives, keys all apply."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Created:
    """What a create answered."""

    id: str
    warnings: tuple[str, ...] = ()


def negotiate(advertised: str, address: EngineAddress) -> str:
    """The path prefix for an engine that advertises `advertised`, such as `/v1.41`."""
    if not advertised:
        # Engines before 1.12 and some proxies say nothing; without a prefix the engine takes its newest version.
        return ""
    major, _, minor = advertised.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise MalformedAnswer(f"{address} says it speaks version {advertised!r} of the API")
    theirs = (int(major), int(minor))
    if theirs < OLDEST_API:
        wanted = ".".join(map(str, OLDEST_API))
        raise MalformedAnswer(f"{address} speaks version {advertised} of the API; at least {wanted} is needed")
    used = min(theirs, NEWEST_API)
    return f"/v{used[0]}.{used[1]}"


def segment(name: str) -> str:
    """A name inside a path: a slash, a question mark or dots in it must not become part of the path's structure."""
    if name.strip(".") == "" or any(ord(letter) < 32 for letter in name):
        raise InvalidRequest(f"{name!r} is neither a name nor an id")
    return quote(name, safe="")


def flag(value: bool) -> str:
    """A boolean as the API's query strings have it."""
    return "true" if value else "false"


def filter_params(filters: Filters | None) -> dict[str, str]:
    """The `filters` parameter as the docker CLI writes it; nothing when there are none."""
    if not filters:
        return {}
    return {"filters": msgspec.json.encode({k: dict.fromkeys(values, True) for k, values in filters.items()}).decode()}


def warnings(answer: Any) -> tuple[str, ...]:
    """The warnings of a create or update."""
    if not isinstance(answer, dict):
        return ()
    found = answer.get("Warnings") or answer.get("Warning") or ()
    return (found,) if isinstance(found, str) else tuple(str(text) for text in found)


def malformed(body: bytes, error: Exception, address: EngineAddress) -> MalformedAnswer:
    """The error for an answer that is not what the API says, with its beginning."""
    return MalformedAnswer(f"{address} sent an answer that cannot be read ({error}): {body[:200]!r}")


def decode(body: bytes, kind: Any, address: EngineAddress) -> Any:
    """JSON as a `kind`; MalformedAnswer when it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise malformed(body, error, address) from None


def parse(body: bytes, address: EngineAddress) -> Any:
    """JSON as dicts and lists."""
    return decode(body, Any, address)
