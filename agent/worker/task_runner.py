"""One task on this host: carries out, one at a time, the steps that `agent.worker.task_machine` decides."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from agent.api_types.task import ContainerStatus, PortStatus, Task, TaskState, TaskStatus
from agent.api_types.times import SECOND, Clock
from agent.worker import local_restarts, task_machine
from agent.worker.interface import (
    Controller,
    Dependencies,
    Executor,
    NetworkAttacher,
    RejectedByExecutor,
    TemporaryFailure,
)
from agent.worker.task_machine import Advance, Finished, Rest, Situation, Work, next_step

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]
"""Waits for some seconds; injected, so that a test has no real waits."""

FIRST_RETRY = 0.25
LAST_RETRY = 5.0

REMEMBERED_ENDS = 1000
"""Ends of a task that its restart policy can count."""


def retry_delay(attempt: int) -> float:
    """Seconds before attempt number `attempt` (1 is the first repetition): doubled each time, 5 s at most."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(attempt - 1, 16))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every task of a worker shares. `drain` is the time in seconds between unbinding a task and stopping it.

    `leaderless` says whether tasks that end are the node's own affair for now, `ends_before` when earlier tasks of a task's
    slot ended here.
    """

    executor: Executor
    attacher: NetworkAttacher | None
    clock: Clock
    sleep: Sleep = asyncio.sleep
    drain: float = 2.0
    leaderless: Callable[[], bool] = lambda: False
    ends_before: Callable[[Task], Sequence[int]] = lambda task: ()


@dataclass(slots=True)
class _Networks:
    """What the network attacher may know of the task, and what this process told it."""

    maybe_attached: bool
    maybe_active: bool
    attached: bool = False
    active: bool = False


@dataclass(slots=True)
class _Seen:
    """The container as it was last seen."""

    container: ContainerStatus | None = None
    ports: PortStatus = field(default_factory=PortStatus)


class TaskRunner:
    """Runs one task until it is forgotten. `on_status` is called, on the loop, with every new status.

    `status` is where the task was left by an earlier life of the agent, or what the manager says of a task that is new
    here; `settled` is False when nobody here saw an ended task end.
    """

    def __init__(
        self,
        task: Task,
        status: TaskStatus,
        dependencies: Callable[[Task], tuple[Dependencies, tuple[str, ...]]],
        surroundings: Surroundings,
        on_status: Callable[[TaskRunner], None],
        *,
        confirmed: bool = True,
        settled: bool = True,
    ) -> None:
        self.task = task
        self.status = status
        self.controller: Controller | None = None
        self.forgotten = False
        self.removed = False
        self._confirmed = confirmed
        self._settled = settled
        self._reviving = False
        self._restarts = 0
        self._ends: deque[int] = deque(maxlen=REMEMBERED_ENDS)
        self._dependencies = dependencies
        self._around = surroundings
        self._on_status = on_status
        self._networks = _Networks(
            maybe_attached=status.state.rank >= TaskState.PREPARING.rank,
            maybe_active=status.state.rank >= TaskState.STARTING.rank,
        )
        self._drained = False
        self._seen = _Seen(status.container_status, status.port_status)
        self._changed = asyncio.Event()
        self._waiting: list[tuple[TaskState, asyncio.Future[None]]] = []
        self._work: dict[Work, Callable[[], Awaitable[None]]] = {
            Work.PREPARE: self._prepare,
            Work.START: self._start,
            Work.WATCH: self._watch,
            Work.STOP: self._stop,
            Work.REMOVE: self._remove,
            Work.REVIVE: self._revive,
        }

    # -- told from outside

    def assign(self, task: Task, *, drain: bool = True) -> None:
        """The manager's newest word on the task; without `drain` it is so old that no connections come any more."""
        self.task = task
        self._drained = self._drained or not drain
        self.forgotten = False
        # A leader that has the end of a task which ran again since is right: it may long have replaced it.
        if not self._confirmed or (self._restarts and task.status.state.terminal):
            self._confirmed = True
            self._catch_up(task.status)
        self._changed.set()

    def _catch_up(self, reported: TaskStatus) -> None:
        """What an earlier life of the agent reported stands, also where it could not be written down."""
        if task_machine.later(self.status, reported) is reported:
            self.status = reported
            self._settled = not reported.state.terminal

    def forget(self, *, drain: bool = True) -> None:
        """The manager no longer knows the task: stop it, remove it, end. `drain` as for `assign`."""
        self.forgotten = True
        self._drained = self._drained or not drain
        self._changed.set()

    def reconsider(self) -> None:
        """Something that the task may wait for arrived."""
        self._changed.set()

    async def reached(self, state: TaskState) -> None:
        """Return once the observed state is at least `state`."""
        if self.status.state.rank < state.rank:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((state, future))
            await future

    # -- the loop

    def situation(self) -> Situation:
        """The task as the decision sees it."""
        return Situation(
            desired=self.task.desired_state,
            observed=self.status.state,
            confirmed=self._confirmed,
            missing=self._dependencies(self.task)[1],
            forgotten=self.forgotten,
            settled=self._settled,
            removed=self.removed,
            to_revive=(self._settled or self._reviving) and self._due() is not None,
        )

    def _due(self) -> int | None:
        """When the task is to run again by this node's own decision, in nanoseconds since the epoch; None for never."""
        if not (self._ends and self._confirmed and self._around.leaderless()) or self._dependencies(self.task)[1]:
            return None
        ends = [*self._around.ends_before(self.task), *self._ends]
        return local_restarts.due(self.task, self.status.state, ends)

    async def run(self) -> None:
        """Step after step until the task is forgotten. Cancelling it leaves the container as it is."""
        while True:
            self._changed.clear()
            step = next_step(self.situation())
            match step:
                case Finished():
                    return
                case Advance(state, message):
                    self._show(self._advanced(state, message))
                case Rest(reason):
                    if reason:
                        self._explain(reason)
                    await self._changed.wait()
                case Work():
                    await self._carry_out(step)

    async def _carry_out(self, work: Work) -> None:
        """Do `work` until it is done or no longer the thing to do."""
        doing = asyncio.ensure_future(self._persist(work))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            while not doing.done():
                await asyncio.wait({doing, change}, return_when=asyncio.FIRST_COMPLETED)
                if doing.done() or not change.done():
                    continue
                self._changed.clear()
                if next_step(self.situation()) is not work:
                    break
                change = asyncio.ensure_future(self._changed.wait())
        finally:
            doing.cancel()
            change.cancel()
            await asyncio.wait({doing, change})
        if not doing.cancelled():
            doing.result()

    async def _persist(self, work: Work) -> None:
        """`work`, again and again while it fails for a time; an error that is final ends the task.

        What goes wrong while stopping or removing is never final: the container could still run.
        """
        for attempt in itertools.count(1):
            try:
                await self._work[work]()
                return
            except TemporaryFailure as failure:
                self._explain(str(failure))
            except RejectedByExecutor as refusal:
                if await self._final(work, str(refusal)):
                    return
            except Exception as error:
                # Whatever breaks under one task ends that task, as SwarmKit does, and never the agent.
                log.exception("task %s: %s failed", self.task.id, work.value)
                if await self._final(work, f"{type(error).__name__}: {error}"):
                    return
            await self._around.sleep(retry_delay(attempt))

    # -- the work

    async def _control(self) -> Controller:
        if self.controller is None:
            self.controller = await self._around.executor.controller(self.task, self._dependencies(self.task)[0])
        return self.controller

    async def _prepare(self) -> None:
        controller = await self._control()
        await self._attach()
        await controller.prepare()
        await self._look(controller)
        self._show(self._advanced(TaskState.READY, "prepared"))

    async def _start(self) -> None:
        controller = await self._control()
        await self._attach()
        await controller.start()
        await self._look(controller)
        await self._activate()
        self._show(self._advanced(TaskState.RUNNING, "started"))

    async def _watch(self) -> None:
        controller = await self._control()
        await self._attach()
        await self._activate()
        end = await controller.wait()
        await self._deactivate()
        await self._detach()
        await self._look(controller)
        self._show_end(task_machine.ended(self.status, end, self._around.clock(), self._seen.container))

    async def _stop(self) -> None:
        controller = await self._existing()
        await self._deactivate()
        if self.status.state is TaskState.RUNNING and not self._drained and task_machine.drains(self.task):
            await self._around.sleep(self._around.drain)
        self._drained = True
        self._reviving = False
        if controller is not None:
            await controller.shutdown()
            await self._look(controller)
        await self._detach()
        self._settled = True
        if not self.status.state.terminal:
            self._show(self._advanced(TaskState.SHUTDOWN, "shutdown"))

    async def _revive(self) -> None:
        """Run the task again after its delay, from a container made anew. Whatever cuts this short has it stopped again."""
        due = self._due()
        if due is None:
            return
        await self._around.sleep(max(0, due - self._around.clock()) / SECOND)
        self._reviving, self._settled = True, False
        controller = await self._control()
        await controller.remove()
        await self._attach()
        await controller.prepare()
        await controller.start()
        await self._look(controller)
        await self._activate()
        if self._due() is None:
            return
        self._reviving, self._settled, self._drained = False, True, False
        self._restarts += 1
        seen = self._seen
        self._show(local_restarts.revived(self._restarts, self._around.clock(), seen.container, seen.ports))

    async def _remove(self) -> None:
        controller = await self._existing()
        await self._deactivate()
        await self._detach()
        if controller is not None:
            await controller.remove()
        self.removed = True
        self._changed.set()

    async def _existing(self) -> Controller | None:
        """The controller, or None for a task that the executor refuses: such a one never came to be."""
        try:
            return await self._control()
        except RejectedByExecutor:
            return None

    async def _look(self, controller: Controller) -> None:
        self._seen.container, self._seen.ports = await controller.status()

    # -- networks

    async def _attach(self) -> None:
        attacher, networks = self._around.attacher, self._networks
        if attacher is not None and not networks.attached:
            networks.maybe_attached = True
            await attacher.attach(self.task)
            networks.attached = True

    async def _activate(self) -> None:
        attacher, networks = self._around.attacher, self._networks
        if attacher is not None and not networks.active:
            networks.maybe_active = True
            await attacher.activate(self.task)
            networks.active = True

    async def _deactivate(self) -> None:
        attacher, networks = self._around.attacher, self._networks
        if attacher is not None and networks.maybe_active:
            networks.active = False
            await attacher.deactivate(self.task)
        networks.maybe_active = False

    async def _detach(self) -> None:
        attacher, networks = self._around.attacher, self._networks
        if attacher is not None and networks.maybe_attached:
            networks.attached = False
            await attacher.detach(self.task)
        networks.maybe_attached = False

    # -- the status

    def _advanced(self, state: TaskState, message: str) -> TaskStatus:
        seen = self._seen
        return task_machine.advanced(self.status, state, message, self._around.clock(), seen.container, seen.ports)

    def _explain(self, reason: str) -> None:
        if self.status.state.terminal:
            # How it ended is worth more to people than what keeps it from being tidied up.
            log.info("task %s, which has ended: %s", self.task.id, reason)
            return
        status = task_machine.explained(self.status, reason, self._around.clock())
        if status is not self.status:
            self._show(status)

    async def _final(self, work: Work, error: str) -> bool:
        """End the task with `error` and return True; while stopping or removing, show it and return False."""
        if work in (Work.STOP, Work.REMOVE):
            self._explain(error)
            return False
        if work is not Work.PREPARE and self.controller is not None:
            # The exit code, where there is one, is worth knowing and not worth waiting for.
            with contextlib.suppress(TemporaryFailure, RejectedByExecutor):
                await self._look(self.controller)
        # A start that failed half-way may have left a process: it is stopped before the task counts as settled.
        self._settled = work is Work.PREPARE and not self._networks.maybe_attached
        self._reviving = False
        self._show_end(task_machine.failed(self.status, error, self._around.clock(), self._seen.container))
        return True

    def _show_end(self, status: TaskStatus) -> None:
        """The task ended by itself."""
        self._ends.append(self._around.clock())
        self._show(status)

    def _show(self, status: TaskStatus) -> None:
        self.status = status
        self._on_status(self)
        reached = [future for state, future in self._waiting if status.state.rank >= state.rank]
        self._waiting = [(state, future) for state, future in self._waiting if status.state.rank < state.rank]
        for future in reached:
            if not future.done():
                future.set_result(None)
