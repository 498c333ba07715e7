"""Where a person is and how they came there. Pure: places and a stack of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Place(NamedTuple):
    """A view and what it is narrowed to. Ids, because names can be taken over by another object."""

    view: str
    """nodes, services, tasks, networks, logs, playground or pulse."""
    service: str = ""
    """Tasks or logs of this service."""
    node: str = ""
    """Tasks on this node."""
    task: str = ""
    """Logs of this task."""


NameOf = Callable[[str, str], str]
"""Kind (`service`, `node`, `task`) and id to the name that a person knows."""


class Trail:
    """The places passed on the way down, the present one last. Never empty."""

    def __init__(self, start: Place) -> None:
        self._places = [start]

    @property
    def here(self) -> Place:
        """The present place."""
        return self._places[-1]

    @property
    def depth(self) -> int:
        """How many steps back there are."""
        return len(self._places) - 1

    def down(self, place: Place) -> None:
        """One step down; the way back leads here."""
        if place != self.here:
            self._places.append(place)

    def start(self, place: Place) -> None:
        """A new trail from `place`; the way back ends there."""
        self._places = [place]

    def back(self) -> bool:
        """One step back; False at the start."""
        if len(self._places) == 1:
            return False
        self._places.pop()
        return True

    def crumbs(self, name_of: NameOf) -> list[str]:
        """The trail in words: `services`, `web`, `web.3`; a view that only repeats where one is goes unnamed."""
        words: list[str] = []
        for place in self._places:
            narrowed = [
                name_of(kind, getattr(place, kind)) for kind in ("node", "service", "task") if getattr(place, kind)
            ]
            new = [word for word in narrowed if word not in words]
            if not words and (place.view not in ("tasks", "logs") or not new):
                words.append(place.view)
            words += new
            if place.view == "logs":
                words.append("logs")
        return words
