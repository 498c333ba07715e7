"""Columns of a table: what they show, how they sort, and which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from swarmtui.ui.glyphs import Tone
from swarmtui.ui.text import natural_key, safe, width_of

R = TypeVar("R")

GAP = 2
"""Blank cells between two columns."""
SAMPLE = 300
"""Rows measured for the width of a column; measuring all of 50,000 would cost more than showing them."""


class Column(Generic[R]):
    """One column of rows of type R."""

    def __init__(
        self,
        key: str,
        title: str,
        text: Callable[[R], str],
        *,
        sort: Callable[[R], Any] | None = None,
        tone: Callable[[R], Tone] | None = None,
        glyph: Callable[[R], str] | None = None,
        right: bool = False,
        essential: bool = False,
        minimum: int = 5,
        maximum: int = 40,
        grow: bool = False,
        live: bool = False,
        hidden: bool = False,
        when_filled: bool = False,
    ) -> None:
        self.key = key
        """Its name in commands and configuration."""
        self.title = title
        """The heading."""
        self.text = text
        """What is shown, searched and copied."""
        self.sort = sort
        """What it sorts by (numbers for numeric columns); the natural order of the text when None."""
        self.tone = tone
        """The meaning that colours the cell."""
        self.glyph = glyph
        """The name of a glyph drawn before the text."""
        self.right = right
        """Right-aligned, for numbers."""
        self.essential = essential
        """Never dropped on a narrow screen: name and state."""
        self.minimum = minimum
        """Least width in cells that still says something."""
        self.maximum = maximum
        """Width in cells beyond which it takes no more."""
        self.grow = grow
        """Takes the room that is left over."""
        self.live = live
        """Its text depends on the time of day, so it is drawn again each second."""
        self.hidden = hidden
        """Not shown until chosen."""
        self.when_filled = when_filled
        """Not shown while no row has anything in it: problems, messages."""

    def sort_key(self, row: R) -> Any:
        """The row's place by this column; keys of one column compare with each other."""
        return self.sort(row) if self.sort is not None else natural_key(self.text(row))

    def cell(self, row: R) -> str:
        """The safe text of the cell, without its glyph."""
        return safe(self.text(row))


class Placed(NamedTuple, Generic[R]):
    """A column that fits, `width` cells wide from cell `left`."""

    column: Column[R]
    left: int
    width: int


def measure(column: Column[R], rows: Sequence[R]) -> int:
    """The width in cells that the column wants for these rows and its heading, within its maximum; 0: not shown."""
    if column.when_filled and not any(map(column.text, rows)):
        return 0
    extra = 2 if column.glyph is not None else 0
    sample = rows if len(rows) <= SAMPLE else rows[:: len(rows) // SAMPLE]
    widest = max((width_of(column.cell(row)) + extra for row in sample), default=0)
    return min(max(widest, len(column.title)), max(column.maximum, len(column.title)))


def place(columns: Sequence[Column[R]], wanted: Sequence[int], width: int, *, left: int = 2) -> list[Placed[R]]:
    """Which columns are drawn where in `width` cells, the first at cell `left`.

    Columns that are not essential are dropped from the right until the least widths fit; then the room is shared out up to
    the wanted widths, left to right; what remains goes to a growing column. Essential columns alone shrink below their
    least width rather than vanish.
    """
    kept = [index for index, want in enumerate(wanted) if want]
    least = [min(want, max(column.minimum, len(column.title))) for column, want in zip(columns, wanted, strict=True)]

    def needed() -> int:
        return left + sum(least[index] for index in kept) + GAP * max(0, len(kept) - 1)

    for index in reversed(kept.copy()):
        if needed() <= width:
            break
        if not columns[index].essential:
            kept.remove(index)
    widths = {index: least[index] for index in kept}
    spare = width - needed()
    while spare < 0 and any(widths[index] > 1 for index in kept):
        widths[max(kept, key=widths.__getitem__)] -= 1
        spare += 1
    for index in kept:
        given = max(0, min(spare, wanted[index] - widths[index]))
        widths[index] += given
        spare -= given
    if spare > 0 and (growing := [index for index in kept if columns[index].grow]):
        widths[growing[-1]] += spare
    placed: list[Placed[R]] = []
    position = left
    for index in kept:
        if position >= width:
            break
        placed.append(Placed(columns[index], position, min(widths[index], width - position)))
        position += widths[index] + GAP
    return placed
