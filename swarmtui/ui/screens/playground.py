"""The playground: what runs on this machine, how long it stays, and how to reach each instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from swarmtui.ui.actions import Scope
from swarmtui.ui.columns import Column
from swarmtui.ui.glyphs import GlyphSet, Tone
from swarmtui.ui.ports import InstancePort, PlaygroundPort
from swarmtui.ui.text import countdown, safe
from swarmtui.ui.tones import STYLES
from swarmtui.ui.views import TableSpec, tone_of
from swarmtui.ui.widgets.resource_table import ResourceTable

STATES = {
    "running": "running",
    "starting": "starting",
    "frozen": "warning",
    "without agent": "warning",
    "stopped": "failed",
    "failed": "failed",
}
"""An instance's state to its glyph."""


class InstanceRow(NamedTuple):
    """One instance as the table shows it."""

    id: str
    name: str
    role: str
    """leader, manager, worker or bare."""
    address: str
    state: str
    docker_host: str
    pid: int
    agent_pid: int


def row_of(instance: InstancePort, roles: Mapping[str, str]) -> InstanceRow:
    """A row of an instance; `roles` by name are what the cluster says: roles change, whatever an instance began as."""
    role = roles.get(instance.name, str(instance.role))
    return InstanceRow(
        instance.name,
        instance.name,
        role,
        str(instance.address),
        str(instance.state),
        instance.docker_host,
        instance.pid,
        instance.agent_pid,
    )


def instances(glyphs: GlyphSet) -> TableSpec:
    """The table of instances."""

    def role_glyph(row: InstanceRow) -> str:
        return row.role if row.role in ("leader", "manager", "worker") else "shutdown"

    def state_glyph(row: InstanceRow) -> str:
        return STATES.get(row.state, "warning")

    columns: list[Column[InstanceRow]] = [
        Column(
            "name", "NAME", attrgetter("name"), glyph=role_glyph, tone=lambda row: tone_of(role_glyph(row)),
            essential=True, minimum=9,
        ),
        Column("address", "ADDRESS", attrgetter("address"), minimum=14),
        Column(
            "state", "STATE", attrgetter("state"), glyph=state_glyph, tone=lambda row: tone_of(state_glyph(row)),
            essential=True, minimum=9,
        ),
        Column("role", "ROLE", attrgetter("role"), tone=lambda row: Tone.MUTED, minimum=7),
    ]  # fmt: skip
    return TableSpec("playground", Scope.PLAYGROUND, columns, "no instances\n+ adds one")


class PlaygroundView(Vertical):
    """Countdown and tier above; the instances left, the chosen one right."""

    DEFAULT_CSS = """
    PlaygroundView { height: 1fr; }
    PlaygroundView #session { height: 2; padding: 0 1; }
    PlaygroundView #instances { width: 2fr; max-width: 50; }
    PlaygroundView #instance { width: 3fr; height: 1fr; border: round $border-blurred; padding: 0 1;
        border-title-color: $accent; border-title-style: bold; }
    """

    def __init__(
        self,
        session: PlaygroundPort,
        glyphs: GlyphSet,
        *,
        ports_of: Callable[[], list[tuple[str, str]]],
        tasks_on: Callable[[str], list[tuple[str, str]]],
        roles_of: Callable[[], Mapping[str, str]],
        now: Callable[[], float],
    ) -> None:
        super().__init__(id="view-playground")
        self._session = session
        self._glyphs = glyphs
        self._ports_of = ports_of
        self._tasks_on = tasks_on
        self._roles_of = roles_of
        self._now = now
        self.table: ResourceTable[InstanceRow] = ResourceTable(instances(glyphs).columns, glyphs=glyphs, id="instances")
        """The instances."""
        self._above = Static("", id="session")
        self._panel = Static("", id="instance")
        self._unsubscribe: Callable[[], None] | None = None

    def compose(self) -> ComposeResult:
        """Session, instances, instance."""
        yield self._above
        with Horizontal(id="playground-panes"):
            yield self.table
            yield self._panel

    def on_mount(self) -> None:
        """Hears of every change of the session from now on."""
        self.table.empty_text = instances(self._glyphs).empty
        self.table.border_title = "instances"
        self._unsubscribe = self._session.subscribe(self._heard)
        self.update_rows()
        self.tick()

    def on_unmount(self) -> None:
        """Hears no more."""
        if self._unsubscribe is not None:
            self._unsubscribe()

    def _heard(self, change: object) -> None:
        del change
        self.call_later(self.update_rows)

    @property
    def seconds_left(self) -> float:
        """Until the session ends by itself."""
        return (self._session.expires_at - datetime.fromtimestamp(self._now(), UTC)).total_seconds()

    def update_rows(self) -> None:
        """The instances as they are now."""
        roles = self._roles_of()
        self.table.replace_rows({one.name: row_of(one, roles) for one in self._session.instances})
        self.refresh_instance()

    def tick(self) -> None:
        """A second has passed."""
        tier = self._session.tier
        left = self.seconds_left
        count = len(self._session.instances)
        room = (
            f"+ add instance ({count} of {self._session.limit})"
            if count < self._session.limit
            else f"{count} instances, no more fit"
        )
        self._above.update(
            Content.assemble(
                (self._glyphs["running"], "$text-success" if left > 300 else "$text-warning"),
                " ",
                (countdown(left), "bold" if left > 300 else "bold $text-warning"),
                " left, then everything here is deleted   ",
                (room, "$text-muted"),
                "\n",
                ("tier ", "$text-muted"),
                (safe(str(tier.tier)), "bold"),
                (f": {safe(tier.reason)}", "$text-muted"),
            )
        )

    def on_resource_table_highlighted(self, message: ResourceTable.Highlighted) -> None:
        """Another instance."""
        message.stop()
        self.refresh_instance()

    def refresh_instance(self) -> None:
        """The chosen instance as it is now, with the tasks on it."""
        row = self.table.cursor_row
        panel = self._panel
        if row is None:
            panel.update("")
            return
        panel.border_title = Content(
            f"{self._glyphs[row.role] if row.role in ('leader', 'manager', 'worker') else ''} {row.name}"
        ).markup
        ports = self._ports_of() if row.agent_pid else []
        urls = [f"http://{row.address}:{port}  {service}" for port, service in ports]
        facts = [
            ("address", row.address),
            ("state", f"{row.state}, {row.role}"),
            ("process", f"{row.pid}  end it: a power cut" if row.pid else "none: its power is cut"),
            ("agent", f"{row.agent_pid}  end it: its tasks go on" if row.agent_pid else "not running"),
            *((("ports" if not index else ""), url) for index, url in enumerate(urls or ["none published"])),
        ]
        parts: list[str | tuple[str, str]] = []
        for key, value in facts:
            parts += [(f"{key:<9}", "$text-muted"), f"{safe(value)}\n"]
        parts += [
            ("\nin another terminal (h copies the address)\n", "$text-muted"),
            (f"export DOCKER_HOST={safe(row.docker_host)}\n", "bold"),
            ("docker node ls\n", "bold"),
        ]
        if tasks := self._tasks_on(row.name):
            parts.append((f"\ntasks here ({len(tasks)})\n", "$text-muted"))
            for glyph, text in tasks:
                parts += [(f"{self._glyphs[glyph]} ", STYLES.get(tone_of(glyph), "")), f"{safe(text)}\n"]
        panel.update(Content.assemble(*parts))

    def focus_table(self) -> None:
        """Keys go to the instances."""
        self.table.focus()
