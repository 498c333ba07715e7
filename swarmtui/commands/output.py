"""Tables and times as the docker CLI prints them: pure functions to text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarmtui.docker_api.times import SECOND

_PADDING = 3
_NARROWEST = 10
"""Docker's table writer: a column has at least ten columns of the screen and three spaces after its widest cell."""

SHORT_ID = 12


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with aligned columns; the last column is not padded."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(_NARROWEST, *(len(line[i]) + _PADDING for line in lines)) for i in range(len(headers))]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def short_id(identity: str, full: bool = False) -> str:
    """The first twelve letters, unless all are wanted."""
    return identity if full else identity[:SHORT_ID]


def human_duration(nanoseconds: int) -> str:
    """As Docker says it: `49 seconds`, `About a minute`, `3 hours`, `2 days` (docker/go-units duration.go)."""
    seconds = max(0, nanoseconds) // SECOND
    minutes, hours = seconds // 60, round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def ago(moment: int, now: int) -> str:
    """`49 seconds ago`; "" for a moment that is not known."""
    return f"{human_duration(now - moment)} ago" if moment else ""


def printable(text: str) -> str:
    """Text of a log for a terminal: control characters (except the tab) as escapes, so that they cannot act on it."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter == "\t" or letter.isprintable() or letter == " " else _escaped(letter) for letter in text
    )


def _escaped(letter: str) -> str:
    code = ord(letter)
    if code < 0x20:
        return "^" + chr(code + 0x40)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
