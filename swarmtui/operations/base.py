"""The shape of an operation, and what it tells before, while and after it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from swarmtui.model.states import Glyph


class Danger(StrEnum):
    """How much a person must confirm."""

    NONE = "none"
    """Enter is enough."""
    CAREFUL = "careful"
    """Work is interrupted, nothing is lost: Enter, after the preview."""
    DESTRUCTIVE = "destructive"
    """Something is removed: `Operation.confirmation` must be typed."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `replicas  6 → 9`. `old` is "" for something new, `new` is "" for something removed."""

    what: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What an operation will do, shown before it is done."""

    title: str
    changes: tuple[Change, ...] = ()
    lines: tuple[str, ...] = ()
    """Further sentences: consequences, tasks that stop, warnings."""
    undo: str = ""
    """Title of the inverse operation; "" when there is none."""
    nothing_to_do: bool = False
    """The cluster is already as wanted."""


class Phase(StrEnum):
    """Where an operation is."""

    SENDING = "sending"
    CONVERGING = "converging"
    VERIFYING = "verifying"
    """All run; waiting to see that they stay."""
    DONE = "done"
    FAILED = "failed"
    """The cluster gave up (update paused, rolled back) or the engine refused."""


@dataclass(frozen=True, slots=True)
class SlotProgress:
    """One replica (or node of a global service) on its way."""

    name: str
    """`web.3`, or the node's hostname."""
    state: str
    glyph: Glyph
    error: str = ""
    """In full."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One report; each replaces the one before."""

    phase: Phase
    done: int = 0
    """Replicas that are as wanted."""
    total: int = 0
    message: str = ""
    slots: tuple[SlotProgress, ...] = ()
    errors: tuple[str, ...] = ()
    """Distinct error texts of tasks that failed since the change, newest first, in full."""

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        if self.phase is Phase.DONE:
            return 1.0
        return min(1.0, self.done / self.total) if self.total else 0.0


Report = Callable[[Progress], None]
"""Called on the loop; must not block."""


class OperationFailed(Exception):
    """The change was refused, or the cluster could not reach it; the text says what happened and what to do."""


class Conflicting(OperationFailed):
    """Somebody else changed the same thing meanwhile; nothing was done."""


class Operation(Protocol):
    """A change. Made for one client, run once; `inverse` is known after `run` has sent the change."""

    @property
    def title(self) -> str:
        """For the history and for undo: `scale web 4 → 6`."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Ids (or names) of the objects that are changed."""

    @property
    def danger(self) -> Danger:
        """How much must be confirmed."""

    @property
    def confirmation(self) -> str:
        """What must be typed when `danger` is DESTRUCTIVE; else ""."""

    async def preview(self) -> Preview:
        """Read the cluster and say what would happen; changes nothing."""

    async def submit(self) -> None:
        """Send the change and wait for nothing; `run` after it only waits. Raises OperationFailed."""

    async def run(self, report: Report) -> None:
        """Do it and stay until the cluster has converged.

        Raises OperationFailed (the text in full) when it was refused or the cluster gave up. Cancelling before the
        change is sent changes nothing; cancelling later stops only the waiting: the cluster goes on towards the new
        state, `sent` is True and `inverse()` undoes it.
        """

    @property
    def sent(self) -> bool:
        """True once the engine has accepted the change."""

    def inverse(self) -> Operation | None:
        """The operation that undoes this one; None before it is sent and for what cannot be undone."""
