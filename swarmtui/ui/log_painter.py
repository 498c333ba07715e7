"""One row of a log as segments: time, replica, text with what was found in it. Knows no widget.

Only the part of a line that is on the row is touched, so a line of a megabyte costs what its visible part costs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import Enum

from rich.segment import Segment
from rich.style import Style

from swarmtui.ui.glyphs import GlyphSet
from swarmtui.ui.log_buffer import LONG, Kind, Line, NameOf, cells_per_row, problem_in, severe, shown_text, wrap
from swarmtui.ui.text import age, fitted, safe, width_of

REPLICA_COLOURS = 8
"""Colours of replicas in a theme."""
LABEL_CELLS = 24
"""The name of a replica takes no more."""


class Times(Enum):
    """How the times of lines are shown."""

    OFF = "off"
    ABSOLUTE = "absolute"
    RELATIVE = "relative"


class LogPainter:
    """Makes rows; `style` gives the style of a component (`time`, `replica-3`, empty for plain text)."""

    def __init__(
        self, style: Callable[[str], Style], *, name_of: NameOf, glyphs: GlyphSet, clock: Callable[[], float]
    ) -> None:
        self.glyphs = glyphs
        """The symbols drawn."""
        self.name_of = name_of
        """A task's id to the name shown before its lines."""
        self.times = Times.ABSOLUTE
        """How times are shown."""
        self.wrapped = False
        """Long lines go on in the next row."""
        self.left = 0
        """Cells scrolled to the right, when not wrapped."""
        self.label_cells = 0
        """Cells of the widest name so far."""
        self.brief = False
        """The window is narrow: times without thousandths."""
        self._style = style
        self._clock = clock
        self._labels: dict[str, tuple[str, int]] = {}

    @property
    def _time_cells(self) -> int:
        return {Times.OFF: 0, Times.ABSOLUTE: 8 if self.brief else 12, Times.RELATIVE: 4}[self.times]

    @property
    def prefix_cells(self) -> int:
        """Cells before the text of a line."""
        cells = self._time_cells + (self._time_cells > 0)
        return cells + (self.label_cells + 3 if self.label_cells else 0)

    def forget(self) -> None:
        """Forgets the replicas and their colours."""
        self._labels.clear()
        self.label_cells = self.left = 0

    def learn(self, source: str) -> tuple[str, int]:
        """The name of a replica and its colour. Colours go by order of appearance, so that neighbours differ."""
        label = self._labels.get(source)
        if label is None:
            label = self._labels[source] = (self._name(source), len(self._labels) % REPLICA_COLOURS + 1)
            self.label_cells = max(self.label_cells, width_of(label[0]))
        return label

    def rename(self) -> None:
        """The names of replicas changed (a task came to a node): asks `name_of` again, colours stay."""
        for source, (_, colour) in list(self._labels.items()):
            self._labels[source] = (self._name(source), colour)
            self.label_cells = max(self.label_cells, width_of(self._labels[source][0]))

    def _name(self, source: str) -> str:
        name = safe(self.name_of(source))
        return fitted(name, min(LABEL_CELLS, width_of(name)), cut=self.glyphs["cut"])

    def row(self, line: Line, inside: int, width: int, search: re.Pattern[str] | None, current: bool) -> list[Segment]:
        """Row `inside` of a line; `width` is that of the window, `current` whether a search stands on it."""
        if line.kind >= Kind.NOTICE:
            return self.rule(line.text if not inside else "", "alarm" if line.kind == Kind.ALARM else "notice", width)
        return self._prefix(line, inside) + self._text(line, inside, max(8, width - self.prefix_cells), search, current)

    def rule(self, text: str, name: str, width: int) -> list[Segment]:
        """A row that is not a line: the text in a rule across the window."""
        rule, style, text = self.glyphs["rule"], self._style(name), safe(text)
        body = fitted(f"{rule}{rule} {text} ", min(width, width_of(text) + 4), cut=self.glyphs["cut"]) if text else ""
        return [Segment(body + rule * (width - width_of(body)), style)]

    def _prefix(self, line: Line, inside: int) -> list[Segment]:
        segments: list[Segment] = []
        if self.times is not Times.OFF:
            text = "" if inside else self._time(line.timestamp)
            segments.append(Segment(f"{text:>{self._time_cells}} ", self._style("time")))
        name, colour = self.learn(line.source) if line.source else ("", 1)
        if self.label_cells:
            shown = fitted("" if inside else name, self.label_cells, cut=self.glyphs["cut"])
            segments.append(Segment(shown, self._style(f"replica-{colour}")))
            # Only the divider tells the error stream: many programs write everything to it.
            segments.append(
                Segment(f" {self.glyphs['divider']} ", self._style("stderr" if line.kind == Kind.STDERR else "divider"))
            )
        return segments

    def _time(self, timestamp: int) -> str:
        if not timestamp:
            return ""
        if self.times is Times.RELATIVE:
            return age(self._clock() - timestamp / 1e9)
        seconds, rest = divmod(timestamp, 1_000_000_000)
        clock = time.strftime("%H:%M:%S", time.localtime(seconds))
        return clock if self.brief else f"{clock}.{rest // 1_000_000:03d}"

    def _visible(self, text: str, inside: int, cells: int) -> str:
        """The part of a line's text that is on one row."""
        text = shown_text(text)
        if self.wrapped:
            if len(text) > LONG or text.isascii():
                per_row = cells_per_row(text, cells)
                return text[inside * per_row : (inside + 1) * per_row]
            rows = wrap(text, cells)
            return rows[inside] if inside < len(rows) else ""
        return text[self.left : self.left + cells]

    def _text(
        self, line: Line, inside: int, cells: int, search: re.Pattern[str] | None, current: bool
    ) -> list[Segment]:
        text = safe(self._visible(line.text, inside, cells))
        style = self._style("")
        spans: list[tuple[int, int, str]] = []
        if search is not None:
            spans = [(*found.span(), "current" if current else "match") for found in search.finditer(text)]
            spans = [span for span in spans if span[1] > span[0]]
        elif current:
            spans = [(0, len(text), "current")]
        if not spans and (problem := problem_in(text)) is not None:
            spans = [(*problem.span(), "error" if severe(problem[0]) else "warning")]
        segments, position = [], 0
        for start, stop, name in spans:
            if start > position:
                segments.append(Segment(text[position:start], style))
            segments.append(Segment(text[start:stop], self._style(name)))
            position = stop
        segments.append(Segment(text[position:], style))
        return segments

    def plain(self, line: Line) -> str:
        """A line as text for a file or the clipboard, controls escaped."""
        stamp = ""
        if line.timestamp:
            seconds, rest = divmod(line.timestamp, 1_000_000_000)
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z "
        source = f"{safe(self.name_of(line.source))} | " if line.source else ""
        return stamp + source + safe(shown_text(line.text))
