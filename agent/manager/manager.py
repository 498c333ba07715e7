"""Everything the leader runs, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from agent.api_types.identity import IdSource, new_id
from agent.api_types.times import Clock, now_ns
from agent.manager.allocator import Allocator
from agent.manager.constraint_enforcer import ConstraintEnforcer
from agent.manager.dispatcher.dispatcher import NO_LONGER, Dispatcher
from agent.manager.explain import Explainer
from agent.manager.group import Group
from agent.manager.log_broker import LogBroker
from agent.manager.membership import Membership
from agent.manager.orchestrator.global_services import GlobalOrchestrator
from agent.manager.orchestrator.replicated import ReplicatedOrchestrator
from agent.manager.orphans import Orphans
from agent.manager.reaper import Reaper
from agent.manager.renewal import Renewal
from agent.manager.restart import DelayedStarts
from agent.manager.role_manager import RoleManager
from agent.manager.root_rotation import RootRotations
from agent.manager.scheduler.scheduler import Scheduler
from agent.raft.interface import NotLeader, OutcomeUnknown
from agent.rpc.connection import Handler
from agent.store.store import Store


class Manager:
    """The control loops over one store. Made anew for every term in which this manager leads; `run` it once.

    `clock` is the wall clock, `monotonic` a clock that is never set; both in nanoseconds.
    """

    dispatcher: Dispatcher
    """Sessions of nodes; the listener tells its `on_connection` and asks its `accept`."""
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
        group: Group | None = None,
        clock: Clock = now_ns,
        monotonic: Clock = time.monotonic_ns,
        new_id: IdSource = new_id,
    ) -> None:
        self.store = store
        self.group = group
        self.term = 0 if group is None else group.status.term
        self.dispatcher = Dispatcher(store, clock, group=group, monotonic=monotonic, new_id=new_id)
        self.membership = Membership(store, clock, new_id=new_id, managers=self.dispatcher.managers)
        self.renewal = Renewal(store, clock, group, on_issued=self.dispatcher.certificate_issued)
        self.log_broker = LogBroker(store, self.dispatcher.connections)
        self.explainer = Explainer(store, clock, self.dispatcher.suspected)
        self._role_manager: RoleManager | None = None
        if group is not None:
            address_of, protocol_of = self.dispatcher.address_of, self.dispatcher.protocol_of
            self._role_manager = RoleManager(store, group, address_of, protocol_of, monotonic=monotonic)
            self.dispatcher.on_manager_session = self._role_manager.look_again
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
            RootRotations(store, clock),
        )

    def handlers(self) -> Mapping[str, Handler]:
        """What nodes may call: `session`, `renew`, `depart`, and `join` for other managers."""
        return {**self.dispatcher.handlers(), **self.renewal.handlers(), **self.membership.handlers()}

    async def run(self) -> None:
        """Run every loop until cancelled. When one ends with an error all end, with that error.

        NotLeader when this manager leads no more, or in another term: nothing of this one lingers then.
        """
        # In a task of its own: a task group whose loops end while it is being cancelled forgets that it was.
        work = asyncio.ensure_future(self._run_loops())
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.wait({work})
            self.log_broker.close(NO_LONGER)
            error = None if work.cancelled() else work.exception()
        if error is not None:
            raise _innermost(error) from None

    async def _run_loops(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self.group is not None:
                tasks.create_task(self._end_with_the_term(self.group), name="leadership")
            if self._role_manager is not None:
                tasks.create_task(self._role_manager.run(), name="RoleManager")
            for loop in self._loops:
                tasks.create_task(loop.run(), name=type(loop).__name__)

    async def _end_with_the_term(self, group: Group) -> None:
        status = group.status
        while status.leading and status.term == self.term:
            status = await group.status_changed(status)
        raise NotLeader(NO_LONGER)


def _innermost(error: BaseException) -> BaseException:
    """NotLeader when nothing else happened than that the leadership was lost; otherwise the error as it is."""
    if isinstance(error, NotLeader | OutcomeUnknown):
        return NotLeader(NO_LONGER)
    if isinstance(error, BaseExceptionGroup):
        _, others = error.split((NotLeader, OutcomeUnknown))
        return NotLeader(NO_LONGER) if others is None else others
    return error
