"""The frame around everything: header with tabs, the banner of trouble, the footer with the keys that work here.

Drawn line by line and without child widgets, because they are on the screen with the first paint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from swarmtui.ui.actions import Action, key_label
from swarmtui.ui.glyphs import GlyphSet
from swarmtui.ui.text import fitted, safe, width_of
from swarmtui.ui.views import LAGGING

if TYPE_CHECKING:
    from swarmtui.model.summary import ClusterSummary

Part = tuple[str, str]
"""Text, and the name of its style in `STYLES`."""

LASTING = ("app.undo", "app.help")
"""Actions that the footer shows at its right end, however little room there is."""

STYLES: dict[str, tuple[str, bool]] = {
    "plain": ("foreground", False),
    "brand": ("text-accent", True),
    "muted": ("text-muted", False),
    "accent": ("text-accent", True),
    "good": ("text-success", False),
    "busy": ("text-secondary", False),
    "warning": ("text-warning", True),
    "bad": ("text-error", True),
    "here": ("foreground", True),
}
"""Kinds of parts: the theme's variable and whether it is bold."""


class LineWidget(Widget):
    """A few lines made of coloured parts: some from the left, some up to the right edge."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "LineWidget { height: 1; background: $panel; color: $foreground; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._styles_by_name: dict[str, Style] = {}

    def line(self, y: int, width: int) -> tuple[list[Part], list[Part]]:
        """The parts of line `y`: from the left, and up to the right edge."""
        raise NotImplementedError

    def style_of(self, name: str) -> Style:
        """The style of a kind of part: plain, brand, muted, accent, good, busy, warning, bad or here.

        Made from the theme's variables, not from component classes: the style sheet would work each of them out for each of
        these widgets before the first paint, a tenth of its time.
        """
        style = self._styles_by_name.get(name)
        if style is None:
            variable, bold = STYLES[name]
            value = self.app.theme_variables.get(variable, "")
            style = self.rich_style + Style(bold=bold)
            if value and not value.startswith("auto"):
                style += Style(color=Color.parse(value).rich_color)
            if name == "here":
                style += Style(bgcolor=Color.parse(self.app.theme_variables["background"]).rich_color)
            self._styles_by_name[name] = style
        return style

    def notify_style_update(self) -> None:
        """The theme changed."""
        super().notify_style_update()
        self._styles_by_name.clear()

    def render_line(self, y: int) -> Strip:
        """One line; what does not fit is cut at the end of the left part."""
        width = self.size.width
        left, right = self.line(y, width)
        room = max(0, width - sum(width_of(text) for text, _ in right))
        segments: list[Segment] = []
        for text, name in left:
            if room <= 0:
                break
            cells = min(width_of(text), room)
            segments.append(Segment(fitted(text, cells), self.style_of(name)))
            room -= cells
        segments.append(Segment(" " * room, self.style_of("plain")))
        segments += [Segment(text, self.style_of(name)) for text, name in right]
        return Strip(segments).adjust_cell_length(width, self.style_of("plain"))


class Tab(NamedTuple):
    """One view in the header."""

    view: str
    """Its name, shown."""
    key: str
    """The key that leads to it."""
    figures: str
    """Counts after its name."""
    tone: str = "muted"
    """How the figures are coloured."""


_ALWAYS = frozenset({"nodes", "services", "tasks", "logs", "playground", "pulse"})
"""Views that are named on the narrowest screen."""


def _width(tabs: Sequence[Tab]) -> int:
    """The cells that the tabs take."""
    return sum(len(tab.key) + width_of(tab.view) + width_of(tab.figures) + 5 for tab in tabs)


class Header(LineWidget):
    """Where one is, how the cluster is, how good the connection is, and what time it is; below it the views."""

    DEFAULT_CSS = "Header { height: 2; }"

    class Chosen(Message):
        """A view was clicked."""

        def __init__(self, view: str) -> None:
            super().__init__()
            self.view = view
            """The view's name."""

    def __init__(self, glyphs: GlyphSet, clock: Callable[[], str]) -> None:
        super().__init__()
        self.glyphs = glyphs
        """The symbols drawn."""
        self.crumbs: Sequence[str] = ()
        """Where one is."""
        self.view = ""
        """The view whose tab is marked."""
        self.views: Sequence[tuple[str, str]] = ()
        """Views and their keys."""
        self.summary: ClusterSummary | None = None
        """The cluster's figures, None until connected."""
        self.context = ""
        """The context's name until the cluster's is known."""
        self.marks: Sequence[str] = ()
        """`read-only`, `production`."""
        self.activity = ""
        """A change under way."""
        self.countdown = ""
        """What is left of a playground's session."""
        self._clock = clock
        self._tab_cells: list[tuple[int, int, str]] = []

    def line(self, y: int, width: int) -> tuple[list[Part], list[Part]]:
        """The crumbs and the connection; then the tabs."""
        return self._first(width) if y == 0 else self._second(width)

    def _first(self, width: int) -> tuple[list[Part], list[Part]]:
        summary = self.summary
        name = self.context or (summary.context if summary else "")
        if summary is not None and summary.name not in ("", "default", name):
            name = f"{name} ({summary.name})" if name else summary.name
        left: list[Part] = [(" swarmtui ", "brand"), (f" {safe(name)}" if name else "", "plain")]
        group = summary.group if summary is not None else None
        marks = [*self.marks, *(["no quorum"] if group is not None and not group.quorum else [])]
        if group is not None and group.stale:
            marks.append("stale")
        left += [(f" {mark}", "bad" if mark in ("production", "no quorum") else "warning") for mark in marks]
        for crumb in self.crumbs[1:] if self.crumbs[:1] == [name] else self.crumbs:
            left += [(f" {self.glyphs['crumb']} ", "muted"), (safe(crumb), "plain")]
        left.append(("  ", "plain"))
        right: list[Part] = self._log_position()
        if self.countdown:
            right += [(f" {self.countdown} left ", "accent"), (" ", "plain")]
        if summary is not None:
            if summary.leader:
                right.append((f"{self.glyphs['leader']} {safe(summary.leader)}  ", "plain"))
            elif summary.managers:
                right.append((f"{self.glyphs['warning']} no leader  ", "bad"))
            if summary.managers:
                whole = summary.managers_reachable == summary.managers
                text = f"managers {summary.managers_reachable}/{summary.managers}  "
                right.append((text, "plain" if whole else "warning"))
        right += self._connection()
        right.append((f"  {self._clock()} ", "muted"))
        # The least needed on the right gives way to the crumbs.
        needed = sum(width_of(text) for text, _ in left)
        while len(right) > 2 and needed + sum(width_of(text) for text, _ in right) > width:
            right.pop(0)
        if needed + sum(width_of(text) for text, _ in right) > width:
            # Where one is says more than the program's name.
            left.pop(0)
        return left, right

    def _log_position(self) -> list[Part]:
        """Term, newest entry and the worst lag; the first to give way."""
        group = self.summary.group if self.summary is not None else None
        if group is None or not group.term:
            return []
        parts: list[Part] = [(f"term {group.term}  ", "muted")]
        if group.index >= 0:
            parts[:0] = [(f"log {group.index}  ", "muted")]
        lag = max((member.lag for member in group.members if member.reachable), default=-1)
        if lag >= LAGGING:
            parts[:0] = [(f"{self.glyphs['warning']} lag {lag}  ", "warning")]
        return parts

    def _connection(self) -> list[Part]:
        connection = self.summary.connection if self.summary is not None else None
        state = str(connection.state) if connection is not None else "connecting"
        glyph, tone = {
            "live": ("running", "good"),
            "polling": ("running", "good"),
            "connecting": ("starting", "busy"),
            "syncing": ("starting", "busy"),
            "closed": ("shutdown", "muted"),
        }.get(state, ("warning", "bad"))
        latency = f" {connection.latency_ms:.0f} ms" if connection and connection.latency_ms is not None else ""
        return [(f"{self.glyphs[glyph]} {state}{latency}", tone)]

    def _tabs(self) -> list[Tab]:
        summary = self.summary
        counts: dict[str, tuple[str, str]] = {}
        if summary is not None:
            sick = summary.services - summary.services_healthy
            trouble = f" {self.glyphs['warning']}{sick}" if sick else ""
            counts = {
                "nodes": (
                    f"{summary.nodes_ready}/{summary.nodes}",
                    "muted" if summary.nodes_ready == summary.nodes else "warning",
                ),
                "services": (f"{summary.services_healthy}/{summary.services}{trouble}", "warning" if sick else "muted"),
                "tasks": (
                    f"{summary.tasks_running}/{summary.tasks_wanted}",
                    "muted" if summary.tasks_running >= summary.tasks_wanted else "busy",
                ),
            }
        return [Tab(view, key, *counts.get(view, ("", "muted"))) for view, key in self.views]

    def _second(self, width: int) -> tuple[list[Part], list[Part]]:
        left: list[Part] = [(" ", "plain")]
        self._tab_cells = []
        position = 1
        tabs = self._tabs()
        # On a narrow screen the networks give way first, then the figures of what is not looked at.
        if _width(tabs) > width:
            tabs = [tab for tab in tabs if tab.view in (self.view, *_ALWAYS)]
        if _width(tabs) > width:
            tabs = [tab if tab.view == self.view else tab._replace(figures="") for tab in tabs]
        for tab in tabs:
            here = tab.view == self.view
            parts: list[Part] = [
                (f" {tab.key} ", "here" if here else "muted"),
                (tab.view, "here" if here else "plain"),
                (f" {tab.figures} " if tab.figures else " ", "here" if here and tab.tone == "muted" else tab.tone),
            ]
            cells = sum(width_of(text) for text, _ in parts)
            self._tab_cells.append((position, position + cells, tab.view))
            left += [*parts, (" ", "plain")]
            position += cells + 1
        right: list[Part] = [(f" {safe(self.activity)} ", "busy")] if self.activity else []
        return left, right if position + sum(width_of(text) for text, _ in right) <= width else []

    def on_click(self, event: events.Click) -> None:
        """A tab leads to its view."""
        if event.y == 1:
            for start, stop, view in self._tab_cells:
                if start <= event.x < stop:
                    self.post_message(self.Chosen(view))


class Banner(LineWidget):
    """Trouble that concerns everything on the screen; not there while all is well."""

    DEFAULT_CSS = """
    Banner { display: none; background: $panel; }
    Banner.-shown { display: block; }
    """

    def __init__(self, glyphs: GlyphSet) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._text = ""
        self._hint = ""

    def say(self, text: str, hint: str = "") -> None:
        """Shows a text, with what to do at the right; an empty text takes the banner away."""
        if (text, hint) != (self._text, self._hint):
            self._text, self._hint = text, hint
            self.set_class(bool(text), "-shown")
            self.refresh()

    def line(self, y: int, width: int) -> tuple[list[Part], list[Part]]:
        """The trouble and what to do."""
        del y
        left = [(f" {self._glyphs['warning']} {safe(self._text)}", "bad")]
        right = [(f"  {self._hint} ", "plain")] if self._hint and width >= 60 else []
        return left, right


class Footer(LineWidget):
    """The keys that work here, the most useful first; help is always among them."""

    class Pressed(Message):
        """A key's name was clicked."""

        def __init__(self, action: Action) -> None:
            super().__init__()
            self.action = action
            """The action."""

    def __init__(self, keys_of: Callable[[Action], Sequence[str]], id: str | None = None) -> None:
        super().__init__(id=id)
        self._keys_of = keys_of
        self._actions: Sequence[Action] = ()
        self._notes: dict[str, str] = {}
        self._cells: list[tuple[int, int, Action]] = []

    def show(self, actions: Sequence[Action], notes: dict[str, str]) -> None:
        """Shows these actions; `notes` by action id replace titles (`undo "scale web 4 → 6"`)."""
        self._actions, self._notes = actions, notes
        self.refresh()

    def line(self, y: int, width: int) -> tuple[list[Part], list[Part]]:
        """As many keys as fit."""
        del y
        # What can be undone and how to get help are said whatever else there is no room for.
        helping = [action for action in self._actions if action.id in LASTING]
        others = [action for action in self._actions if action.id not in LASTING]
        right = [part for action in helping for part in self._hint(action)]
        room = width - sum(width_of(text) for text, _ in right)
        left: list[Part] = []
        self._cells, position = [], 0
        chosen: list[tuple[Action, list[Part]]] = []
        for action in others:
            parts = self._hint(action)
            cells = sum(width_of(text) for text, _ in parts)
            if cells <= room:
                room -= cells
                chosen.append((action, parts))
        for action, parts in chosen:
            cells = sum(width_of(text) for text, _ in parts)
            self._cells.append((position, position + cells, action))
            position += cells
            left += parts
        position = width - sum(width_of(text) for text, _ in right)
        for action in helping:
            cells = sum(width_of(text) for text, _ in self._hint(action))
            self._cells.append((position, position + cells, action))
            position += cells
        return left, right

    def _hint(self, action: Action) -> list[Part]:
        keys = self._keys_of(action)
        if not keys:
            return []
        title = safe(self._notes.get(action.id, action.title))
        title = fitted(title, min(width_of(title), max(8, self.size.width // 2 - 10)))
        return [(f" {key_label(keys[0])}", "accent"), (f" {title} ", "plain")]

    def on_click(self, event: events.Click) -> None:
        """A click does what the key does."""
        for start, stop, action in self._cells:
            if start <= event.x < stop:
                self.post_message(self.Pressed(action))
