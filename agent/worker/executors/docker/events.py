"""The engine's events, told to whoever waits for a task: one connection for all, nothing is polled.

An event only says that something may have changed; who is told then looks. So nothing is lost when the stream breaks:
when it stands again, everyone looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from agent.worker.executors.docker.engine import Engine, EngineError, EngineUnavailable, filters, lines
from agent.worker.executors.docker.names import TASK_ID

log = logging.getLogger(__name__)

ACTIONS = ["start", "die", "destroy", "health_status", "oom", "pause", "unpause", "reload"]
FIRST_RETRY = 0.05
LAST_RETRY = 1.0


class _Actor(msgspec.Struct, frozen=True, rename="pascal"):
    attributes: dict[str, str] = {}


class _Event(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="Type", default="")
    action: str = msgspec.field(name="Action", default="")
    actor: _Actor = msgspec.field(name="Actor", default=_Actor())


_event = msgspec.json.Decoder(_Event)


@dataclass(eq=False)
class Watching:
    """Wakes one waiter; `exit_code` is the one of the last `die` event, for a container that is gone before it is looked at."""

    _news: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None

    def wake(self) -> None:
        """Something may have changed."""
        self._news.set()

    async def news(self) -> None:
        """Wait until something may have changed since the last call."""
        await self._news.wait()
        self._news.clear()


class Events:
    """`run()` reads the engine's events for as long as the executor lives."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watching: dict[str, set[Watching]] = {}
        self._connected = asyncio.Event()
        self._engine_changed = asyncio.Event()

    @contextmanager
    def watch(self, task_id: str) -> Iterator[Watching]:
        """Be woken for the task's container, and whenever events may have been missed."""
        watching = Watching()
        self._watching.setdefault(task_id, set()).add(watching)
        try:
            yield watching
        finally:
            self._watching[task_id].discard(watching)
            if not self._watching[task_id]:
                del self._watching[task_id]

    async def connected(self) -> None:
        """Wait until events are being read."""
        await self._connected.wait()

    async def engine_changed(self) -> None:
        """Wait until the engine came back or read its settings again since the last call."""
        await self._engine_changed.wait()
        self._engine_changed.clear()

    async def run(self) -> None:
        """Read, and begin again when the engine goes away."""
        pause = FIRST_RETRY
        lost = False
        while True:
            try:
                async with self._engine.stream(
                    "GET", "events", query={"filters": filters(type=["container", "daemon"], event=ACTIONS)}
                ) as answer:
                    pause = FIRST_RETRY
                    if lost:
                        log.info("the Docker Engine at %s is back", self._engine.address)
                        self._engine_changed.set()
                    self._connected.set()
                    self._wake_all()
                    async for line in lines(answer):
                        self._tell(_event.decode(line))
                reason = "the stream of events ended"
            except (EngineUnavailable, EngineError) as error:
                reason = str(error)
            if not lost:
                log.warning("the Docker Engine at %s is lost: %s", self._engine.address, reason)
            lost = True
            self._connected.clear()
            await asyncio.sleep(pause)
            pause = min(LAST_RETRY, pause * 2)

    def _tell(self, event: _Event) -> None:
        if event.type == "daemon":
            self._engine_changed.set()
            return
        for watching in self._watching.get(event.actor.attributes.get(TASK_ID, ""), ()):
            if event.action == "die":
                code = event.actor.attributes.get("exitCode", "")
                watching.exit_code = int(code) if code.isdecimal() else None
            watching.wake()

    def _wake_all(self) -> None:
        for waiting in self._watching.values():
            for watching in waiting:
                watching.wake()
