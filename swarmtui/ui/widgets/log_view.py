"""A log on Textual's line API: 100,000 lines a second and the loop stays free.

Textual's RichLog took 1.4 s of the loop for 1000 lines. Here lines come in batches into a ring (`log_buffer`), at most 25
times a second; only what is on the screen is made into text, and a line of a megabyte costs no more than its visible part.
What is not a line is a row as well: a node that does not answer, lines that were dropped, a connection that came back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.glyphs import UNICODE, GlyphSet
from swarmtui.ui.log_buffer import Kind, Line, LineFilter, LogBuffer, NameOf, expression
from swarmtui.ui.log_painter import REPLICA_COLOURS, LogPainter, Times
from swarmtui.ui.text import fitted, safe

FLUSH_SECONDS = 1 / 25
"""Lines that arrive within this time are taken in together; each time costs one repaint."""
BRIEF_CELLS = 75
"""A window that is narrower shows times to the second."""
SOON = 0.001
"""The pause between two slices of filtering, wrapping or searching: the loop serves others."""


class LogView(ScrollView, can_focus=True):
    """Lines of many replicas, following the newest or held still."""

    ALLOW_SELECT = False
    BINDINGS = bindings(Scope.LOG)
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--time",
        "log--divider",
        "log--stderr",
        "log--notice",
        "log--alarm",
        "log--error",
        "log--warning",
        "log--match",
        "log--current",
        "log--empty",
        *(f"log--replica-{number}" for number in range(1, REPLICA_COLOURS + 1)),
    }
    DEFAULT_CSS = (
        """
    LogView {
        background: $background; color: $foreground; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1;
        .log--time { color: $text-muted; }
        .log--divider { color: $text-disabled; }
        .log--stderr { color: $text-warning; }
        .log--notice { color: $text-muted; }
        .log--alarm { color: $text-warning; text-style: bold; }
        .log--error { color: $text-error; text-style: bold; }
        .log--warning { color: $text-warning; text-style: bold; }
        .log--match { background: $match-background; }
        .log--current { background: $match-current-background; color: $match-current-foreground; text-style: bold; }
        .log--empty { color: $text-muted; }
"""
        + "".join(
            f"        .log--replica-{number} {{ color: $replica-{number}; }}\n"
            for number in range(1, REPLICA_COLOURS + 1)
        )
        + "    }\n"
    )

    class StatusChanged(Message):
        """What the title of the log says changed: see `LogView.status`."""

        def __init__(self, log: LogView) -> None:
            super().__init__()
            self.log_view = log
            """The log."""

        @property
        def control(self) -> LogView:
            """The log."""
            return self.log_view

    class Asked(StatusChanged):
        """A key that needs an answer from the person or the screen: `search`, `filter` or `since`."""

        def __init__(self, log: LogView, what: str) -> None:
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

    # What a person sets

    def set_filter(self, text: str) -> None:
        """Shows only lines that match: words as regular expressions, all of them; `!` before one leaves its lines out."""
        self._hold_place()
        self.buffer.set_filter(LineFilter(text) if text.strip() else None)
        self._after_change()

    def set_search(self, text: str) -> None:
        """Looks for a regular expression and goes to the last line found; an empty text ends the search."""
        self.highlight = text
        self.buffer.set_search(expression(text) if text else None)
        self.current = None
        self._after_change()
        if text:
            self._go_to_match(-1)

    def set_times(self, times: Times) -> None:
        """Shows times so."""
        self.painter.times = times
        if self.painter.wrapped:
            self._rewrap()
        self._after_change()

    def set_wrapped(self, wrapped: bool) -> None:
        """Wraps long lines, or not."""
        self.painter.wrapped = wrapped
        self.painter.left = 0
        self._rewrap()
        self._after_change()

    def set_paused(self, paused: bool) -> None:
        """Holds the picture, or takes in what waited."""
        self.paused = paused
        self._after_change()
        if not paused:
            self._arm(SOON)

    def _after_change(self) -> None:
        if not self.buffer.advance():
            self._arm(SOON)
        self._relayout()
        self.post_message(self.StatusChanged(self))

    @property
    def status(self) -> list[str]:
        """The title's parts: what the log is doing, counts, settings that are not as at the start."""
        parts = []
        if self.paused:
            parts.append(f"paused, {self.arrived:,} arrived")
        else:
            parts.append("following" if self.following else "scrolled")
        if self.rate >= 0.5:
            parts.append(f"{self.rate:,.0f} lines/s")
        if self.buffer.search is not None:
            matches = self.buffer.matches
            place = ""
            if self.current is not None and self.current in matches:
                place = f"{matches.index(self.current) + 1:,} of "
            parts.append(f"/{safe(self.highlight)} {place}{len(matches):,}")
        if self.buffer.filter is not None:
            parts.append(f"&{safe(self.buffer.filter.text)}: {self.buffer.shown_count:,} lines")
        if self.painter.wrapped:
            parts.append("wrap")
        if self.painter.times is Times.RELATIVE:
            parts.append("ages")
        return parts

    def tick(self) -> None:
        """A second has passed: ages are drawn anew."""
        if self.painter.times is Times.RELATIVE and self.is_attached:
            self.refresh()

    # Going to lines

    def show_line(self, number: int) -> None:
        """Goes to a line, in the middle of the window, and marks it."""
        self.following = False
        self._anchor = None
        self.current = number
        page = self.scrollable_content_region.height
        self.virtual_size = Size(0, self._total)
        self._scroll_rows(self.buffer.row_of(number) + self._notice_shown - page // 2)
        self.refresh()
        self.post_message(self.StatusChanged(self))

    def _place(self, step: int) -> int:
        """The number of the line from which `step` looks: the current one if it is in sight, else the window's edge."""
        if not self.buffer.rows:
            return 0
        top = max(0, round(self.scroll_y) - self._notice_shown)
        bottom = min(self.buffer.rows, top + self.scrollable_content_region.height) - 1
        first, last = self.buffer.locate(min(top, bottom))[0], self.buffer.locate(bottom)[0]
        if self.current is not None and first <= self.current <= last:
            return self.current
        return first - 1 if step > 0 else last + 1

    def _go_to_match(self, step: int) -> None:
        from bisect import bisect_left, bisect_right

        matches, place = self.buffer.matches, self._place(step)
        if (chosen := self.buffer.filter) is not None:
            lines = ((number, self.buffer.line(number)) for number in matches)
            matches = [number for number, line in lines if chosen.passes(line.text, line.kind)]
        if not matches:
            return
        index = bisect_right(matches, place) if step > 0 else bisect_left(matches, place) - 1
        self.show_line(matches[index % len(matches)])

    def _go_to_problem(self, step: int) -> None:
        self._look_for_problem(self._place(step), step)

    def _look_for_problem(self, place: int, step: int) -> None:
        """In slices, so that a long log without problems does not hold up the loop."""
        found, place = self.buffer.find_problem(place, step)
        if found is not None:
            self.show_line(found)
        elif self.buffer.first <= place < self.buffer.end:
            self.call_later(self._look_for_problem, place, step)
        else:
            self.app.notify("no error or warning " + ("below" if step > 0 else "above"), timeout=2)

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

    # Actions of the registry's scope "logs"

    def action_log_follow(self) -> None:
        """Follows the newest line, or stops."""
        self._anchor = None
        self._set_following(not self.following)
        self._relayout()

    def action_log_pause(self) -> None:
        """Holds the picture, or goes on."""
        self.set_paused(not self.paused)

    def action_log_wrap(self) -> None:
        """Wraps, or not."""
        self.set_wrapped(not self.painter.wrapped)

    def action_log_timestamps(self) -> None:
        """Off, absolute, relative."""
        order = list(Times)
        self.set_times(order[(order.index(self.painter.times) + 1) % len(order)])

    def action_log_search(self, text: str = "") -> None:
        """Searches for the text, or asks for one."""
        if text:
            self.set_search(text)
        else:
            self.post_message(self.Asked(self, "search"))

    def action_log_filter(self, text: str = "") -> None:
        """Filters by the text, or asks for one."""
        if text:
            self.set_filter(text)
        else:
            self.post_message(self.Asked(self, "filter"))

    def action_log_since(self, minutes: str = "") -> None:
        """Reads again from so many minutes ago; the screen holds the stream."""
        self.post_message(self.Asked(self, f"since {minutes}".strip()))

    def action_log_next(self) -> None:
        """The next line found."""
        self._go_to_match(1)

    def action_log_previous(self) -> None:
        """The line found before."""
        self._go_to_match(-1)

    def action_log_next_problem(self) -> None:
        """The next error or warning."""
        self._go_to_problem(1)

    def action_log_previous_problem(self) -> None:
        """The error or warning before."""
        self._go_to_problem(-1)

    def action_log_copy(self) -> None:
        """Copies the lines on the screen."""
        top = max(0, round(self.scroll_y) - self._notice_shown)
        rows = range(top, min(self.buffer.rows, top + self.scrollable_content_region.height))
        numbers = dict.fromkeys(self.buffer.locate(row)[0] for row in rows)
        if numbers:
            self.app.copy_to_clipboard("\n".join(self.painter.plain(self.buffer.line(number)) for number in numbers))
            self.app.notify(f"copied {len(numbers)} lines", timeout=2)

    def action_log_save(self, path: str = "") -> None:
        """Saves every line kept to a file; the screen names it."""
        self.post_message(self.Asked(self, f"save {path}".strip()))

    def action_log_up(self) -> None:
        """One line up."""
        self._scroll_by(-1)

    def action_log_down(self) -> None:
        """One line down."""
        self._scroll_by(1)

    def action_log_page_up(self) -> None:
        """One page up."""
        self._scroll_by(1 - self.scrollable_content_region.height)

    def action_log_page_down(self) -> None:
        """One page down."""
        self._scroll_by(self.scrollable_content_region.height - 1)

    def action_log_top(self) -> None:
        """First line kept."""
        self._scroll_by(-self._total)

    def action_log_bottom(self) -> None:
        """Last line, and follow."""
        self._anchor = None
        self._set_following(True)
        self._relayout()

    def _scroll_by(self, rows: int) -> None:
        self._anchor = None
        self.scroll_to(y=max(0, round(self.scroll_y) + rows), animate=False, force=True)
        self._set_following(self.is_vertical_scroll_end)

    def action_log_left(self) -> None:
        """Scrolls left by half a window."""
        self.painter.left = max(0, self.painter.left - self._text_cells // 2)
        self.refresh()

    def action_log_right(self) -> None:
        """Scrolls right by half a window."""
        if not self.painter.wrapped:
            self.painter.left += self._text_cells // 2
            self.refresh()
