"""Why things are as they are, in sentences for people and with what to do about it.

Everything is derived from the store when somebody asks, so an explanation is never older than the state that it explains.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.api_types.service import Service, UpdateState
from agent.api_types.task import Task, TaskState
from agent.api_types.times import Clock
from agent.manager.allocator.troubles import troubles_of_service
from agent.manager.explain_network import explain_network
from agent.manager.explain_task import Explanation, TaskStory, listed, sentence
from agent.manager.orchestrator.updater import state_of
from agent.manager.slots import is_global_service, is_job, replicas_of, slots_of
from agent.store.store import Store
from agent.store.transactions import ReadTx


class Explainer:
    """Answers `/swarmtui/v1/explain`. `suspected` tells whether a node's connection broke, which the store does not know."""

    def __init__(self, store: Store, clock: Clock, suspected: Callable[[str], bool]) -> None:
        self._store = store
        self._clock = clock
        self._suspected = suspected

    def explain_task(self, task_id: str) -> Explanation:
        """Why the task is where it is, or why it waits. The id is known to exist."""
        return self._store.view(lambda tx: TaskStory(tx, task_id, self._clock(), self._suspected).tell())

    def explain_service(self, service_id: str) -> Explanation:
        """Why the service runs what it runs. The id is known to exist."""
        return self._store.view(lambda tx: _explain_service(tx, service_id, self._clock(), self._suspected))

    def explain_network(self, network_id: str) -> Explanation:
        """Who is on the network, and who waits for it. The id is known to exist."""
        return self._store.view(lambda tx: explain_network(tx, network_id, self._suspected))


def _explain_service(tx: ReadTx, service_id: str, now: int, suspected: Callable[[str], bool]) -> Explanation:
    service = tx.get(Service, service_id)
    if service is None:
        raise KeyError(service_id)
    slots = slots_of(service, tx.find(Task, "service", service_id))
    current = [task for slot in slots.values() for task in slot.wanted]
    running = sum(task.status.state is TaskState.RUNNING for task in current)
    reasons: list[str] = []
    advice: list[str] = []
    if is_job(service):
        summary = "The service is a job; jobs are kept but not run yet."
    elif is_global_service(service):
        summary = f"{running} of {len(current)} tasks run, one on each node that fits."
    else:
        summary = f"{running} of {replicas_of(service)} replicas run."
    _tell_of_update(service, reasons, advice)
    stories: dict[tuple[str, ...], list[Explanation]] = {}
    for task in sorted(current, key=lambda each: (each.slot, each.node_id)):
        if task.status.state is not TaskState.RUNNING:
            story = TaskStory(tx, task.id, now, suspected).tell()
            stories.setdefault((story.summary, *story.advice), []).append(story)
    for group in stories.values():
        first = group[0]
        names = listed([story.name for story in group])
        reasons.append(" ".join([f"{names}: {first.summary}", *first.reasons]))
        advice += [text for text in first.advice if text not in advice]
    for slot in slots.values():
        newest = slot.newest
        if newest is not None and not slot.wanted and newest.desired_state is TaskState.SHUTDOWN:
            story = TaskStory(tx, newest.id, now, suspected).tell()
            reasons.append(" ".join([f"{story.name}: {story.summary}", *story.reasons]))
            advice += [text for text in story.advice if text not in advice]
    for trouble in troubles_of_service(tx, service):
        if not any(sentence(trouble.text) in reason for reason in reasons):
            reasons.append(f"{sentence(trouble.text)}.")
        told = trouble.advice.replace("SERVICE", service.spec.name)
        if told not in advice:
            advice.append(told)
    return Explanation("service", service.id, service.spec.name, summary, reasons, advice)


def _tell_of_update(service: Service, reasons: list[str], advice: list[str]) -> None:
    name = service.spec.name
    status = service.update_status
    if status is None:
        return
    match state_of(service):
        case UpdateState.UPDATING:
            reasons.append("An update is under way.")
        case UpdateState.ROLLBACK_STARTED:
            reasons.append(f"A rollback is under way: {status.message}.")
        case UpdateState.PAUSED:
            reasons.append(f"The update stopped half way: {status.message}.")
            advice.append(f"Look at the task's log and mend the cause, then update again: docker service update {name}")
            advice.append(f"Or go back to the spec before: docker service rollback {name}")
        case UpdateState.ROLLBACK_PAUSED:
            reasons.append(f"The rollback stopped half way: {status.message}.")
            advice.append(f"Mend the cause, then update the service to a spec that works: docker service update {name}")
        case UpdateState.ROLLBACK_COMPLETED:
            reasons.append("The service was rolled back to the spec before.")
        case _:
            pass
