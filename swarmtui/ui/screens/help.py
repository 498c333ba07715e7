"""Every key and command, from the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from swarmtui.ui.actions import ACTIONS, Action, Danger, Scope, bindings, key_label


def help_rows(scopes: Sequence[Scope], keys_of: Callable[[Action], Sequence[str]]) -> list[tuple[str, str, str]]:
    """Keys, command, sentence; the scopes that apply where one is come first. A row of a heading has only keys."""
    rows: list[tuple[str, str, str]] = []
    for scope in [*scopes, *(scope for scope in Scope if scope not in scopes)]:
        rows += [("", "", "")] if rows else []
        rows.append((scope.value.upper(), "", ""))
        for action in ACTIONS:
            if action.scope is scope:
                keys = " ".join(key_label(key) for key in keys_of(action))
                command = f":{action.names[0]}" if action.names else ""
                note = "" if action.danger is Danger.NONE else " Shown before it is done."
                rows.append(
                    (keys, command, f"{action.help}{note}" + (f"  {action.arguments}" if action.arguments else ""))
                )
    return rows


def help_table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """The rows as a table that wraps its last column."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold", min_width=13)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for keys, command, sentence in rows:
        table.add_row(Text(keys), Text(command, "italic"), Text(sentence))
    return table


class HelpScreen(ModalScreen[None]):
    """The help; Escape leaves."""

    BINDINGS = bindings(Scope.DIALOG)
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 60%; }
    HelpScreen > Vertical { width: 110; max-width: 100%; height: 90%; border: round $border; background: $surface;
        border-title-color: $accent; border-title-style: bold; padding: 0 1; }
    HelpScreen VerticalScroll { scrollbar-size-vertical: 1; }
    HelpScreen Static { height: auto; }
    """

    def __init__(self, scopes: Sequence[Scope], keys_of: Callable[[Action], Sequence[str]]) -> None:
        super().__init__()
        self._scopes = scopes
        self._keys_of = keys_of

    def compose(self) -> ComposeResult:
        """One long text."""
        with Vertical() as frame:
            frame.border_title = " help: keys, commands after :, and what they do "
            with VerticalScroll():
                yield Static(help_table(help_rows(self._scopes, self._keys_of)))

    def action_dialog_leave(self) -> None:
        """Closes it."""
        self.dismiss()

    def action_dialog_accept(self) -> None:
        """Closes it."""
        self.dismiss()

    def action_dialog_copy(self) -> None:
        """Copies all of it."""
        self.app.copy_to_clipboard("\n".join("\t".join(row) for row in help_rows(self._scopes, self._keys_of)))
