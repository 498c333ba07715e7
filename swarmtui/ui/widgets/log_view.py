"""The log with its settings, searches and keys: what the registry's scope "logs" means. What is drawn is in `log_window`."""

from __future__ import annotations

from typing import ClassVar

from textual.geometry import Size

from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.log_buffer import LineFilter, expression
from swarmtui.ui.log_painter import REPLICA_COLOURS, Times
from swarmtui.ui.text import safe
from swarmtui.ui.widgets.log_window import SOON, LogWindow


class LogView(LogWindow):
    """A log on Textual's line API: 100,000 lines a second and the loop stays free."""

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
