"""What keys and commands do on the console's screen. Every `action_` method belongs to an action of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from swarmtui.ui.actions import BY_ID, Action, Danger, Scope, bindings
from swarmtui.ui.deferred import deferred
from swarmtui.ui.navigation import Place
from swarmtui.ui.screens.console import KINDS, ConsoleScreen
from swarmtui.ui.widgets.chrome import Footer

if TYPE_CHECKING:
    from swarmtui.operations.base import Operation
    from swarmtui.ui.session import RunningOperation

OWN_SCOPES = (Scope.APP, Scope.NODES, Scope.SERVICES, Scope.PLAYGROUND)
"""Scopes whose keys this screen binds itself; tables and logs bind their own."""
REMEMBERED = 100
"""Commands that the prompt remembers."""


class MainScreen(ConsoleScreen):
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

    def action_view_playground(self) -> None:
        """The playground's instances."""
        if self.playground is None:
            self.notify("this is no playground: swarmtui playground starts one", timeout=4)
        else:
            self.go(Place("playground"), anew=True)

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
        """Leaves."""
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

    def action_object_describe(self, name: str = "") -> None:
        """The object in words."""
        self._inspect("describe", name)

    def action_object_raw(self, name: str = "") -> None:
        """The object as the API gives it."""
        self._inspect("raw", name)

    def action_object_why(self, name: str = "") -> None:
        """Why it is as it is."""
        self._inspect("why", name)

    def action_object_logs(self, name: str = "") -> None:
        """Its logs."""
        if name:
            self.action_view_logs(name)
            return
        kind, object_id = self._object()
        if kind in ("service", "task"):
            self.go(Place("logs", service=object_id) if kind == "service" else Place("logs", task=object_id))
        elif kind:
            self.notify("a node has no log of its own; Enter shows its tasks", timeout=3)

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
            for each in ("service", "node", "task"):
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

    # The playground

    def action_playground_add(self) -> None:
        """Starts one more instance."""
        if self.playground is None:
            self.action_view_playground()
            return
        self.notify("starting an instance ...", timeout=3)
        self.run_worker(deferred(self._add_instance), group="playground")

    async def _add_instance(self) -> None:
        from swarmtui.ui.screens.instance import playground_call

        assert self.playground is not None
        problem = await playground_call(self.playground.add())
        if problem:
            self.notify(problem, severity="error", timeout=10)
        elif self._playground_view is not None:
            self._playground_view.update_rows()

    def action_playground_delete(self, name: str = "") -> None:
        """Deletes an instance; its name is typed first."""
        if self.playground is None or self._playground_view is None:
            self.action_view_playground()
            return
        wanted = name or self._playground_view.table.cursor_id
        if wanted is None or wanted not in {one.name for one in self.playground.instances}:
            self.notify(f"there is no instance {wanted!r}", severity="warning", timeout=3)
            return
        from swarmtui.ui.screens.instance import DeleteInstance

        self.app.push_screen(DeleteInstance(self.playground, wanted))

    def action_playground_copy_host(self) -> None:
        """Copies the DOCKER_HOST of the instance."""
        if self._playground_view is not None and (row := self._playground_view.table.cursor_row) is not None:
            self.app.copy_to_clipboard(row.docker_host)
            self.notify("copied DOCKER_HOST", timeout=2)
