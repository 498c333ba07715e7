"""Times as the API writes them: RFC 3339 in UTC with nanoseconds.

Always nine digits after the point, so that two times compare as strings; Go reads that form as well as its own, which
drops trailing zeros.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

SECOND = 1_000_000_000
"""Nanoseconds a second; durations in the API are integers of nanoseconds."""
MILLISECOND = 1_000_000

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time, which Docker writes where nothing happened yet."""

Clock = Callable[[], int]
"""Nanoseconds since the epoch, UTC. Injected wherever time is read, so that a simulation is exact."""

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)$")


def now_ns() -> int:
    """The wall clock, in nanoseconds since the epoch."""
    return time.time_ns()


def format_time(ns: int) -> str:
    """Nanoseconds since the epoch as `2026-11-21T09:24:38.702487902Z`."""
    seconds, rest = divmod(ns, SECOND)
    t = time.gmtime(seconds)
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{rest:09d}Z"


def parse_time(text: str) -> int:
    """RFC 3339 to nanoseconds since the epoch; ValueError says which text was wrong."""
    match = _RFC3339.match(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = match.group(8)
    offset = 0
    if zone not in "Zz":
        offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * (60 if zone[0] == "+" else -60)
    base = datetime(year, month, day, hour, minute, 0, tzinfo=UTC)
    whole = int((base - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) + second - offset
    return whole * SECOND + int((match.group(7) or "0").ljust(9, "0"))
