"""A question that is answered by yes or no, before something that is not the cluster's is done."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from swarmtui.ui.actions import BY_ID, Scope, bindings, bindings_of
from swarmtui.ui.text import safe


class Question(ModalScreen[bool]):
    """What will be done, and what that means; True for yes."""

    BINDINGS = bindings_of((BY_ID["ask.yes"], BY_ID["ask.no"]))
    DEFAULT_CSS = """
    Question { align: center middle; background: $background 60%; }
    Question > Vertical { width: 76; max-width: 100%; height: auto; max-height: 90%; border: round $border;
        background: $surface; border-title-color: $accent; border-title-style: bold; padding: 1 2 0 2; }
    Question Static { height: auto; }
    Question #keys { color: $text-muted; text-align: right; height: 1; margin: 1 0 0 0; }
    """
    KEYS = "[y] yes   [Esc] no"

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title = title
        self._lines = lines

    def compose(self) -> ComposeResult:
        """The consequences and the keys."""
        parts: list[str | tuple[str, str]] = []
        for line in self._lines:
            text = f"{safe(line)}\n"
            parts.append((text, "$text-warning") if line.startswith("warning:") else text)
        frame = Vertical(Static(Content.assemble(*parts), id="text"), Static(Content(self.KEYS), id="keys"))
        frame.border_title = Content(f" {safe(self._title)} ").markup
        yield frame

    def action_ask_yes(self) -> None:
        """Do it."""
        self.dismiss(True)

    def action_ask_no(self) -> None:
        """Leave it."""
        self.dismiss(False)


class EndPlayground(Question):
    """Asked once before a playground ends."""

    BINDINGS = bindings(Scope.QUESTION)
    DEFAULT_CSS = """
    EndPlayground > Vertical { border: round $text-error; border-title-color: $text-error; }
    """
    KEYS = "[y] or [Ctrl+Q] end it   [Esc] stay"

    def __init__(self, instances: int) -> None:
        super().__init__(
            "end the playground",
            [f"{instances} instances and everything in them are deleted, and nothing is left of them"],
        )

    def action_ask_quit(self) -> None:
        """The same key again."""
        self.dismiss(True)
