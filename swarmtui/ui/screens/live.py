"""The screen's hold on the cluster: what is subscribed to, where one is, and what is said of trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from swarmtui.ui.actions import BY_ID, Action
from swarmtui.ui.glyphs import GlyphSet
from swarmtui.ui.navigation import Place, Trail
from swarmtui.ui.ports import PlaygroundPort
from swarmtui.ui.screens.asking import AskingScreen
from swarmtui.ui.views import TableSpec, labels_of, networks, nodes, services, tasks
from swarmtui.ui.widgets.chrome import Banner, Footer, Header
from swarmtui.ui.widgets.resource_table import ResourceTable

if TYPE_CHECKING:
    from textual.timer import Timer

    from swarmtui.model.query import Difference, Query, Subscription
    from swarmtui.model.summary import ClusterSummary
    from swarmtui.ui.screens.playground import PlaygroundView
    from swarmtui.ui.screens.pulse import PulseView
    from swarmtui.ui.session import ClusterSession
    from swarmtui.ui.widgets.log_view import LogView

KINDS = {"nodes": "node", "services": "service", "tasks": "task", "networks": "network"}
"""A view to the kind of its objects."""


class LiveScreen(AskingScreen):
    """What every part of the console's screen shares. `_show` makes the screen what the place says."""

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
            spec.key: spec for spec in (make(glyphs, now) for make in (nodes, services, tasks, networks))
        }
        self.trail = Trail(Place("services"))
        """Where one is, and the way back."""
        self.header = Header(glyphs, clock)
        """Where one is and how the cluster is."""
        self.header.context = context
        self.header.marks = [*(["production"] if production else []), *(["read-only"] if readonly else [])]
        views = [
            "nodes",
            "services",
            "tasks",
            "logs",
            *(["playground"] if playground is not None else []),
            "pulse",
            "networks",
        ]
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
        self._pulse_view: PulseView | None = None
        self._asked_node = ""
        self._quorum_told = False
        self.set_class(production, "-production")

    def _show(self) -> None:
        raise NotImplementedError

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

    # The cluster

    def attach(self, session: ClusterSession) -> None:
        """The cluster is connected: subscribe to it."""
        from swarmtui.model.query import all_networks, all_nodes, all_services

        self.session, self._problem = session, ""
        session.model.subscribe_summary(self._summary_changed)
        self._subscribe("nodes", all_nodes())
        self._subscribe("services", all_services())
        if "networks" in self.tables:
            self._subscribe("networks", all_networks())
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
        self._tell_of_another_manager(summary.connection.node)
        self._watch_quorum(summary)
        if self._playground_view is not None:
            self._playground_view.update_rows()

    def _show_connection(self, summary: ClusterSummary) -> None:
        self._say_why_empty()
        connection = summary.connection
        if not connection.error:
            group = summary.group
            if group is not None and not group.quorum:
                answering = len(group.voters) - len(group.missing)
                text = f"no quorum: {answering} of {len(group.voters)} managers answer, nothing can be changed"
                self.banner.say(text, ":quorum shows the way out")
            elif group is not None and group.stale:
                self.banner.say("the manager that is asked may not know the newest state", ":managers shows them")
            else:
                self.banner.say("")
            return
        parts = [f"{connection.state}: {connection.error}"]
        if connection.attempt:
            parts.append(f"attempt {connection.attempt}")
        if connection.stale_since is not None:
            parts.append(f"what is shown is {max(0, int(self._now() - connection.stale_since / 1e9))} s old")
        self.banner.say(", ".join(parts), ":reconnect tries now")

    # The managers

    def _tell_of_another_manager(self, node: str) -> None:
        before, self._asked_node = self._asked_node, node or self._asked_node
        if before and node and before != node:
            self.notify(f"{before} does not answer any more: going on with {node}", timeout=5)

    def _watch_quorum(self, summary: ClusterSummary) -> None:
        """The way out shows itself once when the quorum is lost, and goes when it is back."""
        group = summary.group
        if group is None or summary.connection.stale_since is not None:
            return
        if group.quorum:
            self._quorum_told = False
        elif not self._quorum_told and self.app.screen is self:
            self._quorum_told = True
            self._tell_quorum()

    def _tell_quorum(self) -> None:
        from swarmtui.ui.screens.quorum import QuorumScreen

        self.app.push_screen(
            QuorumScreen(
                lambda: self.header.summary, self.glyphs, now=self._now, force=self._force, may_force=not self.readonly
            )
        )

    def _force(self) -> None:
        raise NotImplementedError

    def _replica_name(self, task_id: str) -> str:
        return self.session.replica_of(task_id) if self.session is not None else task_id[:12]
