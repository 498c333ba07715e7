"""The numbers of the protocol between nodes that an agent speaks, so that two versions can meet during an upgrade.

A number goes up when nodes say something that an agent without it would take for an error. Both sides name their range in
the hello; what they talk then is the highest number that both know (`Peer.protocol`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Protocols:
    """From `oldest` to `newest`, both spoken."""

    oldest: int
    newest: int

    def common(self, other: Protocols) -> int | None:
        """The highest number that both speak."""
        highest = min(self.newest, other.newest)
        return highest if highest >= max(self.oldest, other.oldest) else None

    def __str__(self) -> str:
        return f"protocol {self.oldest}" if self.oldest == self.newest else f"protocols {self.oldest} to {self.newest}"


SPOKEN = Protocols(oldest=2, newest=2)
"""What this agent speaks. 2: managers form a group, nodes renew their certificates, heartbeats are answered."""
