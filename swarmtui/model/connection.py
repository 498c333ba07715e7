"""When to try again, and what a failed connection is called: pure."""

from __future__ import annotations

from swarmtui.docker_api.errors import EngineError, NotAManager
from swarmtui.model.summary import ConnectionState

FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0
"""Seconds. A person looks at the screen meanwhile: longer would feel broken, shorter would load a sick manager."""


def backoff(attempt: int, random: float) -> float:
    """Seconds before attempt number `attempt` (0 is the first): doubling, the upper half random (`random` in 0 to 1).

    The random part keeps many consoles from coming back to a restarted manager in the same instant.
    """
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 16))
    return longest * (0.5 + random / 2)


def lost_state(error: EngineError) -> ConnectionState:
    """The connection's state while it waits after `error`."""
    return ConnectionState.NOT_A_MANAGER if isinstance(error, NotAManager) else ConnectionState.RECONNECTING
