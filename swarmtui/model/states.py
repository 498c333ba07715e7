"""States as the console shows them: a word and the name of a glyph, never a colour and never a character.

Which character and colour a glyph has is the theme's business (`swarmtui.ui`).
"""

from __future__ import annotations

from enum import StrEnum


class Glyph(StrEnum):
    """Names of the glyphs; the mock-ups' characters in brackets."""

    RUNNING = "running"  # ●
    STARTING = "starting"  # ◐
    PENDING = "pending"  # ○
    FAILED = "failed"  # ✖
    COMPLETE = "complete"  # ✔
    SHUTDOWN = "shutdown"  # ·
    WARNING = "warning"  # ▲
    LEADER = "leader"  # ★
    MANAGER = "manager"  # ◆
    WORKER = "worker"  # ◇


TASK_RANK = {
    "new": 0,
    "allocated": 64,
    "pending": 64,
    "assigned": 192,
    "accepted": 256,
    "preparing": 320,
    "ready": 384,
    "starting": 448,
    "running": 512,
    "complete": 576,
    "shutdown": 640,
    "failed": 704,
    "rejected": 768,
    "remove": 800,
    "orphaned": 832,
}
"""Order of a task's states (swarmkit api/types.proto); the observed state only rises."""

RUNNING = TASK_RANK["running"]

_GLYPHS = {
    "new": Glyph.PENDING,
    "allocated": Glyph.PENDING,
    "pending": Glyph.PENDING,
    "assigned": Glyph.STARTING,
    "accepted": Glyph.STARTING,
    "preparing": Glyph.STARTING,
    "ready": Glyph.STARTING,
    "starting": Glyph.STARTING,
    "running": Glyph.RUNNING,
    "complete": Glyph.COMPLETE,
    "shutdown": Glyph.SHUTDOWN,
    "failed": Glyph.FAILED,
    "rejected": Glyph.FAILED,
    "remove": Glyph.SHUTDOWN,
    "orphaned": Glyph.WARNING,
}


def task_glyph(state: str) -> Glyph:
    """The glyph of a task's observed state; a state that we do not know is a warning."""
    return _GLYPHS.get(state, Glyph.WARNING)


def task_rank(state: str) -> int:
    """Larger is later; a state that we do not know counts as not yet running."""
    return TASK_RANK.get(state, 0)


def ended(state: str) -> bool:
    """True once a task has ended and cannot run again."""
    return task_rank(state) > RUNNING
