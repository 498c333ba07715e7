"""Text over everything: describe, why, raw objects. A log view holds it, so searching, wrapping and copying work in it."""

from __future__ import annotations

import re
import textwrap
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

_HEAD = re.compile(r" *(?:- |do: |[A-Za-z_][\w .]{0,16}?  +)?")
"""What the rest of a line is indented by: blanks, a bullet, or a key and the blanks after it."""


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Lines of at most `width` cells (of ASCII), broken at words; what follows is indented as its beginning is.

    In `key  value` lines the value stays in its own column.
    """
    made: list[str] = []
    for line in lines:
        head = _HEAD.match(line)
        indent = min(len(head[0]) if head is not None else 0, width // 2)
        made += textwrap.wrap(
            line, max(8, width), subsequent_indent=" " * indent, break_on_hyphens=False, replace_whitespace=False
        ) or [""]
    return made


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

    def __init__(self, title: str, lines: Sequence[str], glyphs: GlyphSet, *, wrapping: bool = True) -> None:
        super().__init__()
        self._heading = title
        self._lines = lines
        self._glyphs = glyphs
        self._wrapping = wrapping
        self._width = 0

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
        view.focus()

    def on_resize(self) -> None:
        """Lays the text out anew once the new size is known."""
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        """Sentences are wrapped at words, under their beginning; raw objects are not wrapped."""
        view = self.query_one(LogView)
        width = view.scrollable_content_region.width
        if width > 0 and width != self._width:
            self._width = width
            lines = wrapped(self._lines, width) if self._wrapping else self._lines
            view.clear()
            view.following = False
            view.write([Line(0, line, "") for line in lines])

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
