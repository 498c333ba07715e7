"""Numbers as a row of bars, a cell each. Pure."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#@"


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """The last `width` values, the largest as a full bar; missing ones as blanks on the left."""
    bars = ASCII_BARS if ascii_only else BARS
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    drawn = "".join(
        bars[min(len(bars) - 1, int(value / top * (len(bars) - 1) + 0.5))] if top > 0 else bars[0] for value in shown
    )
    return drawn.rjust(width)
