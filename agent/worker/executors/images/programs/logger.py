"""`swarmtui/logger`: numbered lines at a steady rate, on both streams and in several levels.

RATE lines a second (default 1, `max` as fast as they are taken), COUNT lines and then exit 0 (default: for ever), SIZE bytes
a line at least, STREAM stdout, stderr or both (default: warnings and errors go to stderr).
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("INFO", "INFO", "DEBUG", "INFO", "WARN", "INFO", "INFO", "ERROR")
"""The level of line N is the one at N modulo eight, so that a reader can tell a lost line."""
MESSAGES = (
    "request handled",
    "cache refreshed",
    "connection pool looked through",
    "message queued",
    "answer was slow",
    "session renewed",
    "report written",
    "backend did not answer",
)
BATCH = 256


class Settings:
    """What the environment asks for. ValueError names the variable that is wrong."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        rate = environment.get("RATE", "") or "1"
        try:
            self.rate = 0.0 if rate == "max" else float(rate)
        except ValueError:
            raise ValueError(f"RATE={rate!r}: a number of lines a second, or max") from None
        if rate != "max" and not 0 < self.rate < 1e9:
            raise ValueError(f"RATE={rate!r}: more than 0 lines a second, or max")
        self.count = _whole(environment, "COUNT")
        self.size = _whole(environment, "SIZE")
        self.stream = environment.get("STREAM", "") or "levels"
        if self.stream not in ("stdout", "stderr", "both", "levels"):
            raise ValueError(f"STREAM={self.stream!r}: stdout, stderr or both")


def _whole(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "") or "0"
    if not text.isdigit():
        raise ValueError(f"{name}={text!r}: a whole number")
    return int(text)


def line(number: int, size: int) -> bytes:
    """Line `number`, from 1 on, padded to `size` bytes."""
    text = f"{LEVELS[number % 8]:5} {number} {MESSAGES[number % 8]}"
    return text.encode().ljust(size, b".") + b"\n"


def descriptor(number: int, stream: str) -> int:
    """1 or 2: where line `number` goes."""
    if stream == "both":
        return 1 + number % 2
    if stream == "levels":
        return 2 if LEVELS[number % 8] in ("WARN", "ERROR") else 1
    return 1 if stream == "stdout" else 2


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Write lines until COUNT or a signal; the exit code."""
    try:
        settings = Settings(environment)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    number = 0
    start = time.monotonic()
    while not settings.count or number < settings.count:
        due = number + BATCH if not settings.rate else int((time.monotonic() - start) * settings.rate) + 1
        due = min(due, number + BATCH, settings.count or due)
        parts: dict[int, list[bytes]] = {1: [], 2: []}
        while number < due:
            number += 1
            parts[descriptor(number, settings.stream)].append(line(number, settings.size))
        for target, lines in parts.items():
            _write_all(target, b"".join(lines))
        if settings.rate:
            time.sleep(max(0.0, start + number / settings.rate - time.monotonic()))
    return 0


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
