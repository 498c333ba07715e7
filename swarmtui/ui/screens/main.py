"""The console: what the prompt takes, and what keys do everywhere.

Every `action_` method belongs to an action of the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarmtui.ui.actions import BY_ID, Action, Scope, bindings
from swarmtui.ui.navigation import Place
from swarmtui.ui.screens.instances import InstancesScreen
from swarmtui.ui.widgets.chrome import Footer

OWN_SCOPES = (Scope.APP, Scope.NODES, Scope.SERVICES, Scope.PLAYGROUND)
"""Scopes whose keys this screen binds itself; tables and logs bind their own."""
REMEMBERED = 100
"""Commands that the prompt remembers."""


class MainScreen(InstancesScreen):
    """The console."""

    BINDINGS = bindings(*OWN_SCOPES)

    def __init__(self, *, pause: float = 0.25, **settings: Any) -> None:
        super().__init__(**settings)
        self.pause = pause
        """Seconds between showing a change and doing it, at least."""
        self._typed: dict[str, list[str]] = {}

    # Carrying out

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys of a scope work only where the scope applies; while a line is typed its letters are letters."""
        del parameters
        if action == "app_prompt" and self.asking:
            return False
        for scope in (Scope.NODES, Scope.SERVICES, Scope.PLAYGROUND):
            if scope not in self.scopes and any(a.method == action for a in BY_ID.values() if a.scope is scope):
                return False
        return True

    async def perform(self, action: Action, arguments: Sequence[str]) -> None:
        """Carries out an action of the registry with the arguments typed; said plainly when it cannot be done here."""
        owner: object = self
        if action.owner == "table":
            owner = self.table
        elif action.owner == "log":
            owner = self.log_view if self.log_view.display else None
        method = getattr(owner, f"action_{action.method}", None)
        if method is None:
            self.notify(f"{action.title}: not here", severity="warning", timeout=3)
            return
        try:
            done = method(*([" ".join(arguments)] if arguments else []))
            if done is not None:
                await done
        except KeyError as error:
            self.notify(f"{action.title}: there is no {error}", severity="warning", timeout=3)

    async def on_footer_pressed(self, message: Footer.Pressed) -> None:
        """A key's name was clicked."""
        await self.perform(message.action, [])

    # The prompt

    def typed(self, purpose: str) -> Sequence[str]:
        """What was typed for that purpose before."""
        return self._typed.get(purpose, ())

    def suggest(self, text: str) -> Sequence[str]:
        """Commands, then names of services and nodes."""
        from swarmtui.ui.prompt import suggestions

        names = [] if self.session is None else self.session.names("service") + self.session.names("node")
        return suggestions(text, self.scopes, names)

    def on_prompt_bar_changed(self, message: Any) -> None:
        """A table's filter applies while it is typed."""
        if message.purpose == "/" and (table := self.table) is not None:
            problem = table.set_filter(message.text)
            if self.prompt is not None:
                self.prompt.say(problem or f"{table.row_count} rows")

    async def on_prompt_bar_done(self, message: Any) -> None:
        """Enter: a command is carried out, a filter stays."""
        self.close_prompt()
        remembered = self._typed.setdefault(str(message.purpose), [])
        if message.text and message.text not in remembered[-1:]:
            remembered.append(message.text)
            del remembered[:-REMEMBERED]
        if message.purpose == "/" and self.table is not None:
            self.table.focus()
        elif message.purpose == ":":
            self._focus_place()
            if message.text.strip():
                await self.run_command(message.text)

    def on_prompt_bar_left(self, message: Any) -> None:
        """Escape: a filter is taken away again."""
        self.close_prompt()
        if message.purpose == "/" and self.table is not None:
            self.table.set_filter("")
            self.table.focus()
        elif message.purpose == ":":
            self._focus_place()

    async def run_command(self, text: str) -> None:
        """Carries out what was typed after `:`."""
        from swarmtui.ui.prompt import Misunderstood, parse

        try:
            command = parse(text, self.scopes)
        except Misunderstood as problem:
            self.notify(str(problem), severity="warning", timeout=5)
            return
        await self.perform(command.action, command.arguments)

    # everywhere

    def action_view_nodes(self, text: str = "") -> None:
        """The nodes, filtered."""
        self._start_at("nodes", text)

    def action_view_services(self, text: str = "") -> None:
        """The services, filtered."""
        self._start_at("services", text)

    def action_view_networks(self, text: str = "") -> None:
        """The networks, filtered."""
        self._start_at("networks", text)

    def _start_at(self, view: str, text: str) -> None:
        self.go(Place(view), anew=True)
        if text and self.table is not None:
            self.table.set_filter(text)

    def action_view_tasks(self, text: str = "") -> None:
        """The tasks: `web @node2 failed`."""
        from swarmtui.ui.prompt import task_query

        service = node = ""
        query = task_query(text.split(), self.session.names("service") if self.session is not None else ())
        if query.service:
            service = self._resolve("service", query.service) or ""
        if query.node:
            found = self._resolve("node", query.node)
            if found is None:
                return
            node = found
        self.go(Place("tasks", service=service, node=node), anew=True)
        if self.table is not None and (query.filter or self.table.data.filter.text):
            self.table.set_filter(query.filter)

    def action_view_logs(self, text: str = "") -> None:
        """The logs of a service or task; without a name of what is under the cursor, or what was shown last."""
        if text:
            if (service := self.session.find("service", text) if self.session is not None else None) is not None:
                self.go(Place("logs", service=service), anew=True)
            elif (task := self._resolve("task", text)) is not None:
                self.go(Place("logs", task=task), anew=True)
            return
        if self.place.view in ("services", "tasks") and self.table is not None and self.table.cursor_id is not None:
            self.action_object_logs()
            return
        kind, object_id = self._log_target
        self.go(Place("logs", **({kind: object_id} if kind else {})), anew=True)

    def action_object_logs(self, name: str = "") -> None:
        """Its logs."""
        if name:
            self.action_view_logs(name)
            return
        kind, object_id = self._object()
        if kind in ("service", "task"):
            self.go(Place("logs", service=object_id) if kind == "service" else Place("logs", task=object_id))
        elif kind:
            self.notify(f"a {kind} has no log of its own; Enter shows what is on it", timeout=3)

    def action_view_pulse(self) -> None:
        """The cluster's pulse."""
        self.go(Place("pulse"), anew=True)

    def action_app_back(self) -> None:
        """Back: a filter first, then marks, then the place before."""
        table = self.table
        if self.log_focused and self.place.view != "logs":
            self._focus_place()
        elif table is not None and self.place.view != "logs" and table.data.filter.text:
            table.set_filter("")
        elif table is not None and self.place.view != "logs" and table.data.marked:
            table.action_table_unmark()
        elif self.trail.back():
            self._show()

    def action_app_prompt(self) -> None:
        """Asks for a command."""
        self.ask(":", "")

    def action_app_palette(self) -> None:
        """Every command, searched."""
        self.app.action_command_palette()

    def action_app_help(self) -> None:
        """Every key and command."""
        from swarmtui.ui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.scopes, self._keys_of))

    def action_app_undo(self) -> None:
        """The inverse of the last change, shown first."""
        if self.session is None:
            return
        inverse = self.session.history.undo()
        if inverse is None:
            self.notify("nothing to undo", timeout=2)
        else:
            self._show_change([inverse])

    def action_app_pane(self) -> None:
        """Table and log in turn."""
        if self.log_view.display and self.place.view != "logs":
            (self._focus_place if self.log_focused else self.log_view.focus)()

    def action_app_split(self) -> None:
        """Logs beside the table, or not."""
        self._split = not self.split
        self._show()

    def action_app_theme(self, name: str = "") -> None:
        """The next theme, or the one named."""
        from swarmtui.ui.theme import BadTheme, ThemedApp

        if isinstance(self.app, ThemedApp):
            try:
                self.notify(f"theme {self.app.wear(name)}", timeout=2)
            except BadTheme as problem:
                self.notify(str(problem), severity="warning")

    def action_app_mouse(self) -> None:
        """The mouse off, so that the terminal selects text, or on again."""
        self.app.toggle_mouse()  # type: ignore[attr-defined]

    def action_app_reconnect(self) -> None:
        """Tries now instead of at the next attempt."""
        self.app.reconnect()  # type: ignore[attr-defined]

    def action_app_exit(self) -> None:
        """Leaves; a playground, which ends with it, asks first."""
        if self.playground is None:
            self.app.exit()
            return
        from swarmtui.ui.screens.question import EndPlayground

        self.app.push_screen(EndPlayground(len(self.playground.instances)), self._ended)

    def _ended(self, answer: bool | None) -> None:
        if answer:
            self.app.exit()

    # tables

    def action_view_filter(self, text: str = "") -> None:
        """Filters by the text, or while typing."""
        if self.table is None:
            return
        if not text:
            self.ask("/", self.table.data.filter.text)
            self.table.prepare_filter()
        elif problem := self.table.set_filter(text):
            self.notify(problem, severity="warning", timeout=4)

    def action_view_columns(self) -> None:
        """Which columns are shown."""
        from swarmtui.ui.screens.columns import ColumnsScreen

        table = self.table
        if table is not None:
            self.app.push_screen(
                ColumnsScreen(table.data.columns, table.shown_columns),
                lambda keys: table.choose_columns(keys) if keys is not None else None,
            )

    def action_view_history(self) -> None:
        """What has ended, too."""
        self._history = not self._history
        table, spec = self._table("tasks"), self._specs["tasks"]
        table.set_keep(None if self._history else spec.keep)
        if self.place.view != "tasks":
            self.notify("ended tasks are shown" if self._history else "ended tasks are hidden", timeout=2)
