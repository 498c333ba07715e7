"""What is done with objects: looking at one closely, and changing one or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.screen import Screen

from swarmtui.ui.actions import BY_ID, Danger
from swarmtui.ui.deferred import deferred
from swarmtui.ui.screens.console import ConsoleScreen
from swarmtui.ui.screens.live import KINDS

if TYPE_CHECKING:
    from swarmtui.operations.base import Operation
    from swarmtui.ui.session import RunningOperation


class ChangingScreen(ConsoleScreen):
    """Every `action_` method belongs to an action of the registry."""

    pause: float
    """Seconds between showing a change and doing it, at least."""

    def action_object_describe(self, name: str = "") -> None:
        """The object in words."""
        self._inspect("describe", name)

    def action_object_raw(self, name: str = "") -> None:
        """The object as the API gives it."""
        self._inspect("raw", name)

    def action_object_why(self, name: str = "") -> None:
        """Why it is as it is."""
        self._inspect("why", name)

    def _object(self) -> tuple[str, str]:
        table = self.table
        if table is None or table.cursor_id is None or self.place.view not in KINDS:
            return "", ""
        return KINDS[self.place.view], table.cursor_id

    def _resolve(self, kind: str, name: str) -> str | None:
        found = self.session.find(kind, name) if self.session is not None else None
        if found is None:
            self.notify(f"there is no {kind} {name!r}, or several begin so", severity="warning", timeout=4)
        return found

    def _inspect(self, what: str, name: str) -> None:
        kind, object_id = self._object()
        if name:
            for each in ("service", "node", "network", "task"):
                if self.session is not None and (found := self.session.find(each, name)) is not None:
                    kind, object_id = each, found
                    break
            else:
                self._resolve("object", name)
                return
        if not kind or self.session is None:
            return
        self.run_worker(deferred(self._read_object, what, kind, object_id), group="inspect", exclusive=True)

    async def _read_object(self, what: str, kind: str, object_id: str) -> None:
        from swarmtui.ui import inspection
        from swarmtui.ui.screens.text import TextScreen

        session = self.session
        if session is None:
            return
        if what == "describe":
            lines = await inspection.describe(session, kind, object_id, self._now())
        elif what == "raw":
            lines = await inspection.raw(session, kind, object_id)
        else:
            lines = await inspection.why(session, kind, object_id)
        title = f"{what} {kind} {session.name_of(kind, object_id)}"
        self.app.push_screen(TextScreen(title, lines, self.glyphs, wrapping=what != "raw"))

    # Changes

    def action_service_scale(self, text: str = "") -> None:
        """`web 9`, `9` for what is chosen, or nothing: asks for the number."""
        words = text.split()
        number = words.pop() if words and words[-1].isdigit() else ""
        targets = self._targets("service", " ".join(words))
        if not targets:
            return
        if number:
            self._change("service.scale", targets, number)
            return
        assert self.session is not None
        row = self.session.service(targets[0])
        # The number now, ready to be typed over.
        start = f"scale {row.name} {row.wanted}" if row is not None and len(targets) == 1 else "scale "
        self.ask(":", start)

    def action_service_restart(self, name: str = "") -> None:
        """Replaces the tasks one by one."""
        self._change("service.restart", self._targets("service", name))

    def action_service_remove(self, name: str = "") -> None:
        """Removes the service."""
        self._change("service.remove", self._targets("service", name))

    def action_node_drain(self, name: str = "") -> None:
        """Moves everything off the node."""
        self._change("node.drain", self._targets("node", name))

    def action_node_activate(self, name: str = "") -> None:
        """Lets the node have tasks again."""
        self._change("node.activate", self._targets("node", name))

    def action_node_promote(self, name: str = "") -> None:
        """Makes the node a manager."""
        self._change("node.promote", self._targets("node", name))

    def action_node_demote(self, name: str = "") -> None:
        """Makes the manager a worker."""
        self._change("node.demote", self._targets("node", name))

    def action_swarm_leave(self) -> None:
        """This node leaves the swarm."""
        self._change_swarm("swarm.leave")

    def action_swarm_force_new_cluster(self) -> None:
        """Goes on with this manager alone."""
        self._change_swarm("swarm.force-new-cluster")

    def _force(self) -> None:
        self.action_swarm_force_new_cluster()

    def action_swarm_quorum(self) -> None:
        """Which managers are missing, and the way out."""
        summary = self.header.summary
        if summary is None or summary.group is None:
            self.notify("nothing is known of the managers yet", timeout=3)
        elif summary.group.quorum:
            self.notify(
                f"{summary.managers_reachable} of {summary.managers} managers answer: that is enough", timeout=4
            )
        else:
            self._tell_quorum()

    def _targets(self, kind: str, name: str) -> list[str]:
        """The objects meant: the one named, the marked ones, or the one under the cursor."""
        if self.session is None:
            self.notify("not connected", severity="warning", timeout=3)
            return []
        if name:
            found = self._resolve(kind, name)
            return [found] if found is not None else []
        if KINDS.get(self.place.view) == kind and self.table is not None:
            return self.table.chosen_ids
        if kind == "service" and self.place.service:
            return [self.place.service]
        self.notify(f"which {kind}? name it", severity="warning", timeout=3)
        return []

    def _change(self, action_id: str, targets: Sequence[str], argument: str = "") -> None:
        if not targets or self.session is None:
            return
        if self.readonly and BY_ID[action_id].danger is not Danger.NONE:
            self.notify("this context is read-only: nothing is changed here", severity="warning", timeout=4)
            return
        from swarmtui.ui.changes import operation

        try:
            wanted = [operation(self.session.client, action_id, target, argument) for target in targets]
        except ValueError as problem:
            self.notify(str(problem), severity="warning", timeout=4)
            return
        self._show_change(wanted)

    def _change_swarm(self, action_id: str) -> None:
        if self.session is None:
            self.notify("not connected", severity="warning", timeout=3)
        elif self.readonly:
            self.notify("this context is read-only: nothing is changed here", severity="warning", timeout=4)
        else:
            from swarmtui.ui.changes import swarm_operation

            self._show_change([swarm_operation(self.session.client, action_id)])

    def _show_change(self, operations: Sequence[Operation]) -> None:
        from swarmtui.ui.screens.change import ChangeScreen

        session = self.session
        assert session is not None
        self.app.push_screen(
            ChangeScreen(operations, lambda each: session.start(each, self._heard), self.glyphs, pause=self.pause)
        )

    def _heard(self, running: RunningOperation) -> None:
        """A change went on: the header shows it, and its end is told when no dialog watches."""
        session = self.session
        if session is None or not self.is_attached:
            return
        title = running.operation.title
        if running.finished:
            self.header.activity = ""
            watched = isinstance(self.app.screen, Screen) and self.app.screen is not self
            if running.error:
                self.notify(f"{title}: {running.error}", severity="error", timeout=15)
            elif not watched and not running.stopped:
                self.notify(f"done: {title}", timeout=4)
        else:
            progress = running.progress
            count = f" {progress.done}/{progress.total}" if progress is not None and progress.total else ""
            self.header.activity = f"{self.glyphs['starting']} {title}{count}"
        self.header.refresh()
        self._show_footer()
