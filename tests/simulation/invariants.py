"""What must hold after every single commit, whatever fails."""

from __future__ import annotations

from agent.api_types.service import Service, UpdateOrder
from agent.api_types.task import Task, TaskState
from agent.manager.orchestrator.updater import rules_of
from agent.manager.slots import ended, slot_key, wanted
from agent.store.watching import Commit, EventKind


class Broken(AssertionError):
    """An invariant does not hold; the text says which and where."""


class Invariants:
    """A shadow of the store, built from commits alone."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.services: dict[str, Service] = {}
        self._slots: dict[tuple[str, int | str], set[str]] = {}
        self._ever_start_first: set[str] = set()
        self._index = 0

    def check(self, commit: Commit) -> None:
        if commit.index <= self._index:
            raise Broken(f"commit {commit.index} after {self._index}")
        self._index = commit.index
        touched = set()
        for event in commit.events:
            if isinstance(event.object, Service):
                self._note_service(event.object, event.kind)
            if isinstance(event.object, Task):
                if event.kind is EventKind.REMOVE:
                    self.tasks.pop(event.object.id)
                    self._slots[slot_key(event.object)].discard(event.object.id)
                    continue
                self._check_rise(event.object)
                self.tasks[event.object.id] = event.object
                self._slots.setdefault(slot_key(event.object), set()).add(event.object.id)
                touched.add(slot_key(event.object))
        for key in touched:
            self._check_slot(key)
        for event in commit.events:
            if isinstance(event.object, Task) and event.object.node_id and event.kind is not EventKind.REMOVE:
                self._check_host_ports(event.object)

    def _note_service(self, service: Service, kind: EventKind) -> None:
        if kind is EventKind.REMOVE:
            self.services.pop(service.id, None)
            return
        self.services[service.id] = service
        for config in (service.spec.update_config, service.spec.rollback_config):
            if rules_of(config).order is UpdateOrder.START_FIRST:
                self._ever_start_first.add(service.id)

    def _check_rise(self, task: Task) -> None:
        old = self.tasks.get(task.id)
        if old is None:
            return
        if task.version.index <= old.version.index:
            raise Broken(f"task {task.id}: version {old.version.index} -> {task.version.index}")
        if task.status.state.rank < old.status.state.rank:
            raise Broken(f"task {task.id}: state {old.status.state} -> {task.status.state}")
        if ended(old) and task.status.state is not old.status.state:
            raise Broken(f"task {task.id} ended {old.status.state} and is {task.status.state} now")
        if task.desired_state.rank < old.desired_state.rank:
            raise Broken(f"task {task.id}: desired {old.desired_state} -> {task.desired_state}")
        if old.node_id and task.node_id != old.node_id:
            raise Broken(f"task {task.id} moved from {old.node_id} to {task.node_id}")

    def _check_slot(self, key: tuple[str, int | str]) -> None:
        present = [self.tasks[task_id] for task_id in self._slots[key]]
        running = [task for task in present if task.desired_state is TaskState.RUNNING]
        if len([task for task in present if wanted(task)]) <= 1:
            return
        if key[0] in self._ever_start_first and len(running) <= 2:
            return
        raise Broken(f"slot {key} wants {[(task.id, task.desired_state.value) for task in present if wanted(task)]}")

    def _check_host_ports(self, task: Task) -> None:
        if ended(task) or task.endpoint is None or task.status.state.rank < TaskState.ASSIGNED.rank:
            return
        mine = {port.published_port for port in task.endpoint.spec.ports if port.publish_mode == "host"}
        for other in self.tasks.values() if mine else ():
            if other.id == task.id or other.node_id != task.node_id or ended(other) or other.endpoint is None:
                continue
            if other.status.state.rank < TaskState.ASSIGNED.rank:
                continue
            theirs = {port.published_port for port in other.endpoint.spec.ports if port.publish_mode == "host"}
            if mine & theirs:
                raise Broken(f"tasks {task.id} and {other.id} share host port {mine & theirs} on {task.node_id}")
