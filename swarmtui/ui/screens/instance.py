"""Deleting an instance of the playground: what goes with it, its name typed, how it went."""

from __future__ import annotations

from collections.abc import Awaitable

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from swarmtui.playground.session import PlaygroundError
from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.ports import PlaygroundPort
from swarmtui.ui.text import safe


async def playground_call(call: Awaitable[object]) -> str:
    """Waits for a change of the playground; why it failed, or an empty text."""
    try:
        await call
    except PlaygroundError as error:
        return str(error)
    return ""


class DeleteInstance(ModalScreen[None]):
    """Asks for the name, then deletes."""

    BINDINGS = bindings(Scope.DIALOG)
    DEFAULT_CSS = """
    DeleteInstance { align: center middle; background: $background 60%; }
    DeleteInstance > Vertical { width: 72; max-width: 100%; height: auto; border: round $text-error; background: $surface;
        border-title-color: $text-error; border-title-style: bold; padding: 1 2 0 2; }
    DeleteInstance Input { border: none; height: 1; padding: 0 1; margin: 1 0 0 0; background: $panel; }
    DeleteInstance Input:focus { border: none; }
    DeleteInstance #keys { color: $text-muted; text-align: right; margin: 1 0 0 0; }
    """

    def __init__(self, session: PlaygroundPort, name: str) -> None:
        super().__init__()
        self._session = session
        self._instance = name

    def compose(self) -> ComposeResult:
        """What happens, the name, the keys."""
        with Vertical() as frame:
            frame.border_title = Content(f" delete {safe(self._instance)} ").markup
            text = (
                f"{self._instance} is switched off at once, with its agent and its tasks; its files are deleted.\n"
                "The cluster starts its tasks elsewhere. This cannot be undone."
            )
            yield Static(Content(text), id="text")
            yield Input(placeholder=f"type {self._instance} to do it", compact=True)
            yield Static(Content("[Enter] do it   [Esc] leave"), id="keys")

    def on_mount(self) -> None:
        """Ready to be typed into."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """A name was typed."""
        event.stop()
        self.action_dialog_accept()

    def action_dialog_accept(self) -> None:
        """Deletes it when the name is right."""
        if self.query_one(Input).value.strip() != self._instance:
            self.notify(f"type {self._instance} to do it, or Esc", severity="warning", timeout=3)
            return
        self.query_one(Input).disabled = True
        self._delete()

    @work
    async def _delete(self) -> None:
        self.query_one("#text", Static).update(Content(f"deleting {self._instance} ..."))
        problem = await playground_call(self._session.remove(self._instance))
        if problem:
            self.query_one("#text", Static).update(Content.assemble((safe(problem), "$text-error")))
            self.query_one("#keys", Static).update(Content("[Esc] leave"))
        else:
            self.dismiss()

    def action_dialog_leave(self) -> None:
        """Closes it."""
        self.dismiss()

    def action_dialog_stop(self) -> None:
        """Nothing to stop: a deletion under way is not left half done."""

    def action_dialog_copy(self) -> None:
        """Copies the text."""
        content = self.query_one("#text", Static).content
        self.app.copy_to_clipboard(content.plain if isinstance(content, Content) else str(content))
