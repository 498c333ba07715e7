"""Staying with a change until the cluster has converged. Reads the engine every 200 ms, as the docker CLI does: that
works on a real Docker Swarm too, and does not depend on a model being fed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from swarmtui.docker_api.errors import ConnectionFailed, NotAManager, NotFound, Unavailable
from swarmtui.docker_api.times import SECOND, Monotonic
from swarmtui.operations.base import OperationFailed, Phase, Progress, Report
from swarmtui.operations.client import OperationClient
from swarmtui.operations.convergence import Reading, read


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take; seconds."""

    poll: float = 0.2
    """Between two readings."""
    verify: float | None = None
    """How long all must stay up; None for the service's own monitor time (Docker: 5 s)."""
    abandoned: float = 3.0
    """How long a replica may have ended without a successor before the cluster is believed to have given up."""
    empty: float = 3.0
    """How long a global service may have no task at all before no node is believed to fit."""
    outage: float = 30.0
    """How long the engine may be out of reach while waiting."""
    monotonic: Monotonic = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Patience:
    """Bears an engine that is out of reach for a while: the change is accepted, and a manager that restarts or loses its
    leadership must not end the wait for it.
    """

    def __init__(self, timing: Timing, report: Report) -> None:
        self._timing = timing
        self._report = report
        self._reached = timing.monotonic()

    def reached(self) -> float:
        """The engine has answered; the time."""
        self._reached = self._timing.monotonic()
        return self._reached

    async def lost(self, error: ConnectionFailed | Unavailable | NotAManager) -> None:
        """Pause before another attempt; OperationFailed when it lasts too long."""
        if self._timing.monotonic() - self._reached > self._timing.outage:
            raise OperationFailed(f"the change was accepted, but then the cluster was lost: {error}") from error
        self._report(Progress(Phase.CONVERGING, message=f"trying again: {error}"))
        await self._timing.sleep(self._timing.poll)


async def wait_for_service(
    client: OperationClient,
    service_id: str,
    report: Report,
    *,
    timing: Timing,
    since: int = 0,
    going_back: bool = False,
) -> None:
    """Report progress until the service is whole and has stayed so. OperationFailed when the cluster gave up.

    `since` (nanoseconds, the managers' clock): failures before it are not this change's. `going_back`: see `read`.
    """
    patience = Patience(timing, report)
    start = patience.reached()
    whole_since: float | None = None
    abandoned_since: float | None = None
    while True:
        try:
            reading = await _look(client, service_id, since, going_back)
        except NotFound:
            raise OperationFailed("the service was removed meanwhile") from None
        except (ConnectionFailed, Unavailable) as error:
            await patience.lost(error)
            continue
        reached = patience.reached()
        if reading.failure:
            report(_progress(Phase.FAILED, reading, reading.failure))
            raise OperationFailed(_with_errors(reading.failure, reading))
        abandoned_since = _since(abandoned_since, bool(reading.abandoned), reached)
        if abandoned_since is not None and reached - abandoned_since >= timing.abandoned:
            text = f"{', '.join(reading.abandoned)} ended and will not be started again"
            report(_progress(Phase.FAILED, reading, text))
            raise OperationFailed(_with_errors(text, reading))
        settled = reading.whole and (reading.total > 0 or not reading.nodes_decide or reached - start >= timing.empty)
        whole_since = _since(whole_since, settled, reached)
        if whole_since is None:
            report(_progress(Phase.CONVERGING, reading, reading.message))
            await timing.sleep(timing.poll)
            continue
        monitor = reading.monitor / SECOND
        left = (monitor if timing.verify is None else min(timing.verify, monitor)) - (reached - whole_since)
        if left <= 0:
            report(_progress(Phase.DONE, reading, "converged" if reading.total else "converged: nothing is to run"))
            return
        report(_progress(Phase.VERIFYING, reading, f"waiting {left:.0f} s to see that all stay up"))
        await timing.sleep(min(timing.poll, left))


def _since(before: float | None, holds: bool, now: float) -> float | None:
    """Since when something holds without a break; None while it does not."""
    if not holds:
        return None
    return now if before is None else before


async def _look(client: OperationClient, service_id: str, since: int, going_back: bool) -> Reading:
    service = await client.service(service_id)
    tasks = await client.tasks({"service": [service_id], "_up-to-date": ["true"]})
    nodes = {node.id: node for node in await client.nodes()}
    return read(service, tasks, nodes, since=since, going_back=going_back)


def _progress(phase: Phase, reading: Reading, message: str) -> Progress:
    return Progress(phase, reading.done, reading.total, message, reading.slots, reading.errors)


def _with_errors(text: str, reading: Reading) -> str:
    return "\n".join((text, *reading.errors))
