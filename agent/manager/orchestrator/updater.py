"""Rolling updates and rollbacks, as a function of what the store shows.

Nothing of an update lives in memory: which slots are out of date follows from the spec versions, which tasks belong to
the update from when they were made, how far it is from their states. A new leader therefore goes on with it, and a new
spec cancels the update that runs simply by being another one.

A slot counts as failed when a task of the update in it ended before it ran, or within `monitor` of running. Docker counts
only while a worker looks and lets a failure between two slots pass (recorded: one of two slots failed and the other one
was updated none the less); here the ratio is looked at before every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TypeVar

import msgspec

from agent.api_types.service import FailureAction, Service, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus
from agent.api_types.task import Task, TaskState
from agent.api_types.times import SECOND, format_time, parse_time
from agent.manager.orchestrator.changes import NewTask, SlotChange, replace_all
from agent.manager.slots import NodeOf, Slot, ended, ended_by_itself, same_spec_version, up_to_date, wanted

DEFAULT_MONITOR = 5 * SECOND

IN_PROGRESS = "update in progress"
COMPLETED = "update completed"
ROLLBACK_COMPLETED = "rollback completed"

RanFor = Callable[[Task], int | None]
"""How long (nanoseconds) a task that ended had been running; None when it never ran or nobody saw it run."""

_ACTIVE = frozenset({UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED})
_PAUSED = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})


@dataclass(frozen=True, slots=True)
class Rules:
    """An update config with the defaults filled in; `parallelism` 0 means all at once, durations in nanoseconds."""

    parallelism: int = 1
    delay: int = 0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor: int = DEFAULT_MONITOR
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


def rules_of(config: UpdateConfig | None) -> Rules:
    """The rules of an update or rollback config; empty words mean the defaults."""
    if config is None:
        return Rules()
    return Rules(
        parallelism=config.parallelism,
        delay=config.delay,
        failure_action=_word(FailureAction, config.failure_action, FailureAction.PAUSE),
        monitor=config.monitor or DEFAULT_MONITOR,
        max_failure_ratio=config.max_failure_ratio,
        order=_word(UpdateOrder, config.order, UpdateOrder.STOP_FIRST),
    )


E = TypeVar("E", bound=StrEnum)


def _word(kind: type[E], word: str, default: E) -> E:
    """The API refuses words that it does not know; should one be in the store all the same, the default holds."""
    try:
        return kind(word)
    except ValueError:
        return default


def state_of(service: Service) -> UpdateState | None:
    """Where the service's update is; None when there is none."""
    status = service.update_status
    return UpdateState(status.state) if status is not None and status.state else None


def is_updating(service: Service) -> bool:
    """Whether an update or a rollback of the service is under way."""
    return state_of(service) in _ACTIVE


class Progress(Enum):
    """Where a slot is in an update."""

    OUTDATED = auto()
    """No task of the new spec is wanted in it."""
    STARTING = auto()
    """A task of the new spec is wanted and does not run yet."""
    RUNNING = auto()
    """A task of the new spec runs."""
    SETTLED = auto()
    """A task of the new spec ended and the restart policy leaves it at that. With start-first the old one may still run:
    it does until the new one has finished well, since it is better than nothing."""


@dataclass(frozen=True, slots=True)
class SlotProgress:
    """A slot in an update: `current` the wanted task of the new spec, `leftover` wanted tasks of older specs,
    `failed` a task of this update that ended too early, `since` when the slot came to where it is (nanoseconds)."""

    slot: Slot
    progress: Progress
    current: Task | None
    leftover: tuple[Task, ...]
    fresh: bool
    failed: Task | None
    since: int


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """The next step of an update: slots to change, a new service (status, or spec when it is rolled back), and when to
    look again without a change in the store."""

    changes: Sequence[SlotChange] = ()
    status: UpdateStatus | None = None
    rollback: bool = False
    wake_at: int | None = None


def plan_update(service: Service, slots: Iterable[Slot], *, node_of: NodeOf, ran_for: RanFor, now: int) -> UpdatePlan:
    """What the update of the service needs next. `slots` are those that the service is to keep."""
    state = state_of(service)
    if state in _PAUSED:
        return UpdatePlan()
    if state not in _ACTIVE:
        # Most services are not being updated, and most slots are plainly as the spec wants them.
        slots = [slot for slot in slots if not _is_plainly_current(slot, service)]
        if not slots:
            return UpdatePlan()
    rolling_back = state is UpdateState.ROLLBACK_STARTED
    rules = rules_of(service.spec.rollback_config if rolling_back else service.spec.update_config)
    began = _began(service)
    began_text = format_time(began) if began else ""
    seen = [slot_progress(slot, service, node_of, began_text, rules.monitor, ran_for) for slot in slots]
    outdated = [each for each in seen if each.progress is Progress.OUTDATED]
    if state not in _ACTIVE:
        if not outdated:
            return UpdatePlan(changes=_finish(seen, rules))
        begun = UpdateStatus(state=UpdateState.UPDATING, started_at=format_time(now), message=IN_PROGRESS)
        return UpdatePlan(changes=_next_slots(outdated, rules, rules.parallelism or len(outdated)), status=begun)
    if not began:
        # Who started a rollback by hand may have left out when.
        dated = msgspec.structs.replace(service.update_status or UpdateStatus(), started_at=format_time(now))
        return UpdatePlan(status=dated)
    failed = [each for each in seen if each.failed is not None]
    involved = sum(1 for each in seen if each.fresh or each.progress is Progress.OUTDATED)
    if failed and len(failed) / max(involved, 1) > rules.max_failure_ratio:
        stop = _on_failure(service, rules, failed, now, rolling_back)
        if stop is not None:
            return stop
    return _advance(service, seen, outdated, rules, now, rolling_back)


def _is_plainly_current(slot: Slot, service: Service) -> bool:
    return len(slot.wanted) == 1 and slot.wanted[0].spec_version == service.spec_version is not None


def slot_progress(
    slot: Slot, service: Service, node_of: NodeOf, began: str, monitor: int, ran_for: RanFor
) -> SlotProgress:
    """Where a slot is; `began` is when the update began ("" for no update)."""
    current: Task | None = None
    leftover: list[Task] = []
    for task in slot.wanted:
        if up_to_date(task, service, node_of):
            current = task
        else:
            leftover.append(task)
    fresh_tasks = [
        task for task in slot.tasks if began and task.created_at >= began and same_spec_version(task, service)
    ]
    failed = next((task for task in fresh_tasks if _failed_early(task, monitor, ran_for)), None)
    newest = slot.newest
    if current is not None:
        running = current.status.state is TaskState.RUNNING
        progress = Progress.RUNNING if running else Progress.STARTING
        since = _time(current.updated_at if running else current.created_at)
    elif newest is not None and not wanted(newest) and ended(newest) and up_to_date(newest, service, node_of):
        progress, since = Progress.SETTLED, _time(newest.updated_at)
    else:
        progress, since = Progress.OUTDATED, 0
    return SlotProgress(slot, progress, current, tuple(leftover), bool(fresh_tasks), failed, since)


def _failed_early(task: Task, monitor: int, ran_for: RanFor) -> bool:
    if not ended_by_itself(task):
        return False
    if task.status.state is TaskState.REJECTED:
        return True
    ran = ran_for(task)
    if ran is None:
        # Nobody saw it run: either it did not, or another leader saw it. Its whole life bounds its running.
        ran = _time(task.status.timestamp) - _time(task.created_at)
    return ran <= monitor


def _advance(
    service: Service,
    seen: Sequence[SlotProgress],
    outdated: Sequence[SlotProgress],
    rules: Rules,
    now: int,
    rolling_back: bool,
) -> UpdatePlan:
    busy = 0
    wake_at: list[int] = []
    for each in seen:
        if not each.fresh or each.failed is not None:
            continue
        if each.progress is Progress.STARTING:
            busy += 1
        elif each.progress is Progress.RUNNING and outdated and each.since + rules.delay > now:
            busy += 1
            wake_at.append(each.since + rules.delay)
    changes = _finish(seen, rules)
    if outdated:
        free = len(outdated) if not rules.parallelism else max(0, rules.parallelism - busy)
        changes += _next_slots(outdated, rules, free)
        return UpdatePlan(changes=changes, wake_at=min(wake_at, default=None))
    monitored = [each for each in seen if each.fresh]
    if any(each.progress is Progress.STARTING and each.failed is None for each in monitored):
        return UpdatePlan(changes=changes)
    quiet_at = max((_stable_since(each) + rules.monitor for each in monitored), default=0)
    if quiet_at > now:
        return UpdatePlan(changes=changes, wake_at=quiet_at)
    if any(each.leftover and each.progress is not Progress.SETTLED for each in seen):
        return UpdatePlan(changes=changes)
    started = service.update_status.started_at if service.update_status is not None else None
    done = UpdateStatus(
        state=UpdateState.ROLLBACK_COMPLETED if rolling_back else UpdateState.COMPLETED,
        started_at=started or format_time(now),
        completed_at=format_time(now),
        message=ROLLBACK_COMPLETED if rolling_back else COMPLETED,
    )
    return UpdatePlan(changes=changes, status=done)


def _stable_since(each: SlotProgress) -> int:
    """From when a slot is monitored; a slot that failed and is tolerated counts from its failure."""
    if each.failed is not None and each.progress is Progress.STARTING:
        return _time(each.failed.status.timestamp)
    return each.since


def _finish(seen: Iterable[SlotProgress], rules: Rules) -> list[SlotChange]:
    """Old tasks that may stop now: start-first keeps one until the new one runs."""
    changes = []
    for each in seen:
        stop = _stoppable(each, rules.order) if each.leftover else ()
        if stop:
            changes.append(SlotChange(each.slot, tuple((task, TaskState.SHUTDOWN) for task in stop)))
    return changes


def _stoppable(each: SlotProgress, order: UpdateOrder) -> tuple[Task, ...]:
    """Which of a slot's old tasks are not needed any more."""
    newest = each.slot.newest
    match each.progress:
        case Progress.RUNNING:
            return each.leftover
        case Progress.STARTING if order is UpdateOrder.STOP_FIRST:
            return each.leftover
        case Progress.STARTING:
            # Of several old ones (an update that was itself replaced) only one that runs is worth keeping.
            kept = [task for task in each.leftover if task.status.state is TaskState.RUNNING][:1]
            return tuple(task for task in each.leftover if task not in kept)
        case Progress.SETTLED if newest is not None and newest.status.state is TaskState.COMPLETE:
            return each.leftover
        case _:
            return ()


def _next_slots(outdated: Sequence[SlotProgress], rules: Rules, count: int) -> list[SlotChange]:
    return [replace_outdated(each.slot, rules.order) for each in outdated[:count]]


def replace_outdated(slot: Slot, order: UpdateOrder) -> SlotChange:
    """Put a task of the new spec into a slot. stop-first: the old one stops first; start-first: it stays until then."""
    if order is UpdateOrder.START_FIRST:
        keep = [task for task in slot.wanted if task.status.state is TaskState.RUNNING][:1]
        old = tuple((task, TaskState.SHUTDOWN) for task in slot.wanted if task not in keep)
        return SlotChange(slot, old, NewTask(TaskState.RUNNING))
    must_wait = any(not ended(task) and task.node_id for task in slot.wanted)
    return replace_all(slot, NewTask(TaskState.READY if must_wait else TaskState.RUNNING))


def _on_failure(
    service: Service, rules: Rules, failed: Sequence[SlotProgress], now: int, rolling_back: bool
) -> UpdatePlan | None:
    """Pause or roll back; None to go on in spite of the failures."""
    task = failed[0].failed
    if rules.failure_action is FailureAction.CONTINUE or task is None:
        return None
    reason = f"due to failure or early termination of task {task.id}"
    status = service.update_status or UpdateStatus()
    started = status.started_at or format_time(now)
    if rules.failure_action is FailureAction.ROLLBACK and not rolling_back and service.previous_spec is not None:
        status = UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED, started_at=started, message=f"update rolled back {reason}"
        )
        return UpdatePlan(status=status, rollback=True)
    word, state = ("rollback", UpdateState.ROLLBACK_PAUSED) if rolling_back else ("update", UpdateState.PAUSED)
    return UpdatePlan(status=UpdateStatus(state=state, started_at=started, message=f"{word} paused {reason}"))


def rolled_back(service: Service, status: UpdateStatus) -> Service:
    """The service with its spec and its previous spec exchanged."""
    if service.previous_spec is None:
        return msgspec.structs.replace(service, update_status=status)
    return msgspec.structs.replace(
        service,
        spec=service.previous_spec,
        spec_version=service.previous_spec_version,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=status,
    )


def _began(service: Service) -> int:
    status = service.update_status
    return _time(status.started_at) if status is not None and status.started_at else 0


def _time(text: str | None) -> int:
    return parse_time(text) if text else 0
