"""Which cluster a command line means. Imports no HTTP: the console starts from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarmtui.contexts.resolve import Context, resolve
from swarmtui.docker_api.address import EngineAddress, parse_address


@dataclass(frozen=True, slots=True)
class Target:
    """The global options that say which cluster is meant."""

    hosts: Sequence[str] = ()
    """Managers of one cluster, the first one first."""
    context: str | None = None

    def resolve(self) -> Context:
        """The context; BadAddress when it cannot be used."""
        return resolve(self.hosts[0] if self.hosts else None, self.context)

    def others(self, first: Context) -> tuple[EngineAddress, ...]:
        """Further managers of the cluster of `first`, with its certificates; BadAddress when one cannot be used."""
        return tuple(parse_address(host, first.address.tls) for host in self.hosts[1:])
