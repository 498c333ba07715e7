"""The log's ring against the obvious list, under random lines, bounds, filters and widths."""

import re
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmtui.ui.log_buffer import (
    LONG,
    Kind,
    Line,
    LineFilter,
    LogBuffer,
    expression,
    height_of,
    problem_in,
    severe,
    shown_text,
    wrap,
)
from swarmtui.ui.text import width_of

texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["GET / 200", "POST /pay 502 error", "\x1b[31mred\x1b[0m", "a\tb", "x" * 95, "語" * 30]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(texts, max_size=30)),
        st.tuples(st.just("filter"), st.sampled_from([None, "GET", "!GET", "err|red", "["])),
        st.tuples(st.just("wrap"), st.sampled_from([None, 10, 37])),
        st.tuples(st.just("search"), st.sampled_from([None, "a", "0"])),
        st.tuples(st.just("advance"), st.integers(1, 8)),
    ),
    max_size=25,
)


def finish(buffer: LogBuffer) -> None:
    while not buffer.advance(5):
        pass


@settings(deadline=None, max_examples=300)
@given(steps, st.integers(5, 60), st.integers(50, 400))
def test_rows_are_those_of_the_lines_that_pass(
    script: list[tuple[str, object]], max_lines: int, max_chars: int
) -> None:
    buffer = LogBuffer(max_lines=max_lines, max_chars=max_chars)
    everything: list[Line] = []
    stamp, width = count(1), None
    for what, value in script:
        if what == "append":
            assert isinstance(value, list)
            new = [Line(next(stamp), text, "task") for text in value]
            everything += new
            rows_before = buffer.rows
            rows_held = [buffer.locate(row) for row in range(rows_before)]
            moved = buffer.append(new)
            # What was on row r is on row r - moved now.
            for row in range(moved, rows_before):
                assert buffer.locate(row - moved) == rows_held[row]
        elif what == "filter":
            buffer.set_filter(None if value is None else LineFilter(str(value)))
        elif what == "wrap":
            assert value is None or isinstance(value, int)
            width = value
            buffer.set_wrap(value)
        elif what == "search":
            buffer.set_search(None if value is None else expression(str(value)))
        else:
            assert isinstance(value, int)
            buffer.advance(value)
    finish(buffer)
    assert buffer.end == len(everything)
    kept = everything[buffer.first :]
    assert buffer.lines() == kept
    assert len(kept) <= max_lines
    assert sum(len(line.text) for line in kept) <= max_chars or len(kept) == 1
    shown = [
        n
        for n, line in enumerate(kept, buffer.first)
        if buffer.filter is None or buffer.filter.passes(line.text, line.kind)
    ]
    expected = [
        (number, inside)
        for number in shown
        for inside in range(1 if width is None else height_of(everything[number].text, width))
    ]
    assert [buffer.locate(row) for row in range(buffer.rows)] == expected
    for number in shown:
        assert expected[buffer.row_of(number)] == (number, 0)
    if buffer.search is not None:
        assert buffer.matches == [n for n, line in enumerate(kept, buffer.first) if buffer.search.search(line.text)]


@given(st.text(max_size=80), st.integers(2, 20))
def test_wrapped_rows_join_to_the_text_and_fit(text: str, width: int) -> None:
    rows = wrap(text, width)
    assert "".join(rows) == text
    assert all(width_of(row) <= width or len(row) == 1 for row in rows)


def test_colours_are_taken_out_and_tabs_expanded_but_a_long_line_is_left_alone() -> None:
    assert shown_text("\x1b[1;31mred\x1b[0m\tx") == "red     x"
    long = "\x1b[31m" + "x" * LONG
    assert shown_text(long) is long


def test_problems_are_found_forwards_and_backwards_in_slices() -> None:
    buffer = LogBuffer()
    buffer.append([Line(i, "WARN low disk" if i % 100 == 50 else "fine", "t") for i in range(1000)])
    assert buffer.find_problem(-1, 1) == (50, 50)
    assert buffer.find_problem(50, 1, budget=20) == (None, 70)
    assert buffer.find_problem(70, 1) == (150, 150)
    assert buffer.find_problem(1000, -1) == (950, 950)
    assert buffer.find_problem(40, -1)[0] is None


@pytest.mark.parametrize(
    ("text", "word", "is_severe"),
    [
        ("level=error msg=x", "error", True),
        ("W: warning: low", "warning", False),
        ("connection refused", "refused", False),
        ("terror in mirrors", None, None),
        ("Traceback (most recent call last)", "Traceback", True),
    ],
)
def test_problem_words(text: str, word: str | None, is_severe: bool | None) -> None:
    found = problem_in(text)
    assert (found and found[0]) == word
    if found:
        assert severe(found[0]) is is_severe


def test_notices_pass_every_filter_and_are_never_found_by_search() -> None:
    buffer = LogBuffer()
    buffer.set_filter(LineFilter("nothing"))
    buffer.set_search(re.compile("node4"))
    buffer.append([Line(1, "node4: no answer", "", Kind.ALARM), Line(2, "node4 says", "t")])
    finish(buffer)
    assert [buffer.locate(row)[0] for row in range(buffer.rows)] == [0]
    assert buffer.matches == [1]


def test_a_megabyte_line_is_measured_without_being_read() -> None:
    line = "x" * 1_000_000 + "\x1b"
    assert height_of(line, 100) == 10_001
    assert height_of("語" * 1_000_000, 100) == 20_000


def test_a_time_that_is_out_of_all_bounds_is_kept_as_the_nearest() -> None:
    buffer = LogBuffer()
    buffer.append([Line(10**30, "far", "t"), Line(-5, "before", "t")])
    assert [line.timestamp for line in buffer.lines()] == [2**63 - 1, 0]
