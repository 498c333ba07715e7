"""Changes of one node: availability, labels, several settings at once, removal. Roles are in `roles`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.errors import ConnectionFailed, EngineError, Unavailable
from swarmtui.docker_api.types import Task
from swarmtui.model.row_making import counts
from swarmtui.model.states import ended, task_glyph
from swarmtui.operations.base import (
    Change,
    Danger,
    Operation,
    OperationFailed,
    Phase,
    Preview,
    Progress,
    Report,
    SlotProgress,
)
from swarmtui.operations.client import OperationClient
from swarmtui.operations.sending import send
from swarmtui.operations.spec_changes import Path, child
from swarmtui.operations.spec_edit import Found, SpecEdit, restore
from swarmtui.operations.waiting import Patience, Timing

Written = Sequence[tuple[Path, Any, Any]]

AVAILABILITIES = ("active", "pause", "drain")
ROLES = ("worker", "manager")

_AVAILABILITY: Path = ("Availability",)
_VERBS = {"active": "activate", "pause": "pause", "drain": "drain"}


def found_node(raw: Json) -> Found:
    """A node's JSON as it was read; its name is the hostname."""
    try:
        name = (raw.get("Description") or {}).get("Hostname") or raw["Spec"].get("Name") or raw["ID"]
        return Found(raw["ID"], name, int(raw["Version"]["Index"]), raw["Spec"], raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OperationFailed(f"the engine's answer is no node: {error!r} is missing or wrong") from None


class NodeEdit(SpecEdit):
    """Base of the edits of a node."""

    async def _read(self) -> Found:
        return found_node(await self._client.raw_node(self._target))

    async def _write(self, found: Found, spec: Json) -> None:
        await self._client.update_node(found.id, found.version, spec)

    async def _settle(self, found: Found, report: Report) -> None:
        report(Progress(Phase.DONE, 1, 1, "done" if self._sent else "nothing to do"))

    async def _tasks(self, found: Found) -> list[Task]:
        return [task for task in await self._client.tasks({"node": [found.id]}) if counts(task)]


class SetAvailability(NodeEdit):
    """active: tasks come and stay; pause: none come; drain: all leave."""

    def __init__(self, client: OperationClient, node: str, availability: str, *, timing: Timing | None = None) -> None:
        """`availability`: active, pause or drain."""
        super().__init__(client, node, timing)
        if availability not in AVAILABILITIES:
            raise OperationFailed(f"{availability!r} is no availability; there are {', '.join(AVAILABILITIES)}")
        self._availability = availability
        self.danger = Danger.CAREFUL if availability == "drain" else Danger.NONE

    def _edit(self, spec: Json) -> None:
        spec["Availability"] = self._availability

    def _title(self, name: str, changes: Written) -> str:
        return f"{_VERBS[self._availability]} {name}"

    async def _lines(self, found: Found) -> tuple[str, ...]:
        if self._availability != "drain":
            if self._availability == "pause":
                return ("tasks that run stay; no new ones come",)
            return ("new tasks may come; those that left do not come back by themselves",)
        tasks = await self._tasks(found)
        return (f"{len(tasks)} task(s) stop here and are started on other nodes where they fit",)

    async def _settle(self, found: Found, report: Report) -> None:
        if self._availability != "drain" or not self._sent:
            await super()._settle(found, report)
            return
        leaving: dict[str, Task] = {}
        patience = Patience(self._timing, report)
        while True:
            try:
                assigned = await self._client.tasks({"node": [found.id]})
            except (ConnectionFailed, Unavailable) as error:
                await patience.lost(error)
                continue
            except EngineError as error:
                raise OperationFailed(f"{found.name} is drained, but its tasks cannot be read: {error}") from error
            patience.reached()
            tasks = [task for task in assigned if not ended(task.status.state)]
            leaving.update({task.id: task for task in tasks})
            done, total = len(leaving) - len(tasks), len(leaving)
            if not tasks:
                report(Progress(Phase.DONE, done, total, f"no task is left on {found.name}"))
                return
            slots = tuple(
                SlotProgress(task.name or task.id, task.status.state, task_glyph(task.status.state), task.status.err)
                for task in tasks
            )
            report(Progress(Phase.CONVERGING, done, total, f"{len(tasks)} task(s) still on {found.name}", slots))
            await self._timing.sleep(self._timing.poll)

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        before = next((old for path, old, _ in written if path == _AVAILABILITY), None)
        if before not in AVAILABILITIES:
            return None
        return SetAvailability(self._client, found.id, before, timing=self._timing)


class DrainNode(SetAvailability):
    """All tasks leave the node."""

    def __init__(self, client: OperationClient, node: str, *, timing: Timing | None = None) -> None:
        """`node`: id or hostname."""
        super().__init__(client, node, "drain", timing=timing)


class PauseNode(SetAvailability):
    """No new tasks come to the node."""

    def __init__(self, client: OperationClient, node: str, *, timing: Timing | None = None) -> None:
        """`node`: id or hostname."""
        super().__init__(client, node, "pause", timing=timing)


class ActivateNode(SetAvailability):
    """Tasks may come to the node again."""

    def __init__(self, client: OperationClient, node: str, *, timing: Timing | None = None) -> None:
        """`node`: id or hostname."""
        super().__init__(client, node, "active", timing=timing)


class LabelNode(NodeEdit):
    """Add, change and take away labels."""

    def __init__(
        self,
        client: OperationClient,
        node: str,
        *,
        add: Mapping[str, str] | None = None,
        remove: Sequence[str] = (),
        timing: Timing | None = None,
    ) -> None:
        """`add`: labels with their values; `remove`: keys."""
        super().__init__(client, node, timing)
        self._add = dict(add or {})
        self._remove = tuple(remove)

    def _edit(self, spec: Json) -> None:
        labels = child(spec, "Labels")
        labels.update(self._add)
        for key in self._remove:
            labels.pop(key, None)

    def _title(self, name: str, changes: Written) -> str:
        words = [f"{key}={value}" if value else key for key, value in self._add.items()]
        words += [f"-{key}" for key in self._remove]
        return f"label {name} {' '.join(words)}".rstrip()

    async def _lines(self, found: Found) -> tuple[str, ...]:
        return ("tasks whose constraints this node no longer meets are stopped and started elsewhere",)

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        labels = [(path[1], old) for path, old, _ in written if len(path) == 2 and path[0] == "Labels"]
        return LabelNode(
            self._client,
            found.id,
            add={key: str(old) for key, old in labels if old is not None},
            remove=[key for key, old in labels if old is None],
            timing=self._timing,
        )


class NodeUpdate(NodeEdit):
    """Several of a node's settings in one write, as `node update` has them."""

    def __init__(
        self,
        client: OperationClient,
        node: str,
        *,
        availability: str | None = None,
        role: str | None = None,
        add: Mapping[str, str] | None = None,
        remove: Sequence[str] = (),
        restored: Written = (),
    ) -> None:
        """What is None stays; `restored`: values to put back instead."""
        super().__init__(client, node)
        if availability not in (None, *AVAILABILITIES) or role not in (None, *ROLES):
            raise OperationFailed(f"unknown availability {availability!r} or role {role!r}")
        self._settings = {"Availability": availability, "Role": role}
        self._add = dict(add or {})
        self._remove = tuple(remove)
        self._restored = restored

    def _edit(self, spec: Json) -> None:
        restore(self._restored)(spec)
        spec.update({key: value for key, value in self._settings.items() if value is not None})
        labels = child(spec, "Labels")
        labels.update(self._add)
        for key in self._remove:
            if key not in labels:
                raise OperationFailed(f"key {key} doesn't exist in node's labels")
            labels.pop(key)

    def _title(self, name: str, changes: Written) -> str:
        return f"update {name}"

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        return NodeUpdate(self._client, found.id, restored=written)


class RemoveNode:
    """Forget a node that is down (or, with `force`, any worker). Cannot be undone: it would have to join again."""

    danger = Danger.DESTRUCTIVE

    def __init__(self, client: OperationClient, node: str, *, force: bool = False) -> None:
        """`node`: id or hostname."""
        self._client = client
        self._target = node
        self._force = force
        self._found: Found | None = None
        self._sent = False

    @property
    def title(self) -> str:
        """`remove node3`."""
        return f"remove {self.confirmation}" + (" by force" if self._force else "")

    @property
    def confirmation(self) -> str:
        """The node's hostname."""
        return self._found.name if self._found else self._target

    @property
    def targets(self) -> tuple[str, ...]:
        """The node's id, or what it was called before it was read."""
        return (self._found.id if self._found else self._target,)

    @property
    def sent(self) -> bool:
        """True once the engine has removed it."""
        return self._sent

    async def preview(self) -> Preview:
        """What is lost."""
        try:
            found = self._found = found_node(await self._client.raw_node(self._target))
            tasks = [task for task in await self._client.tasks({"node": [found.id]}) if counts(task)]
        except EngineError as error:
            raise OperationFailed(str(error)) from error
        state = (found.raw.get("Status") or {}).get("State", "unknown")
        lines = [f"{found.name} is {state}; {len(tasks)} task(s) assigned to it are started elsewhere"]
        if state != "down" and not self._force:
            lines.append("the cluster refuses this while the node is not down; drain it and let it leave first")
        return Preview(self.title, (Change("node", found.name, ""),), tuple(lines))

    async def submit(self) -> None:
        """Remove it."""
        if self._sent:
            return
        try:
            await send(self._remove())
        except EngineError as error:
            raise OperationFailed(str(error)) from error

    async def run(self, report: Report) -> None:
        """Remove it; nothing is waited for."""
        report(Progress(Phase.SENDING, message=self.title))
        try:
            await self.submit()
        except OperationFailed as error:
            report(Progress(Phase.FAILED, message=str(error)))
            raise
        report(Progress(Phase.DONE, 1, 1, f"{self.confirmation} is removed"))

    def inverse(self) -> Operation | None:
        """None: a removed node has to join again."""
        return None

    async def _remove(self) -> None:
        target = self._found.id if self._found else self._target
        await self._client.remove_node(target, self._force)
        self._sent = True
