"""Which cluster a command line means. Imports no HTTP: the console starts from here."""

from __future__ import annotations

from dataclasses import dataclass

from swarmtui.contexts.resolve import Context, resolve


@dataclass(frozen=True, slots=True)
class Target:
    """The global options that say which cluster is meant."""

    host: str | None = None
    context: str | None = None

    def resolve(self) -> Context:
        """The context; BadAddress when it cannot be used."""
        return resolve(self.host, self.context)
