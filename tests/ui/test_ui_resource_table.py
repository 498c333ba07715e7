"""The table on a screen: the cursor stays on its object, widths behave, hidden tables draw nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

import pytest
from textual.app import App, ComposeResult
from textual.widgets import ContentSwitcher, Static

from swarmtui.ui.columns import Column
from swarmtui.ui.glyphs import ASCII, TONES
from swarmtui.ui.widgets.resource_table import ResourceTable


@dataclass(frozen=True)
class Row:
    name: str
    state: str = "running"
    node: str = "node1"
    count: int = 0


def columns() -> list[Column[Row]]:
    return [
        Column("name", "NAME", attrgetter("name"), essential=True, minimum=8),
        Column(
            "state",
            "STATE",
            attrgetter("state"),
            glyph=attrgetter("state"),
            tone=lambda row: TONES[row.state],
            essential=True,
        ),
        Column("count", "COUNT", lambda row: str(row.count), sort=attrgetter("count"), right=True),
        Column("node", "NODE", attrgetter("node")),
    ]


class TableApp(App[None]):
    def __init__(self) -> None:
        super().__init__()
        self.table = ResourceTable(columns(), id="table")
        self.heard: list[tuple[str, str | None]] = []

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial="table"):
            yield self.table
            yield Static("other", id="other")

    def on_resource_table_highlighted(self, message: ResourceTable.Highlighted) -> None:
        self.heard.append(("highlighted", message.row_id))

    def on_resource_table_opened(self, message: ResourceTable.Opened) -> None:
        self.heard.append(("opened", message.row_id))


def lines(app: App[None]) -> list[str]:
    """The screen as text, a string a line."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def screen_line(app: App[None], text: str) -> int:
    return next(index for index, line in enumerate(lines(app)) if text in line)


SOME = {f"id{i}": Row(f"web.{i}", count=i) for i in range(100)}
Settle = Callable[[], object]


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_state_is_glyph_and_word(size: tuple[int, int]) -> None:
    app = TableApp()
    async with app.run_test(size=size) as pilot:
        app.table.replace_rows({"a": Row("api"), "b": Row("web", "failed")})
        app.table.flush()
        await pilot.pause()
        shown = lines(app)
        assert shown[0].split() == ["NAME▲", "STATE", "COUNT", "NODE"]
        assert shown[1].split() == ["api", "●", "running", "0", "node1"]
        assert shown[2].split() == ["web", "✖", "failed", "0", "node1"]
        app.table.glyphs = ASCII
        app.table.refresh()
        await pilot.pause()
        assert "* running" in lines(app)[1]
        assert "x failed" in lines(app)[2]


async def test_cursor_stays_on_its_object_and_on_its_line() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.replace_rows(SOME)
        app.table.flush()
        await pilot.press(*["down"] * 40)
        assert app.table.cursor_id == "id40"
        line = screen_line(app, "web.40 ")
        app.table.update_rows({f"new{i}": Row(f"a.{i}") for i in range(7)}, ["id3", "id4"])
        app.table.flush()
        await pilot.pause()
        assert app.table.cursor_id == "id40"
        assert screen_line(app, "web.40 ") == line
        app.table.sort_by("count", descending=True)
        await pilot.pause()
        assert app.table.cursor_id == "id40"
        assert any("web.40 " in text for text in lines(app))
        app.table.update_rows({}, ["id40"])
        app.table.flush()
        await pilot.pause()
        assert app.table.cursor_id == "id39", "the row that moved up into its place"


async def test_filter_and_escape_text_when_nothing_matches() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.empty_text = "no services\ncreate one"
        await pilot.pause()
        assert "no services" in "\n".join(lines(app))
        app.table.replace_rows(SOME)
        app.table.flush()
        app.table.set_filter(r"web\.1\d$")
        await pilot.pause()
        assert app.table.row_count == 10
        assert app.table.cursor_id == "id10"
        app.table.set_filter("zzz")
        await pilot.pause()
        assert "nothing matches /zzz" in "\n".join(lines(app))
        app.table.set_filter("")
        await pilot.pause()
        assert app.table.row_count == 100


async def test_marks_copy_and_open() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.replace_rows(SOME)
        app.table.flush()
        await pilot.press("space", "space", "down")
        assert app.table.chosen_ids == ["id0", "id1"]
        await pilot.press("i")
        assert app.clipboard == "id0\nid1"
        await pilot.press("C")
        assert app.clipboard == "web.0\trunning\t0\tnode1\nweb.1\trunning\t1\tnode1"
        await pilot.press("U", "right", "right", "c")
        assert app.clipboard == "3"
        assert app.table.chosen_ids == ["id3"]
        await pilot.press("enter")
        assert app.heard[-1] == ("opened", "id3")
        await pilot.press("o")
        assert app.table.data.sort_column.key == "count"
        await pilot.press("o")
        assert app.table.data.descending
        assert app.table.cursor_id == "id3"


async def test_mouse_chooses_sorts_and_opens() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.replace_rows(SOME)
        app.table.flush()
        await pilot.pause()
        await pilot.click(app.table, offset=(5, 4))
        assert app.table.cursor_id == "id3"
        await pilot.click(app.table, offset=(5, 6), times=2)
        assert app.heard[-1] == ("opened", "id5")
        await pilot.click(app.table, offset=(screen_column(app, "COUNT"), 0))
        assert app.table.data.sort_column.key == "count"


def screen_column(app: App[None], text: str) -> int:
    return lines(app)[0].index(text)


async def test_narrow_screens_drop_columns_from_the_right() -> None:
    app = TableApp()
    async with app.run_test(size=(18, 10)) as pilot:
        app.table.replace_rows(SOME)
        app.table.flush()
        await pilot.pause()
        assert lines(app)[0].split() == ["NAME▲", "STATE"]
        await pilot.resize_terminal(60, 10)
        await pilot.pause()
        assert lines(app)[0].split() == ["NAME▲", "STATE", "COUNT", "NODE"]
        app.table.choose_columns(["node"])
        await pilot.pause()
        assert lines(app)[0].split() == ["NAME▲", "STATE", "NODE"]


async def test_a_hidden_table_draws_nothing_and_catches_up() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.replace_rows(SOME)
        app.table.flush()
        await pilot.pause()
        app.query_one(ContentSwitcher).current = "other"
        await pilot.pause()
        painted = app.table.lines_painted
        app.table.update_rows({"id1": replace(SOME["id1"], state="failed")}, ["id0"])
        app.table.flush()
        await pilot.pause()
        assert app.table.lines_painted == painted
        assert "id0" in app.table.data.rows, "folded in only when it is seen"
        app.query_one(ContentSwitcher).current = "table"
        await pilot.pause()
        assert "✖ failed" in lines(app)[1]


async def test_an_update_repaints_only_its_own_line() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.replace_rows(SOME)
        app.table.flush()
        await pilot.pause()
        painted = app.table.lines_painted
        app.table.update_rows(
            {"id5": replace(SOME["id5"], state="failed"), "id70": replace(SOME["id70"], state="failed")}
        )
        app.table.flush()
        await pilot.pause()
        assert app.table.lines_painted - painted == 1
        assert "✖ failed" in lines(app)[6]


async def test_hostile_names_reach_the_screen_escaped() -> None:
    app = TableApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.table.replace_rows({"a": Row("\x1b[2Jweb\r\n\u202e\udcff" + "x" * 100_000)})
        app.table.flush()
        await pilot.pause()
        assert "␛[2Jweb␍␊��xx" in lines(app)[1]
        lines(app)[1].encode()
