"""RFC 3339 times of the API to nanoseconds since the epoch, and durations as people write them.

An integer of nanoseconds compares, subtracts and merges exactly; a float of seconds loses the last three digits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

SECOND = 1_000_000_000
"""Nanoseconds a second."""

Clock = Callable[[], int]
"""Wall clock: nanoseconds since the epoch, UTC. Injected wherever time is read."""

Monotonic = Callable[[], float]
"""Monotonic clock: seconds from an arbitrary point. Injected wherever a delay is measured."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)$")
_SECOND_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86400 * SECOND,
}


@lru_cache(maxsize=4096)
def _minute(text: str) -> int:
    """Seconds since the epoch of `2026-11-21T09:24`; the year 1 of Go's zero time is negative."""
    moment = datetime(int(text[:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]), int(text[14:16]), tzinfo=UTC)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())


@lru_cache(maxsize=4096)
def _second(text: str) -> int:
    """Nanoseconds since the epoch of `2026-11-21T09:24:38`; ValueError when it is not of that form."""
    if _SECOND_FORM.match(text) is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    return (_minute(text[:16]) + int(text[17:])) * SECOND


def parse_time(text: str) -> int:
    """RFC 3339 to nanoseconds since the epoch; ValueError names the text. Go's zero time and "" are 0."""
    if len(text) == 30 and text[19] == "." and text[29] == "Z" and text[20:29].isdecimal() and text[0] != "0":
        # Nine digits and UTC: the form of nearly every line of a log.
        return _second(text[:19]) + int(text[20:29])
    if not text or text.startswith("0001-01-01T00:00:00"):
        return 0
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    minute, second, fraction, zone = match.groups()
    offset = 0
    if zone not in "Zz":
        offset = (int(zone[1:3]) * 60 + int(zone[4:6])) * (60 if zone[0] == "+" else -60)
    return (_minute(minute) + int(second) - offset) * SECOND + int((fraction or "").ljust(9, "0"))


def format_time(ns: int) -> str:
    """Nanoseconds since the epoch as `2026-11-21T09:24:38.702487902Z`."""
    seconds, rest = divmod(ns, SECOND)
    t = time.gmtime(seconds)
    return f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{rest:09d}Z"


def time_parameter(ns: int) -> str:
    """A time as `since` and `until` take it: seconds since the epoch with all nine digits of the nanoseconds."""
    return f"{ns // SECOND}.{ns % SECOND:09d}"


def parse_duration(text: str) -> int:
    """A duration as Go writes it (`1m30s`, `250ms`, and `d` for days) in nanoseconds; ValueError names the text."""
    if text == "0":
        return 0
    total, position = 0.0, 0
    for match in _DURATION_PART.finditer(text):
        if match.start() != position:
            break
        total += float(match.group(1)) * _UNITS[match.group(2)]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f"not a duration: {text!r} (write for example 10s, 1m30s or 250ms)")
    return round(total)
