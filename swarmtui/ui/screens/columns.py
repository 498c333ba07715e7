"""Which columns a table shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import SelectionList, Static
from textual.widgets.selection_list import Selection

from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.columns import Column


class ColumnsScreen(ModalScreen[list[str] | None]):
    """A list to tick; gives the keys chosen, or None."""

    BINDINGS = bindings(Scope.DIALOG)
    DEFAULT_CSS = """
    ColumnsScreen { align: center middle; background: $background 60%; }
    ColumnsScreen > Vertical { width: 44; height: auto; max-height: 90%; border: round $border; background: $surface;
        border-title-color: $accent; border-title-style: bold; padding: 0 1; }
    ColumnsScreen SelectionList { border: none; background: $surface; height: auto; }
    ColumnsScreen Static { color: $text-muted; height: 1; }
    """

    def __init__(self, columns: Sequence[Column[Any]], shown: Sequence[Column[Any]]) -> None:
        super().__init__()
        self._columns = columns
        self._shown = shown

    def compose(self) -> ComposeResult:
        """Every column but those that are always there."""
        with Vertical() as frame:
            frame.border_title = " columns "
            yield SelectionList(
                *(
                    Selection(column.title.lower(), column.key, column in self._shown)
                    for column in self._columns
                    if not column.essential
                )
            )
            yield Static("Space choose   Esc done")

    def on_mount(self) -> None:
        """Ready to be ticked."""
        self.query_one(SelectionList).focus()

    def action_dialog_leave(self) -> None:
        """Takes what is ticked."""
        self.dismiss(list(self.query_one(SelectionList).selected))

    def action_dialog_accept(self) -> None:
        """Takes what is ticked."""
        self.action_dialog_leave()
