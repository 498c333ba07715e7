"""What a log view holds: a ring of lines, those that pass a filter, where each starts when wrapped, and what was found.

Pure: no screen, no clock. Lines are kept as columns (texts, times, sources, kinds), not as objects: the garbage collector's
full passes over 200,000 objects stalled the loop for 40 ms each.

Filtering and searching what is already held goes on in slices (`advance`), so that no slice blocks the loop for long.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from swarmtui.ui.text import width_of

LONG = 8192
"""Characters from which a line is never looked at as a whole: only the part on the screen is made."""
SLICE = 20_000
"""Lines filtered or searched in one go, about 10 ms."""

_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
_PROBLEM = re.compile(
    r"\b(?:err(?:or)?|fatal|critical|crit|panic|exception|traceback|segfault|warn(?:ing)?|failed|failure|refused|timed out)\b",
    re.IGNORECASE,
)
_SEVERE = re.compile(
    r"^(?:err(?:or)?|fatal|crit(?:ical)?|panic|exception|traceback|segfault|fail(?:ed|ure))$", re.IGNORECASE
)


class Kind:
    """What a line is."""

    STDOUT = 0
    STDERR = 1
    NOTICE = 2
    """The console's own row: something began or ended."""
    ALARM = 3
    """The console's own row: something is missing or was lost."""


class Line(NamedTuple):
    """One line."""

    timestamp: int
    """Nanoseconds since the epoch, 0 when unknown."""
    text: str
    source: str
    """The task's id; empty for a notice of no replica."""
    kind: int = Kind.STDOUT


def shown_text(text: str) -> str:
    """The text as it is laid out: colours taken out, tabs expanded; other controls are escaped when drawn, cell by cell.

    A long line is returned untouched, so that it costs nothing until it is drawn.
    """
    if len(text) > LONG or text.isprintable():
        return text
    return _COLOUR.sub("", text).expandtabs(8)


def cells_per_row(text: str, width: int) -> int:
    """Characters of a long text that surely fit in `width` cells: all of them when ASCII, else half (wide letters)."""
    return width if text.isascii() else max(1, width // 2)


def height_of(text: str, width: int) -> int:
    """Rows that `text` takes when wrapped at `width` cells."""
    text = shown_text(text)
    if len(text) > LONG or text.isascii():
        per_row = cells_per_row(text, width)
        return max(1, -(-len(text) // per_row))
    return max(1, len(wrap(text, width)))


def wrap(text: str, width: int) -> list[str]:
    """The rows of a text that is not ASCII: no letter is cut in two, none takes more than `width` cells."""
    rows: list[str] = []
    start = taken = 0
    for index, letter in enumerate(text):
        cells = width_of(letter)
        if taken + cells > width and index > start:
            rows.append(text[start:index])
            start, taken = index, 0
        taken += cells
    rows.append(text[start:])
    return rows


def problem_in(text: str) -> re.Match[str] | None:
    """The first word that says error or warning, in the beginning of the line."""
    return _PROBLEM.search(text, 0, 4096)


def severe(word: str) -> bool:
    """Whether a word found by `problem_in` says error rather than warning."""
    return _SEVERE.match(word) is not None


class LineFilter:
    """Lines to show: all words (regular expressions) must be found, and none of those after `!`."""

    def __init__(self, text: str) -> None:
        self.text = text
        """As typed."""
        self.include: list[re.Pattern[str]] = []
        """Expressions that must be found."""
        self.exclude: list[re.Pattern[str]] = []
        """Expressions that must not be found."""
        for term in text.split():
            inverted = term.startswith("!")
            if term := term.removeprefix("!"):
                (self.exclude if inverted else self.include).append(expression(term))

    def passes(self, text: str, kind: int) -> bool:
        """Whether a line of that text and kind is shown. Notices always are: they say what is missing."""
        if kind >= Kind.NOTICE:
            return True
        return all(pattern.search(text) for pattern in self.include) and not any(
            pattern.search(text) for pattern in self.exclude
        )


def expression(text: str) -> re.Pattern[str]:
    """A search text as a regular expression; literally when it is none. Small letters match either case."""
    flags = (
        re.NOFLAG if any(letter.isupper() for letter in text.replace("\\S", "").replace("\\W", "")) else re.IGNORECASE
    )
    try:
        return re.compile(text, flags)
    except (re.error, OverflowError, RecursionError):
        return re.compile(re.escape(text), flags)


class LogBuffer:
    """Lines by number: each line ever appended has the next number, and keeps it while older ones are dropped."""

    def __init__(self, *, max_lines: int = 200_000, max_chars: int = 64 * 1024 * 1024) -> None:
        self.max_lines = max_lines
        """Lines kept at most."""
        self.max_chars = max_chars
        """Characters kept at most, all lines together."""
        self.first = 0
        """The number of the oldest line kept; also how many were dropped."""
        self.filter: LineFilter | None = None
        """The filter in force."""
        self.search: re.Pattern[str] | None = None
        """What is searched."""
        self.matches: list[int] = []
        """Numbers of the lines found, ascending."""
        self._texts: list[str] = []
        self._sources: list[str] = []
        self._stamps = array("q")
        self._kinds = bytearray()
        self._chars = 0
        self._shown: list[int] | None = None
        self._filtered_to = 0
        self._searched_to = 0
        self._wrap_width: int | None = None
        self._ends: list[int] = []
        self._gone_rows = 0

    # Lines

    @property
    def end(self) -> int:
        """The number that the next line will get."""
        return self.first + len(self._texts)

    def line(self, number: int) -> Line:
        """The line of that number; IndexError when it was dropped or is yet to come."""
        if number < self.first:
            raise IndexError(number)
        index = number - self.first
        return Line(self._stamps[index], self._texts[index], self._sources[index], self._kinds[index])

    def lines(self) -> list[Line]:
        """A copy of all lines kept, the oldest first."""
        return list(map(Line, self._stamps, self._texts, self._sources, self._kinds))

    def append(self, lines: Sequence[Line]) -> int:
        """Adds lines at the end and drops the oldest over the bounds; returns by how many rows the top moved.

        With a filter or wrapped, the new lines are shown by `advance`.
        """
        texts = [line.text for line in lines]
        self._texts += texts
        self._sources += [line.source for line in lines]
        self._kinds += bytes([line.kind for line in lines])
        try:
            self._stamps.extend(array("q", [line.timestamp for line in lines]))
        except OverflowError:
            # A year beyond 2262 in nanoseconds: a clock set wrong on purpose or by accident must not stop the log.
            self._stamps.extend([max(0, min(line.timestamp, 2**63 - 1)) for line in lines])
        self._chars += sum(map(len, texts))
        moved = self._trim()
        if self.filter is None and self._wrap_width is None:
            self._filtered_to = self.end
        return moved

    def clear(self) -> None:
        """Forgets every line; the numbers start again."""
        self._texts, self._sources, self._stamps, self._kinds = [], [], array("q"), bytearray()
        self.matches, self._ends = [], []
        self.first = self._chars = self._filtered_to = self._searched_to = self._gone_rows = 0
        self._shown = [] if self.filter is not None else None

    def _trim(self) -> int:
        texts, count = self._texts, 0
        if len(texts) > self.max_lines:
            # A little more goes than has to. Much more at once would hold the loop: freeing 20,000 lines takes 20 ms.
            count = len(texts) - self.max_lines * 49 // 50
        chars = self._chars - sum(map(len, islice(texts, count)))
        while chars > self.max_chars and count < len(texts) - 1:
            chars -= len(texts[count])
            count += 1
        if not count:
            return 0
        gone = min(count, self._filtered_to - self.first)
        del texts[:count], self._sources[:count], self._stamps[:count], self._kinds[:count]
        self._chars = chars
        self.first += count
        self._filtered_to = max(self._filtered_to, self.first)
        self._searched_to = max(self._searched_to, self.first)
        del self.matches[: bisect_left(self.matches, self.first)]
        if self._shown is not None:
            gone = bisect_left(self._shown, self.first)
            del self._shown[:gone]
        if self._wrap_width is None:
            return gone
        rows = (self._ends[gone - 1] if gone else self._gone_rows) - self._gone_rows
        del self._ends[:gone]
        self._gone_rows += rows
        return rows

    # Filter and search

    def set_filter(self, chosen: LineFilter | None) -> None:
        """Shows only what passes. What is held is gone through by `advance`."""
        self.filter = chosen
        self._start_over()

    def set_search(self, pattern: re.Pattern[str] | None) -> None:
        """Looks for `pattern` in every line held and to come."""
        self.search, self.matches, self._searched_to = pattern, [], self.first

    @property
    def behind(self) -> bool:
        """True while lines remain to be filtered, wrapped or searched."""
        return self._filtered_to < self.end or (self.search is not None and self._searched_to < self.end)

    def advance(self, budget: int = SLICE) -> bool:
        """Filters and searches up to `budget` more lines each; True when none remain."""
        self._extend_shown(min(self.end, self._filtered_to + budget))
        if self.search is not None:
            stop = min(self.end, self._searched_to + budget)
            found, start = self.search.search, self._searched_to
            self.matches.extend(
                number
                for number, (text, kind) in enumerate(self._part(start, stop), start)
                if kind < Kind.NOTICE and found(text)
            )
            self._searched_to = stop
        return not self.behind

    def find_problem(self, number: int, step: int, budget: int = SLICE) -> tuple[int | None, int]:
        """The next line after (`step` 1) or before (-1) `number` that says error or warning and is shown.

        Returns (its number or None, where to go on): the search stops after `budget` lines.
        """
        end = self.end
        for _ in range(budget):
            number += step
            if not self.first <= number < end:
                return None, number
            text, kind = self._texts[number - self.first], self._kinds[number - self.first]
            problem = kind == Kind.ALARM or (kind < Kind.NOTICE and problem_in(text) is not None)
            if problem and (self.filter is None or self.filter.passes(text, kind)):
                return number, number
        return None, number

    def _extend_shown(self, stop: int) -> None:
        start = self._filtered_to
        if stop <= start:
            return
        self._filtered_to = stop
        if self._shown is None or self.filter is None:
            if self._wrap_width is not None:
                self._extend_ends(islice(self._texts, start - self.first, stop - self.first))
            return
        passes = self.filter.passes
        new = [number for number, (text, kind) in enumerate(self._part(start, stop), start) if passes(text, kind)]
        self._shown.extend(new)
        if self._wrap_width is not None:
            self._extend_ends(self._texts[number - self.first] for number in new)

    def _part(self, start: int, stop: int) -> Iterable[tuple[str, int]]:
        """Texts and kinds of the lines from number `start` to before `stop`."""
        low, high = start - self.first, stop - self.first
        return zip(islice(self._texts, low, high), islice(self._kinds, low, high), strict=True)

    # Rows

    @property
    def shown_count(self) -> int:
        """Lines that pass the filter."""
        return len(self._shown) if self._shown is not None else self._filtered_to - self.first

    @property
    def rows(self) -> int:
        """Rows on an endless screen: the lines shown, each as high as it wraps."""
        if self._wrap_width is None:
            return self.shown_count
        return self._ends[-1] - self._gone_rows if self._ends else 0

    def set_wrap(self, width: int | None) -> None:
        """Wraps at `width` cells, or not (None). What is held is gone through by `advance`."""
        if width != self._wrap_width:
            self._wrap_width = width
            self._start_over()

    def _start_over(self) -> None:
        self._shown = None if self.filter is None else []
        self._ends, self._gone_rows = [], 0
        self._filtered_to = self.end if self.filter is None and self._wrap_width is None else self.first

    def _extend_ends(self, texts: Iterable[str]) -> None:
        assert self._wrap_width is not None
        last = self._ends[-1] if self._ends else self._gone_rows
        width = self._wrap_width
        # The usual line (short, ASCII, no controls) is as high as its length says; a call each would cost five times that.
        heights = [
            (-(-len(text) // width) or 1)
            if len(text) <= LONG and text.isascii() and text.isprintable()
            else height_of(text, width)
            for text in texts
        ]
        ends = accumulate(heights, initial=last)
        next(ends)
        self._ends.extend(ends)

    def locate(self, row: int) -> tuple[int, int]:
        """The number of the line on row `row` (0 <= row < rows) and which of its own rows that is."""
        if self._wrap_width is None:
            index, inside = row, 0
        else:
            row += self._gone_rows
            index = bisect_right(self._ends, row)
            inside = row - (self._ends[index - 1] if index else self._gone_rows)
        return (self._shown[index] if self._shown is not None else self.first + index), inside

    def row_of(self, number: int) -> int:
        """The first row of line `number`; of the next one shown when it is filtered out."""
        index = bisect_left(self._shown, number) if self._shown is not None else max(0, number - self.first)
        if self._wrap_width is None:
            return min(index, max(0, self.shown_count - 1))
        index = min(index, max(0, len(self._ends) - 1))
        return self._ends[index - 1] - self._gone_rows if index else 0


NameOf = Callable[[str], str]
"""A task's id to the name that a person knows: `web.3@node2`."""
