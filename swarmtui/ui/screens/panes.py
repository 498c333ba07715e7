"""The views beside the tables: the playground and the pulse. Made when they are first shown."""

from __future__ import annotations

from textual.widget import AwaitMount, Widget

from swarmtui.ui.deferred import deferred
from swarmtui.ui.screens.log_pane import LogPaneScreen


class PanesScreen(LogPaneScreen):
    """What these views need of the screen."""

    def _focus_place(self) -> None:
        raise NotImplementedError

    def _mount_once(self, widget: Widget) -> None:
        if widget.parent is None:
            self.run_worker(deferred(self._mounted, self.query_one("#views").mount(widget)), group="mount")

    async def _mounted(self, mounting: AwaitMount) -> None:
        await mounting
        self._focus_place()

    def _show_playground(self) -> None:
        if self.playground is None or self._playground_view is not None:
            return
        from swarmtui.ui.screens.playground import PlaygroundView

        self._playground_view = PlaygroundView(
            self.playground,
            self.glyphs,
            ports_of=self._published,
            tasks_on=self._tasks_on,
            roles_of=self._roles,
            now=self._now,
        )
        self._mount_once(self._playground_view)

    def _show_pulse(self) -> None:
        if self._pulse_view is None:
            from swarmtui.ui.screens.pulse import PulseView

            self._pulse_view = PulseView(self.glyphs, session_of=lambda: self.session, now=self._now)
            self._mount_once(self._pulse_view)

    def _published(self) -> list[tuple[str, str]]:
        if self.session is None:
            return []
        found = [
            (str(port.published_port), service.spec.name)
            for service in self.session.model.services.values()
            for port in (service.endpoint.ports if service.endpoint else None) or ()
            if port.published_port
        ]
        return sorted(found)

    def _tasks_on(self, hostname: str) -> list[tuple[str, str]]:
        """Glyph and words of every task that is wanted on a node, in order."""
        session = self.session
        node = session.find("node", hostname) if session is not None else None
        if session is None or node is None:
            return []
        rows = [row for task in session.model.tasks_of(node_id=node) if (row := session.task(task.id)) is not None]
        wanted = sorted((row for row in rows if row.current), key=lambda row: (row.service, row.slot))
        return [(str(row.glyph), f"{row.name} {row.state}") for row in wanted]

    def _roles(self) -> dict[str, str]:
        """What each node is in the cluster, by hostname: leader, manager or worker."""
        session = self.session
        if session is None:
            return {}
        rows = [row for key in session.model.nodes if (row := session.node(key)) is not None]
        # A node that came back under another identity is listed twice: the one that is there counts.
        rows.sort(key=lambda row: row.status == "ready")
        return {row.hostname: "leader" if row.leader else row.role for row in rows}
