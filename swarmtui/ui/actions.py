"""Every action a person can take, declared once.

Key bindings, the `:` prompt, the command palette, the help screen, the footer and the README's key table are all made from
`ACTIONS`; nothing binds a key anywhere else. An action `service.scale` of a scope is carried out by the method
`action_service_scale` of the widget or screen that owns the scope.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from typing import NamedTuple

from textual.binding import Binding


class Scope(StrEnum):
    """Where an action applies; the value is the heading in the help."""

    APP = "everywhere"
    TABLE = "tables"
    NODES = "nodes"
    SERVICES = "services"
    TASKS = "tasks"
    NETWORKS = "networks"
    LOG = "logs"
    PLAYGROUND = "playground"
    DIALOG = "dialogs"
    QUESTION = "questions"


class Danger(IntEnum):
    """What an action can do to the cluster."""

    NONE = 0
    """Looks only."""
    CHANGE = 1
    """Changes the cluster, after a preview, and can be undone."""
    DESTROY = 2
    """Cannot be undone, so the name has to be typed."""


class Action(NamedTuple):
    """One action."""

    id: str
    """`object.verb`, unique; also the name under which keys are rebound in the configuration."""
    title: str
    """One to three words for the footer."""
    help: str
    """A sentence for the help and the palette."""
    keys: tuple[str, ...]
    """Keys in Textual's names; empty when only the prompt and the palette lead to it."""
    scope: Scope
    danger: Danger = Danger.NONE
    command: tuple[str, ...] = ()
    """Names at the `:` prompt, the first one shown; empty means that the last part of `id` is the name."""
    arguments: str = ""
    """What may follow the name at the prompt, for the help."""
    footer: int = 0
    """Rank in the footer, 1 first; 0 keeps it out."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the prompt takes; none for a dialog's, over which there is no prompt."""
        if self.scope in (Scope.DIALOG, Scope.QUESTION):
            return ()
        return self.command or (self.id.rpartition(".")[2],)

    @property
    def method(self) -> str:
        """The name of the method that carries it out, without `action_`."""
        return self.id.replace(".", "_").replace("-", "_")

    @property
    def owner(self) -> str:
        """Who has the method: `table`, `log`, or `screen` for what needs more than the widget knows."""
        head = self.id.partition(".")[0]
        return head if head in ("table", "log") else "screen"


# fmt: off
A, S, D = Action, Scope, Danger

ACTIONS: tuple[Action, ...] = (
    # everywhere
    A("view.nodes", "nodes", "Show the nodes.", ("1",), S.APP, command=("nodes", "node", "no"), arguments="[FILTER]"),
    A("view.services", "services", "Show the services.",
      ("2",), S.APP, command=("services", "service", "svc", "se"), arguments="[FILTER]"),
    A("view.tasks", "tasks", "Show the tasks, of one service or on one node when named.",
      ("3",), S.APP, command=("tasks", "task", "ps", "ta"), arguments="[SERVICE] [@NODE] [FILTER]"),
    A("view.logs", "logs", "Show the logs of a service.",
      ("4",), S.APP, command=("logs", "log", "lo"), arguments="SERVICE"),
    A("view.playground", "playground", "Show the playground's instances.", ("5",), S.APP, command=("playground", "pg")),
    A("view.pulse", "pulse", "Show the managers, the log and the tasks by state, as they change.",
      ("6",), S.APP, command=("pulse", "pu", "managers")),
    A("view.networks", "networks", "Show the networks: subnets, and how many services and tasks are on them.",
      ("7",), S.APP, command=("networks", "network", "net"), arguments="[FILTER]"),
    A("app.back", "back", "Go back one step; closes a filter first.", ("escape",), S.APP, command=("back",), footer=90),
    A("app.prompt", "command", "Type a command.", ("colon",), S.APP, command=("prompt",), footer=60),
    A("app.palette", "palette", "Search every command.", ("ctrl+p",), S.APP, command=("palette",)),
    A("app.help", "help", "Show every key and command.",
      ("question_mark", "f1"), S.APP, command=("help", "h"), footer=80),
    A("app.undo", "undo", "Undo the last change; what that does is shown first.",
      ("ctrl+z",), S.APP, command=("undo",), footer=70),
    A("app.pane", "other pane", "Move to the next pane.", ("tab",), S.APP, command=("pane",)),
    A("app.split", "split", "Show or hide the logs beside the table.", ("v",), S.APP, command=("split",)),
    A("app.theme", "theme", "Change to the next theme, or to the one named.",
      (), S.APP, command=("theme",), arguments="[NAME]"),
    A("app.mouse", "mouse", "Switch the mouse off, so that the terminal selects text, or on again.",
      (), S.APP, command=("mouse",)),
    A("app.reconnect", "reconnect", "Connect to the cluster again now.", (), S.APP, command=("reconnect",)),
    A("app.exit", "quit", "Leave the console; a playground asks first, because it ends.",
      ("ctrl+q",), S.APP, command=("quit", "q", "exit")),
    A("swarm.quorum", "quorum", "Show which managers are missing and how to get a quorum again.", (), S.APP),
    A("swarm.force-new-cluster", "force new cluster",
      "Go on with this manager alone, without those that are lost; a name has to be typed.", (), S.APP, D.DESTROY),
    A("swarm.leave", "leave", "Let the node that is asked leave the swarm; its name has to be typed.", (), S.APP, D.DESTROY),
    # tables
    A("table.open", "open", "Go down: service to tasks, node to tasks, task to logs, network to its description.",
      ("enter",), S.TABLE, footer=1),
    A("view.filter", "filter", "Filter while typing: regex, ! inverts, ~ fuzzy, label=KEY=VALUE.",
      ("slash",), S.TABLE, arguments="[TEXT]", footer=50),
    A("table.up", "up", "One row up.", ("up", "k"), S.TABLE),
    A("table.down", "down", "One row down.", ("down", "j"), S.TABLE),
    A("table.page-up", "page up", "One page up.", ("pageup", "ctrl+b"), S.TABLE),
    A("table.page-down", "page down", "One page down.", ("pagedown", "ctrl+f"), S.TABLE),
    A("table.top", "top", "First row.", ("home", "g"), S.TABLE),
    A("table.bottom", "bottom", "Last row.", ("end", "G"), S.TABLE),
    A("table.column-left", "column left", "Choose the column to the left.", ("left",), S.TABLE),
    A("table.column-right", "column right", "Choose the column to the right.", ("right",), S.TABLE),
    A("table.sort", "sort", "Sort by the chosen column, or the one named; again turns the order round.",
      ("o",), S.TABLE, arguments="[COLUMN]"),
    A("view.columns", "columns", "Choose which columns are shown.", ("O",), S.TABLE),
    A("table.mark", "mark", "Mark the row for an action on several, and go down.", ("space",), S.TABLE),
    A("table.mark-all", "mark all", "Mark every row that is shown.", ("ctrl+a",), S.TABLE),
    A("table.unmark", "unmark", "Take all marks away.", ("U",), S.TABLE),
    A("table.copy-cell", "copy cell", "Copy the chosen column of this row.", ("c",), S.TABLE),
    A("table.copy-row", "copy row", "Copy this row, or every marked one, tab-separated.", ("C",), S.TABLE),
    A("table.copy-id", "copy id", "Copy the full id of this row, or of every marked one.", ("i",), S.TABLE),
    A("object.describe", "describe", "Describe the object in words.", ("d",), S.TABLE, arguments="[NAME]", footer=20),
    A("object.why", "why", "Why a task is pending or failed, why a service is short of replicas.",
      ("w",), S.TABLE, arguments="[NAME]", footer=30),
    A("object.raw", "raw", "Show the raw object as the API gives it.", ("y",), S.TABLE, arguments="[NAME]"),
    A("view.history", "history", "Show or hide what has ended.", ("H",), S.TABLE),
    A("object.logs", "logs", "Show the logs of this service or task.", ("l",), S.TABLE, arguments="[NAME]", footer=10),
    # services
    A("service.scale", "scale", "Set the number of replicas.",
      ("s",), S.SERVICES, D.CHANGE, arguments="[SERVICE] [REPLICAS]", footer=2),
    A("service.restart", "restart", "Replace the tasks one by one.",
      ("r",), S.SERVICES, D.CHANGE, arguments="[SERVICE]", footer=3),
    A("service.remove", "remove", "Remove the service and its tasks; the name has to be typed.",
      ("ctrl+k",), S.SERVICES, D.DESTROY, command=("remove", "rm"), arguments="[SERVICE]"),
    # nodes
    A("node.drain", "drain", "Move every task off the node and give it no more.",
      ("D",), S.NODES, D.CHANGE, arguments="[NODE]", footer=2),
    A("node.activate", "activate", "Let the node have tasks again.",
      ("A",), S.NODES, D.CHANGE, arguments="[NODE]", footer=3),
    A("node.promote", "promote", "Make the node a manager; shows how many failures are survived then.",
      ("P",), S.NODES, D.CHANGE, arguments="[NODE]", footer=4),
    A("node.demote", "demote", "Make the manager a worker; shows how many failures are survived then.",
      ("M",), S.NODES, D.CHANGE, arguments="[NODE]", footer=5),
    # logs
    A("log.follow", "follow", "Follow the newest line, or stop.", ("f",), S.LOG, footer=1),
    A("log.pause", "pause", "Hold the picture; what arrives is counted.", ("p",), S.LOG, footer=2),
    A("log.wrap", "wrap", "Wrap long lines, or not.", ("w",), S.LOG, footer=3),
    A("log.timestamps", "times", "Times off, absolute, relative.", ("t",), S.LOG, footer=4),
    A("log.search", "search", "Search; n and N go through what is found.", ("slash",), S.LOG, arguments="[TEXT]", footer=5),
    A("log.next", "next", "The next line found.", ("n",), S.LOG),
    A("log.previous", "previous", "The line found before.", ("N",), S.LOG),
    A("log.filter", "filter", "Show only lines that match; ! leaves them out instead.",
      ("ampersand",), S.LOG, command=("only",), arguments="[TEXT]", footer=6),
    A("log.next-problem", "next problem", "The next error or warning.", ("e",), S.LOG, footer=7),
    A("log.previous-problem", "problem before", "The error or warning before.", ("E",), S.LOG),
    A("log.since", "since", "Read again from 1, 5, 15 or 60 minutes ago.", ("comma",), S.LOG, arguments="[MINUTES]"),
    A("log.copy", "copy", "Copy the lines that are on the screen.", ("c",), S.LOG),
    A("log.save", "save", "Save every line that is kept to a file.", ("S",), S.LOG, arguments="[FILE]"),
    A("log.up", "up", "One line up.", ("up", "k"), S.LOG),
    A("log.down", "down", "One line down.", ("down", "j"), S.LOG),
    A("log.page-up", "page up", "One page up.", ("pageup", "ctrl+b"), S.LOG),
    A("log.page-down", "page down", "One page down.", ("pagedown", "ctrl+f"), S.LOG),
    A("log.top", "top", "First line kept.", ("home", "g"), S.LOG),
    A("log.bottom", "bottom", "Last line, and follow.", ("end", "G"), S.LOG),
    A("log.left", "left", "Scroll left.", ("left",), S.LOG),
    A("log.right", "right", "Scroll right.", ("right",), S.LOG),
    # playground
    A("playground.add", "add instance", "Start one more instance.",
      ("plus",), S.PLAYGROUND, D.CHANGE, command=("add",), footer=1),
    A("playground.delete", "delete", "Delete the chosen instance; its name has to be typed.",
      ("ctrl+k",), S.PLAYGROUND, D.DESTROY, arguments="[INSTANCE]", footer=5),
    A("playground.copy-host", "copy DOCKER_HOST", "Copy the DOCKER_HOST of the instance.",
      ("h",), S.PLAYGROUND, footer=6),
    A("playground.power", "power", "Cut the power of the chosen instance, or switch it on again.",
      ("X",), S.PLAYGROUND, D.CHANGE, arguments="[INSTANCE]", footer=2),
    A("playground.freeze", "freeze", "Freeze the chosen instance as a machine that hangs, or thaw it.",
      ("F",), S.PLAYGROUND, D.CHANGE, arguments="[INSTANCE]", footer=3),
    A("playground.extend", "extend", "Let the session last an hour longer, or so many minutes.",
      ("E",), S.PLAYGROUND, D.CHANGE, arguments="[MINUTES]", footer=4),
    # dialogs
    A("dialog.accept", "do it", "Do what the dialog shows.", ("enter",), S.DIALOG),
    A("dialog.leave", "leave", "Leave the dialog; a change that is under way goes on.",
      ("escape",), S.DIALOG),
    A("dialog.stop", "stop waiting", "Stop waiting for a change; what was sent stays, Ctrl+Z undoes it.",
      ("ctrl+x",), S.DIALOG),
    A("dialog.copy", "copy", "Copy the text of the dialog.", ("ctrl+y",), S.DIALOG),
    # questions
    A("ask.yes", "yes", "Do it.", ("y",), S.QUESTION),
    A("ask.no", "no", "Do nothing.", ("escape", "n"), S.QUESTION),
    A("ask.quit", "quit", "When asked whether to end a playground: end it.", ("ctrl+q",), S.QUESTION),
    A("ask.force", "force a new cluster", "Where the quorum is lost: show what going on with this manager alone means.",
      ("F",), S.QUESTION),
)
# fmt: on
"""Every action, in the order in which the help shows them."""

TYPING = frozenset({"app.prompt", "view.filter", "log.search", "log.filter"})
"""Actions that open a line to type in."""

BY_ID = {action.id: action for action in ACTIONS}


Bindings = list[Binding | tuple[str, str] | tuple[str, str, str]]


def bindings(*scopes: Scope) -> Bindings:
    """Textual bindings of every action of the scopes that has keys."""
    return bindings_of(action for action in ACTIONS if action.scope in scopes)


def bindings_of(actions: Iterable[Action]) -> Bindings:
    """Textual bindings of the actions that have keys."""
    return [
        Binding(
            ",".join(action.keys),
            f"screen.{action.method}" if action.owner == "screen" else action.method,
            action.title,
            show=False,
            id=action.id,
            tooltip=action.help,
            # Before the widget with the focus has its turn: the next letter typed must already go to the prompt.
            priority=action.id in TYPING,
        )
        for action in actions
        if action.keys
    ]


_KEY_NAMES = {
    "slash": "/", "colon": ":", "question_mark": "?", "plus": "+", "comma": ",", "ampersand": "&", "escape": "Esc",
    "enter": "Enter", "space": "Space", "tab": "Tab", "up": "↑", "down": "↓", "left": "←", "right": "→", "home": "Home",
    "end": "End", "pageup": "PgUp", "pagedown": "PgDn", "f1": "F1",
}  # fmt: skip


def key_label(key: str) -> str:
    """A key as people write it: `slash` is `/`, `ctrl+z` is `Ctrl+Z`."""
    if key.startswith("ctrl+"):
        return "Ctrl+" + key_label(key.removeprefix("ctrl+")).upper()
    return _KEY_NAMES.get(key, key)


def footer_actions(scopes: Iterable[Scope]) -> list[Action]:
    """The actions of the scopes that the footer shows, the most useful first."""
    wanted = set(scopes)
    return sorted((action for action in ACTIONS if action.footer and action.scope in wanted), key=lambda a: a.footer)


def find_command(name: str, scopes: Iterable[Scope] = tuple(Scope)) -> Action | None:
    """The action that the prompt calls `name`; one of `scopes` goes before one of another scope."""
    found = [action for action in ACTIONS if name in action.names]
    preferred = set(scopes)
    return next((action for action in found if action.scope in preferred), found[0] if found else None)


def key_table() -> str:
    """The actions as a Markdown table by scope, for the README."""
    lines: list[str] = []
    for scope in Scope:
        lines += ["", f"### {scope.value.capitalize()}", "", "| key | command | what it does |", "|---|---|---|"]
        for action in ACTIONS:
            if action.scope is scope:
                keys = " ".join(f"`{key_label(key)}`" for key in action.keys).replace("|", "\\|")
                command = (
                    f"`{' '.join(filter(None, (f':{action.names[0]}', action.arguments)))}`" if action.names else ""
                )
                lines.append(f"| {keys} | {command} | {action.help} |")
    return "\n".join(lines[1:]) + "\n"
