"""The pulse: managers with their place in the log, what is decided a second, tasks by state, how far away the cluster is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from swarmtui.ui.glyphs import TONES, GlyphSet, Tone
from swarmtui.ui.sparkline import sparkline
from swarmtui.ui.text import age, safe
from swarmtui.ui.tones import STYLES
from swarmtui.ui.views import LAGGING

if TYPE_CHECKING:
    from swarmtui.model.managers import ManagerGroup, MemberRow
    from swarmtui.model.pulse import Pulse
    from swarmtui.ui.session import ClusterSession

Parts = list[str | tuple[str, str]]
MEMBER_GLYPHS = {"leader": "leader", "learner": "starting", "candidate": "pending"}


def managers_text(group: ManagerGroup | None, glyphs: GlyphSet, now: float) -> Parts:
    """The group: a line a member, and what it can bear."""
    from swarmtui.model.managers import majority

    if group is None:
        return [("managers\n", "bold"), ("nothing is known of them\n", "$text-muted")]
    count = len(group.voters)
    parts: Parts = [("managers", "bold")]
    if group.term:
        parts.append((f"  term {group.term}", "$text-muted"))
    if not group.quorum:
        parts.append((f"  no quorum: {majority(count)} of {count} must answer", "bold $text-error"))
    else:
        bears = f"  {majority(count)} of {count} must answer, {group.spare} more may fail"
        parts.append((bears, "$text-muted" if group.spare else "$text-warning"))
    if group.stale:
        parts.append(("  stale", "$text-warning"))
    parts.append("\n")
    name = max(6, *(len(member.hostname) for member in group.members)) if group.members else 6
    place = max(7, *(len(member.address) for member in group.members)) if group.members else 7
    parts.append((f"  {'MEMBER':<{name}}  {'ADDRESS':<{place}}  {'ROLE':<11}{'INDEX':>10}{'LAG':>8}\n", "$text-muted"))
    for member in group.members:
        parts += _member_parts(member, glyphs, name, place, now)
    return parts


def _member_parts(member: MemberRow, glyphs: GlyphSet, name: int, place: int, now: float) -> Parts:
    glyph = MEMBER_GLYPHS.get(member.role, "manager")
    tone = TONES.get(glyph, Tone.PLAIN)
    index = str(member.index) if member.index >= 0 else "-"
    lag = str(member.lag) if member.lag >= 0 else "-"
    parts: Parts = [
        (f"{glyphs[glyph]} ", STYLES.get(tone, "")),
        f"{safe(member.hostname):<{name}}  {safe(member.address):<{place}}  ",
        (f"{member.role:<11}", STYLES.get(tone, "")),
        f"{index:>10}",
        (f"{lag:>8}", "$text-warning" if member.lag >= LAGGING else ""),
    ]
    if not member.reachable:
        since = f" for {age(now - member.since / 1e9)}" if member.since else ""
        parts.append((f"  {glyphs['failed']} no answer{since}", "$text-error"))
    return [*parts, "\n"]


def rates_text(pulse: Pulse, glyphs: GlyphSet, width: int) -> Parts:
    """A sparkline for each rate, its newest value before it."""
    samples = list(pulse.samples)
    rows = [
        ("decided/s", [sample.commits for sample in samples], "{:.1f}"),
        ("tasks running", [float(sample.running) for sample in samples], "{:.0f}"),
        ("failures", [float(sample.failures) for sample in samples], "{:.0f}"),
        ("answer ms", [sample.latency_ms for sample in samples], "{:.1f}"),
    ]
    parts: Parts = [
        ("\nrates", "bold"),
        (f"  the last {min(len(samples), max(10, width - 26))} seconds\n", "$text-muted"),
    ]
    for title, values, form in rows:
        newest = form.format(values[-1]) if values else "-"
        drawn = sparkline(values, max(10, width - 26), ascii_only=glyphs.name == "ascii")
        parts += [(f"  {title:<14}", "$text-muted"), f"{newest:>7}  ", (drawn, "$accent"), "\n"]
    return parts


class PulseView(VerticalScroll):
    """Redrawn once a second while it is shown; samples are taken all the while from when it was first shown."""

    DEFAULT_CSS = """
    PulseView { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    PulseView Static { height: auto; }
    """

    def __init__(
        self, glyphs: GlyphSet, *, session_of: Callable[[], ClusterSession | None], now: Callable[[], float]
    ) -> None:
        super().__init__(id="view-pulse", can_focus=True)
        self._glyphs = glyphs
        self._session_of = session_of
        self._now = now
        self._text = Static("")
        self._pulse: Pulse | None = None

    def compose(self):  # type: ignore[no-untyped-def]
        """One text."""
        yield self._text

    def on_mount(self) -> None:
        """The first picture at once."""
        self.tick()

    def on_resize(self) -> None:
        """Sparklines as wide as there is room."""
        self.draw()

    def tick(self) -> None:
        """A second has passed."""
        session = self._session_of()
        if session is None:
            return
        if self._pulse is None:
            from swarmtui.model.pulse import Pulse

            self._pulse = Pulse()
        self._pulse.take(session.model.summary, session.model.tasks.values(), self._now())
        self.draw()

    def draw(self) -> None:
        """The picture as it is now."""
        session, pulse = self._session_of(), self._pulse
        if not self.display:
            return
        if session is None or pulse is None:
            self._text.update("not connected")
            return
        from swarmtui.model.pulse import by_state

        summary = session.model.summary
        parts = managers_text(summary.group, self._glyphs, self._now())
        parts += rates_text(pulse, self._glyphs, self.content_size.width)
        parts.append(("\ntasks by state", "bold"))
        parts.append((f"  {summary.tasks_running} of {summary.tasks_wanted} run\n", "$text-muted"))
        for state, count in by_state(session.model.tasks.values()):
            parts += [f"  {state:<14}{count:>7}\n"]
        self._text.update(Content.assemble(*parts))
