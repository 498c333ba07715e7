"""Points in time of a query: `since` and `until` of events and logs."""

from __future__ import annotations

import re

from agent.api_types.errors import InvalidArgument
from agent.api_types.times import SECOND, parse_time

_UNIX = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9})\d*)?", re.ASCII)


def parse_moment(text: str, name: str) -> int | None:
    """Nanoseconds since the epoch from `1795253216.5` (what the docker CLI sends) or RFC 3339; None when it is empty."""
    if not text:
        return None
    match = _UNIX.fullmatch(text)
    if match is not None:
        seconds = int(match[1])
        rest = int((match[2] or "0").ljust(9, "0"))
        return seconds * SECOND + (-rest if match[1].startswith("-") else rest)
    try:
        return parse_time(text)
    except ValueError:
        raise InvalidArgument(f"invalid value for {name}: {text!r} is neither a Unix time nor RFC 3339") from None
