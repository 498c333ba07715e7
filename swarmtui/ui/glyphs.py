"""State as glyph and word: colour is never the only sign.

Two sets: `unicode`, and `ascii` for terminals and fonts that lack the symbols. Every glyph is one cell wide.
"""

from __future__ import annotations

from enum import StrEnum


class Tone(StrEnum):
    """What a person should feel about a piece of text; a theme gives each tone its colour."""

    PLAIN = "plain"
    GOOD = "good"
    BUSY = "busy"
    WAITING = "waiting"
    BAD = "bad"
    WARNING = "warning"
    MUTED = "muted"
    ACCENT = "accent"


class GlyphSet:
    """The symbols of one set, by name; an unknown name is a programming error (KeyError)."""

    def __init__(self, name: str, symbols: dict[str, str]) -> None:
        self.name = name
        """`unicode` or `ascii`."""
        self.symbols = symbols

    def __getitem__(self, name: str) -> str:
        return self.symbols[name]


UNICODE = GlyphSet(
    "unicode",
    {
        "running": "●",
        "starting": "◐",
        "pending": "○",
        "failed": "✖",
        "complete": "✔",
        "shutdown": "·",
        "warning": "▲",
        "leader": "★",
        "manager": "◆",
        "worker": "◇",
        "crumb": "▸",
        "ascending": "▲",
        "descending": "▼",
        "mark": "▪",
        "cut": "…",
        "bar": "█",
        "bar_partial": "▒",
        "bar_empty": "░",
        "rule": "─",
        "divider": "│",
        "arrow": "→",
        "spinner": "◐◓◑◒",
    },
)

ASCII = GlyphSet(
    "ascii",
    {
        "running": "*",
        "starting": "~",
        "pending": "o",
        "failed": "x",
        "complete": "v",
        "shutdown": ".",
        "warning": "!",
        "leader": "L",
        "manager": "M",
        "worker": "w",
        "crumb": ">",
        "ascending": "^",
        "descending": "v",
        "mark": "+",
        "cut": "~",
        "bar": "#",
        "bar_partial": "=",
        "bar_empty": "-",
        "rule": "-",
        "divider": "|",
        "arrow": "->",
        "spinner": "|/-\\",
    },
)

SETS = {UNICODE.name: UNICODE, ASCII.name: ASCII}

TONES: dict[str, Tone] = {
    "running": Tone.GOOD,
    "starting": Tone.BUSY,
    "pending": Tone.WAITING,
    "failed": Tone.BAD,
    "complete": Tone.MUTED,
    "shutdown": Tone.MUTED,
    "warning": Tone.WARNING,
    "leader": Tone.ACCENT,
    "manager": Tone.PLAIN,
    "worker": Tone.MUTED,
}
"""The tone of each glyph that stands for a state or a role."""


def replica_bar(running: int, wanted: int, glyphs: GlyphSet, width: int = 6) -> str:
    """A bar of `width` cells, filled in proportion of `running` to `wanted`; never full before all run.

    A wanted of 0 gives an empty bar (nothing is wanted, nothing is missing).
    """
    if wanted <= 0:
        return glyphs["bar_empty"] * width
    cells = min(width, wanted)
    filled = min(cells, running * cells // wanted)
    if running > 0 and filled == 0:
        return (glyphs["bar_partial"] + glyphs["bar_empty"] * (cells - 1)).ljust(width)
    return (glyphs["bar"] * filled + glyphs["bar_empty"] * (cells - filled)).ljust(width)
