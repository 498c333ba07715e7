"""Everything the leader runs, put together."""

from __future__ import annotations

import asyncio
import time

from agent.api_types.identity import IdSource, new_id
from agent.api_types.times import Clock, now_ns
from agent.manager.allocator import Allocator
from agent.manager.constraint_enforcer import ConstraintEnforcer
from agent.manager.dispatcher.dispatcher import Dispatcher
from agent.manager.explain import Explainer
from agent.manager.log_broker import LogBroker
from agent.manager.membership import Membership
from agent.manager.orchestrator.global_services import GlobalOrchestrator
from agent.manager.orchestrator.replicated import ReplicatedOrchestrator
from agent.manager.orphans import Orphans
from agent.manager.reaper import Reaper
from agent.manager.restart import DelayedStarts
from agent.manager.scheduler.scheduler import Scheduler
from agent.store.store import Store


class Manager:
    """The control loops over one store. `run` for as long as this manager leads.

    `clock` is the wall clock, `monotonic` a clock that is never set; both in nanoseconds.
    """

    dispatcher: Dispatcher
    """Sessions of nodes; give its `handlers` and `on_connection` to the listener."""
    membership: Membership
    """Admits nodes; the listener's `JoinService`."""
    log_broker: LogBroker
    """Reads the logs of tasks wherever they run."""
    explainer: Explainer
    """Says why tasks and services are as they are."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock = now_ns,
        monotonic: Clock = time.monotonic_ns,
        new_id: IdSource = new_id,
    ) -> None:
        self.store = store
        self.dispatcher = Dispatcher(store, clock, monotonic=monotonic, new_id=new_id)
        self.membership = Membership(store, clock, new_id=new_id)
        self.log_broker = LogBroker(store, self.dispatcher.connections)
        self.explainer = Explainer(store, clock, self.dispatcher.suspected)
        self._loops = (
            self.dispatcher,
            ReplicatedOrchestrator(store, clock),
            GlobalOrchestrator(store, clock),
            Allocator(store, clock),
            Scheduler(store, clock),
            DelayedStarts(store, clock),
            ConstraintEnforcer(store, clock),
            Reaper(store, clock),
            Orphans(store, clock),
        )

    async def run(self) -> None:
        """Run every loop until cancelled. When one ends with an error (leadership lost) all end, with that error."""
        async with asyncio.TaskGroup() as group:
            for loop in self._loops:
                group.create_task(loop.run(), name=type(loop).__name__)
