"""At which addresses the same cluster answers, and which of them is used: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swarmtui.docker_api.address import EngineAddress

Others = Callable[[], Sequence[EngineAddress]]
"""Further managers, the most promising first; asked again whenever one is needed, because managers come and go."""


class Endpoints:
    """The address in use. Those that failed are not tried again before all have, or one of them served well."""

    def __init__(self, first: EngineAddress, others: Others = tuple) -> None:
        self._first = first
        self._others = others
        self._failed: set[EngineAddress] = set()
        self.current = first
        """Where requests go."""

    @property
    def known(self) -> list[EngineAddress]:
        """Every address, the first one first."""
        return list(dict.fromkeys((self._first, *self._others())))

    @property
    def several(self) -> bool:
        """Whether there is anywhere else to go."""
        return len(self.known) > 1

    def failed(self, address: EngineAddress) -> bool:
        """`address` did not serve. True when another one, untried so far, is to be tried now.

        False when all have failed: then they count as untried again, and the next attempt begins with the next in the row.
        """
        self._failed.add(address)
        if self.current != address:
            return True  # Somebody else has found that out and moved on already.
        known = self.known
        start = known.index(address) if address in known else -1
        ring = known[start + 1 :] + known[: start + 1]
        untried = [each for each in ring if each not in self._failed]
        if untried:
            self.current = untried[0]
            return True
        self._failed.clear()
        self.current = ring[0]
        return False

    def served(self) -> None:
        """The current one serves: what failed before may be tried again when it is lost."""
        self._failed.clear()
