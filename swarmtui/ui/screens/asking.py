"""A screen whose log view may ask: the prompt for searches and filters, saving to a file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from textual.screen import Screen

from swarmtui.ui.deferred import deferred

if TYPE_CHECKING:
    from swarmtui.ui.widgets.log_view import LogView
    from swarmtui.ui.widgets.log_window import LogWindow
    from swarmtui.ui.widgets.prompt_bar import PromptBar


class AskingScreen(Screen[Any]):
    """Base of the screens that hold a log view."""

    save_name = "swarmtui"
    """The beginning of the name of a file that is saved."""

    def on_log_view_asked(self, message: LogView.Asked) -> None:
        """A key of the log needs an answer."""
        what, _, argument = message.what.partition(" ")
        view = message.log_view
        if what == "search":
            self.ask("search", view.highlight)
        elif what == "filter":
            self.ask("only", view.buffer.filter.text if view.buffer.filter is not None else "")
        elif what == "save":
            self.run_worker(deferred(self._save, view, argument), exclusive=True, group="save")
        else:
            self.log_since(argument)

    def log_since(self, minutes: str) -> None:
        """Reads the log again from so many minutes ago, where there is a log to be read."""

    @property
    def prompt(self) -> PromptBar | None:
        """The prompt, where one is there already."""
        for bar in self.query("#prompt"):
            return cast("PromptBar", bar)
        return None

    @property
    def asking(self) -> bool:
        """Whether the prompt is open."""
        return self.prompt is not None and self.prompt.display

    def ask(self, purpose: str, text: str) -> None:
        """Opens the prompt."""
        from swarmtui.ui.widgets.prompt_bar import Purpose

        if self.prompt is not None:
            wanted = Purpose(purpose)
            suggest = self.suggest if wanted is Purpose.COMMAND else _nothing
            self.prompt.open(wanted, text, suggest, self.typed(purpose))

    def _logs(self) -> Sequence[LogView]:
        from swarmtui.ui.widgets.log_view import LogView

        return list(self.query(LogView))

    def typed(self, purpose: str) -> Sequence[str]:
        """What was typed for that purpose before, the oldest first."""
        del purpose
        return ()

    def suggest(self, text: str) -> Sequence[str]:
        """What a command that is being typed may become."""
        del text
        return ()

    def on_prompt_bar_changed(self, message: Any) -> None:
        """Filters of logs and searches apply while they are typed."""
        for view in self._logs():
            if message.purpose == "search":
                view.set_search(message.text)
            elif message.purpose == "only":
                view.set_filter(message.text)

    async def on_prompt_bar_done(self, message: Any) -> None:
        """Enter."""
        self.close_prompt()
        for view in self._logs():
            if message.purpose in ("search", "only"):
                view.focus()

    def on_prompt_bar_left(self, message: Any) -> None:
        """Escape: the search or the filter ends."""
        self.close_prompt()
        for view in self._logs():
            if message.purpose == "search":
                view.set_search("")
            elif message.purpose == "only":
                view.set_filter("")
            if message.purpose in ("search", "only"):
                view.focus()

    def close_prompt(self) -> None:
        """Takes the prompt away."""
        if self.prompt is not None:
            self.prompt.close()

    async def _save(self, view: LogWindow, name: str) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = Path(os.path.expanduser(name or f"{self.save_name}-{stamp}.log"))  # noqa: ASYNC240 (no disk is touched)
        lines, plain = view.buffer.lines(), view.painter.plain

        def write() -> None:
            # New files only: a name that was typed wrong must not cost another file.
            with path.open("x", encoding="utf-8", errors="replace") as file:
                file.writelines(plain(line) + "\n" for line in lines)

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            self.notify(f"{path} was not saved: {error.strerror or error}", severity="error")
        else:
            self.notify(f"{len(lines):,} lines saved to {path}")


def _nothing(text: str) -> Sequence[str]:
    del text
    return ()
