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

    def __init__(self) -> None:
        super().__init__(id="prompt")
        self.purpose = Purpose.COMMAND
        """What is asked for."""
        self.display = False
        self._suggest: Callable[[str], Sequence[str]] = lambda text: ()
        self._history: list[str] = []
        self._place = 0
        self._line = Input("", select_on_focus=False, compact=True)

    def compose(self) -> ComposeResult:
        """Sign, input, hint."""
        yield Static(Content(self.purpose.value), id="prompt-sign")
        yield self._line
        yield Static("", id="prompt-hint")

    def open(
        self, purpose: Purpose, text: str, suggest: Callable[[str], Sequence[str]], history: Sequence[str]
    ) -> None:
        """Asks. The focus is here when this returns: what is typed at once after the key belongs to the prompt."""
        self.purpose, self._suggest, self._history = purpose, suggest, [*history, text]
        self._place = len(self._history) - 1
        sign = purpose.value
        self.query_one("#prompt-sign", Static).update(Content(sign if len(sign) == 1 else f"{sign} "))
        self.display = True
        with self.prevent(Input.Changed):
            self._put(text)
        self._hint(text)
        self.screen.set_focus(self._line)

    def close(self) -> None:
        """No longer asks."""
        self.display = False

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
            self.post_message(self.Left(self.purpose, self._line.value))
        elif event.key == "tab":
            event.stop()
            event.prevent_default()
            if found := self._suggest(self._line.value):
                self._put(found[0] + " ")
        elif event.key in ("up", "down"):
            event.stop()
            self._place = max(0, min(len(self._history) - 1, self._place + (1 if event.key == "down" else -1)))
            self._put(self._history[self._place])

    def say(self, text: str) -> None:
        """Shows a word about what is typed, in place of the suggestions."""
        self.query_one("#prompt-hint", Static).update(Content(safe(text)))

    def _put(self, text: str) -> None:
        self._line.value = text
        self._line.cursor_position = len(text)

    def _hint(self, text: str) -> None:
        found = "  ".join(self._suggest(text)[:8])
        self.say(fitted(found, min(width_of(safe(found)), max(0, self.size.width * 6 // 10 - 2))) if found else "")
