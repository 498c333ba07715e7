"""Which of a playground's instances are managers: pure."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_NODES = 5
_ONE_MANAGER_BELOW = 5
"""With fewer nodes than this one manager leaves some of them to be workers alone."""


@dataclass(frozen=True, slots=True)
class Template:
    """So many managers and workers."""

    managers: int
    workers: int

    @property
    def nodes(self) -> int:
        """All of them."""
        return self.managers + self.workers


TEMPLATES = {"3m2w": Template(3, 2), "5m": Template(5, 0), "1m1w": Template(1, 1), "1m4w": Template(1, 4)}
"""By the name that the command takes; the first is the default."""
DEFAULT_TEMPLATE = next(iter(TEMPLATES))


def managers_for(nodes: int) -> int:
    """How many managers a playground of `nodes` has when nobody says: three survive the loss of one."""
    return 1 if nodes < _ONE_MANAGER_BELOW else 3
