"""The worker: holds what managers assign to this node and runs it, with or without a manager in reach.

Statuses go to disk before they go to a manager, so that no crash makes a task that was reported ended run again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path

from agent.api_types.task import Task, TaskState, TaskStatus
from agent.api_types.times import Clock, now_ns
from agent.rpc.connection import Handler
from agent.rpc.messages import Assignments, ManagerAddress
from agent.worker import local_restarts, task_machine
from agent.worker.dependencies import DependencyStore
from agent.worker.interface import Controller, Executor, NetworkAttacher, TemporaryFailure
from agent.worker.kept_state import KeptState, KeptTask, is_task_id
from agent.worker.log_reader import LogsHandler
from agent.worker.relay import RelayHandler
from agent.worker.reports import Outbox
from agent.worker.task_runner import Sleep, Surroundings, TaskRunner, retry_delay

log = logging.getLogger(__name__)

DRAIN = 2.0
"""Seconds between taking a task out of balancers and stopping it (SwarmKit's figure)."""


class Worker:
    """`run()` for as long as the node is part of a cluster; `apply()` what a session brings.

    `managers` are the addresses that the last session named, from disk after a restart.
    """

    def __init__(
        self,
        executor: Executor,
        attacher: NetworkAttacher | None = None,
        *,
        state_dir: Path,
        clock: Clock = now_ns,
        sleep: Sleep = asyncio.sleep,
        drain: float = DRAIN,
    ) -> None:
        self.executor = executor
        self.outbox = Outbox()
        self.managers: list[ManagerAddress] = []
        self.restored = asyncio.Event()
        """Set once `run` has read the state on disk and took its tasks up again."""
        self._leaderless = False
        self._around = Surroundings(
            executor,
            attacher,
            clock,
            sleep,
            drain,
            leaderless=lambda: self._leaderless,
            ends_before=self._ends_before,
        )
        self._clock = clock
        self._kept = KeptState(state_dir)
        self._dependencies = DependencyStore()
        self._runners: dict[str, TaskRunner] = {}
        self._group: asyncio.TaskGroup | None = None
        self._leftovers: set[str] = set()
        self._search: asyncio.Task[None] | None = None
        self._reported: dict[str, TaskStatus] = {}
        self._unsaved: set[str] = set()
        self._gone: set[str] = set()
        self._unsaved_managers = False
        self._to_save = asyncio.Event()
        self._saving = asyncio.Lock()
        self._emptied = asyncio.Condition()

    # -- what others ask

    def handlers(self) -> dict[str, Handler]:
        """The methods that managers and other nodes may call on this node."""
        return {
            "logs": LogsHandler(self.runner, self._clock, self._around.sleep),
            "relay": RelayHandler(self.address),
        }

    def runner(self, task_id: str) -> TaskRunner | None:
        """The task's runner, None for one that this node does not hold."""
        return self._runners.get(task_id)

    def controller(self, task_id: str) -> Controller | None:
        """The task's controller, None before it was needed."""
        runner = self._runners.get(task_id)
        return runner.controller if runner is not None else None

    def address(self, task_id: str, port: int, protocol: str) -> tuple[str, int] | None:
        """Where a port of a task answers on this host, None while it does not run here."""
        controller = self.controller(task_id)
        return controller.address(port, protocol) if controller is not None else None

    def statuses(self) -> Mapping[str, TaskStatus]:
        """The newest status of every task of this node that is on disk and has been queued for a manager."""
        return self._reported

    # -- what a session brings

    def apply(self, assignments: Assignments) -> None:
        """Take over a manager's assignments: every task is told at once, what they do about it goes on.

        A complete one comes at the start of a session, after a time in which this node may have been away: what is
        unwanted by then gets no new connections, so it is stopped without draining.
        """
        complete = assignments.complete
        if complete:
            self._dependencies.replace(assignments.secrets, assignments.configs)
        else:
            self._dependencies.add(assignments.secrets, assignments.configs)
        removed = set(assignments.removed_tasks)
        for task in assignments.tasks:
            if not is_task_id(task.id):
                log.error("a manager assigned a task with the id %r, which is none: it is left out", task.id)
            elif task.id not in removed:
                self._assign(task, drain=not complete)
        if complete:
            named = {task.id for task in assignments.tasks}
            removed |= self._runners.keys() - named
        for task_id in removed:
            if task_id in self._runners:
                self._runners[task_id].forget(drain=not complete)
        for runner in self._runners.values():
            runner.reconsider()
        self._dependencies.drop(assignments.removed_secrets, assignments.removed_configs)
        if complete:
            self._look_for_leftovers()

    def set_leaderless(self, leaderless: bool) -> None:
        """Whether managers say that they have no leader and cannot have one: then tasks that end are run again here.

        As soon as it is over, and before anything is reported, no task is run again any more.
        """
        if leaderless != self._leaderless:
            self._leaderless = leaderless
            if leaderless:
                log.warning("the managers have no leader: tasks that fail are restarted here")
            else:
                log.info("tasks that fail are a leader's affair again")
            for runner in self._runners.values():
                runner.reconsider()

    def _ends_before(self, task: Task) -> list[int]:
        return local_restarts.ends_before(task, ((one.task, one.status) for one in self._runners.values()))

    def resend(self) -> None:
        """A new session: queue the newest status of every task."""
        self.outbox.resend(self._reported)

    def remember_managers(self, managers: list[ManagerAddress]) -> None:
        """Keep the managers' addresses for the next start."""
        if managers and managers != self.managers:
            self.managers = list(managers)
            self._unsaved_managers = True
            self._to_save.set()

    async def gone(self, task_id: str) -> None:
        """Return once the task is forgotten and nothing of it is left on this host."""
        async with self._emptied:
            await self._emptied.wait_for(lambda: task_id not in self._runners)

    async def clear(self) -> None:
        """Stop and remove everything, because the node left the cluster. Returns when nothing is left."""
        for runner in self._runners.values():
            runner.forget(drain=False)
        await self._look_for_leftovers()
        async with self._emptied:
            await self._emptied.wait_for(lambda: not self._runners)
        await self._save()

    # -- running

    async def run(self) -> None:
        """Take up what an earlier life of the agent left, then run tasks until cancelled. Containers go on after that."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._restore()
                group.create_task(self._keep_saving())
        finally:
            self._group = None
            await self._save()

    async def _restore(self) -> None:
        kept = await asyncio.to_thread(self._kept.load)
        for one in kept.tasks:
            # One that ended though it is wanted may have been about to run again.
            settled = not (one.status.state.terminal and one.task.desired_state.rank < TaskState.SHUTDOWN.rank)
            self._hold(one.task, one.status, confirmed=False, settled=settled)
            if _ours(one.status):
                self._reported[one.task.id] = one.status
        self.managers = self.managers or kept.managers
        self.restored.set()

    def _assign(self, task: Task, *, drain: bool) -> None:
        runner = self._runners.get(task.id)
        if runner is not None:
            runner.assign(task, drain=drain)
            self._mark(task.id)
        else:
            # Nobody here saw a task end that a manager calls ended: it may have been given up while it ran on.
            self._hold(task, task.status, confirmed=True, settled=not task.status.state.terminal)
            self._mark(task.id)

    def _hold(self, task: Task, status: TaskStatus, *, confirmed: bool, settled: bool) -> TaskRunner:
        if self._group is None:
            raise RuntimeError("the worker does not run")
        runner = TaskRunner(
            task, status, self._dependencies.of, self._around, self._on_status, confirmed=confirmed, settled=settled
        )
        self._runners[task.id] = runner
        self._group.create_task(self._run(runner), name=f"task {task.id}")
        return runner

    async def _run(self, runner: TaskRunner) -> None:
        await runner.run()
        task_id = runner.task.id
        del self._runners[task_id]
        self._unsaved.discard(task_id)
        self._reported.pop(task_id, None)
        self._leftovers.discard(task_id)
        self.outbox.drop(task_id)
        self._gone.add(task_id)
        self._to_save.set()
        async with self._emptied:
            self._emptied.notify_all()

    def _look_for_leftovers(self) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the worker does not run")
        if self._search is not None:
            self._search.cancel()
        self._search = self._group.create_task(self._remove_leftovers(), name="leftovers")
        return self._search

    async def _remove_leftovers(self) -> None:
        """Remove what is on this host of tasks that no manager knows, such as after the state on disk was damaged."""
        for attempt in itertools.count(1):
            try:
                known = await self.executor.known_tasks()
                break
            except TemporaryFailure as failure:
                log.warning("leftovers of earlier tasks cannot be looked for now: %s", failure)
            await self._around.sleep(retry_delay(attempt))
        for task_id in known:
            if task_id not in self._runners:
                log.info("task %s is on this host but nobody assigned it: it is removed", task_id)
                status = TaskStatus(state=TaskState.RUNNING)
                self._leftovers.add(task_id)
                self._hold(Task(id=task_id, status=status), status, confirmed=True, settled=True).forget(drain=False)

    # -- saving, then reporting

    def _on_status(self, runner: TaskRunner) -> None:
        task_id = runner.task.id
        if _fell(self._reported.get(task_id), runner.status):
            # The task runs again: a manager that has not heard of its end is not to hear of it any more.
            del self._reported[task_id]
            self.outbox.drop(task_id)
        self._mark(task_id)

    def _mark(self, task_id: str) -> None:
        self._unsaved.add(task_id)
        self._to_save.set()

    async def _keep_saving(self) -> None:
        attempt = 0
        while True:
            await self._to_save.wait()
            try:
                await self._save()
                attempt = 0
            except OSError as error:
                attempt += 1
                log.error("the worker's state cannot be written: %s; tasks go on, writing is tried again", error)
                await self._around.sleep(retry_delay(attempt))

    async def _save(self) -> None:
        """Write what changed, then queue it for the manager; a full disk delays neither tasks nor reports.

        Cancelled, it still ends with the write, so that two never run at once.
        """
        async with self._saving:
            self._to_save.clear()
            ids = [task_id for task_id in self._unsaved if task_id in self._runners and task_id not in self._leftovers]
            kept = [KeptTask(self._runners[task_id].task, self._runners[task_id].status) for task_id in ids]
            gone, managers = self._gone - self._runners.keys(), self.managers if self._unsaved_managers else None
            self._unsaved, self._gone, self._unsaved_managers = set(), set(), False
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, kept, gone, managers))
            try:
                await asyncio.shield(writing)
            except (OSError, asyncio.CancelledError):
                await asyncio.wait({writing})
                if writing.exception() is not None:
                    self._unsaved.update(ids)
                    self._gone |= gone
                    self._unsaved_managers = self._unsaved_managers or managers is not None
                    self._to_save.set()
                raise
            finally:
                for one in kept:
                    runner = self._runners.get(one.task.id)
                    if runner is not None and _ours(one.status) and not _fell(one.status, runner.status):
                        self._reported[one.task.id] = one.status
                        self.outbox.put(one.task.id, one.status)

    def _write(self, kept: list[KeptTask], gone: set[str], managers: list[ManagerAddress] | None) -> None:
        if kept or gone:
            self._kept.write_tasks(kept, gone)
        if managers is not None:
            self._kept.write_managers(managers)


def _ours(status: TaskStatus) -> bool:
    """Whether the status is this node's word; up to ASSIGNED it is the manager's own."""
    return status.state.rank > task_machine.MANAGERS_LAST.rank


def _fell(before: TaskStatus | None, now: TaskStatus) -> bool:
    """Whether a task ended and runs again."""
    return before is not None and before.state.rank > now.state.rank
