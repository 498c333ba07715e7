"""Which tiers of the playground can be tested on this machine."""

from __future__ import annotations

from swarmtui.playground.tier import Tier, TierUnavailable, choose, probe


def usable_tiers() -> list[str]:
    """Tiers that this machine allows, the poorest first; a test of another would prove nothing."""
    can = probe()
    usable = []
    for tier in reversed(Tier):
        try:
            choose(tier, can)
        except TierUnavailable:
            continue
        usable.append(tier.value)
    return usable
