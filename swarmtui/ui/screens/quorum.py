"""Too few managers answer: which are missing, what still works, and the two ways out. Comes and goes by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from swarmtui.ui.actions import BY_ID, bindings_of
from swarmtui.ui.glyphs import GlyphSet
from swarmtui.ui.text import age, safe

if TYPE_CHECKING:
    from swarmtui.model.managers import ManagerGroup
    from swarmtui.model.summary import ClusterSummary

Parts = list[str | tuple[str, str]]


def quorum_text(group: ManagerGroup, asked: str, glyphs: GlyphSet, now: float) -> Content:
    """The whole story; `asked` is the manager that tells it, `now` seconds since 1970."""
    from swarmtui.model.managers import majority

    count = len(group.voters)
    answering = count - len(group.missing)
    parts: Parts = [
        (f"{answering} of {count} managers answer, {majority(count)} must. ", "bold $text-error"),
        "Nobody leads, so nothing can be decided.\n\n",
    ]
    width = max((len(member.hostname) for member in group.members), default=0)
    for member in group.members:
        here = " (asked by this console)" if member.hostname == asked else ""
        if member.reachable:
            parts += [
                (f"{glyphs['running']} ", "$text-success"),
                f"{safe(member.hostname):<{width}}  {safe(member.address)}",
            ]
            parts += [("  answers", "$text-muted"), (here, "$text-muted"), "\n"]
        else:
            since = f" for {age(now - member.since / 1e9)}" if member.since else ""
            parts += [
                (f"{glyphs['failed']} ", "$text-error"),
                f"{safe(member.hostname):<{width}}  {safe(member.address)}",
            ]
            parts += [(f"  missing{since}", "$text-error"), "\n"]
    needed, missing = group.needed, len(group.missing)
    back = "the missing manager" if missing == 1 else f"{needed} of the {missing} missing managers"
    parts += [
        ("\nwhat still works\n", "bold"),
        "Tasks keep running, and a failed one is restarted on its node. Everything can be looked at, as it was last known.\n",
        ("what does not\n", "bold"),
        "Scaling, updates, new services, moving tasks off a lost node: they fail at once and change nothing.\n",
        ("\nwhat to do\n", "bold"),
        f"Bring back {back}: switch on what is off, mend the network. All goes on by itself then.\n"
        if missing
        else "Wait: enough managers answer, an election is under way.\n",
        f"Only if they are lost for ever: force a new cluster from {safe(asked) or 'this manager'}. It keeps what this manager "
        "knows, and the others must join anew. What that means is shown first, and a name has to be typed.\n",
    ]
    return Content.assemble(*(part for part in parts if part))


class QuorumScreen(ModalScreen[None]):
    """Shown while there is no quorum; Escape puts it away, `:quorum` brings it back."""

    BINDINGS = bindings_of((BY_ID["ask.no"], BY_ID["ask.force"]))
    DEFAULT_CSS = """
    QuorumScreen { align: center middle; background: $background 60%; }
    QuorumScreen > Vertical { width: 88; max-width: 100%; height: auto; max-height: 96%; border: round $text-error;
        background: $surface; border-title-color: $text-error; border-title-style: bold; padding: 0 2; }
    QuorumScreen VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; padding: 0 0 1 0; }
    QuorumScreen Static { height: auto; }
    QuorumScreen #keys { dock: bottom; color: $text-muted; text-align: right; height: 1; }
    """

    def __init__(
        self,
        summary_of: Callable[[], ClusterSummary | None],
        glyphs: GlyphSet,
        *,
        now: Callable[[], float],
        force: Callable[[], None],
        may_force: bool = True,
    ) -> None:
        """`force` shows the preview of a new cluster; called once this screen is gone."""
        super().__init__()
        self._summary_of = summary_of
        self._glyphs = glyphs
        self._now = now
        self._force = force
        self._may_force = may_force
        self._body = Static("", id="text")

    def compose(self) -> ComposeResult:
        """The story and the keys."""
        keys = "[F] force a new cluster   [Esc] look around" if self._may_force else "[Esc] look around"
        frame = Vertical(VerticalScroll(self._body, can_focus=True), Static(Content(keys), id="keys"))
        frame.border_title = Content(f" {self._glyphs['warning']} the managers have no quorum ").markup
        yield frame

    def on_mount(self) -> None:
        """Follows what is known."""
        self._tick()
        self.set_interval(0.5, self._tick)

    def _tick(self) -> None:
        summary = self._summary_of()
        group = summary.group if summary is not None else None
        if summary is None or group is None or not self.is_current:
            return
        if group.quorum:
            self.dismiss()
            self.app.notify(f"the managers have a quorum again: {group.leader or 'one of them'} leads", timeout=6)
            return
        self._body.update(quorum_text(group, summary.connection.node, self._glyphs, self._now()))

    def action_ask_no(self) -> None:
        """Put away; the header and the banner go on saying it."""
        self.dismiss()

    def action_ask_force(self) -> None:
        """What forcing a new cluster means."""
        if self._may_force:
            self.dismiss()
            self.app.call_later(self._force)
