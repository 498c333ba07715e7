"""The line at the bottom where commands, filters and searches are typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from swarmtui.ui.text import fitted, safe, width_of


class Purpose(StrEnum):
    """What is asked for; the value is the sign before the line."""

    COMMAND = ":"
    FILTER = "/"
    SEARCH = "search"
    ONLY = "only"


class PromptBar(Horizontal):
    """One line of input with what it may become above its end."""

    DEFAULT_CSS = """
    PromptBar { height: 1; background: $surface; }
    PromptBar > #prompt-sign { width: auto; padding: 0 0 0 1; color: $accent; text-style: bold; }
    PromptBar > Input { width: 1fr; height: 1; border: none; padding: 0 1 0 0; background: $surface; color: $foreground; }
    PromptBar > Input:focus { border: none; background: $surface; }
    PromptBar > #prompt-hint { width: auto; max-width: 60%; padding: 0 1; color: $text-muted; }
    """

    class Changed(Message):
        """What is typed changed."""

        def __init__(self, purpose: Purpose, text: str) -> None:
            super().__init__()
            self.purpose = purpose
            """What was asked for."""
            self.text = text
            """What is typed so far."""

    class Done(Changed):
        """Enter."""

    class Left(Changed):
        """Escape: nothing is wanted."""

    def __init__(
        self, purpose: Purpose, text: str, suggest: Callable[[str], Sequence[str]], history: Sequence[str]
    ) -> None:
        super().__init__(id="prompt")
        self.purpose = purpose
        """What is asked for."""
        self._start = text
        self._suggest = suggest
        self._history = [*history, text]
        self._place = len(self._history) - 1

    def compose(self) -> ComposeResult:
        """Sign, input, hint."""
        sign = self.purpose.value
        yield Static(Content(sign if len(sign) == 1 else f"{sign} "), id="prompt-sign")
        yield Input(self._start, select_on_focus=False, compact=True)
        yield Static("", id="prompt-hint")

    def on_mount(self) -> None:
        """Ready to be typed into."""
        line = self.query_one(Input)
        line.focus()
        line.cursor_position = len(self._start)
        self._hint(self._start)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Tells the screen, and shows what it may become."""
        event.stop()
        self._hint(event.value)
        self.post_message(self.Changed(self.purpose, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        event.stop()
        self.post_message(self.Done(self.purpose, event.value))

    def on_key(self, event: events.Key) -> None:
        """Escape leaves, Tab completes, up and down go through what was typed before."""
        if event.key == "escape":
            event.stop()
            self.post_message(self.Left(self.purpose, self.query_one(Input).value))
        elif event.key == "tab":
            event.stop()
            event.prevent_default()
            if found := self._suggest(self.query_one(Input).value):
                self._put(found[0] + " ")
        elif event.key in ("up", "down"):
            event.stop()
            self._place = max(0, min(len(self._history) - 1, self._place + (1 if event.key == "down" else -1)))
            self._put(self._history[self._place])

    def say(self, text: str) -> None:
        """Shows a word about what is typed, in place of the suggestions."""
        self.query_one("#prompt-hint", Static).update(Content(safe(text)))

    def _put(self, text: str) -> None:
        line = self.query_one(Input)
        line.value = text
        line.cursor_position = len(text)

    def _hint(self, text: str) -> None:
        found = "  ".join(self._suggest(text)[:8])
        self.say(fitted(found, min(width_of(safe(found)), max(0, self.size.width * 6 // 10 - 2))) if found else "")
