"""The console's screen: header, tables, logs beside them, footer; going down and back.

What it shows first is made of the toolkit alone. The cluster's rooms (model, operations, logs) and everything that is
opened later are imported when they are needed, after the first paint.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.widget import Widget

from swarmtui.ui.actions import Action, Danger, Scope, footer_actions
from swarmtui.ui.navigation import Place
from swarmtui.ui.screens.live import KINDS
from swarmtui.ui.screens.panes import PanesScreen
from swarmtui.ui.widgets.chrome import Header
from swarmtui.ui.widgets.resource_table import ResourceTable

_SCOPES = {"nodes": Scope.NODES, "services": Scope.SERVICES, "tasks": Scope.TASKS, "networks": Scope.NETWORKS}


class ConsoleScreen(PanesScreen):
    """What is shown, and where one is; the screens above it add what keys and commands do."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    DEFAULT_CSS = """
    ConsoleScreen { layout: vertical; background: $background; }
    ConsoleScreen #body { height: 1fr; }
    ConsoleScreen #views { width: 5fr; height: 1fr; }
    ConsoleScreen ResourceTable, ConsoleScreen #log { border: round $border-blurred; border-title-color: $foreground;
        border-title-style: bold; border-subtitle-color: $text-muted; padding: 0; }
    ConsoleScreen ResourceTable:focus, ConsoleScreen #log:focus { border: round $border; border-title-color: $accent; }
    ConsoleScreen #log, ConsoleScreen #log-place { width: 4fr; height: 1fr; }
    ConsoleScreen #log-place { border: round $border-blurred; }
    ConsoleScreen.-narrow ResourceTable, ConsoleScreen.-narrow #log { border: none; border-top: solid $border-blurred; }
    ConsoleScreen.-narrow ResourceTable:focus, ConsoleScreen.-narrow #log:focus { border: none; border-top: solid $border; }
    ConsoleScreen.-narrow #instance { border: none; border-top: solid $border-blurred; width: 1fr; height: 1fr; }
    ConsoleScreen.-narrow #instances { width: 1fr; max-width: 100%; height: 8; }
    ConsoleScreen.-narrow #playground-panes { layout: vertical; }
    ConsoleScreen.-production #body { border: heavy $production; }
    """

    # The first paint

    def compose(self) -> ComposeResult:
        """Only what the first paint shows; the other tables come when they are asked for."""
        yield self.header
        yield self.banner
        with Horizontal(id="body"):
            with Container(id="views"):
                yield self._table("services")
            # Only its frame: the log comes after the first paint.
            yield Container(id="log-place")
        yield self.footer

    def on_mount(self) -> None:
        """The first place, and a tick a second."""
        self._say_why_empty()
        self.query_one("#log-place").display = self.split
        self.set_interval(1, self._tick)
        self._name_place()
        self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        """After the first paint: the log, and the prompt."""
        from swarmtui.ui.widgets.prompt_bar import PromptBar

        await self.mount(PromptBar(), before=self.footer)
        await self.query_one("#log-place").remove()
        await self.query_one("#body").mount(self.log_view)
        self._show()

    def _tick(self) -> None:
        self.header.refresh()
        for table in self.tables.values():
            if table.display:
                table.tick()
        if self._log is not None:
            self._log.tick()
        if self._playground_view is not None:
            self._playground_view.tick()
            from swarmtui.ui.text import countdown

            self.header.countdown = countdown(self._playground_view.seconds_left)
            self._playground_view.refresh_instance()
        if self._pulse_view is not None:
            self._pulse_view.tick()
        if self.session is not None:
            self._show_connection(self.session.model.summary)

    def action_object_describe(self, name: str = "") -> None:
        """The object in words."""
        raise NotImplementedError

    # Where one is

    @property
    def scopes(self) -> list[Scope]:
        """The scopes whose keys work here, the nearest first."""
        if self.log_focused or self.place.view == "logs":
            return [Scope.LOG, Scope.APP]
        if self.place.view == "pulse":
            return [Scope.APP]
        return [_SCOPES.get(self.place.view, Scope.PLAYGROUND), Scope.TABLE, Scope.APP]

    def go(self, place: Place, *, anew: bool = False) -> None:
        """Goes down to a place, or starts a new trail there."""
        if anew:
            self.trail.start(place)
        else:
            self.trail.down(place)
        self._show()

    def _show(self) -> None:
        """Makes the screen what the place says; before the log is there `_begin` does it."""
        if self._log is None or not self._log.is_attached:
            return
        place = self.place
        if place.view in self._specs:
            self._mount_once(self._table(place.view))
        if place.view == "tasks":
            self._query_tasks()
        if place.view == "networks":
            self._query_networks()
        if place.view == "playground":
            self._show_playground()
        if place.view == "pulse":
            self._show_pulse()
        for view, table in self.tables.items():
            table.display = view == place.view
        if self._playground_view is not None:
            self._playground_view.display = place.view == "playground"
        if self._pulse_view is not None:
            self._pulse_view.display = place.view == "pulse"
        alone = place.view == "logs"
        self.query_one("#views").display = not alone
        self.log_view.display = alone or (self.split and place.view in ("services", "tasks"))
        self._title_table()
        if alone:
            self._open_logs(*(("task", place.task) if place.task else ("service", place.service)))
        elif self.log_view.display:
            self._follow_cursor()
        self._focus_place()
        self._name_place()

    def _focus_place(self) -> None:
        wanted: Widget | None = self.log_view if self.place.view == "logs" else self.table
        if self.place.view == "pulse":
            wanted = self._pulse_view
        if wanted is not None and wanted.is_mounted and not self.asking:
            # At once: a key that is typed next belongs to what is seen next.
            self.set_focus(wanted)

    def _name_place(self) -> None:
        name_of = self.session.name_of if self.session is not None else (lambda kind, key: key[:12])
        self.header.crumbs = self.trail.crumbs(name_of)
        self.header.view = self.place.view
        self.header.refresh()
        self._show_footer()

    def _show_footer(self) -> None:
        shown = [action for action in footer_actions(self.scopes) if self._offers(action)]
        notes: dict[str, str] = {}
        # On a narrow screen the keys matter more than which change it is; the preview says so anyway.
        wide = not self.has_class("-narrow")
        if wide and self.session is not None and (entry := self.session.history.undoable) is not None:
            notes["app.undo"] = f'undo "{entry.title}"'
        self.footer.show(shown, notes)

    def _offers(self, action: Action) -> bool:
        if action.id == "app.undo":
            return self.session is not None and self.session.history.undoable is not None
        if action.id == "app.back":
            return self.trail.depth > 0
        if action.id.startswith("object.") and self.place.view not in KINDS:
            return False
        if action.id == "object.logs" and self.place.view in ("nodes", "networks"):
            return False
        return not (self.readonly and action.danger is not Danger.NONE)

    def on_descendant_focus(self) -> None:
        """Other keys work here."""
        self._show_footer()

    def on_resize(self) -> None:
        """A terminal that became wide or narrow."""
        if self._log is not None and self._log.is_mounted:
            focused = self.focused
            self._show()
            if focused is not None and focused.display:
                self.set_focus(focused)

    def on_header_chosen(self, message: Header.Chosen) -> None:
        """A tab was clicked."""
        self.go(Place(message.view), anew=True)

    # Tables

    def _query_tasks(self) -> None:
        place = self.place
        wanted = (place.service, place.node)
        if self.session is None or self._task_query == wanted:
            return
        from swarmtui.model.query import tasks_of

        self._task_query = wanted
        self._subscribe("tasks", tasks_of(place.service or None, place.node or None))

    def _query_networks(self) -> None:
        """Asked for when they are first looked at: most of the time nobody does."""
        if self.session is None or "networks" in self._subscriptions:
            return
        from swarmtui.model.query import all_networks

        self._subscribe("networks", all_networks())

    def _title_table(self) -> None:
        table = self.table
        if table is None or self.place.view == "playground":
            return
        kept, shown = table.data.kept_count, table.row_count
        parts = [f"{shown} of {kept}" if shown != kept else str(kept)]
        if hidden := len(table.data.rows) - kept:
            parts.append(f"{hidden} ended, H shows them")
        if table.data.marked:
            parts.append(f"{len(table.data.marked)} marked")
        if table.data.filter.text:
            parts.append(f"/{table.data.filter.text}")
        from textual.content import Content

        words = [self.place.view]
        if self.session is not None and self.place.view == "tasks":
            words += [
                self.session.name_of(k, i) for k, i in (("service", self.place.service), ("node", self.place.node)) if i
            ]
        narrow = self.has_class("-narrow")
        # A narrow screen has no lower edge to write on.
        table.border_title = Content(" · ".join(words) + (f"  {'  '.join(parts)}" if narrow else "")).markup
        table.border_subtitle = Content("  ".join(parts)).markup

    def on_resource_table_changed(self, message: ResourceTable.Changed) -> None:
        """Counts in the title."""
        if message.table is self.table:
            self._title_table()

    def on_resource_table_opened(self, message: ResourceTable.Opened) -> None:
        """Down: a service's or a node's tasks, a task's logs, a network in words."""
        if message.row_id is None or message.table is not self.table:
            return
        if self.place.view == "services":
            self.go(Place("tasks", service=message.row_id))
        elif self.place.view == "nodes":
            self.go(Place("tasks", node=message.row_id))
        elif self.place.view == "tasks":
            self.go(Place("logs", task=message.row_id))
        elif self.place.view == "networks":
            self.action_object_describe()
        elif self.session is not None and (node := self.session.find("node", message.row_id)) is not None:
            self.go(Place("tasks", node=node))
