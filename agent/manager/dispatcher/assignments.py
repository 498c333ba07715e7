"""What a node is to run: its tasks, and the secrets and configs that those use, as a whole and as differences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.api_types.network import NetworkAttachment
from agent.api_types.secret import Config, Secret
from agent.api_types.task import Endpoint, Task, TaskState
from agent.manager.slots import ended, wanted
from agent.rpc.messages import Assignments
from agent.store.transactions import ReadTx


@dataclass(frozen=True, slots=True)
class _Sent:
    """What of a task may change for its node; the rest of a task never changes, or comes from the node itself."""

    desired_state: TaskState
    endpoint: Endpoint | None
    attachments: list[NetworkAttachment]


@dataclass(frozen=True, slots=True)
class References:
    """Ids of the secrets and configs that a task reads."""

    secrets: frozenset[str] = frozenset()
    configs: frozenset[str] = frozenset()


_NONE = References()


def references_of(task: Task) -> References:
    """What a task needs to be told. One that ended, or is to end, needs nothing."""
    container = task.spec.container_spec
    if container is None or ended(task) or not wanted(task):
        return _NONE
    if not container.secrets and not container.configs:
        return _NONE
    return References(
        frozenset(each.secret_id for each in container.secrets), frozenset(each.config_id for each in container.configs)
    )


def is_assigned(task: Task) -> bool:
    """Whether the task's node may know of it: the scheduler gave it to the node, or confirmed it there."""
    return bool(task.node_id) and task.status.state.rank >= TaskState.ASSIGNED.rank


class NodeAssignments:
    """What one session was told so far."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._tasks: dict[str, _Sent] = {}
        self._references: dict[str, References] = {}
        self._secrets: set[str] = set()
        self._configs: set[str] = set()

    def complete(self, tx: ReadTx, index: int) -> Assignments:
        """Everything the node is to have; what it has beyond that it forgets."""
        tasks = [task for task in tx.find(Task, "node", self._node_id) if is_assigned(task)]
        self._tasks = {task.id: _sent(task) for task in tasks}
        self._references = {task.id: found for task in tasks if (found := references_of(task)) is not _NONE}
        self._secrets, self._configs = self._needed()
        return Assignments(
            index=index,
            complete=True,
            tasks=tasks,
            secrets=_read(tx, Secret, self._secrets),
            configs=_read(tx, Config, self._configs),
        )

    def difference(self, tx: ReadTx, index: int, task_ids: Iterable[str]) -> Assignments | None:
        """What changed for the node with these tasks; None when nothing did."""
        tasks: list[Task] = []
        removed: list[str] = []
        for task_id in task_ids:
            task = tx.get(Task, task_id)
            if task is None or task.node_id != self._node_id:
                self._references.pop(task_id, None)
                if self._tasks.pop(task_id, None) is not None:
                    removed.append(task_id)
                continue
            if not is_assigned(task):
                continue
            self._note_references(task)
            sent = _sent(task)
            if self._tasks.get(task_id) != sent:
                self._tasks[task_id] = sent
                tasks.append(task)
        secrets, configs = self._needed()
        message = Assignments(
            index=index,
            complete=False,
            tasks=tasks,
            removed_tasks=removed,
            secrets=_read(tx, Secret, secrets - self._secrets),
            removed_secrets=sorted(self._secrets - secrets),
            configs=_read(tx, Config, configs - self._configs),
            removed_configs=sorted(self._configs - configs),
        )
        self._secrets, self._configs = secrets, configs
        is_empty = not (tasks or removed or message.secrets or message.removed_secrets)
        return None if is_empty and not (message.configs or message.removed_configs) else message

    def _note_references(self, task: Task) -> None:
        found = references_of(task)
        if found is _NONE:
            self._references.pop(task.id, None)
        else:
            self._references[task.id] = found

    def _needed(self) -> tuple[set[str], set[str]]:
        secrets: set[str] = set()
        configs: set[str] = set()
        for each in self._references.values():
            secrets |= each.secrets
            configs |= each.configs
        return secrets, configs


def _sent(task: Task) -> _Sent:
    return _Sent(task.desired_state, task.endpoint, task.networks_attachments)


def _read(tx: ReadTx, kind: type, ids: Iterable[str]) -> list:  # type: ignore[type-arg]
    return [found for object_id in sorted(ids) if (found := tx.get(kind, object_id)) is not None]
