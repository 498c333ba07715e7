"""Every key and command, from the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from swarmtui.ui.actions import ACTIONS, Action, Danger, Scope, bindings, key_label


def help_text(scopes: Sequence[Scope], keys_of: Callable[[Action], Sequence[str]]) -> Content:
    """What is possible, the scopes that apply where one is first; keys, command, sentence."""
    ordered = [*scopes, *(scope for scope in Scope if scope not in scopes)]
    parts: list[Content | str | tuple[str, str]] = []
    for scope in ordered:
        parts.append((f"{scope.value.upper()}\n", "bold $accent"))
        for action in ACTIONS:
            if action.scope is not scope:
                continue
            keys = " ".join(key_label(key) for key in keys_of(action))
            command = f":{action.names[0]}" if action.names else ""
            parts.append((f"  {keys:<12}", "bold"))
            parts.append((f" {command:<12} ", "$text-muted"))
            parts.append(action.help)
            if action.arguments:
                parts.append((f" {action.arguments}", "$text-muted"))
            if action.danger is not Danger.NONE:
                parts.append((" (shown before it is done)", "$text-warning"))
            parts.append("\n")
        parts.append("\n")
    return Content.assemble(*parts)


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
                yield Static(help_text(self._scopes, self._keys_of))

    def action_dialog_leave(self) -> None:
        """Closes it."""
        self.dismiss()

    def action_dialog_accept(self) -> None:
        """Closes it."""
        self.dismiss()

    def action_dialog_copy(self) -> None:
        """Copies all of it."""
        self.app.copy_to_clipboard(help_text(self._scopes, self._keys_of).plain)
