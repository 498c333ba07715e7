"""The registry: every action can be reached, is carried out by somebody, and is documented."""

import re
from collections import defaultdict

import pytest

from swarmtui.ui.actions import (
    ACTIONS,
    BY_ID,
    Action,
    Danger,
    Scope,
    find_command,
    footer_actions,
    key_label,
    key_table,
)
from swarmtui.ui.prompt import Misunderstood, TaskQuery, parse, suggestions, task_query
from swarmtui.ui.screens.change import ChangeScreen
from swarmtui.ui.screens.columns import ColumnsScreen
from swarmtui.ui.screens.help import HelpScreen, help_rows
from swarmtui.ui.screens.instance import DeleteInstance
from swarmtui.ui.screens.main import MainScreen
from swarmtui.ui.screens.question import EndPlayground, Question
from swarmtui.ui.screens.quorum import QuorumScreen
from swarmtui.ui.screens.text import TextScreen, wrapped
from swarmtui.ui.widgets.log_view import LogView
from swarmtui.ui.widgets.resource_table import ResourceTable

OWNERS = {"table": [ResourceTable], "log": [LogView], "screen": [MainScreen]}
ROWS = ["`1234567890-=", " qwertyuiop[]\\", " asdfghjkl;'", " zxcvbnm,./"]


def owners(action: Action) -> list[type]:
    if action.scope is Scope.DIALOG:
        return [ChangeScreen, TextScreen, HelpScreen, ColumnsScreen, DeleteInstance]
    if action.scope is Scope.QUESTION:
        return [Question, EndPlayground, QuorumScreen]
    return OWNERS[action.owner]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_is_reachable_carried_out_and_documented(action: Action) -> None:
    assert action.keys or action.names
    carriers = [owner for owner in owners(action) if hasattr(owner, f"action_{action.method}")]
    assert carriers, f"nobody carries out {action.id}"
    # What applies to every table is bound by the table, also where only the screen can carry it out.
    for binder in [ResourceTable] if action.scope is Scope.TABLE else carriers:
        bound = {key for binding in binder.BINDINGS for key in binding.key.split(",") if binding.id == action.id}
        assert bound == set(action.keys), f"{binder.__name__} does not bind {action.id}"
    assert action.help.endswith(".")
    assert action.help[0].isupper()
    assert action.title == action.title.lower() or "DOCKER_HOST" in action.title
    for name in action.names:
        assert find_command(name, [action.scope]) == action
    shown = [row for row in help_rows([], lambda a: a.keys) if action.help in row[2]]
    assert shown
    assert all(key_label(key) in shown[0][0] for key in action.keys)
    assert action.help in key_table()


def test_nothing_binds_a_key_outside_the_registry() -> None:
    registered = {action.id for action in ACTIONS}
    for carrier in {owner for action in ACTIONS for owner in owners(action)}:
        assert {binding.id for binding in carrier.__dict__.get("BINDINGS", [])} <= registered


def test_ids_are_unique_and_keys_mean_one_thing_where_one_is() -> None:
    assert len(BY_ID) == len(ACTIONS)
    places = [
        (Scope.NODES, Scope.TABLE, Scope.APP),
        (Scope.SERVICES, Scope.TABLE, Scope.APP),
        (Scope.TASKS, Scope.TABLE, Scope.APP),
        (Scope.PLAYGROUND, Scope.TABLE, Scope.APP),
        (Scope.LOG, Scope.APP),
        (Scope.DIALOG,),
        (Scope.QUESTION,),
    ]
    for scopes in places:
        taken: dict[str, list[str]] = defaultdict(list)
        for action in ACTIONS:
            if action.scope in scopes:
                for key in action.keys:
                    taken[key].append(action.id)
        assert {key: ids for key, ids in taken.items() if len(ids) > 1} == {}


def neighbours(key: str) -> set[str]:
    """Keys that touch `key` on a keyboard, under the same modifiers."""
    head, _, letter = key.rpartition("+")
    found: set[str] = set()
    for row, letters in enumerate(ROWS):
        column = letters.find(letter)
        if column > 0:
            for near_row, near_column in [(row, -1), (row, 1), (row - 1, 0), (row - 1, 1), (row + 1, -1), (row + 1, 0)]:
                place = column + near_column
                if 0 <= near_row < len(ROWS) and 0 < place < len(ROWS[near_row]):
                    found.add(f"{head}+{ROWS[near_row][place]}" if head else ROWS[near_row][place])
    return found


def test_no_dangerous_key_lies_beside_a_viewing_key() -> None:
    for action in ACTIONS:
        if action.danger is not Danger.DESTROY:
            continue
        for key in action.keys:
            assert "+" in key, "a dangerous key is never a key alone"
            beside = neighbours(key)
            assert beside
            viewing = [other.id for other in ACTIONS if other.danger is not Danger.DESTROY and beside & set(other.keys)]
            assert viewing == [], f"{key} of {action.id}"


def test_footer_shows_six_of_the_most_useful_keys_in_eighty_cells() -> None:
    for scope in (Scope.NODES, Scope.SERVICES, Scope.TASKS):
        actions = footer_actions([scope, Scope.TABLE, Scope.APP])
        text = "".join(f" {key_label(a.keys[0])} {a.title} " for a in actions[:6])
        assert len(text) + len(" ? help ") <= 80


def test_prompt_understands_names_aliases_and_quotes() -> None:
    assert parse(":tasks web @node2", [Scope.APP]).arguments == ["web", "@node2"]
    assert parse("svc", []).action.id == "view.services"
    assert parse("up", [Scope.LOG]).action.id == "log.up"
    assert parse("up", [Scope.TABLE]).action.id == "table.up"
    assert parse("search 'a b'", [Scope.LOG]).action.id == "log.search"
    assert parse("tasks it's", []).arguments == ["it's"]
    with pytest.raises(Misunderstood, match=r"there is no command 'skale'; did you mean .*scale"):
        parse("skale web", [])
    with pytest.raises(Misunderstood, match="takes no arguments"):
        parse("quit now", [])
    with pytest.raises(Misunderstood, match="type a command"):
        parse(" ", [])


def test_prompt_suggests() -> None:
    assert suggestions("sc", [Scope.SERVICES]) == ["scale"]
    assert suggestions("scale w", [], ["web", "worker", "api"]) == ["scale web", "scale worker"]
    assert suggestions("tasks web @no", [], ["node1", "web"]) == ["tasks web @node1"]
    assert suggestions("nothing w", [], ["web"]) == []
    first = suggestions("r", [Scope.SERVICES])
    assert first.index("restart") < first.index("reconnect")


def test_task_query() -> None:
    assert task_query(["web", "@node2", "failed"], ["web"]) == TaskQuery("web", "node2", "failed")
    assert task_query(["failed", "web"], ["web"]) == TaskQuery("", "", "failed web")
    assert task_query([], []) == TaskQuery()


def test_key_table_is_markdown() -> None:
    lines = key_table().splitlines()
    assert all(re.fullmatch(r"(\|.*\||### .*|)", line) for line in lines)


def test_sentences_are_wrapped_under_their_beginning() -> None:
    lines = ["problem   no suitable node on 3 nodes", "  - a reason that goes on and on", "", "x" * 30]
    assert wrapped(lines, 24) == [
        "problem   no suitable",
        "          node on 3",
        "          nodes",
        "  - a reason that goes",
        "    on and on",
        "",
        "x" * 24,
        "x" * 6,
    ]
