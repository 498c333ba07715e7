"""The table with its keys and the mouse: what the registry's scope "tables" means. What it shows is in `table_window`."""

from __future__ import annotations

from typing import ClassVar

from textual import events

from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.columns import R
from swarmtui.ui.glyphs import Tone
from swarmtui.ui.widgets.table_window import TableWindow


class ResourceTable(TableWindow[R]):
    """A table of cluster objects for tens of thousands of rows that change all the time."""

    BINDINGS = bindings(Scope.TABLE)
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--chosen",
        "table--cursor",
        "table--cursor-blurred",
        "table--marked",
        "table--empty",
        *(f"table--{tone}" for tone in Tone),
    }
    DEFAULT_CSS = """
    ResourceTable {
        background: $background; color: $foreground; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1;
        .table--header { color: $text-muted; text-style: bold; }
        .table--chosen { color: $accent; text-style: bold; }
        .table--cursor { background: $block-cursor-background; text-style: bold; }
        .table--cursor-blurred { background: $block-cursor-blurred-background; }
        .table--marked { color: $accent; }
        .table--empty { color: $text-muted; }
        .table--plain { color: $foreground; }
        .table--good { color: $text-success; }
        .table--busy { color: $text-secondary; }
        .table--waiting { color: $text-warning; }
        .table--bad { color: $text-error; }
        .table--warning { color: $text-warning; }
        .table--muted { color: $text-muted; }
        .table--accent { color: $accent; }
    }
    """

    # Actions of the registry's scope "tables" that need nothing but the table

    def action_table_up(self) -> None:
        """One row up."""
        self._go(self._cursor_index - 1)

    def action_table_down(self) -> None:
        """One row down."""
        self._go(self._cursor_index + 1)

    def action_table_page_up(self) -> None:
        """One page up."""
        self._go(self._cursor_index - self._page)

    def action_table_page_down(self) -> None:
        """One page down."""
        self._go(self._cursor_index + self._page)

    def action_table_top(self) -> None:
        """First row."""
        self._go(0)

    def action_table_bottom(self) -> None:
        """Last row."""
        self._go(len(self.data.order) - 1)

    def action_table_column_left(self) -> None:
        """Chooses the column to the left."""
        self._choose_column(-1)

    def action_table_column_right(self) -> None:
        """Chooses the column to the right."""
        self._choose_column(1)

    def _choose_column(self, step: int) -> None:
        columns = [placed.column for placed in self._layout_columns()]
        if not columns:
            return
        index = columns.index(self._chosen) if self._chosen in columns else 0
        self._chosen = columns[(index + step) % len(columns)]
        self.refresh_lines(round(self.scroll_y))

    def action_table_sort(self, column: str = "") -> None:
        """Sorts by the chosen column, or the one named."""
        self.sort_by(column or self._chosen.key)

    def action_table_mark(self) -> None:
        """Marks the row and goes down."""
        if self.cursor_id is not None:
            self.data.toggle_mark(self.cursor_id)
            self.refresh_lines(self._cursor_index + 1)
            self.post_message(self.Changed(self))
            self._go(self._cursor_index + 1)

    def action_table_mark_all(self) -> None:
        """Marks every row that is shown."""
        self.data.marked.update(self.data.order)
        self.refresh()
        self.post_message(self.Changed(self))

    def action_table_unmark(self) -> None:
        """Takes all marks away."""
        self.data.marked.clear()
        self.refresh()
        self.post_message(self.Changed(self))

    def action_table_open(self) -> None:
        """Goes down into the object."""
        if self.cursor_id is not None:
            self.post_message(self.Opened(self, self.cursor_id))

    def action_table_copy_cell(self) -> None:
        """Copies the chosen column of the row under the cursor."""
        if (row := self.cursor_row) is not None:
            self.app.copy_to_clipboard(self._chosen.text(row))
            self.app.notify(f"copied {self._chosen.title}", timeout=2)

    def action_table_copy_row(self) -> None:
        """Copies the marked rows, or the one under the cursor, cells separated by tabs."""
        rows = [self.data.rows[row_id] for row_id in self.chosen_ids]
        if rows:
            self.app.copy_to_clipboard("\n".join("\t".join(c.cell(row) for c in self.shown_columns) for row in rows))
            self.app.notify(f"copied {len(rows)} row{'s' * (len(rows) > 1)}", timeout=2)

    def action_table_copy_id(self) -> None:
        """Copies the full ids of the marked rows, or the one under the cursor."""
        if ids := self.chosen_ids:
            self.app.copy_to_clipboard("\n".join(ids))
            self.app.notify(f"copied {len(ids)} id{'s' * (len(ids) > 1)}", timeout=2)

    # Mouse

    def on_click(self, event: events.Click) -> None:
        """A row takes the cursor, a second click opens it; a heading sorts."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            for column, left, cells in self._placed:
                if left <= offset.x < left + cells:
                    self.sort_by(column.key)
                    return
            return
        index = round(self.scroll_y) + offset.y - 1
        if index < len(self.data.order):
            self._go(index)
            if event.chain == 2:
                self.action_table_open()
