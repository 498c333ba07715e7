"""The thread that writes: everything that has come while it wrote goes to the disk with one fdatasync."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Protocol

from agent.raft.core.messages import HardState
from agent.raft.core.ready import Ready, RoleName, Status
from agent.raft.log import LogFull
from agent.raft.storage import MemberStorage

logger = logging.getLogger(__name__)

FULL_PAUSE = 0.2
"""Seconds until a write that a full disk refused is tried again."""


class WriterEvents(Protocol):
    """Who the thread reports to; called in the thread."""

    def durable(self, number: int) -> None:
        """Everything up to the round of this number is durable."""
        ...

    def full(self, reason: str) -> None:
        """The disk takes no more; the write is tried again until it succeeds ("": it did)."""
        ...

    def failed(self, error: Exception) -> None:
        """Nobody knows what is on the disk; nothing is written any more."""
        ...


class LogWriter:
    """A thread for one log. `write` and `compact` may be called from one other thread."""

    def __init__(self, storage: MemberStorage, events: WriterEvents) -> None:
        self._storage = storage
        self._events = events
        self._queue: SimpleQueue[Ready | int | None] = SimpleQueue()
        self._noted: HardState | None = None
        self._noted_at = 0.0
        self._stop = threading.Event()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="raft-log", daemon=True)
        self._ending = threading.Lock()
        self._ended = False
        self._at_end: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def write(self, ready: Ready) -> None:
        """Make a round durable, after those before it."""
        if ready.hard_state is None and self._noted is not None:
            ready = replace(ready, hard_state=self._noted)
        self._noted = None
        self._queue.put(ready)

    def note(self, hard_state: HardState) -> None:
        """More is known to be committed. It goes to the disk with the next round, or once nothing came for a while.

        A member that starts again while there is no leader shows what it knows to be committed, and no more.
        """
        self._noted, self._noted_at = hard_state, time.monotonic()

    def keep_note(self, age: float) -> None:
        """Write what was noted so many seconds ago, or earlier."""
        if self._noted is not None and time.monotonic() - self._noted_at >= age:
            status = Status(RoleName.FOLLOWER, self._noted.term, "")
            self.write(Ready(0, status, (), None, self._noted, (), True, (), (), ()))

    def compact(self, index: int) -> None:
        """Drop what a durable snapshot covers up to `index`."""
        self._queue.put(index)

    def stuck_for(self) -> float:
        """Seconds since the write that is under way began; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> bool:
        """Write what waits, then end. False when the disk did not come back in time; its thread is left behind."""
        self.keep_note(0)
        self._stop.set()
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def at_end(self, function: Callable[[], None]) -> None:
        """Call it once the thread touches the disk no more: at once, or in the thread."""
        with self._ending:
            if self._thread.is_alive() and not self._ended:
                self._at_end = function
                return
        function()

    def _run(self) -> None:
        try:
            while self._write_all(self._take()):
                self._busy_since = None
        except OSError as error:
            self._events.failed(error)
        except Exception as error:
            # A fault of the program's own: without this thread nothing is ever written, so that is said as well.
            self._events.failed(error)
            raise
        finally:
            self._end()

    def _end(self) -> None:
        with self._ending:
            self._ended = True
        if self._at_end is not None:
            self._at_end()

    def _take(self) -> list[Ready | int | None]:
        jobs = [self._queue.get()]
        self._busy_since = time.monotonic()
        try:
            while True:
                jobs.append(self._queue.get_nowait())
        except Empty:
            return jobs

    def _write_all(self, jobs: list[Ready | int | None]) -> bool:
        """False when it is time to end."""
        ready = [job for job in jobs if isinstance(job, Ready)]
        if ready:
            if not self._until_room(lambda: self._storage.write_all(ready)):
                return False
            # A note has no number of its own.
            self._events.durable(max(job.number for job in ready))
        for job in jobs:
            if isinstance(job, int):
                self._compact(job)
        return None not in jobs

    def _until_room(self, write: Callable[[], None]) -> bool:
        """Try again as long as the disk is full; False when it is still full at the end."""
        full = False
        while True:
            try:
                write()
            except LogFull as error:
                if not full:
                    logger.error("the log takes no more: %s", error)
                    self._events.full(str(error))
                full = True
                if self._stop.wait(FULL_PAUSE):
                    return False
            else:
                if full:
                    logger.warning("the log takes entries again")
                    self._events.full("")
                return True

    def _compact(self, index: int) -> None:
        try:
            self._storage.compact(index)
        except LogFull as error:
            # The older segments stay until the next snapshot.
            logger.error("the log was not compacted: %s", error)
