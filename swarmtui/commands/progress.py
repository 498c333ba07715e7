"""Progress of an operation on a terminal (redrawn in place) or in a file (a line when something changed)."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TextIO

import click

from swarmtui.model.states import Glyph
from swarmtui.operations.base import Operation, Phase, Progress, SlotProgress

BAR = 20
"""Cells of the bar."""
LINES = 16
"""Replicas shown at most: the block must fit a small terminal, or it could not be redrawn."""

_GLYPHS = {
    Glyph.RUNNING: "●",
    Glyph.STARTING: "◐",
    Glyph.PENDING: "○",
    Glyph.FAILED: "✖",
    Glyph.COMPLETE: "✔",
    Glyph.SHUTDOWN: "·",
    Glyph.WARNING: "▲",
}
_ASCII = str.maketrans("●◐○✖✔·▲█░→", "*~ox+.!#->")


def lines(progress: Progress, width: int) -> list[str]:
    """The block for a terminal of `width` columns; never wider."""
    if progress.phase is Phase.SENDING:
        return [_cut(progress.message, width)]
    done = round(progress.fraction * BAR)
    counted = f"overall progress: {progress.done} out of {progress.total} tasks" if progress.total else "waiting"
    block = [f"{counted}  {'█' * done}{'░' * (BAR - done)}  {progress.phase.value}"]
    shown = progress.slots[:LINES]
    block += [_slot(slot) for slot in shown]
    if len(progress.slots) > len(shown):
        block.append(f"… and {len(progress.slots) - len(shown)} more")
    if progress.message:
        block.append(progress.message)
    return [_cut(line, width) for line in block]


def _slot(slot: SlotProgress) -> str:
    error = f"  {slot.error}" if slot.error else ""
    return f"  {_GLYPHS.get(slot.glyph, '?')} {slot.name:<16} {slot.state}{error}"


def _cut(line: str, width: int) -> str:
    line = line.replace("\n", " ")
    return line if len(line) <= width else line[: max(1, width - 1)] + "…"


class ProgressPrinter:
    """Give `report` to an operation; `with` leaves the last block on the screen."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()
        self._drawn = 0
        self._last = ""
        self._errors: set[str] = set()

    def report(self, progress: Progress) -> None:
        """Show one report."""
        if self._quiet:
            return
        if self._live:
            self._draw(progress)
        else:
            self._tell(progress)

    def _draw(self, progress: Progress) -> None:
        size = shutil.get_terminal_size()
        block = [self._encodable(line) for line in lines(progress, size.columns - 1)][: max(1, size.lines - 2)]
        back = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        self._stream.write(back + "\n".join(block) + "\n")
        self._stream.flush()
        self._drawn = len(block)

    def _tell(self, progress: Progress) -> None:
        for text in progress.errors:
            if text not in self._errors:
                self._errors.add(text)
                self._stream.write(self._encodable(f"task failed: {text}\n"))
        line = lines(progress, 10_000)[0] if progress.phase is not Phase.SENDING else progress.message
        if progress.phase is Phase.VERIFYING:
            line = "verifying that all stay up"
        if line != self._last:
            self._last = line
            self._stream.write(self._encodable(line) + "\n")
            self._stream.flush()

    def _encodable(self, text: str) -> str:
        encoding = self._stream.encoding or "ascii"
        return text.translate(_ASCII) if encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968") else text


async def show(operation: Operation, *, quiet: bool = False) -> None:
    """Run an operation with its progress on stdout. Ctrl-C leaves the wait, and says what goes on."""
    printer = ProgressPrinter(quiet)
    try:
        await operation.run(printer.report)
    except asyncio.CancelledError:
        if operation.sent:
            click.echo(f"\n{operation.title}: the change is made and goes on in the background.", err=True)
        else:
            click.echo(f"\n{operation.title}: nothing was changed.", err=True)
        raise
