"""A table of cluster objects on Textual's line API, for tens of thousands of rows that change all the time.

Textual's own DataTable took 22 s to settle 50,000 rows. Here rows are keyed by id and fed by differences that are folded in
at most 25 times a second; only the lines on the screen are ever made, and nothing is folded in or drawn while the table is
hidden. The cursor belongs to an object: when rows come, go or are sorted, it stays on it, and on its line of the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.timer import Timer

from swarmtui.ui.columns import Column, Placed, R, measure, place
from swarmtui.ui.glyphs import UNICODE, GlyphSet, Tone
from swarmtui.ui.table_rows import TableRows
from swarmtui.ui.text import fitted

FLUSH_SECONDS = 1 / 25
"""Differences that arrive within this time are folded in together; a fold costs one repaint."""


class TableWindow(ScrollView, Generic[R], can_focus=True):
    """Rows of type R under a fixed heading, with a cursor, marks, a filter and a sort order; `ResourceTable` adds keys."""

    ALLOW_SELECT = False

    class Highlighted(Message, namespace="resource_table"):
        """The cursor came to stand on another object, or the object under it changed."""

        def __init__(self, table: TableWindow[Any], row_id: str | None) -> None:
            super().__init__()
            self.table = table
            """The table."""
            self.row_id = row_id
            """The object's id; None when the table is empty."""

        @property
        def control(self) -> TableWindow[Any]:
            """The table."""
            return self.table

    class Opened(Highlighted, namespace="resource_table"):
        """Enter or a double click: go down into the object."""

    class Changed(Message, namespace="resource_table"):
        """What the table shows is another set than before: rows, filter, marks or order."""

        def __init__(self, table: TableWindow[Any]) -> None:
            super().__init__()
            self.table = table
            """The table."""

        @property
        def control(self) -> TableWindow[Any]:
            """The table."""
            return self.table

    def __init__(
        self,
        columns: Sequence[Column[R]],
        *,
        labels: Callable[[R], Mapping[str, str]] | None = None,
        glyphs: GlyphSet = UNICODE,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.data = TableRows(columns, labels)
        """The rows, their order, marks and filter."""
        self.glyphs = glyphs
        """The symbols drawn."""
        self.shown_columns: list[Column[R]] = [column for column in columns if not column.hidden]
        """The columns a person wants, those that do not fit included."""
        self.empty_text = ""
        """What an empty table says: what to do, in a line or more."""
        self.cursor_id: str | None = None
        """The object under the cursor."""
        self.lines_painted = 0
        """Lines made since the start; the tests watch that hidden tables make none."""
        self._cursor_index = 0
        self._chosen: Column[R] = columns[0]
        self._changed: dict[str, R] = {}
        self._removed: set[str] = set()
        self._timer: Timer | None = None
        self._wanted: dict[str, int] = {}
        self._placed: list[Placed[R]] = []
        self._placed_for: tuple[object, ...] = ()
        self._styles_by_tone: dict[tuple[str, str], Style] = {}

    # What is in the table

    def update_rows(self, changed: Mapping[str, R], removed: Iterable[str] = ()) -> None:
        """Hands over a difference: rows new or changed by id, and ids that are gone. Folded in with the next flush."""
        for row_id in removed:
            self._changed.pop(row_id, None)
            self._removed.add(row_id)
        if changed:
            self._removed.difference_update(changed)
            self._changed.update(changed)
        self._arm()

    def replace_rows(self, rows: Mapping[str, R]) -> None:
        """Makes `rows` all there is, keeping cursor, marks, filter and order where the objects are the same."""
        self._changed.clear()
        self.update_rows(rows, [row_id for row_id in self.data.rows if row_id not in rows])

    def flush(self) -> None:
        """Folds in what has arrived. Called by the timer; a hidden table waits until it is shown."""
        self._timer = None
        if not (self._changed or self._removed) or not self.is_attached or not self.is_on_screen:
            return
        changed, removed = self._changed, self._removed
        self._changed, self._removed = {}, set()
        self._widen(changed)
        if self.data.apply(changed, removed):
            self._settle()
        else:
            self._refresh_rows(changed)
        if self.cursor_id in changed:
            self.post_message(self.Highlighted(self, self.cursor_id))

    @property
    def cursor_row(self) -> R | None:
        """The object under the cursor."""
        return self.data.rows.get(self.cursor_id) if self.cursor_id is not None else None

    @property
    def chosen_ids(self) -> list[str]:
        """The marked ids from the top, or the one under the cursor."""
        if marked := [row_id for row_id in self.data.order if row_id in self.data.marked]:
            return marked
        return [self.cursor_id] if self.cursor_id is not None else []

    @property
    def row_count(self) -> int:
        """Rows that pass the filter."""
        return len(self.data.order)

    def set_filter(self, text: str) -> str:
        """Shows only rows that pass; returns why a term was taken literally, or an empty text."""
        problem = self.data.set_filter(text)
        self._settle()
        return problem

    def prepare_filter(self) -> None:
        """A filter will be typed: gets ready for it in slices, so that the first letter does not wait for all rows."""
        if not self.data.prepare() and self.is_attached:
            self.set_timer(0.001, self.prepare_filter)

    def set_keep(self, keep: Callable[[R], bool] | None) -> None:
        """Shows only rows for which `keep` is true, before any filter."""
        self.data.set_keep(keep)
        self._settle()

    def sort_by(self, key: str, *, descending: bool | None = None) -> None:
        """Orders by the column `key` (KeyError when there is none); without `descending` a second call turns it round."""
        column = self._column(key)
        if descending is None:
            descending = self.data.sort_column is column and not self.data.descending
        self.data.sort_by(column, descending=descending)
        self._chosen = column
        self._settle()

    def choose_columns(self, keys: Iterable[str]) -> None:
        """Shows these columns and the essential ones, in their own order."""
        wanted = set(keys)
        self.shown_columns = [column for column in self.data.columns if column.essential or column.key in wanted]
        self._placed_for = ()
        self.refresh()

    def move_to(self, row_id: str) -> bool:
        """Puts the cursor on an object; False when it is not shown."""
        self.flush()
        index = self.data.index_of(row_id)
        if index is None:
            return False
        self._go(index)
        return True

    def tick(self) -> None:
        """A second has passed: draws anew what depends on the time of day."""
        if self.is_attached and any(placed.column.live for placed in self._placed):
            self.refresh()

    # Folding in

    def _arm(self) -> None:
        if self._timer is None and self.is_attached:
            self._timer = self.set_timer(FLUSH_SECONDS, self.flush)

    def on_mount(self) -> None:
        """Rows that were handed over before the table was on the screen."""
        self._arm()

    def on_show(self) -> None:
        """Shown: whatever arrived meanwhile is folded in at once."""
        self.flush()

    def _settle(self) -> None:
        """After the order changed: the cursor back on its object, on the same line of the screen if possible."""
        order, before = self.data.order, self._cursor_index
        line = before - round(self.scroll_y)
        index = self.data.index_of(self.cursor_id)
        if index is None:
            # Its object is gone or filtered out: the row that moved up into its place.
            index = max(0, min(before, len(order) - 1))
        self._cursor_index = index
        self.virtual_size = Size(0, len(order) + 1)
        if index != before and 0 <= line < self._page:
            self.scroll_to(y=index - line, animate=False, force=True)
        self._reveal()
        self._stand()
        self.refresh()
        self.post_message(self.Changed(self))

    def _stand(self) -> None:
        """Takes the id at the cursor's index as the cursor's object."""
        order = self.data.order
        row_id = order[self._cursor_index] if order else None
        if row_id != self.cursor_id:
            self.cursor_id = row_id
            self.post_message(self.Highlighted(self, row_id))

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height - 1)

    def _reveal(self) -> None:
        top = round(self.scroll_y)
        if self._cursor_index < top:
            self.scroll_to(y=self._cursor_index, animate=False, force=True)
        elif self._cursor_index >= top + self._page:
            self.scroll_to(y=self._cursor_index - self._page + 1, animate=False, force=True)

    def _go(self, index: int) -> None:
        order = self.data.order
        if not order:
            return
        old, self._cursor_index = self._cursor_index, max(0, min(index, len(order) - 1))
        self._reveal()
        self._stand()
        self.refresh_lines(old + 1)
        self.refresh_lines(self._cursor_index + 1)

    def _refresh_rows(self, changed: Mapping[str, R]) -> None:
        top = round(self.scroll_y)
        for line, row_id in enumerate(self.data.order[top : top + self._page]):
            if row_id in changed:
                self.refresh_lines(top + line + 1)

    def on_resize(self, event: events.Resize) -> None:
        """The cursor stays in sight."""
        del event
        self._reveal()

    # Columns

    def _column(self, key: str) -> Column[R]:
        for column in self.data.columns:
            if column.key == key.lower() or column.title.lower() == key.lower():
                return column
        raise KeyError(key)

    def _widen(self, changed: Mapping[str, R]) -> None:
        """Widths only grow: columns that shrink and grow with every update would make the eye jump."""
        rows = list(changed.values())
        for column in self.data.columns:
            width = measure(column, rows)
            if width > self._wanted.get(column.key, 0):
                self._wanted[column.key] = width
                self._placed_for = ()
        if not self._placed_for:
            self.refresh()

    def _layout_columns(self) -> list[Placed[R]]:
        width = self.scrollable_content_region.width
        state = (width, len(self.shown_columns))
        if self._placed_for != state:
            wanted = [self._wanted.get(column.key, 0) or measure(column, ()) for column in self.shown_columns]
            self._placed = place(self.shown_columns, wanted, width)
            self._placed_for = state
        return self._placed

    # Drawing

    def notify_style_update(self) -> None:
        """The theme or the focus changed."""
        super().notify_style_update()
        self._styles_by_tone.clear()

    def _style(self, line: str, tone: str) -> Style:
        """The style of a cell of `tone` on a line of kind `line` (a component class, or empty)."""
        style = self._styles_by_tone.get((line, tone))
        if style is None:
            style = self.rich_style
            if tone:
                style += self.get_component_rich_style(f"table--{tone}", partial=True)
            if line:
                style += self.get_component_rich_style(f"table--{line}", partial=True)
            self._styles_by_tone[line, tone] = style
        return style

    def render_line(self, y: int) -> Strip:
        """Line `y` of the window: the heading, or the row that is scrolled to it."""
        self.lines_painted += 1
        placed = self._layout_columns()
        width = self.scrollable_content_region.width
        if y == 0:
            return self._heading(placed, width)
        index = round(self.scroll_y) + y - 1
        order = self.data.order
        if index < len(order):
            return self._row(order[index], index, placed, width)
        return self._beyond(y, width)

    def _heading(self, placed: Sequence[Placed[R]], width: int) -> Strip:
        segments, position = [Segment("  ", self._style("", "header"))], 2
        for column, left, cells in placed:
            text, start = fitted(column.title, cells, right=column.right, cut=""), left
            if column is self.data.sort_column:
                # The arrow may stand in the gap beside the column, so that no column moves for it.
                arrow = self.glyphs["descending" if self.data.descending else "ascending"]
                if column.right:
                    text, start = f"{' ' * (cells - len(column.title))}{arrow}{column.title}", left - 1
                else:
                    text = f"{text.rstrip()}{arrow}".ljust(cells)
            segments.append(Segment(" " * (start - position), self._style("", "header")))
            tone = "chosen" if column is self._chosen and self.has_focus else "header"
            segments.append(Segment(text, self._style("", tone)))
            position = start + len(text)
        return Strip(segments).adjust_cell_length(width, self._style("", "header"))

    def _row(self, row_id: str, index: int, placed: Sequence[Placed[R]], width: int) -> Strip:
        row = self.data.rows[row_id]
        line = ("cursor" if self.has_focus else "cursor-blurred") if index == self._cursor_index else ""
        plain = self._style(line, "plain")
        marked = row_id in self.data.marked
        segments = [Segment(self.glyphs["mark"] + " " if marked else "  ", self._style(line, "marked"))]
        position, cut = 2, self.glyphs["cut"]
        for column, left, cells in placed:
            if left > position:
                segments.append(Segment(" " * (left - position), plain))
            tone = column.tone(row) if column.tone is not None else Tone.PLAIN
            text = column.text(row)
            if column.glyph is not None and text:
                text = f"{self.glyphs[column.glyph(row)]} {text}"
            segments.append(Segment(fitted(text, cells, right=column.right, cut=cut), self._style(line, tone)))
            position = left + cells
        return Strip(segments, position).adjust_cell_length(width, plain)

    def _beyond(self, y: int, width: int) -> Strip:
        style = self._style("", "empty")
        if self.data.order:
            return Strip.blank(width, style)
        text = self.empty_text
        if not self.data.filter.empty and (kept := self.data.kept_count):
            text = f"nothing matches /{self.data.filter.text}\nEsc shows all {kept} again"
        lines = text.splitlines()
        first = max(2, (self._page - len(lines)) // 3)
        inside = y - first
        if not 0 <= inside < len(lines):
            return Strip.blank(width, style)
        return Strip([Segment(fitted(lines[inside].center(width).rstrip(), width), style)], width)

    def watch_has_focus(self, has_focus: bool) -> None:
        """Cursor and heading look different with the focus."""
        super().watch_has_focus(has_focus)
        self._styles_by_tone.clear()
        self.refresh()
