"""What those who subscribe to a session are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from swarmtui.playground.instance import Instance


class ChangeKind(StrEnum):
    """What changed in a session."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    WARNING = "warning"
    EXTENDED = "extended"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Change:
    """What subscribers are told: `instance` for the first three kinds, a text for people for the others."""

    kind: ChangeKind
    instance: Instance | None = None
    text: str = ""
