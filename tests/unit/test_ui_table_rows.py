"""The rows behind a table against the obvious way of doing it, under random differences."""

from dataclasses import dataclass, field, replace
from operator import attrgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmtui.ui.columns import Column, measure, place
from swarmtui.ui.filtering import RowFilter
from swarmtui.ui.table_rows import TableRows
from swarmtui.ui.text import natural_key


@dataclass(frozen=True)
class Row:
    name: str
    state: str = "running"
    count: int = 0
    labels: dict[str, str] = field(default_factory=dict)


def columns() -> list[Column[Row]]:
    return [
        Column("name", "NAME", attrgetter("name"), essential=True, minimum=8),
        Column("state", "STATE", attrgetter("state"), essential=True),
        Column("count", "COUNT", lambda row: str(row.count), sort=attrgetter("count"), right=True),
        Column("note", "NOTE", lambda row: "a note of some length", grow=True, minimum=10),
    ]


row_ids = st.sampled_from([f"id{i}" for i in range(12)])
some_rows = st.builds(
    Row,
    name=st.sampled_from([f"web.{i}" for i in range(14)]),
    state=st.sampled_from(["running", "failed"]),
    count=st.integers(0, 3),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.dictionaries(row_ids, some_rows, max_size=6), st.sets(row_ids, max_size=3)),
        st.tuples(st.just("filter"), st.sampled_from(["", "run", "!fail", "web.1", "~wb3"]), st.none()),
        st.tuples(st.just("keep"), st.booleans(), st.none()),
        st.tuples(st.just("sort"), st.sampled_from([0, 1, 2]), st.booleans()),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=300)
@given(steps)
def test_order_is_always_that_of_a_fresh_sort(script: list[tuple[str, object, object]]) -> None:
    table = TableRows(columns())
    expected: dict[str, Row] = {}
    text, column, descending, keeping = "", 0, False, False
    for what, first, second in script:
        if what == "apply":
            assert isinstance(first, dict)
            assert isinstance(second, set)
            before = list(table.order)
            changed = table.apply(first, second)
            for row_id in second - set(first):
                expected.pop(row_id, None)
            expected.update(first)
            if not changed:
                assert table.order == before
        elif what == "filter":
            text = str(first)
            table.set_filter(text)
        elif what == "keep":
            keeping = bool(first)
            table.set_keep((lambda row: row.count != 1) if keeping else None)
        else:
            column, descending = int(str(first)), bool(second)
            table.sort_by(table.columns[column], descending=descending)
        chosen = RowFilter(text)
        shown = {
            row_id: row
            for row_id, row in expected.items()
            if chosen.matches("\n".join(c.text(row) for c in table.columns), row.labels)
            and not (keeping and row.count == 1)
        }
        assert set(table.order) == set(shown)
        assert len(table.order) == len(shown)
        keys = [(table.columns[column].sort_key(shown[i]), natural_key(shown[i].name)) for i in table.order]
        assert keys == sorted(keys, reverse=descending)
        for row_id in expected:
            index = table.index_of(row_id)
            assert (index is None) == (row_id not in shown)
            assert index is None or table.order[index] == row_id


@pytest.mark.parametrize(
    ("text", "name", "passes"),
    [
        ("web", "my-Web.1", True),
        ("Web", "web.1", False),
        ("!web", "web.1", False),
        ("!web", "api", True),
        ("^web", "my-web", False),
        (r"^web\.\d$", "web.3", True),
        (r"\S", "x", True),
        ("~wb1", "web.1", True),
        ("~bw", "web.1", False),
        ("web !api", "web-api", False),
        ("we run", "web", True),
        ("label=zone", "web", True),
        ("label=zone=a", "web", True),
        ("label=zone=b", "web", False),
        ("!label=zone", "web", False),
        ("label=rack", "web", False),
        ("!", "web", True),
        ("~", "web", True),
        ("web(", "web(", True),
        ("web(", "web", False),
    ],
)
def test_filter_language(text: str, name: str, passes: bool) -> None:
    assert RowFilter(text).matches(f"{name}\nrunning", {"zone": "a"}) is passes


def test_a_filter_that_is_no_expression_says_so() -> None:
    assert "not a regular expression" in RowFilter("web(").problem
    assert RowFilter("web").problem == ""


def test_marks_go_with_their_rows() -> None:
    table = TableRows(columns())
    table.apply({"a": Row("web.1"), "b": Row("web.2")}, [])
    table.toggle_mark("a")
    table.apply({"a": replace(Row("web.9"))}, [])
    assert table.marked == {"a"}
    table.replace({"b": Row("web.2")})
    assert table.marked == set()
    assert table.order == ["b"]


def test_columns_are_dropped_from_the_right_but_never_name_and_state() -> None:
    shown = columns()
    rows = [Row("a-service-name", "running", 12345)]
    wanted = [measure(column, rows) for column in shown]
    keys = {width: [p.column.key for p in place(shown, wanted, width)] for width in (120, 40, 30, 20, 12)}
    assert keys == {
        120: ["name", "state", "count", "note"],
        40: ["name", "state", "count", "note"],
        30: ["name", "state", "count"],
        20: ["name", "state"],
        12: ["name", "state"],
    }
    for width in range(4, 140):
        placed = place(shown, wanted, width)
        assert placed[-1].left + placed[-1].width <= width
    assert place(shown, wanted, 120)[-1].left + place(shown, wanted, 120)[-1].width == 120
