"""A change: what will happen, then how it goes, then how it ended. One dialog for every operation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from swarmtui.operations.base import Danger, Operation, OperationFailed, Phase, Preview, Progress
from swarmtui.ui.actions import Scope, bindings
from swarmtui.ui.glyphs import TONES, GlyphSet, Tone
from swarmtui.ui.session import RunningOperation
from swarmtui.ui.text import safe
from swarmtui.ui.tones import STYLES

Parts = list[str | tuple[str, str]]
SLOTS = 12
"""Replicas listed one by one; of more, those that are not yet as wanted come first."""
BAR = 30
"""Cells of the bar of an operation."""


def preview_text(preview: Preview, glyphs: GlyphSet) -> Content:
    """What an operation will do, in words."""
    parts: Parts = []
    width = max((len(change.what) for change in preview.changes), default=0)
    for change in preview.changes:
        parts.append((f"{safe(change.what):<{width}}  ", "$text-muted"))
        old, new = safe(change.old), safe(change.new)
        if old and new:
            parts += [old, (f" {glyphs['arrow']} ", "$accent"), (new, "bold")]
        else:
            parts.append((f"+ {new}", "bold $text-success") if new else (f"- {old}", "bold $text-error"))
        parts.append("\n")
    for line in preview.lines:
        text = f"{safe(line)}\n"
        parts.append((text, "$text-warning") if line.startswith("warning:") else text)
    if preview.nothing_to_do:
        parts.append(("nothing to do: the cluster is as wanted already\n", "$text-warning"))
    elif preview.undo:
        parts.append((f"undo: {safe(preview.undo)}\n", "$text-muted"))
    else:
        parts.append(("this cannot be undone\n", "$text-warning"))
    return Content.assemble(*parts)


def progress_text(running: RunningOperation, glyphs: GlyphSet) -> Content:
    """How an operation goes: a bar, a line a replica, failures with their text in full."""
    progress = running.progress or Progress(Phase.SENDING)
    done = running.finished and not running.error and not running.stopped
    tone = Tone.BAD if running.error else Tone.GOOD if done else Tone.BUSY
    filled = BAR if done else int(progress.fraction * BAR)
    bar = glyphs["bar"] * filled + glyphs["bar_empty"] * (BAR - filled)
    count = f" {progress.done}/{progress.total}" if progress.total else ""
    word = "failed" if running.error else "no longer waited for" if running.stopped else str(progress.phase)
    parts: Parts = [(bar, STYLES[tone]), f"{count}  ", (word, STYLES[tone]), "\n"]
    message = progress.message if progress.message != running.error else ""
    if message:
        parts.append((f"{safe(message)}\n", "$text-muted"))
    slots = sorted(progress.slots, key=lambda slot: slot.glyph in ("running", "complete"))
    width = max((len(slot.name) for slot in slots[:SLOTS]), default=0)
    for slot in slots[:SLOTS]:
        style = STYLES.get(TONES.get(slot.glyph, Tone.PLAIN), "")
        parts += [f"  {safe(slot.name):<{width}}  ", (f"{glyphs[slot.glyph]} {slot.state:<10}", style)]
        parts += [(f" {safe(slot.error)}", "$text-error") if slot.error else "", "\n"]
    if len(slots) > SLOTS:
        parts.append((f"  and {len(slots) - SLOTS} more\n", "$text-muted"))
    parts += [(f"{safe(text)}\n", "$text-error") for text in progress.errors if text not in running.error]
    if running.error:
        parts.append((f"{safe(running.error)}\n", "$text-error"))
    return Content.assemble(*(part for part in parts if part))


class ChangeScreen(ModalScreen[None]):
    """Preview, confirmation, progress. Leaving it while the change goes on lets it go on."""

    BINDINGS = bindings(Scope.DIALOG)
    DEFAULT_CSS = """
    ChangeScreen { align: center middle; background: $background 60%; }
    ChangeScreen > Vertical { width: 84; max-width: 100%; height: auto; max-height: 90%; border: round $border;
        background: $surface; border-title-color: $accent; border-title-style: bold; padding: 1 2 0 2; }
    ChangeScreen > Vertical.-destructive { border: round $text-error; border-title-color: $text-error; }
    ChangeScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    ChangeScreen Static { height: auto; }
    ChangeScreen Input { border: none; height: 1; padding: 0 1; margin: 1 0 0 0; background: $panel; }
    ChangeScreen Input:focus { border: none; }
    ChangeScreen #keys { dock: bottom; color: $text-muted; text-align: right; height: 1; }
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        start: Callable[[Operation], RunningOperation],
        glyphs: GlyphSet,
        *,
        pause: float = 0.25,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pause` seconds must pass between showing and doing: an Enter that came too soon was meant for something else."""
        super().__init__()
        self._pause = pause
        self._monotonic = monotonic
        self._seen_since = float("inf")
        self._operations = list(operations)
        self._start = start
        self._glyphs = glyphs
        self._previews: list[Preview] = []
        self._under_way: list[RunningOperation] = []
        self._problem = ""
        self._body = Static("looking at the cluster ...", id="text")
        self._keys = Static("", id="keys")
        self._frame = Vertical()

    def compose(self) -> ComposeResult:
        """A title, a text, keys; an input when a name has to be typed."""
        with self._frame:
            with VerticalScroll(can_focus=True):
                yield self._body
            yield self._keys

    def on_mount(self) -> None:
        """Reads what will happen."""
        self._frame_title(self._operations)
        self._show_keys()
        self._read()

    @work
    async def _read(self) -> None:
        try:
            for operation in self._operations:
                self._previews.append(await operation.preview())
        except OperationFailed as error:
            self._problem = str(error)
        self._frame_title(self._operations)
        if self._problem:
            self._text(Content.assemble((f"{safe(self._problem)}\n", "$text-error")))
        else:
            self._text(self._preview_content())
            if self._typed_name:
                self._frame.add_class("-destructive")
                prompt = Input(placeholder=f"type {self._typed_name} to do it", compact=True)
                await self._frame.mount(prompt, before="#keys")
                prompt.focus()
        self._show_keys()
        self._seen_since = self._monotonic()

    def _preview_content(self) -> Content:
        if len(self._previews) == 1:
            return preview_text(self._previews[0], self._glyphs)
        texts: list[Content | tuple[str, str]] = []
        for preview in self._previews:
            texts += [(f"{safe(preview.title)}\n", "bold"), preview_text(preview, self._glyphs), ("\n", "")]
        return Content.assemble(*texts)

    @property
    def _typed_name(self) -> str:
        """What has to be typed: the name, or how many when there are several."""
        destructive = [each for each in self._operations if each.danger == Danger.DESTRUCTIVE]
        if len(destructive) > 1:
            return f"{len(destructive)} services"
        return destructive[0].confirmation if destructive else ""

    @property
    def _can_start(self) -> bool:
        ready = len(self._previews) == len(self._operations) and not self._problem and not self._under_way
        return ready and not all(preview.nothing_to_do for preview in self._previews)

    def _frame_title(self, operations: Sequence[Operation]) -> None:
        title = operations[0].title if len(operations) == 1 else f"{len(operations)} changes"
        self._frame.border_title = Content(f" {safe(title)} ").markup

    def _text(self, content: Content) -> None:
        self._body.update(content)

    def _show_keys(self) -> None:
        if self._under_way:
            over = all(each.finished for each in self._under_way)
            keys = "[Enter] close" if over else "[Esc] leave it running   [Ctrl+X] stop waiting"
        elif self._can_start:
            keys = "[Enter] do it   [Esc] leave"
        else:
            keys = "[Esc] leave"
        self._keys.update(Content(keys))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """A name was typed."""
        event.stop()
        self.action_dialog_accept()

    def action_dialog_accept(self) -> None:
        """Does it, if everything that has to be typed is typed; closes it when it is over."""
        if self._under_way:
            if all(each.finished for each in self._under_way):
                self.dismiss()
            return
        if not self._can_start or self._monotonic() - self._seen_since < self._pause:
            return
        if self._typed_name:
            typed = self.query_one(Input)
            if typed.value.strip() != self._typed_name:
                self.notify(f"type {self._typed_name} to do it, or Esc", severity="warning", timeout=3)
                return
            typed.remove()
        wanted = [op for op, preview in zip(self._operations, self._previews, strict=True) if not preview.nothing_to_do]
        for operation in wanted:
            running = self._start(operation)
            running.listeners.append(self._progressed)
            self._under_way.append(running)
        self.query_one(VerticalScroll).focus()
        self._progressed(self._under_way[0])

    def _progressed(self, _: RunningOperation) -> None:
        if not self.is_attached:
            return
        if len(self._under_way) == 1:
            self._text(progress_text(self._under_way[0], self._glyphs))
        else:
            texts: list[Content | tuple[str, str]] = []
            for running in self._under_way:
                texts += [(f"{safe(running.operation.title)}\n", "bold"), progress_text(running, self._glyphs)]
            self._text(Content.assemble(*texts))
        self._show_keys()

    def action_dialog_leave(self) -> None:
        """Closes it; a change that is under way goes on and is shown in the header."""
        for running in self._under_way:
            if self._progressed in running.listeners:
                running.listeners.remove(self._progressed)
        self.dismiss()

    def action_dialog_stop(self) -> None:
        """Stops waiting. What was sent goes on in the cluster and can be undone."""
        for running in self._under_way:
            if not running.finished:
                running.stop()

    def action_dialog_copy(self) -> None:
        """Copies the text, errors in full."""
        content = self._body.content
        self.app.copy_to_clipboard(content.plain if isinstance(content, Content) else str(content))
        self.notify("copied", timeout=2)
