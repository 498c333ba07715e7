"""The console on a cluster in memory: what a person sees and does, at 80x24 and at 160x50."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Console, console
from textual.events import Key
from textual.widgets import Input
from ui_fake_cluster import FakeClient, FakeCluster, FakePlayground, identity, shop

from swarmtui.docker_api.errors import BadAddress
from swarmtui.ui.app import SwarmApp
from swarmtui.ui.navigation import Place

SIZES = [(80, 24), (160, 50)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["harbour-dark", "harbour-light"])
async def test_first_screen(size: tuple[int, int], theme: str) -> None:
    async with console(size, theme=theme) as there:
        await there.sees("swarmtui", "test", "▸ services", "managers 3/3", "● live 4 ms", "14:03:27", "★ node1")
        await there.sees("1 nodes 5/5", "2 services 3/5 ▲2", "3 tasks 14/16", "4 logs")
        rows = {line.split()[0].strip("│"): line for line in (text.strip("│ ") for text in there.lines) if line}
        assert "● running" in rows["web"]
        assert "6/6 ██████" in rows["web"]
        assert "web:1.4" in rows["web"]
        assert "◐ starting" in rows["shop"]
        assert "▲ pending" in rows["worker"]
        assert "2/3 ██░" in rows["worker"]
        await there.sees("Enter open", "s scale", "r restart", "? help")
        assert len(there.lines) == size[1]


@pytest.mark.parametrize("size", SIZES)
async def test_down_and_back(size: tuple[int, int]) -> None:
    async with console(size) as there:
        await there.press("down", "down", "down", "enter")
        await there.sees("▸ services ▸ web", "web.1", "web.6", "node2")
        assert "api.1" not in there.text
        await there.press("down", "enter")
        await there.sees("▸ services ▸ web ▸ web.2", "GET /api/cart/1 200", "web.2@node3 │")
        await there.press("escape", "escape")
        await there.until(lambda: there.app.main.place == Place("services"))
        await there.until(
            lambda: there.app.main.table is not None and there.app.main.table.cursor_id == identity("service", 1)
        )
        await there.press("1")
        await there.sees("★ leader", "◆ manager", "◇ worker", "192.168.0.11")
        await there.press("down", "enter")
        await there.sees("▸ nodes ▸ node2")
        await there.until(lambda: "web.6" in there.text and "web.2" not in there.text)


async def test_logs_follow_the_cursor_beside_the_table() -> None:
    async with console((160, 50)) as there:
        await there.press("down", "down", "down")
        await there.sees("logs · web", "GET /api/cart/39 200")
        there.cluster.log(identity("task", 1), 5, "a new line")
        await there.sees("a new line")
        await there.press("v")
        await there.until(lambda: "a new line" not in there.text)
        await there.press("v", "tab", "slash")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("502")
        await there.sees("1 of 1")
        await there.press("enter", "escape")
        await there.until(lambda: there.app.focused is there.app.main.table)


async def test_changes_arrive_and_the_cursor_stays() -> None:
    async with console((100, 30)) as there:
        await there.press("down", "down", "down")
        there.cluster.add_service(9, "about", 1, "about:1", age=1)
        await there.sees("about:1", "4/6")
        table = there.app.main.table
        assert table is not None
        assert table.cursor_id == identity("service", 1)
        task = there.cluster.live_tasks(identity("service", 1))[0]["ID"]
        there.cluster.set_task(task, "failed", error="task: non-zero exit (1)", desired="shutdown")
        await there.sees("5/6")
        there.cluster.drop("services", identity("service", 1))
        await there.until(lambda: "web:1.4" not in there.text)


async def test_filter_while_typing() -> None:
    async with console((100, 30)) as there:
        await there.press("slash")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("!run")
        await there.until(lambda: "web:1.4" not in there.text)
        await there.sees("worker", "2 of 5  /!run")
        await there.press("enter", "escape")
        await there.sees("web:1.4")
        await there.press("slash")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("zzz")
        await there.sees("nothing matches /zzz")
        await there.press("escape")
        await there.sees("web:1.4")


async def test_prompt_with_aliases_and_arguments() -> None:
    async with console((100, 30)) as there:
        await there.command("ps web @node3")
        await there.sees("web.2", "tasks · web · node3")
        assert "web.1 " not in there.text
        await there.command("tasks pending")
        await there.sees("worker.3", "/pending")
        await there.command("no a")
        await there.until(lambda: there.app.main.place == Place("nodes"))
        await there.command("logs web")
        await there.sees("GET /api/cart/39 200")
        await there.command("nonsense")
        await there.sees("there is no command 'nonsense'")
        await there.command("sort since")
        await there.command("svc")
        await there.until(lambda: there.app.main.place == Place("services"))
        await there.command("sort age")
        await there.sees("▲AGE")
        await there.command("sort nothing")
        await there.sees("there is no 'nothing'")
        await there.command("theme harbour-light")
        assert there.app.theme == "harbour-light"
        await there.command("theme nothing")
        await there.sees("no theme 'nothing'")


async def test_prompt_suggests_completes_and_remembers() -> None:
    async with console((100, 30)) as there:
        await there.command("nodes")
        await there.press("colon")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("sca")
        await there.sees(":sca", "scale")
        await there.press("tab")
        await there.type("we")
        await there.press("tab")
        line = there.app.screen.query_one(Input)
        assert line.value == "scale web "
        await there.press("up")
        assert line.value == "nodes"
        await there.press("escape")
        await there.until(lambda: not there.app.main.asking)


@pytest.mark.parametrize("size", SIZES)
async def test_scale_is_shown_first_then_done_then_undone(size: tuple[int, int]) -> None:
    async with console(size) as there:
        await there.press("down", "down", "down", "s")
        await there.until(lambda: isinstance(there.app.focused, Input))
        assert there.app.screen.query_one(Input).value == "scale web 6"
        await there.press("backspace", "9", "enter")
        await there.sees("scale web 6 → 9", "replicas  6 → 9", "undo: scale web 9 → 6", "[Enter] do it")
        assert there.client.calls == []
        await there.press("enter")
        await there.sees("9/9", "done", "[Enter] close")
        assert there.client.calls == ["update web"]
        await there.press("enter")
        await there.sees("9/9 █████", 'undo "scale web 6 → 9"' if size[0] >= 100 else "Ctrl+Z undo")
        await there.press("ctrl+z")
        await there.sees("scale web 9 → 6", "replicas  9 → 6", "[Enter] do it")
        await there.press("enter")
        await there.sees("[Enter] close")
        await there.press("enter")
        await there.sees("6/6 ██████")


async def test_leaving_the_preview_changes_nothing() -> None:
    async with console((100, 30)) as there:
        await there.command("scale web 9")
        await there.sees("replicas  6 → 9")
        await there.press("escape")
        await there.until(lambda: there.app.screen is there.app.main)
        assert there.client.calls == []
        await there.command("scale web nine")
        await there.sees("there is no service 'web nine'")
        await there.command("scale web 6")
        await there.sees("nothing to do: the cluster is as wanted already", "[Esc] leave")
        await there.press("enter", "escape")
        assert there.client.calls == []


async def test_a_change_goes_on_when_its_dialog_is_left_and_waiting_can_be_stopped() -> None:
    async with console((120, 30)) as there:
        there.cluster.converges = False
        await there.command("scale web 8")
        await there.sees("[Enter] do it")
        await there.press("enter")
        await there.sees("converging", "web.7", "◐ preparing", "6/8")
        await there.press("escape")
        await there.sees("◐ scale web 6 → 8 6/8")
        for task in there.cluster.live_tasks(identity("service", 1)):
            there.cluster.set_task(task["ID"], "running")
        await there.sees("done: scale web 6 → 8")
        await there.command("scale web 9")
        await there.sees("[Enter] do it")
        await there.press("enter")
        await there.sees("converging")
        await there.press("ctrl+x")
        await there.sees("no longer waited for", "[Enter] close")
        await there.press("enter")
        await there.sees('undo "scale web 8 → 9"')


async def test_a_failure_is_shown_in_full() -> None:
    async with console((120, 30)) as there:
        there.cluster.converges = False
        await there.command("restart pay")
        await there.sees("restart pay", "this cannot be undone", "[Enter] do it")
        await there.press("enter")
        await there.sees("◐ preparing")
        new = there.cluster.live_tasks(identity("service", 4))[0]["ID"]
        text = "starting container failed: no such file or directory: " + "x" * 100
        there.cluster.set_task(new, "rejected", error=text, desired="shutdown")
        service = there.cluster.tables["services"][identity("service", 4)]
        status = {"State": "paused", "Message": "update paused due to failure or early termination of task"}
        there.cluster.put("services", {**service, "UpdateStatus": status})
        await there.sees("failed", "update paused", "[Enter] close")
        assert "x" * 60 in there.text
        await there.press("ctrl+y")
        assert text in there.app.clipboard


async def test_removing_needs_the_name() -> None:
    async with console((100, 30)) as there:
        await there.press("ctrl+k")
        await there.sees("remove api", "type api to do it")
        await there.press("enter")
        await there.sees("type api to do it, or Esc")
        await there.type("web")
        await there.press("enter")
        assert "remove" not in there.client.calls
        await there.press("backspace", "backspace", "backspace")
        await there.type("api")
        await there.press("enter")
        await there.sees("[Enter] close")
        assert there.client.calls == ["remove"]
        await there.press("enter")
        await there.until(lambda: "api:2.0" not in there.text)
        await there.press("ctrl+z")
        await there.sees("create api")


async def test_drain_and_activate_and_several_at_once() -> None:
    async with console((120, 30)) as there:
        await there.press("1", "down", "down", "down", "space", "space", "D")
        await there.sees("2 changes", "drain node4", "drain node5", "[Enter] do it")
        await there.press("enter")
        await there.sees("[Enter] close")
        await there.press("enter")
        await there.until(lambda: there.text.count("drained") == 2)
        assert there.client.calls == ["node drain", "node drain"]
        await there.press("U")
        await there.command("activate node4")
        await there.sees("activate node4", "drain → active")
        await there.press("enter")
        await there.sees("[Enter] close")
        await there.press("enter")
        await there.until(lambda: there.text.count("drained") == 1)


async def test_a_read_only_context_changes_nothing_and_a_production_one_is_framed() -> None:
    async with console((120, 30), readonly=True, production=True) as there:
        await there.sees("production", "read-only")
        assert "s scale" not in there.text
        await there.command("scale web 9")
        await there.sees("this context is read-only")
        await there.press("ctrl+k")
        assert there.app.screen is there.app.main
        assert any(line.startswith("┏") for line in there.lines)


async def test_what_is_typed_ahead_goes_to_the_prompt_and_never_confirms_unseen() -> None:
    async with console((100, 30), pause=3600) as there:
        await there.press("down", "down", "down", "enter")
        await there.sees("web.1")
        app = there.app
        # As fast as a paste: no message is processed between the keys.
        for key in ("escape", "colon", *"scale", "space", *"web", "space", "9", "enter", "enter"):
            app.post_message(
                Key(key, " " if key == "space" else ":" if key == "colon" else key if len(key) == 1 else None)
            )
        await there.sees("replicas  6 → 9", "[Enter] do it")
        await there.press("enter", "enter")
        assert there.client.calls == []
        assert app.main.table is not None
        assert app.main.table.data.sort_column.key == "name"


@pytest.mark.parametrize("size", SIZES)
async def test_describe_why_and_raw(size: tuple[int, int]) -> None:
    async with console(size) as there:
        there.cluster.explanations[identity("service", 3)] = {
            "kind": "service",
            "summary": "2 of 3 replicas run.",
            "reasons": ["worker.3: The task waits: no node can take it."],
            "advice": ["Let a node satisfy node.labels.disk==ssd, or change the constraints."],
            "nodes": [
                {"hostname": "node2", "fits": False, "reason": "insufficient memory: 120 MB free, 512 MB needed"}
            ],
            "later": {"field": 7},
        }
        await there.press("end", "d")
        await there.sees("describe service worker", "replicas  2/3", "TASKS", "worker.3")
        await there.press("escape", "w")
        await there.sees(
            "why service worker", "WHAT THE MANAGER SAYS", "2 of 3 replicas run.", "- worker.3: The task waits"
        )
        await there.sees("do: Let a node satisfy", "node2  insufficient memory: 120 MB free", "field: 7")
        await there.press("escape", "y")
        await there.sees("raw service worker", "TaskTemplate:")
        await there.press("escape")
        failed = identity("task", 15)
        there.cluster.log(failed, -2, "out of memory, sorry")
        await there.command("why pay")
        await there.sees("1 × task: non-zero exit (137)", "LAST LINES OF PAY.1", "out of memory, sorry")
        await there.press("escape")
        await there.command("describe node3")
        await there.sees("describe node node3", "192.168.0.13")
        await there.press("slash")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("cpu")
        await there.press("enter", "escape")
        await there.until(lambda: there.app.screen is there.app.main)


async def test_history_is_shown_when_asked_for() -> None:
    async with console((100, 30)) as there:
        gone = there.cluster.add_task(identity("service", 2), 1, state="shutdown", desired="shutdown", age=99)
        await there.press("3")
        await there.sees("17", "1 ended, H shows them", "✖ failed")
        assert "· shutdown" not in there.text
        await there.press("H")
        await there.sees("· shutdown")
        table = there.app.main.table
        assert table is not None
        assert gone in table.data.order
        assert table.data.order.index(gone) == 1, "after the one that runs in its slot"


async def test_help_and_palette_come_from_the_registry() -> None:
    async with console((120, 40)) as there:
        await there.press("question_mark")
        await there.sees("SERVICES", "Ctrl+K", ":remove", "TABLES")
        await there.press("escape", "ctrl+p")
        await there.until(lambda: isinstance(there.app.focused, Input))
        await there.type("drain")
        await there.sees("drain", "Move every task off the node")
        await there.press("escape")
        await there.press("O")
        await there.sees("columns", "labels")
        await there.press("escape")
        await there.until(lambda: there.app.screen is there.app.main)


async def test_a_lost_connection_is_seen_and_comes_back() -> None:
    async with console((120, 30)) as there:
        there.cluster.cut("cannot connect to unix:///run/swarmtui/docker.sock: connection refused")
        await there.sees("▲ reconnecting", "connection refused", "web:1.4", ":reconnect tries now")
        await there.press("down")
        await there.command("scale web 9")
        await there.sees("connection refused", "[Esc] leave")
        await there.press("escape")
        there.cluster.lost = ""
        await there.command("reconnect")
        await there.sees("● live")
        await there.until(lambda: "reconnecting" not in there.text)


async def test_an_engine_that_does_not_answer_is_not_taken_for_an_empty_cluster() -> None:
    cluster = shop()
    cluster.lost = "cannot connect to unix:///run/swarmtui/docker.sock: there is no such socket"
    app = SwarmApp(lambda: FakeClient(cluster), context="nowhere")  # type: ignore[arg-type]
    async with app.run_test(size=(100, 24)) as pilot:
        there = Console(app, pilot, cluster, FakeClient(cluster))
        await there.sees("▲ reconnecting", "there is no such socket", ":reconnect tries now   :quit leaves")
        assert "no services yet" not in there.text
        cluster.lost = ""
        await there.command("reconnect")
        await there.sees("● live", "web:1.4")


async def test_an_address_that_cannot_be_is_said_plainly() -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        raise BadAddress("nowhere: unknown kind of address")
        yield

    app = SwarmApp(connect, context="nowhere")
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(200):
            await pilot.pause()
            if "unknown kind of address" in "\n".join(s.text for s in app.screen._compositor.render_strips()):
                break
        else:
            raise AssertionError("the error is not on the screen")


@pytest.mark.parametrize("size", SIZES)
async def test_an_empty_cluster_says_what_to_do(size: tuple[int, int]) -> None:
    cluster = FakeCluster()
    cluster.add_node(1, role="manager", leader=True)
    async with console(size, cluster) as there:
        await there.sees("no services yet", "docker service create --name whoami")
        await there.press("4")
        await there.sees("no service chosen")


@pytest.mark.parametrize("size", SIZES)
async def test_playground(size: tuple[int, int]) -> None:
    session = FakePlayground()
    async with console(size, playground=session, context="playground") as there:
        await there.sees("03:57:41 left", "tier loopback: no namespaces: not root", "★ node1", "◆ node2", "127.77.2.1")
        await there.sees("DOCKER_HOST=unix:///run/playground/node1/docker.sock", "1001", "2001", "8081")
        await there.press("down", "h")
        assert there.app.clipboard == "unix:///run/playground/node2/docker.sock"
        await there.press("plus")
        await there.sees("node6")
        session.problem = "a playground has 6 instances at most"
        await there.press("plus")
        await there.sees("6 instances at most")
        session.problem = ""
        await there.press("ctrl+k")
        await there.sees("delete node2", "type node2 to do it")
        await there.type("node2")
        await there.press("enter")
        await there.until(lambda: "127.77.2.1" not in there.text)
        session.instances[0].state = "stopped"
        session.tell()
        await there.sees("✖ stopped")
        await there.press("enter")
        await there.sees("playground ▸ node", "tasks · node")
        await there.press("escape", "2")
        await there.sees("web:1.4")
    assert session.callbacks == []


async def test_the_glyphs_can_be_ascii() -> None:
    async with console((100, 30), glyphs="ascii") as there:
        await there.sees("* running", "~ starting", "! pending", "6/6 ######", "> services", "L node1")
        shown = set(there.text) - set("─│╭╮╰╯┌┐└┘▔▁")
        assert not {letter for letter in shown if ord(letter) > 127}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["harbour-dark", "harbour-light"])
async def test_the_picture_says_what_the_screen_says(size: tuple[int, int], theme: str) -> None:
    async with console(size, theme=theme) as there:
        svg = there.app.export_screenshot()
        picture = "".join(html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg))
        plain = "".join(there.lines)
        blanks = str.maketrans("", "", " \n\xa0▁▂▃▄▅▆▇█")
        assert plain.translate(blanks) in picture.translate(blanks)


async def test_keys_can_be_rebound() -> None:
    async with console((100, 30), keys={"service.scale": "x"}) as there:
        await there.sees("x scale")
        await there.press("x")
        await there.until(lambda: isinstance(there.app.focused, Input))


async def test_a_terminal_that_changes_its_size_while_a_dialog_is_open() -> None:
    async with console((160, 50)) as there:
        await there.press("down", "down", "down", "enter")
        await there.command("scale web 9")
        await there.sees("replicas  6 → 9")
        await there.pilot.resize_terminal(80, 24)
        await there.pilot.resize_terminal(30, 8)
        await there.press("escape")
        await there.pilot.resize_terminal(120, 30)
        await there.sees("web.1", "logs · web.1")


async def test_logs_are_saved_and_read_again(tmp_path: Path) -> None:
    async with console((100, 30)) as there:
        there.cluster.log(identity("task", 1), -30, "\x1b[31mred\x1b[2J")
        await there.command("logs web")
        await there.sees("GET /api/cart/39 200")
        target = tmp_path / "web.log"
        await there.command(f"save {target}")
        await there.sees("saved to")
        saved = target.read_text("utf-8").splitlines()
        assert len(saved) == 42
        assert "web.1@node2 | GET /api/cart/0 200 0ms" in saved[0]
        assert not set("".join(saved)) & {chr(code) for code in range(32)}
        await there.command(f"save {target}")
        await there.until(
            lambda: any("was not saved: File exists" in note.message for note in there.app._notifications)
        )
        await there.command("since 5")
        await there.sees("logs since 5 min ago")
        await there.sees("GET /api/cart/39 200")
        await there.command("since soon")
        await there.sees("'soon' is no number of minutes")
        await there.command("only cart !cart/39")
        await there.until(lambda: "cart/39" not in there.text.split("only")[0])
        await there.command("search 'cart/1[0-9] 200'")
        await there.sees("10 of 10")


async def test_the_mouse_reaches_tabs_and_keys() -> None:
    async with console((100, 30)) as there:
        await there.pilot.click(there.app.main.header, offset=(5, 1))
        await there.until(lambda: there.app.main.place == Place("nodes"))
        await there.pilot.click(there.app.main.footer, offset=(97, 0))
        await there.sees("help: keys")
        await there.press("escape")
        await there.command("mouse")
        await there.sees("mouse off: the terminal selects text")


async def test_leaving_disconnects() -> None:
    async with console((80, 24)) as there:
        client = there.client
        await there.press("ctrl+q")
    assert client.calls == ["closed"]
