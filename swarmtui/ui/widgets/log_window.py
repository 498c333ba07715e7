"""A log on Textual's line API: 100,000 lines a second and the loop stays free.

Textual's RichLog took 1.4 s of the loop for 1000 lines. Here lines come in batches into a ring (`log_buffer`), at most 25
times a second; only what is on the screen is made into text, and a line of a megabyte costs no more than its visible part.
What is not a line is a row as well: a node that does not answer, lines that were dropped, a connection that came back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from swarmtui.ui.glyphs import UNICODE, GlyphSet
from swarmtui.ui.log_buffer import Kind, Line, LogBuffer, NameOf
from swarmtui.ui.log_painter import LogPainter
from swarmtui.ui.text import fitted

FLUSH_SECONDS = 1 / 25
"""Lines that arrive within this time are taken in together; each time costs one repaint."""
BRIEF_CELLS = 75
"""A window that is narrower shows times to the second."""
SOON = 0.001
"""The pause between two slices of filtering, wrapping or searching: the loop serves others."""


class LogWindow(ScrollView, can_focus=True):
    """Lines of many replicas, following the newest or held still; `LogView` adds settings, searching and keys."""

    ALLOW_SELECT = False

    class StatusChanged(Message, namespace="log_view"):
        """What the title of the log says changed: see `LogView.status`."""

        def __init__(self, log: LogWindow) -> None:
            super().__init__()
            self.log_view = log
            """The log."""

        @property
        def control(self) -> LogWindow:
            """The log."""
            return self.log_view

    class Asked(StatusChanged, namespace="log_view"):
        """A key that needs an answer from the person or the screen: `search`, `filter` or `since`."""

        def __init__(self, log: LogWindow, what: str) -> None:
            super().__init__(log)
            self.what = what
            """What is asked for."""

    def __init__(
        self,
        *,
        name_of: NameOf = lambda source: source,
        glyphs: GlyphSet = UNICODE,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        max_lines: int = 200_000,
        max_chars: int = 64 * 1024 * 1024,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.buffer = LogBuffer(max_lines=max_lines, max_chars=max_chars)
        """The lines."""
        self.painter = LogPainter(self._style, name_of=name_of, glyphs=glyphs, clock=clock)
        """Makes the rows."""
        self.empty_text = ""
        """What an empty log says."""
        self.following = True
        """The newest line is kept in sight."""
        self.paused = False
        """The picture is held; lines that arrive wait."""
        self.current: int | None = None
        """The number of the line that a search or a jump went to."""
        self.highlight: str = ""
        """The search text."""
        self.rate = 0.0
        """Lines a second, over the last second."""
        self.lines_painted = 0
        """Rows made since the start; the tests watch that a hidden log makes none."""
        self._monotonic = monotonic
        self._arriving: list[Line] = []
        self._waiting_dropped = 0
        self._timer: Timer | None = None
        self._tones: dict[str, Style] = {}
        self._rate_since: tuple[float, int] = (monotonic(), 0)
        self._anchor: tuple[int, int] | None = None
        self._own_scroll = False
        self._notice_shown = False

    # Lines in

    def write(self, lines: Sequence[Line]) -> None:
        """Hands over lines, the oldest first. They are taken in with the next flush; a paused log counts them."""
        self._arriving.extend(lines)
        over = len(self._arriving) - self.buffer.max_lines
        if over > 0:
            # More than the ring holds: the oldest would be dropped at once, so they do not wait either.
            del self._arriving[:over]
            self._waiting_dropped += over
        self._arm()

    def clear(self) -> None:
        """Forgets every line."""
        self.buffer.clear()
        self._arriving.clear()
        self._waiting_dropped = 0
        self.painter.forget()
        self.current, self._anchor, self.following, self.paused = None, None, True, False
        self._rate_since, self.rate = (self._monotonic(), 0), 0.0
        self._relayout()
        self.post_message(self.StatusChanged(self))

    @property
    def arrived(self) -> int:
        """Lines that wait because the log is paused."""
        return len(self._arriving) + self._waiting_dropped if self.paused else 0

    @property
    def dropped(self) -> int:
        """Lines that are no longer kept."""
        return self.buffer.first + (0 if self.paused else self._waiting_dropped)

    def _arm(self, seconds: float = FLUSH_SECONDS) -> None:
        if self._timer is None and self.is_attached:
            self._timer = self.set_timer(seconds, self.flush)

    def flush(self) -> None:
        """Takes in what has arrived and goes on filtering and searching. Called by the timer."""
        self._timer = None
        if not self.is_attached:
            return
        moved = 0
        if not self.paused and self._arriving:
            arrived, self._arriving = self._arriving, []
            if self._waiting_dropped:
                lost, self._waiting_dropped = self._waiting_dropped, 0
                arrived.insert(
                    0, Line(arrived[0].timestamp, f"{lost:,} lines came faster than they fit in", "", Kind.ALARM)
                )
            moved = self.buffer.append(arrived)
        self._measure_rate()
        done = self.buffer.advance()
        if self.is_on_screen:
            self._relayout(moved)
        self.post_message(self.StatusChanged(self))
        if not done:
            self._arm(SOON)
        elif self.rate:
            # The rate falls back to zero by itself when lines stop.
            self._arm(0.5)

    def _learn(self, lines: Sequence[Line]) -> None:
        """Makes room for the names of new replicas before their lines are laid out."""
        before = self.painter.label_cells
        for source in {line.source for line in lines}:
            if source:
                self.painter.learn(source)
        if self.painter.wrapped and self.painter.label_cells != before:
            self._rewrap()

    def _measure_rate(self) -> None:
        since, count = self._rate_since
        now, end = self._monotonic(), self.buffer.end
        if now - since >= 1:
            self.rate = (end - count) / (now - since)
            self._rate_since = (now, end)
        elif self.rate == 0 and end > count:
            self.rate = float(end - count)

    def on_mount(self) -> None:
        """Lines that were handed over before the log was on the screen."""
        self._arm()

    def on_show(self) -> None:
        """Shown: what arrived meanwhile is laid out."""
        self.flush()

    def on_resize(self, event: events.Resize) -> None:
        """Wrapped lines are laid out anew."""
        self.painter.brief = event.size.width < BRIEF_CELLS
        self._rewrap()
        self._relayout()

    # Layout

    @property
    def _total(self) -> int:
        return self.buffer.rows + self._notice_shown

    def _relayout(self, moved: int = 0) -> None:
        """After rows came or went: the same lines stay where they are, or the newest comes into sight."""
        top = round(self.scroll_y) - moved
        if (notice := self.dropped > 0) is not self._notice_shown:
            top += 1 if notice else -1
            self._notice_shown = notice
        self.virtual_size = Size(0, self._total)
        if self.following:
            self._scroll_rows(self._total)
        elif self._anchor is not None:
            number, inside = self._anchor
            self._scroll_rows(self.buffer.row_of(number) + inside + self._notice_shown)
            if not self.buffer.behind:
                self._anchor = None
        elif top != round(self.scroll_y):
            self._scroll_rows(top)
        self.refresh()

    def _scroll_rows(self, row: int) -> None:
        self._own_scroll = True
        try:
            self.scroll_to(y=max(0, row), animate=False, force=True)
        finally:
            self._own_scroll = False

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """A person who scrolls away from the end stops following, one who reaches it follows again."""
        super().watch_scroll_y(old_value, new_value)
        if not self._own_scroll and round(old_value) != round(new_value):
            self._anchor = None
            self._set_following(self.is_vertical_scroll_end)

    def _set_following(self, following: bool) -> None:
        if following is not self.following:
            self.following = following
            self.post_message(self.StatusChanged(self))

    def _hold_place(self) -> None:
        """Remembers the line at the top, so that it is there again after everything was laid out anew."""
        row = round(self.scroll_y) - self._notice_shown
        if not self.following and 0 <= row < self.buffer.rows:
            self._anchor = self.buffer.locate(row)

    @property
    def _text_cells(self) -> int:
        return max(8, self.scrollable_content_region.width - self.painter.prefix_cells)

    def _rewrap(self) -> None:
        self._hold_place()
        self.buffer.set_wrap(self._text_cells if self.painter.wrapped else None)
        if not self.buffer.advance():
            self._arm(SOON)

    # Drawing

    def notify_style_update(self) -> None:
        """The theme or the focus changed."""
        super().notify_style_update()
        self._tones.clear()

    def _style(self, name: str = "") -> Style:
        style = self._tones.get(name)
        if style is None:
            style = self.rich_style
            if name:
                style += self.get_component_rich_style(f"log--{name}", partial=True)
            self._tones[name] = style
        return style

    def rename(self) -> None:
        """The names of replicas changed (a task came to a node): asks for them again, colours stay."""
        self.painter.rename()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Row `y` of the window."""
        self.lines_painted += 1
        width = self.scrollable_content_region.width
        row = round(self.scroll_y) + y - self._notice_shown
        if row == -1 and self._notice_shown:
            return Strip(self.painter.rule(f"{self.dropped:,} older lines are no longer kept", "alarm", width), width)
        if not 0 <= row < self.buffer.rows:
            return self._beyond(y, width)
        number, inside = self.buffer.locate(row)
        segments = self.painter.row(self.buffer.line(number), inside, width, self.buffer.search, number == self.current)
        return Strip(segments).adjust_cell_length(width, self._style())

    def _beyond(self, y: int, width: int) -> Strip:
        lines = self.empty_text.splitlines() if not self.buffer.end else []
        if self.buffer.end and not self.buffer.rows and not self.buffer.behind:
            lines = ["no line passes the filter", "& and Enter on an empty line shows all again"]
        inside = y - max(1, (self.scrollable_content_region.height - len(lines)) // 3)
        if not 0 <= inside < len(lines):
            return Strip.blank(width, self._style())
        return Strip([Segment(fitted(lines[inside].center(width).rstrip(), width), self._style("empty"))], width)
