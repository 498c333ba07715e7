"""What was changed in this session, and how to take it back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum

from swarmtui.docker_api.times import Clock
from swarmtui.operations.base import Operation, OperationFailed, Report


class Outcome(StrEnum):
    """How an operation ended."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The waiting was cancelled; whether the change was made says `Operation.sent`."""


@dataclass(slots=True)
class Entry:
    """One operation of the history."""

    operation: Operation
    started: int
    """Nanoseconds since the epoch."""
    undoes: Entry | None = None
    """The entry that this one takes back."""
    outcome: Outcome = Outcome.RUNNING
    error: str = ""
    undone: bool = False
    """Taken back by a later entry."""

    @property
    def title(self) -> str:
        """The operation's."""
        return self.operation.title


class OperationHistory:
    """Runs operations and remembers them. Undo takes back the newest change that was made and can be taken back."""

    def __init__(self, clock: Clock = time.time_ns) -> None:
        self._clock = clock
        self._entries: list[Entry] = []
        self._undoing: dict[int, Entry] = {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    @property
    def undoable(self) -> Entry | None:
        """The entry that `undo` would take back: for the footer's `undo "scale web 4 → 6"`."""
        for entry in reversed(self._entries):
            if entry.undoes is None and not entry.undone and entry.operation.inverse() is not None:
                return entry
        return None

    def undo(self) -> Operation | None:
        """The inverse of the newest change, to be previewed and given to `run`; None when there is nothing to undo."""
        entry = self.undoable
        if entry is None:
            return None
        inverse = entry.operation.inverse()
        if inverse is not None:
            self._undoing[id(inverse)] = entry
        return inverse

    async def run(self, operation: Operation, report: Report) -> Entry:
        """Run an operation to its end; what it raises is raised. A change that was sent is in the history anyway."""
        undoes = self._undoing.pop(id(operation), None)
        entry = Entry(operation, self._clock(), undoes)
        self._entries.append(entry)
        try:
            await operation.run(report)
            entry.outcome = Outcome.DONE
        except asyncio.CancelledError:
            entry.outcome = Outcome.CANCELLED
            raise
        except OperationFailed as error:
            entry.outcome, entry.error = Outcome.FAILED, str(error)
            raise
        finally:
            if undoes is not None and (operation.sent or entry.outcome is Outcome.DONE):
                undoes.undone = True
        return entry
