"""The log on a screen: following, holding still, finding, and never letting a control through."""

from collections.abc import Callable

import pytest
from textual.app import App, ComposeResult
from textual.widgets import ContentSwitcher, Static

from swarmtui.ui.log_buffer import Kind, Line
from swarmtui.ui.theme import ThemedApp
from swarmtui.ui.widgets.log_view import LogView, Times

LinesOf = Callable[[App[None]], list[str]]
NOW = 1_800_000_000


class LogApp(ThemedApp):
    def __init__(self, max_lines: int = 1000) -> None:
        super().__init__()
        self.now = 0.0
        self.log_view = LogView(
            name_of=lambda source: f"web.{source}@node{source}",
            clock=lambda: NOW + 42.5,
            monotonic=lambda: self.now,
            max_lines=max_lines,
            id="log",
        )
        self.asked: list[str] = []

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial="log"):
            yield self.log_view
            yield Static("other", id="other")

    def on_log_view_asked(self, message: LogView.Asked) -> None:
        self.asked.append(message.what)


def some(start: int, stop: int, text: str = "line") -> list[Line]:
    return [Line(NOW * 10**9 + n, f"{text} {n}", str(n % 3)) for n in range(start, stop)]


async def test_follows_stops_when_scrolled_and_follows_again(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.write(some(0, 100))
        app.log_view.flush()
        await pilot.pause()
        assert lines_of(app)[-1].endswith("line 99")
        assert "web.0@node0 │ line 99" in lines_of(app)[-1]
        await pilot.press("up", "pageup")
        held = lines_of(app)
        assert not app.log_view.following
        app.log_view.write(some(100, 150))
        app.log_view.flush()
        await pilot.pause()
        assert lines_of(app) == held
        await pilot.press("G")
        await pilot.pause()
        assert app.log_view.following
        assert lines_of(app)[-1].endswith("line 149")


async def test_the_same_lines_stay_in_sight_while_older_ones_are_dropped(lines_of: LinesOf) -> None:
    app = LogApp(max_lines=200)
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.write(some(0, 190))
        app.log_view.flush()
        await pilot.press("pageup", "up", "up")
        held = lines_of(app)
        app.log_view.write(some(190, 260))
        app.log_view.flush()
        await pilot.pause()
        assert app.log_view.dropped > 0
        assert lines_of(app) == held
        await pilot.press("g")
        await pilot.pause()
        assert f"── {app.log_view.dropped} older lines are no longer kept" in lines_of(app)[0]


async def test_pause_counts_what_arrives(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.write(some(0, 50))
        app.log_view.flush()
        await pilot.press("p")
        app.log_view.write(some(50, 80))
        app.log_view.flush()
        await pilot.pause()
        assert app.log_view.status[0] == "paused, 30 arrived"
        assert lines_of(app)[-1].endswith("line 49")
        app.log_view.write(some(80, 2000))
        assert app.log_view.arrived == 1950
        await pilot.press("p")
        app.log_view.flush()
        await pilot.pause()
        assert lines_of(app)[-1].endswith("line 1999")
        assert app.log_view.status[0] == "following"
        assert len(app.log_view.buffer.lines()) <= 1000


async def test_search_next_previous_filter_and_problems(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.log_view
        log.write([*some(0, 100), Line(NOW * 10**9, "POST /pay failed", "7"), *some(100, 200), *some(0, 5, "ERROR")])
        log.flush()
        log.set_search("line 1[0-9]$")
        assert log.current == 19
        assert "/line 1[0-9]$ 10 of 10" in log.status
        await pilot.press("n")
        assert log.current == 10
        await pilot.press("N", "N")
        assert log.current == 18
        assert any("line 18" in line for line in lines_of(app))
        log.set_search("")
        await pilot.press("e")
        assert log.current == 100
        await pilot.press("e")
        assert log.current == 201
        await pilot.press("E")
        assert log.current == 100
        log.set_filter("error|pay !pay")
        await pilot.pause()
        assert [line.split("│")[1].strip() for line in lines_of(app) if "│" in line] == [f"ERROR {n}" for n in range(5)]
        log.set_filter("")
        await pilot.press("slash", "ampersand", "comma", "S")
        await pilot.pause()
        assert app.asked == ["search", "filter", "since", "save"]


async def test_wrap_times_and_scrolling_to_the_right(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.log_view
        log.write([Line(NOW * 10**9 + 123_000_000, "".join(f"<{n:03d}>" for n in range(60)), "1")])
        log.flush()
        await pilot.pause()
        first = lines_of(app)[0]
        assert first[8:12] == ".123"
        assert "<000>" in first
        assert "<059>" not in first
        await pilot.press("right")
        assert "<000>" not in lines_of(app)[0]
        await pilot.press("w")
        await pilot.pause()
        text = "".join(line.split("│")[1].strip() for line in lines_of(app)[:8] if "│" in line)
        assert text == "".join(f"<{n:03d}>" for n in range(60))
        await pilot.press("t")
        await pilot.pause()
        assert log.painter.times is Times.RELATIVE
        assert lines_of(app)[0].startswith(" 42s web.1@node1 │ <000>")
        await pilot.press("t")
        await pilot.pause()
        assert lines_of(app)[0].startswith("web.1@node1 │ <000>")


async def test_wrapping_keeps_the_line_at_the_top(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.write([Line(1, f"{n} " + "x" * 150, "1") for n in range(200)])
        app.log_view.flush()
        await pilot.press("pageup", "pageup")
        top = lines_of(app)[0].split("│")[1].split()[0]
        await pilot.press("w")
        await pilot.pause()
        assert lines_of(app)[0].split("│")[1].split()[0] == top
        await pilot.resize_terminal(120, 30)
        await pilot.pause()
        assert lines_of(app)[0].split("│")[1].split()[0] == top
        await pilot.press("w")
        await pilot.pause()
        assert lines_of(app)[0].split("│")[1].split()[0] == top


async def test_notices_are_rows(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.write(
            [*some(0, 2), Line(NOW, "node4: no answer since 14:03:24 (2.2 s)", "", Kind.ALARM), *some(2, 3)]
        )
        app.log_view.set_filter("line")
        app.log_view.flush()
        await pilot.pause()
        assert lines_of(app)[2].startswith("── node4: no answer since 14:03:24 (2.2 s) ──────")
        assert len(lines_of(app)[2]) == 80


@pytest.mark.parametrize("wrapped", [False, True])
async def test_controls_never_reach_the_terminal(lines_of: LinesOf, wrapped: bool) -> None:
    app = LogApp()
    hostile = [
        "\x1b]0;title\x07x",
        "\x1b[31mred\x1b[0m",
        "a\rb\x08c\x9bd",
        "\u202egnp.exe",
        "\x1b[2J" * 3000,
        "\udc80",
        "语\x1b" * 9000,
    ]
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.set_wrapped(wrapped)
        app.log_view.write([Line(1, text, "\x1b[5m") for text in hostile])
        app.log_view.flush()
        await pilot.pause()
        for key in ("g", "pagedown", "pagedown", "end"):
            await pilot.press(key)
            shown = "".join(lines_of(app))
            assert not set(shown) & {chr(n) for n in (*range(32), *range(127, 160), 0x202E)}
            shown.encode()
        await pilot.press("g")
        await pilot.pause()
        assert "␛]0;title␇x" in lines_of(app)[0]
        assert "│ red" in lines_of(app)[1]


async def test_a_hidden_log_draws_nothing_and_catches_up(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.write(some(0, 50))
        app.log_view.flush()
        await pilot.pause()
        app.query_one(ContentSwitcher).current = "other"
        await pilot.pause()
        painted = app.log_view.lines_painted
        app.log_view.write(some(50, 90))
        app.log_view.flush()
        await pilot.pause()
        assert app.log_view.lines_painted == painted
        app.query_one(ContentSwitcher).current = "log"
        await pilot.pause()
        assert lines_of(app)[-1].endswith("line 89")


async def test_empty_and_cleared(lines_of: LinesOf) -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.log_view.empty_text = "no lines yet"
        await pilot.pause()
        assert "no lines yet" in "\n".join(lines_of(app))
        app.log_view.write(some(0, 3))
        app.log_view.flush()
        app.log_view.set_filter("zzz")
        await pilot.pause()
        assert "no line passes the filter" in "\n".join(lines_of(app))
        await pilot.press("n", "N", "e", "up", "pagedown", "left", "c")
        app.log_view.clear()
        await pilot.pause()
        assert app.log_view.buffer.end == 0


async def test_rate_rises_and_falls_to_nothing() -> None:
    app = LogApp()
    async with app.run_test(size=(80, 24)):
        app.log_view.write(some(0, 500))
        app.now = 1.0
        app.log_view.flush()
        assert "500 lines/s" in app.log_view.status
        app.now = 2.5
        app.log_view.flush()
        assert app.log_view.rate == 0
