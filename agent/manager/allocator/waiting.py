"""Who waits for what: nobody is tried again before what it waits for has changed."""

from __future__ import annotations

from agent.manager.allocator.ledger import Holder
from agent.manager.allocator.problems import Problem


class Waiting:
    """Those that could not be given what they ask for, by what they wait for, in order."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[Holder, Problem]] = {}
        self._place: dict[Holder, str] = {}

    def __contains__(self, holder: Holder) -> bool:
        return holder in self._place

    def put(self, holder: Holder, problem: Problem) -> None:
        """Somebody waits; one that waited before keeps its place in the line if it is the same one."""
        if self._place.get(holder, problem.waits_for) != problem.waits_for:
            self.drop(holder)
        self._lines.setdefault(problem.waits_for, {})[holder] = problem
        self._place[holder] = problem.waits_for

    def drop(self, holder: Holder) -> None:
        """Somebody waits no longer."""
        place = self._place.pop(holder, None)
        if place is None:
            return
        line = self._lines[place]
        del line[holder]
        if not line:
            del self._lines[place]

    def problem(self, holder: Holder) -> Problem | None:
        """What somebody waits for; None when it does not wait."""
        place = self._place.get(holder)
        return None if place is None else self._lines[place][holder]

    def lines(self) -> list[str]:
        """What is waited for."""
        return list(self._lines)

    def take(self, line: str, number: int | None = None) -> list[Holder]:
        """The first `number` (None: all) of those that wait for something; they wait no longer."""
        holders = list(self._lines.get(line, ()))[:number]
        for holder in holders:
            self.drop(holder)
        return holders
