"""The one log of the screen: alone, or beside a table whose cursor it follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmtui.ui.deferred import deferred
from swarmtui.ui.screens.live import KINDS, LiveScreen
from swarmtui.ui.widgets.resource_table import ResourceTable

if TYPE_CHECKING:
    from swarmtui.ui.widgets.log_view import LogView

SPLIT_CELLS = 120
"""A terminal of this width shows logs beside the table, unless a person says otherwise."""
BESIDE_SECONDS = 0.3
"""The cursor must rest so long before the logs beside the table follow it."""
MINUTES = (1, 5, 15, 60)
"""What `since` goes through."""


class LogPaneScreen(LiveScreen):
    """Which log is read, and where it is shown."""

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

    @property
    def split(self) -> bool:
        """Whether logs are beside the table."""
        return self.size.width >= SPLIT_CELLS if self._split is None else self._split

    def on_resource_table_highlighted(self, message: ResourceTable.Highlighted) -> None:
        """The logs beside the table follow the cursor when it rests."""
        if message.table is self.table and self.log_view.display:
            if self._beside is not None:
                self._beside.stop()
            self._beside = self.set_timer(BESIDE_SECONDS, self._follow_cursor)

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
