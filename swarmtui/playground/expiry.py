"""The end of a session: warnings before it, and the event that tells everybody when it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmtui.playground.changes import Change, ChangeKind
from swarmtui.playground.clock import SessionClock


class Expiry:
    """Watches a session's clock on the running loop."""

    def __init__(self, clock: SessionClock, tell: Callable[[Change], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()
        """Set when the time is up, or the session cannot go on."""
        self.ending = ""
        """Why it is over, for people."""

    def watch(self) -> None:
        """Warn, end, or wait for the next of both; called again when the clock was set."""
        self.stop()
        if self._clock.over:
            self.finish("the session's time is up")
            return
        warning = self._clock.due()
        if warning is not None:
            minutes = round(warning.total_seconds() / 60)
            text = f"the playground ends in {minutes} min, and everything in it is deleted"
            self._tell(Change(ChangeKind.WARNING, text=text))
        # At most a minute at once: the loop's clock stands still while a laptop sleeps, the wall's does not.
        wait = min(self._clock.until_next().total_seconds(), 60.0)
        self._timer = asyncio.get_running_loop().call_later(wait, self.watch)

    def finish(self, text: str) -> None:
        """It is over; told once."""
        if not self.over.is_set():
            self.ending = text
            self.over.set()
            self._tell(Change(ChangeKind.OVER, text=text))

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
