"""The console's screen: header, tables, logs beside them, footer; going down and back.

What it shows first is made of the toolkit alone. The cluster's rooms (model, operations, logs) and everything that is
opened later are imported when they are needed, after the first paint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.timer import Timer
from textual.widget import AwaitMount, Widget

from swarmtui.ui.actions import BY_ID, Action, Danger, Scope, footer_actions
from swarmtui.ui.deferred import deferred
from swarmtui.ui.glyphs import GlyphSet
from swarmtui.ui.navigation import Place, Trail
from swarmtui.ui.ports import PlaygroundPort
from swarmtui.ui.screens.asking import AskingScreen
from swarmtui.ui.views import TableSpec, labels_of, nodes, services, tasks
from swarmtui.ui.widgets.chrome import Banner, Footer, Header
from swarmtui.ui.widgets.resource_table import ResourceTable

if TYPE_CHECKING:
    from swarmtui.model.query import Difference, Query, Subscription
    from swarmtui.model.summary import ClusterSummary
    from swarmtui.ui.screens.playground import PlaygroundView
    from swarmtui.ui.session import ClusterSession
    from swarmtui.ui.widgets.log_view import LogView

KINDS = {"nodes": "node", "services": "service", "tasks": "task"}
"""A view to the kind of its objects."""
SPLIT_CELLS = 120
"""A terminal of this width shows logs beside the table, unless a person says otherwise."""
BESIDE_SECONDS = 0.3
"""The cursor must rest so long before the logs beside the table follow it."""
MINUTES = (1, 5, 15, 60)
"""What `since` goes through."""


class ConsoleScreen(AskingScreen):
    """What is shown, and where one is; `MainScreen` adds what keys and commands do."""

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

    def __init__(
        self,
        *,
        context: str,
        glyphs: GlyphSet,
        now: Callable[[], float],
        clock: Callable[[], str],
        keys_of: Callable[[Action], Sequence[str]],
        playground: PlaygroundPort | None = None,
        readonly: bool = False,
        production: bool = False,
    ) -> None:
        super().__init__()
        self.glyphs = glyphs
        """The symbols drawn."""
        self.session: ClusterSession | None = None
        """The cluster, once connected."""
        self.playground = playground
        """The playground's session, when this is one."""
        self.readonly = readonly
        """Nothing may be changed here."""
        self.save_name = context or "swarmtui"
        self._now = now
        self._keys_of = keys_of
        self._specs: dict[str, TableSpec] = {
            spec.key: spec for spec in (nodes(glyphs, now), services(glyphs, now), tasks(glyphs, now))
        }
        self.trail = Trail(Place("services"))
        """Where one is, and the way back."""
        self.header = Header(glyphs, clock)
        """Where one is and how the cluster is."""
        self.header.context = context
        self.header.marks = [*(["production"] if production else []), *(["read-only"] if readonly else [])]
        views = ["nodes", "services", "tasks", "logs", *(["playground"] if playground is not None else [])]
        self.header.views = [(view, self._keys_of(BY_ID[f"view.{view}"])[0]) for view in views]
        self.banner = Banner(glyphs)
        """Trouble with the connection."""
        self.footer = Footer(keys_of, id="keys")
        """The keys that work here."""
        self.tables: dict[str, ResourceTable[Any]] = {}
        """The tables by view; made when they are first shown."""
        self._problem = ""
        self._log: LogView | None = None
        self._split: bool | None = None
        self._log_target: tuple[str, str] = ("", "")
        self._log_since = 0
        self._beside: Timer | None = None
        self._subscriptions: dict[str, Subscription[Any]] = {}
        self._task_query: tuple[str, str] | None = None
        self._history = False
        self._playground_view: PlaygroundView | None = None
        self.set_class(production, "-production")

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

    @property
    def log_view(self) -> LogView:
        """The one log: alone, or beside a table. Made when it is first needed."""
        if self._log is None:
            from swarmtui.ui.widgets.log_view import LogView

            self._log = LogView(glyphs=self.glyphs, clock=self._now, name_of=self._replica_name, id="log")
        return self._log

    @property
    def log_focused(self) -> bool:
        """Whether keys go to the log."""
        return self._log is not None and self.focused is self._log

    def _table(self, view: str) -> ResourceTable[Any]:
        table = self.tables.get(view)
        if table is None:
            spec = self._specs[view]
            table = ResourceTable(spec.columns, labels=labels_of, glyphs=self.glyphs, id=f"view-{view}")
            table.border_title = view
            self.tables[view] = table
            self._say_why_empty()
            if spec.keep is not None and not self._history:
                table.data.set_keep(spec.keep)
        return table

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
        if self.session is not None:
            self._show_connection(self.session.model.summary)

    # The cluster

    def attach(self, session: ClusterSession) -> None:
        """The cluster is connected: subscribe to it."""
        from swarmtui.model.query import all_nodes, all_services

        self.session, self._problem = session, ""
        session.model.subscribe_summary(self._summary_changed)
        self._subscribe("nodes", all_nodes())
        self._subscribe("services", all_services())
        self._say_why_empty()
        self._show()

    def detach(self, problem: str) -> None:
        """There is no cluster (any more); what is known stays on the screen."""
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()
        self._task_query = None
        self.session = None
        self._log_target = ("", "")
        self.banner.say(problem, ":reconnect tries again")
        self._problem = problem
        self._say_why_empty()

    def _say_why_empty(self) -> None:
        """An empty table says what to do: connect, wait, or create something. Never that there is nothing when it cannot know."""
        connection = self.session.model.summary.connection if self.session is not None else None
        for view, table in self.tables.items():
            if connection is None:
                text = f"{self._problem}\n:reconnect tries again   :quit leaves" if self._problem else "connecting ..."
            elif connection.error:
                text = f"{connection.state}: {connection.error}\n:reconnect tries now   :quit leaves"
            elif str(connection.state) in ("connecting", "syncing"):
                text = f"{connection.state} ..."
            else:
                text = self._specs[view].empty
            if text != table.empty_text:
                table.empty_text = text
                table.refresh()

    def _subscribe(self, view: str, query: Query[Any]) -> None:
        assert self.session is not None
        old = self._subscriptions.pop(view, None)
        table = self._table(view)
        if old is not None:
            old.close()
        table.replace_rows({})

        def deliver(difference: Difference[Any]) -> None:
            table.update_rows({row.id: row for row in (*difference.added, *difference.changed)}, difference.removed)
            if view != "services" and self._log is not None:
                self._log.rename()

        self._subscriptions[view] = self.session.model.subscribe(query, deliver)

    def _summary_changed(self, summary: ClusterSummary) -> None:
        self.header.summary = summary
        self.header.refresh()
        self._show_connection(summary)
        if self._playground_view is not None:
            self._playground_view.update_rows()

    def _show_connection(self, summary: ClusterSummary) -> None:
        self._say_why_empty()
        connection = summary.connection
        if not connection.error:
            self.banner.say("")
            return
        parts = [f"{connection.state}: {connection.error}"]
        if connection.attempt:
            parts.append(f"attempt {connection.attempt}")
        if connection.stale_since is not None:
            parts.append(f"what is shown is {max(0, int(self._now() - connection.stale_since / 1e9))} s old")
        self.banner.say(", ".join(parts), ":reconnect tries now")

    def _replica_name(self, task_id: str) -> str:
        return self.session.replica_of(task_id) if self.session is not None else task_id[:12]

    # Where one is

    @property
    def place(self) -> Place:
        """The present place."""
        return self.trail.here

    @property
    def table(self) -> ResourceTable[Any] | None:
        """The table that is shown, if one is."""
        if self.place.view == "playground" and self._playground_view is not None:
            return self._playground_view.table
        return self.tables.get(self.place.view)

    @property
    def scopes(self) -> list[Scope]:
        """The scopes whose keys work here, the nearest first."""
        if self.log_focused or self.place.view == "logs":
            return [Scope.LOG, Scope.APP]
        own = {"nodes": Scope.NODES, "services": Scope.SERVICES, "tasks": Scope.TASKS}.get(
            self.place.view, Scope.PLAYGROUND
        )
        return [own, Scope.TABLE, Scope.APP]

    @property
    def split(self) -> bool:
        """Whether logs are beside the table."""
        return self.size.width >= SPLIT_CELLS if self._split is None else self._split

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
        if place.view == "playground":
            self._show_playground()
        for view, table in self.tables.items():
            table.display = view == place.view
        if self._playground_view is not None:
            self._playground_view.display = place.view == "playground"
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

    def _mount_once(self, widget: Widget) -> None:
        if widget.parent is None:
            self.run_worker(deferred(self._mounted, self.query_one("#views").mount(widget)), group="mount")

    async def _mounted(self, mounting: AwaitMount) -> None:
        await mounting
        self._focus_place()

    def _focus_place(self) -> None:
        wanted = self.log_view if self.place.view == "logs" else self.table
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
        if action.id == "object.logs" and self.place.view == "nodes":
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

    def on_resource_table_highlighted(self, message: ResourceTable.Highlighted) -> None:
        """The logs beside the table follow the cursor when it rests."""
        if message.table is self.table and self.log_view.display:
            if self._beside is not None:
                self._beside.stop()
            self._beside = self.set_timer(BESIDE_SECONDS, self._follow_cursor)

    def on_resource_table_opened(self, message: ResourceTable.Opened) -> None:
        """Down: a service's or a node's tasks, a task's logs."""
        if message.row_id is None or message.table is not self.table:
            return
        if self.place.view == "services":
            self.go(Place("tasks", service=message.row_id))
        elif self.place.view == "nodes":
            self.go(Place("tasks", node=message.row_id))
        elif self.place.view == "tasks":
            self.go(Place("logs", task=message.row_id))
        elif self.session is not None and (node := self.session.find("node", message.row_id)) is not None:
            self.go(Place("tasks", node=node))

    # The playground

    def _show_playground(self) -> None:
        if self.playground is None or self._playground_view is not None:
            return
        from swarmtui.ui.screens.playground import PlaygroundView

        self._playground_view = PlaygroundView(
            self.playground,
            self.glyphs,
            ports_of=self._published,
            tasks_on=self._tasks_on,
            leader_of=self._leader,
            now=self._now,
        )
        self._mount_once(self._playground_view)

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

    def _leader(self) -> str:
        return self.header.summary.leader if self.header.summary is not None else ""

    # Logs

    def _follow_cursor(self) -> None:
        if self.place.view not in ("services", "tasks") or not self.log_view.display:
            return
        table = self.table
        if table is not None and table.cursor_id is not None:
            self._open_logs(KINDS[self.place.view], table.cursor_id)

    def _open_logs(self, kind: str, object_id: str, *, since: int = 0) -> None:
        if self.session is None:
            self.log_view.empty_text = "not connected"
            return
        if not object_id:
            self.log_view.empty_text = "no service chosen\n:logs SERVICE   or choose one and press l"
            return
        if (kind, object_id) == self._log_target and since == self._log_since:
            return
        from swarmtui.logs.records import LogOptions
        from swarmtui.ui.log_feed import feed

        self._log_target, self._log_since = (kind, object_id), since
        self.log_view.clear()
        self.log_view.empty_text = "no lines yet"
        options = LogOptions(follow=True, since=since, tail=None if since else 1000)
        wanted = {"services": [object_id]} if kind == "service" else {"tasks": [object_id]}
        reading = deferred(
            feed,
            self.session.client,
            self.log_view.write,
            **wanted,
            options=options,
            now=lambda: int(self._now() * 1e9),
        )
        self.run_worker(reading, group="log", exclusive=True)
        self._title_log()

    def _title_log(self) -> None:
        from textual.content import Content

        kind, object_id = self._log_target
        words = ["logs"]
        if object_id and self.session is not None:
            words.append(self.session.name_of(kind, object_id))
        status, narrow = "  ".join(self.log_view.status), self.has_class("-narrow")
        self.log_view.border_title = Content(" · ".join(words) + (f"  {status}" if narrow else "")).markup
        self.log_view.border_subtitle = Content(status).markup

    def on_log_view_status_changed(self, message: LogView.StatusChanged) -> None:
        """What the log is doing, in its frame."""
        if message.log_view is self.log_view:
            self._title_log()

    def log_since(self, minutes: str) -> None:
        """Reads again from so many minutes ago; without a number, from the next longer time."""
        kind, object_id = self._log_target
        if not object_id:
            return
        if minutes and not minutes.isdigit():
            self.notify(f"{minutes!r} is no number of minutes", severity="warning")
            return
        past = (self._now() - self._log_since / 1e9) / 60 if self._log_since else 0.0
        chosen = int(minutes) if minutes else next((m for m in MINUTES if m > past + 0.5), MINUTES[0])
        self._open_logs(kind, object_id, since=int((self._now() - chosen * 60) * 1e9))
        self.notify(f"logs since {chosen} min ago", timeout=2)
