"""Text from elsewhere, made safe and fitted to cells.

Names, labels, errors and log lines come from programs nobody here wrote. A control sequence among them could move the
cursor, recolour or re-title the terminal, or answer as if typed; so every control and every invisible character that
changes direction or width is replaced before it is drawn.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

# C0, DEL and C1 controls; zero width and direction characters; line separators; tags and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_split_digits = re.compile("([0-9]+)").split


def _replacement(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code == 9:
        return " "
    if code < 32:
        # The control's own picture: ESC is seen as ␛ instead of obeyed.
        return chr(0x2400 + code)
    if code == 127:
        return "␡"
    return "�"


def safe(text: str) -> str:
    """`text` with each unsafe character replaced by one visible cell; the length in characters is unchanged."""
    if text.isprintable() and text.isascii():
        return text
    return _UNSAFE.sub(_replacement, text)


def width_of(text: str) -> int:
    """Cells that `text` (already safe) takes; the length itself for ASCII, which is known without a scan."""
    return len(text) if text.isascii() else cell_len(text)


def fitted(text: str, width: int, *, right: bool = False, cut: str = "…") -> str:
    """`text` made exactly `width` cells: padded (left when `right`), or cut with the sign `cut` at its end."""
    if width <= 0:
        return ""
    text = safe(text if len(text) <= 4 * width else text[: 4 * width])
    taken = width_of(text)
    if taken > width:
        return set_cell_size(text, width - 1) + cut if width > 1 else cut
    return " " * (width - taken) + text if right else text + " " * (width - taken)


def natural_key(text: str) -> str:
    """A key under which `web.2` comes before `web.10`, upper and lower case alike.

    Each run of digits is preceded by its length as a character, so plain comparison of strings gives the order of numbers;
    strings compare several times faster than lists of parts, and a table sorts 50,000 of them.
    """
    parts = _split_digits(text.lower())
    for index in range(1, len(parts), 2):
        digits = parts[index]
        if digits[0] == "0":
            digits = digits.lstrip("0") or "0"
        parts[index] = chr(0x2F + min(len(digits), 0x1000)) + digits
    return "".join(parts)


def age(seconds: float) -> str:
    """A span for people, one unit: `0s` `42s` `3m` `5h` `2d`; a negative one (clocks differ) is `0s`."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def countdown(seconds: float) -> str:
    """`HH:MM:SS` of a span in seconds, never below zero."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
