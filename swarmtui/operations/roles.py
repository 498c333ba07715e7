"""Promote and demote: a node's part in the managers' group, with what that means for failures."""

from __future__ import annotations

from typing import Any

from swarmtui.docker_api.answers import Json
from swarmtui.docker_api.errors import ConnectionFailed, EngineError, NotAManager, Unavailable
from swarmtui.docker_api.types import Node
from swarmtui.operations.base import Change, Danger, Operation, OperationFailed, Phase, Preview, Progress, Report
from swarmtui.operations.client import OperationClient
from swarmtui.operations.nodes import ROLES, NodeEdit
from swarmtui.operations.spec_changes import Path, value_at
from swarmtui.operations.spec_edit import Found
from swarmtui.operations.tolerance import Managers, managers_of, refuse_lost_quorum, tolerance_changes, tolerance_lines
from swarmtui.operations.waiting import Patience, Timing

_ROLE: Path = ("Role",)
SETTLE_SECONDS = 60.0
"""How long the group may take to let a member in or out before the waiting ends; the cluster goes on trying."""


class SetRole(NodeEdit):
    """Promote a worker to manager, or demote a manager."""

    danger = Danger.CAREFUL

    def __init__(self, client: OperationClient, node: str, role: str, *, timing: Timing | None = None) -> None:
        """`role`: worker or manager."""
        super().__init__(client, node, timing)
        if role not in ROLES:
            raise OperationFailed(f"{role!r} is no role; there are {', '.join(ROLES)}")
        self._role = role
        self._numbers: tuple[Change, ...] = ()

    async def preview(self) -> Preview:
        """What changes, and how many failures of managers are survived before and after."""
        preview = await super().preview()
        if preview.nothing_to_do:
            return preview
        return Preview(preview.title, (*preview.changes, *self._numbers), preview.lines, preview.undo)

    def _edit(self, spec: Json) -> None:
        spec["Role"] = self._role

    def _title(self, name: str, changes: Any) -> str:
        return f"{'promote' if self._role == 'manager' else 'demote'} {name}"

    async def _lines(self, found: Found) -> tuple[str, ...]:
        if value_at(found.spec, _ROLE) == self._role:
            return ()
        try:
            nodes = await self._client.nodes()
        except EngineError as error:
            raise OperationFailed(str(error)) from error
        before = managers_of(nodes)
        node = next((each for each in nodes if each.id == found.id), None)
        if self._role == "manager":
            ready = node is not None and node.status.state == "ready"
            after = Managers(before.count + 1, before.answering + ready)
            lines = [f"{found.name} takes over the whole log first, and votes as soon as it has it"]
            if not ready:
                lines.append(f"warning: {found.name} is not ready: it becomes a manager when it is back")
        else:
            after = managers_of(nodes, without=found.id)
            refuse_lost_quorum(before, after, found.name)
            lines = _what_a_demotion_does(node, found.name)
        self._numbers = tolerance_changes(before, after)
        return (*lines, *tolerance_lines(before, after))

    async def _settle(self, found: Found, report: Report) -> None:
        """Stays until the group has let the node in, or out."""
        if not self._sent:
            await super()._settle(found, report)
            return
        patience = Patience(self._timing, report)
        start = patience.reached()
        promoted = self._role == "manager"
        while True:
            try:
                status = (await self._client.raw_node(found.id)).get("ManagerStatus") or {}
            except (ConnectionFailed, Unavailable, NotAManager) as error:
                # Whoever is demoted stops answering for the cluster in the middle of it.
                await patience.lost(error)
                continue
            except EngineError as error:
                raise OperationFailed(
                    f"{self.title} was accepted, but then {found.name} cannot be read: {error}"
                ) from error
            now = patience.reached()
            reachable = status.get("Reachability") == "reachable"
            if reachable if promoted else not status:
                report(Progress(Phase.DONE, 1, 1, f"{found.name} is {'a manager' if promoted else 'a worker'} now"))
                return
            if now - start > SETTLE_SECONDS:
                word = "in" if promoted else "out"
                raise OperationFailed(
                    f"the change was accepted, but the managers have not let {found.name} {word} within "
                    f"{SETTLE_SECONDS:.0f} s; they go on trying"
                )
            waits = "it takes over the log" if status else "it gets a manager's certificate"
            report(Progress(Phase.CONVERGING, 0, 1, waits if promoted else "the other managers let it go"))
            await self._timing.sleep(self._timing.poll)

    def _undo(self, found: Found, written: list[tuple[Path, Any, Any]]) -> Operation | None:
        before = value_at(found.spec, _ROLE)
        return SetRole(self._client, found.id, before, timing=self._timing) if before in ROLES else None


def _what_a_demotion_does(node: Node | None, name: str) -> list[str]:
    lines = [f"{name} keeps its tasks and its certificate becomes a worker's"]
    if node is not None and node.manager_status is not None and node.manager_status.leader:
        lines.append(f"{name} is the leader: it hands over to another manager first")
    return lines
