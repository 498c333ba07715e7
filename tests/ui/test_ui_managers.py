"""The managers on the screen: header, nodes, pulse; a lost quorum and the way out; roles, power cuts and the end."""

from typing import Any

import pytest
from conftest import Console, console
from ui_fake_cluster import START, FakeCluster, FakePlayground, identity, shop

from swarmtui.model import feed, managers
from swarmtui.ui.navigation import Place
from swarmtui.ui.screens.quorum import QuorumScreen
from swarmtui.ui.sparkline import sparkline

SIZES = [(80, 24), (160, 50)]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The managers are asked all the time, and an election takes none."""
    monkeypatch.setattr(feed, "MANAGERS_SECONDS", 0.02)
    monkeypatch.setattr(managers, "ELECTION_SECONDS", 0.0)


def group(**more: Any) -> dict[str, Any]:
    """Three managers in agreement, or what `more` says."""
    members = [
        {
            "id": identity("node", number),
            "hostname": f"node{number}",
            "address": f"192.168.0.{10 + number}:2377",
            "role": "leader" if number == 1 else "follower",
            "voter": True,
            "reachable": True,
            "match": 1234 - number,
            "lag": number - 1,
        }
        for number in range(1, 4)
    ]
    return {
        "term": 7,
        "leader": identity("node", 1),
        "quorum": True,
        "stale": False,
        "missing": [],
        "members": members,
    } | more


def lost() -> dict[str, Any]:
    """Two of three do not answer."""
    found = group(leader="", quorum=False, stale=True, missing=[identity("node", 2), identity("node", 3)])
    for member in found["members"]:
        member["role"] = "candidate" if member["hostname"] == "node1" else "follower"
        member["reachable"] = member["hostname"] == "node1"
    return found


def managed() -> FakeCluster:
    cluster = shop()
    cluster.managers = group()
    return cluster


@pytest.mark.parametrize("size", SIZES)
async def test_term_log_and_lag_are_on_the_screen(size: tuple[int, int]) -> None:
    async with console(size, managed()) as there:
        if size[0] > 100:
            await there.sees("log 1233", "term 7", "★ node1", "managers 3/3")
        await there.press("1")
        await there.sees("INDEX", "LAG", "1233", "1231")
        await there.press("6")
        await there.sees("managers  term 7  2 of 3 must answer, 1 more may fail", "MEMBER", "node3", "1231")
        await there.sees("rates", "decided/s", "tasks running", "tasks by state", "14 of 16 run")
        assert there.cluster.managers is not None
        there.cluster.managers["members"][2] |= {"role": "learner", "voter": False, "lag": 900_000}
        await there.sees("learner", "900000", "2 of 2 must answer, 0 more may fail")
        await there.command("nodes")
        await there.sees("learner")
        await there.command("managers")
        await there.until(lambda: there.app.main.place == Place("pulse"))


async def test_an_answer_that_may_be_old_is_marked() -> None:
    async with console((120, 30), managed()) as there:
        assert there.cluster.managers is not None
        there.cluster.managers["stale"] = True
        await there.sees("test stale", "may not know the newest state")
        there.cluster.managers["stale"] = False
        await there.until(lambda: "stale" not in there.text)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["harbour-dark", "harbour-light"])
async def test_a_lost_quorum_shows_itself_and_goes_by_itself(size: tuple[int, int], theme: str) -> None:
    async with console(size, managed(), theme=theme) as there:
        there.cluster.managers = lost()
        await there.sees("the managers have no quorum", "1 of 3 managers answer, 2 must")
        await there.sees("node2  192.168.0.12:2377  missing for", "node3", "node1", "answers (asked by this console)")
        await there.sees("what still works", "Tasks keep running", "[F] force a new cluster", "[Esc] look around")
        if size[1] > 24:
            await there.sees("Bring back 1 of the 2 missing managers", "Only if they are lost for ever")
        await there.press("escape")
        await there.sees(
            "no quorum: 1 of 3 managers answer", "web:1.4", "▲ no leader" if size[0] > 100 else "no quorum"
        )
        # Put away it stays away, until it is asked for.
        there.cluster.add_service(9, "another", 1, "other:1")
        await there.sees("other:1")
        assert not isinstance(there.app.screen, QuorumScreen)
        await there.command("quorum")
        await there.sees("the managers have no quorum")
        there.cluster.managers = group()
        await there.until(lambda: there.app.screen is there.app.main)
        await there.until(lambda: "no quorum" not in there.text.split("have a quorum again")[0])
        await there.command("quorum")
        await there.until(lambda: any("that is enough" in note.message for note in there.app._notifications))
        # And a second loss shows itself again.
        there.cluster.managers = lost()
        await there.sees("the managers have no quorum")


async def force(there: Console) -> None:
    there.cluster.managers = lost()
    await there.sees("[F] force a new cluster")
    await there.press("F")
    await there.sees("force a new cluster from node1", "managers           3 → 1", "failures survived  1 → 0")
    await there.sees(
        "becomes the only manager", "is lost", "node2, node3", "this cannot be undone", "type node1 to do it"
    )


async def test_a_new_cluster_is_forced_only_by_name() -> None:
    async with console((120, 36), managed()) as there:
        await force(there)
        await there.press("enter")
        await there.sees("type node1 to do it, or Esc")
        assert there.client.calls == []
        await there.type("node1")
        await there.press("enter")
        await there.sees("the new group elects its leader", "converging")
        assert there.client.calls == ["init 192.168.0.11:2377"]
        there.cluster.managers = group(members=group()["members"][:1])
        await there.sees("node1 leads a cluster of one manager", "[Enter] close")
        await there.press("enter")
        await there.sees("managers 1/1")


async def test_the_way_out_is_closed_where_nothing_may_be_changed() -> None:
    async with console((120, 36), managed(), readonly=True) as there:
        there.cluster.managers = lost()
        await there.sees("the managers have no quorum", "[Esc] look around")
        assert "[F]" not in there.text
        await there.press("F", "escape")
        await there.command("force-new-cluster")
        await there.until(lambda: any("read-only" in note.message for note in there.app._notifications))
        assert there.client.calls == []


async def test_nothing_is_forced_while_there_is_a_quorum() -> None:
    async with console((120, 30), managed()) as there:
        await there.command("force-new-cluster")
        await there.sees("nothing has to be forced", "[Esc] leave")
        await there.press("enter", "escape")
        assert there.client.calls == []


async def test_roles_say_how_many_failures_are_survived() -> None:
    async with console((120, 30), managed()) as there:
        await there.press("1", "down", "down", "down", "P")
        await there.sees("promote node4", "role               worker → manager", "managers           3 → 4")
        await there.sees(
            "failures survived  1 → 1", "an odd number is better", "undo: demote node4", "takes over the whole log"
        )
        await there.press("escape", "up", "M")
        await there.sees(
            "demote node3", "managers           3 → 2", "failures survived  1 → 0", "if any manager is lost"
        )
        await there.press("escape")
        await there.command("demote node1")
        await there.sees("node1 is the leader: it hands over to another manager first", "[Enter] do it")
        await there.press("enter")
        await there.sees("the other managers let it go")
        node = there.cluster.tables["nodes"][identity("node", 1)]
        node.pop("ManagerStatus")
        there.cluster.put("nodes", node)
        await there.sees("node1 is a worker now", "[Enter] close")
        await there.press("enter")
        await there.sees('undo "demote node1"' if there.app.size.width >= 120 else "undo")


async def test_leaving_says_what_a_manager_takes_with_it() -> None:
    async with console((120, 30), managed()) as there:
        await there.command("leave")
        await there.sees(
            "leave with node1", "failures survived  1 → 0", "type node1 to do it", "a manager that is demoted first"
        )
        await there.type("node1")
        await there.press("enter")
        await there.sees("node1 is in no swarm any more")
        assert there.client.calls == ["leave by force"]


async def test_another_manager_takes_over_with_a_small_notice() -> None:
    async with console((120, 30), managed()) as there:
        there.client.others = 1
        there.client.node = "node2"
        for watch in there.cluster.watches:
            watch.put_nowait(feed.ConnectionFailed("cut"))
        await there.sees("node1 does not answer any more: going on with node2", "● live")
        assert "reconnecting" not in there.text


@pytest.mark.parametrize("size", SIZES)
async def test_power_frost_and_time(size: tuple[int, int]) -> None:
    session = FakePlayground()
    async with console(size, managed(), playground=session, context="playground") as there:
        await there.sees("node1", "X power" if size[0] > 100 else "X")
        await there.press("X")
        await there.sees(
            "cut the power of node1", "node1 leads: another manager takes over", "2 of 3 managers are left, 0 more may"
        )
        await there.press("n")
        assert session.instances[0].state == "running"
        await there.press("X", "y")
        await there.sees("✖ stopped")
        await there.press("X")
        await there.until(lambda: session.instances[0].state == "running")
        await there.press("down", "down", "down", "F")
        await there.sees("freeze node4", "its tasks are started on other nodes")
        await there.press("y")
        await there.sees("▲ frozen")
        await there.press("F")
        await there.until(lambda: session.instances[3].state == "running")
        await there.command("extend")
        await there.sees("extend the session by 60 minutes")
        await there.press("y")
        await there.sees("04:57:4")
        await there.command("extend many")
        await there.until(lambda: any("'many' is no number" in note.message for note in there.app._notifications))
        await there.press("E", "escape")
        session.problem = "the keeper is gone"
        await there.press("X", "y")
        await there.until(lambda: any("the keeper is gone" in note.message for note in there.app._notifications))


async def test_a_power_cut_that_costs_the_quorum_says_so() -> None:
    session = FakePlayground()
    cluster = managed()
    assert cluster.managers is not None
    cluster.managers["missing"] = [identity("node", 3)]
    async with console((120, 30), cluster, playground=session, context="playground") as there:
        await there.until(
            lambda: there.app.main.header.summary and there.app.main.header.summary.managers_reachable == 2
        )
        await there.press("X")
        await there.sees("warning: too few managers are left then")


@pytest.mark.parametrize(
    "keys", [["ctrl+q", "ctrl+q"], ["ctrl+q", "y"], ["ctrl+q", "escape", "ctrl+q", "n", "ctrl+q", "y"]]
)
async def test_a_playground_asks_once_before_it_ends(keys: list[str]) -> None:
    session = FakePlayground()
    async with console((80, 24), managed(), playground=session, context="playground") as there:
        for key in keys:
            await there.press(key)
            if key != keys[-1]:
                await there.until(lambda last=key: (there.app.screen is there.app.main) == (last in ("escape", "n")))
                if key == "ctrl+q":
                    await there.sees(
                        "end the playground", "5 instances and everything in them", "[y] or [Ctrl+Q] end it"
                    )
                    assert there.client.calls == []
    assert there.client.calls == ["closed"]


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 4], 6) == "  ▁▃▅█"
    assert sparkline([0, 0], 2) == "▁▁"
    assert sparkline([], 3) == "   "
    assert sparkline([5, 1], 1, ascii_only=True) == "@"
    assert START
