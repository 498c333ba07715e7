"""Text over everything: describe, why, raw objects. A log view holds it, so searching, wrapping and copying work in it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.glyphs import GlyphSet
from swarmtui.ui.log_buffer import Line
from swarmtui.ui.log_painter import Times
from swarmtui.ui.screens.asking import AskingScreen
from swarmtui.ui.widgets.log_view import LogView
from swarmtui.ui.widgets.prompt_bar import PromptBar


class TextScreen(AskingScreen, ModalScreen[None]):
    """Lines under a title; Escape leaves."""

    BINDINGS = bindings(Scope.DIALOG)
    DEFAULT_CSS = """
    TextScreen { align: center middle; background: $background 60%; }
    TextScreen > Vertical { width: 90%; height: 85%; max-width: 140; border: round $border; background: $surface;
        border-title-color: $accent; border-title-style: bold; border-subtitle-color: $text-muted; padding: 0 1; }
    TextScreen.-narrow > Vertical { width: 100%; height: 100%; }
    TextScreen LogView { background: $surface; border: none; height: 1fr; }
    TextScreen #keys { height: 1; color: $text-muted; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]

    def __init__(self, title: str, lines: Sequence[str], glyphs: GlyphSet, *, wrapped: bool = True) -> None:
        super().__init__()
        self._heading = title
        self._lines = lines
        self._glyphs = glyphs
        self._wrapped = wrapped

    def compose(self) -> ComposeResult:
        """The text and the keys that work in it."""
        with Vertical() as frame:
            frame.border_title = Content(f" {self._heading} ").markup
            yield LogView(glyphs=self._glyphs, max_lines=1_000_000)
            yield PromptBar()
            yield Static(Content("Esc leave   / search   w wrap   c copy"), id="keys")

    def on_mount(self) -> None:
        """Shows the text from its beginning."""
        view = self.query_one(LogView)
        view.following = False
        view.painter.times = Times.OFF
        view.painter.wrapped = self._wrapped
        view.write([Line(0, line, "") for line in self._lines])
        view.focus()

    def action_dialog_leave(self) -> None:
        """Closes it."""
        self.dismiss()

    def action_dialog_accept(self) -> None:
        """Enter closes it as well: there is nothing to do."""
        self.dismiss()

    def action_dialog_copy(self) -> None:
        """Copies all of it."""
        self.app.copy_to_clipboard("\n".join(self._lines))
        self.notify(f"copied {len(self._lines)} lines", timeout=2)
